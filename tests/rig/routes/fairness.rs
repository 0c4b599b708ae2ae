//! The sessions of three replicas after one has restarted, over time, as a picture: pgnorth beside HAProxy's
//! `leastconn`, with the same clients.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, interval, sleep};

use super::contenders::{Contender, Contenders};
use super::readers::{Crowd, Position, Readers};
use crate::support::{Member, Rig};

/// A pool of 30 sessions that are closed and opened again every 10 s.
const POOL: Crowd = Crowd {
    newcomers: 0,
    pause: Duration::ZERO,
    sessions: 30,
    lifetime: Some(Duration::from_secs(10)),
};
const BEFORE: u64 = 12;
const WHOLE: u64 = 75;
const COLOURS: [&str; 4] = ["#d1495b", "#30638e", "#66a182", "#8d96a3"];

/// The sessions of each server, each second.
type Series = Vec<BTreeMap<String, usize>>;

/// Restarts a replica, and draws the sessions by server.
pub async fn chart(rig: &Rig, contenders: &Contenders, position: &Position, source: &str) {
    let addresses = contenders.addresses().filter(|(_, route, _)| *route == 0);
    let mut pools: Vec<(Contender, Readers, Series)> = addresses
        .map(|(contender, _, address)| (contender, Readers::start(address, position, POOL), Vec::new()))
        .collect();
    pools.sort_by_key(|(contender, ..)| *contender);
    sleep(Duration::from_secs(15)).await;
    let leader = rig.leader().await;
    let replica = rig.others(leader).next().expect("a replica");
    let began = Instant::now();
    let mut seconds = interval(Duration::from_secs(1));
    for second in 0..WHOLE {
        seconds.tick().await;
        for (_, readers, series) in &mut pools {
            series.push(readers.sessions());
        }
        match second {
            BEFORE => replica.kill_host(),
            second if second == BEFORE + 5 => replica.start(),
            _ => {}
        }
    }
    assert!(
        began.elapsed() < Duration::from_secs(2 * WHOLE),
        "the machine is too slow for a chart"
    );
    let series: Vec<_> = pools
        .iter()
        .map(|(contender, _, series)| (*contender, series))
        .collect();
    println!(
        "\nSessions on the restarted replica, every 5 s; it crashed at {BEFORE} s and was started at {} s:",
        BEFORE + 5
    );
    for (contender, series) in &series {
        let on_it = series
            .iter()
            .step_by(5)
            .map(|counts| counts.get(&replica.address().to_string()).unwrap_or(&0));
        println!("{}: {:?}", contender.name(), on_it.collect::<Vec<_>>());
    }
    let picture = draw(&series, replica);
    let folder = Path::new("target/routes");
    std::fs::create_dir_all(folder).expect("create target/routes");
    let file = folder.join(format!("fairness-{}.svg", source.replace(' ', "-").to_lowercase()));
    std::fs::write(&file, picture).expect("write the chart");
    println!("{}", file.display());
}

fn draw(series: &[(Contender, &Series)], restarted: &Member) -> String {
    let (width, height, left) = (660, 130, 40);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        width + left + 20,
        (height + 45) * series.len() + 10
    );
    for (place, (contender, series)) in series.iter().enumerate() {
        let top = place * (height + 45) + 25;
        let x = |second: usize| left + second * width / WHOLE as usize;
        let y = |sessions: usize| top + height - sessions * height / POOL.sessions;
        line(
            &mut svg,
            &format!(
                "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>",
                top - 8,
                contender.name()
            ),
        );
        for sessions in [0, 10, 20, 30] {
            let y = y(sessions);
            line(
                &mut svg,
                &format!(
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{sessions}</text>",
                    left - 5,
                    y + 4
                ),
            );
            line(
                &mut svg,
                &format!("<path d=\"M{left} {y}H{}\" stroke=\"#ddd\"/>", left + width),
            );
        }
        for second in (0..=WHOLE as usize).step_by(15) {
            line(
                &mut svg,
                &format!(
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{second} s</text>",
                    x(second),
                    top + height + 14
                ),
            );
        }
        let restarted = restarted.address().to_string();
        let mut servers: Vec<_> = series.iter().flat_map(BTreeMap::keys).cloned().collect();
        servers.sort_by_key(|server| (*server != restarted, server.clone()));
        servers.dedup();
        for (server, colour) in servers.iter().zip(COLOURS) {
            let points = series.iter().enumerate();
            let points =
                points.map(|(second, counts)| format!("{},{}", x(second), y(*counts.get(server).unwrap_or(&0))));
            let points: Vec<_> = points.collect();
            let thick = if *server == restarted { 3 } else { 1 };
            line(
                &mut svg,
                &format!(
                    "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{thick}\"/>",
                    points.join(" ")
                ),
            );
        }
    }
    svg + "</svg>\n"
}

fn line(svg: &mut String, text: &str) {
    writeln!(svg, "{text}").expect("write to a text");
}
