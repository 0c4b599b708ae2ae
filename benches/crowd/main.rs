//! What 1, 10 and 200 pgnorths cost a cluster's members and the Kubernetes API, and how late they find a new leader: `cargo bench --bench crowd`.
//!
//! A simulation: see `simulation.rs`.
#![allow(clippy::print_stdout)]

mod simulation;

use std::time::Duration;

use simulation::figures::{Figures, Load};
use simulation::{Run, Story, simulate};

const SEEDS: u64 = 5;

fn main() {
    println!(
        "requests a second to the member asked most: mean / in the worst 5 s / seconds above 200; to the API: mean / worst 5 s; added: mean / longest"
    );
    println!("| state | source | pgnorths | member | API | added |\n|--|--|--|--|--|--|");
    for (name, story, lasts) in [
        ("quiet", Story::Quiet, 300),
        ("switchover", Story::Switchover, 60),
        ("20 s failover", Story::Failover, 60),
        ("the next leader is never promoted", Story::NeverPromoted, 300),
        ("an hour without a leader", Story::NoLeader, 3_600),
        ("API outage, failsafe mode", Story::ApiOutage, 300),
        ("the leader's REST API hangs", Story::RestHangs, 300),
    ] {
        for kubernetes in [true, false] {
            if story == Story::ApiOutage && !kubernetes {
                continue;
            }
            for pgnorths in [1, 10, 200] {
                let run = |seed| {
                    simulate(Run {
                        pgnorths,
                        story,
                        kubernetes,
                        lasts: Duration::from_secs(lasts),
                        seed,
                    })
                };
                let seeds = if lasts > 600 { 1 } else { SEEDS };
                let runs: Vec<_> = (0..seeds).map(run).collect();
                let source = if kubernetes { "lock" } else { "REST" };
                println!(
                    "| {name} | {source} | {pgnorths} | {} | {} | {} |",
                    member(&runs),
                    api(&runs),
                    added(&runs)
                );
            }
        }
    }
}

fn member(runs: &[Figures]) -> String {
    let loads = runs.iter().flat_map(|run| &run.members);
    let most = |of: fn(&Load) -> f64| loads.clone().map(of).fold(0.0, f64::max);
    let (mean, worst) = (most(|load| load.mean), most(|load| load.worst));
    format!("{mean:.1} / {worst:.0} / {:.0}", most(|load| load.above.as_secs_f64()))
}

fn api(runs: &[Figures]) -> String {
    let most = |of: fn(&Load) -> f64| runs.iter().map(|run| of(&run.api)).fold(0.0, f64::max);
    format!("{:.1} / {:.0}", most(|load| load.mean), most(|load| load.worst))
}

fn added(runs: &[Figures]) -> String {
    let all = Figures {
        added: runs.iter().flat_map(|run| run.added.clone()).collect(),
        ..Figures::default()
    };
    all.added().map_or_else(String::new, |(mean, longest)| {
        format!("{} / {} ms", mean.as_millis(), longest.as_millis())
    })
}
