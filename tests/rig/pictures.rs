//! Makes the pictures for docs/operating/monitoring.md and the texts beside them, from one real run of some minutes:
//! `make pictures`. It checks nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command as Start;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::browser::{DIARY, LOOKS};
use crate::support::browser::{Browser, Look, Page};
use crate::support::load::Load;
use crate::support::process::Process;
use crate::support::prometheus::Prometheus;
use crate::support::rig::SCOPE;
use crate::support::{Dcs, Product, Rig, Settings, session, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(120);
/// Quiet time between two events in a chart.
const QUIET: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(1);

#[tokio::test]
#[ignore = "makes pictures, in some minutes: `make pictures`"]
async fn pictures() {
    let folder = PathBuf::from(std::env::var_os("PGNORTH_PICTURES").expect("PGNORTH_PICTURES is a folder"));
    fs::create_dir_all(&folder).unwrap();
    let settings = Settings {
        failsafe: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Endpoints, settings).await;
    let pods = [
        Product::start(&rig, &[], &[]).await,
        Product::start(&rig, &[], &[]).await,
    ];
    let log = start_with_a_log_for_people(&rig);
    let for_people = wait_until("it listens", SOON, async || {
        let log = log.log();
        let (_, address) = log.split_once("listening postgres=")?;
        address.split(' ').next()?.parse().ok()
    })
    .await;
    pods[0].wait_until_writable(SOON).await;
    let targets = [
        ("pgnorth-6f7c9-x2b4k", pods[0].admin()),
        ("pgnorth-6f7c9-zq8wd", pods[1].admin()),
    ];
    let prometheus = Prometheus::start(rig.folder(), &targets, &json!({})).await;
    let begin = SystemTime::now();
    let addresses = [pods[0].address(), pods[1].address(), for_people];
    let loads = [
        Load::start(addresses[0], 3).await,
        Load::start(addresses[1], 2).await,
        Load::start(addresses[2], 1).await,
    ];
    let browser = Browser::start(rig.folder()).await;
    let page = format!("http://{}/", pods[0].admin());
    let pages = [
        browser.open(&page, LOOKS[0].1, DIARY).await,
        browser.open(&page, LOOKS[1].1, DIARY).await,
        browser.open(&page, LOOKS[2].1, DIARY).await,
    ];
    let mut idle = idle(&addresses).await;
    sleep(QUIET).await;

    keep(&folder, "1-before", &pages, &pods[0]).await;
    let seen = async {
        shows(&pages[0], "Holding").await;
        keep(&folder, "2-switchover", &pages, &pods[0]).await;
    };
    tokio::join!(rig.switchover(Some("patronidemo-1")), seen);
    rig.wait_until_whole(SOON).await;
    fs::write(folder.join("switchover.log"), log.log()).unwrap();
    idle.extend(self::idle(&addresses).await);
    sleep(QUIET).await;

    let old = rig.leader().await;
    old.kill_host();
    shows(&pages[0], "Fencing").await;
    keep(&folder, "3-crash", &pages, &pods[0]).await;
    rig.wait_for_new_leader(old, SOON).await;
    old.start();
    rig.wait_until_whole(SOON).await;
    idle.extend(self::idle(&addresses).await);
    sleep(QUIET).await;

    rig.dcs_stop();
    sleep(QUIET / 2).await;
    rig.dcs_start().await;
    rig.wait_until_whole(SOON).await;
    sleep(QUIET).await;
    keep(&folder, "4-after", &pages, &pods[0]).await;
    let past = begin.elapsed().unwrap().min(Duration::from_secs(600));
    let data = data(&prometheus, past).await;
    fs::write(folder.join("data.json"), data.to_string()).unwrap();
    draw(&browser, &folder, &data).await;
    fs::write(folder.join("pgnorth.log"), log.log()).unwrap();
    drop(idle);
    for load in loads {
        load.finish().await;
    }
}

/// Draws the panels again from `data.json`, without the run.
#[tokio::test]
#[ignore = "draws pictures again: `make pictures AGAIN=yes`"]
async fn panels() {
    let folder = PathBuf::from(std::env::var_os("PGNORTH_PICTURES").expect("PGNORTH_PICTURES is a folder"));
    let data = serde_json::from_str(&fs::read_to_string(folder.join("data.json")).unwrap()).unwrap();
    let profile = tempfile::TempDir::new().unwrap();
    draw(&Browser::start(profile.path()).await, &folder, &data).await;
}

/// Starts a publisher with a text log: tests read JSON, and people read text.
fn start_with_a_log_for_people(rig: &Rig) -> Process {
    let mut command = Start::new(env!("CARGO_BIN_EXE_pgnorth"));
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--scope", SCOPE]);
    command.env("KUBECONFIG", rig.kubeconfig().expect("a rig with Kubernetes"));
    Process::start("pgnorth", command, &rig.folder().join("people.log"))
}

/// Opens sessions that stay, as those of a pool do, until a change of leader ends them.
async fn idle(addresses: &[SocketAddr; 3]) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..24 {
        clients.push(session(addresses[number % 3]).await.expect("a session"));
    }
    clients
}

async fn shows(page: &Page, state: &str) {
    wait_until(state, SOON, async || {
        let now = page.evaluate("now()").await;
        let is_it = now["state"].as_str()?.contains(state) && now["held"] != "0";
        is_it.then_some(())
    })
    .await;
}

/// Keeps the pages, `pgnorth status` and `/metrics` as they are now.
async fn keep(folder: &Path, moment: &str, pages: &[Page; 3], pod: &Product) {
    let status = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .args(["status", "--admin", &pod.admin().to_string()])
        .output();
    let [light, dark, phone] = pages.each_ref().map(Page::picture);
    let (status, light, dark, phone) = tokio::join!(status, light, dark, phone);
    fs::write(folder.join(format!("{moment}-status.txt")), status.unwrap().stdout).unwrap();
    let metrics = pod.admin_get("/metrics").await.body;
    fs::write(folder.join(format!("{moment}-metrics.txt")), metrics).unwrap();
    for (name, picture) in [("light", light), ("dark", dark), ("phone", phone)] {
        fs::write(folder.join(format!("{moment}-{name}.png")), picture).unwrap();
    }
}

/// Returns the input of the drawing: Prometheus' answer to each query of the dashboard.
async fn data(prometheus: &Prometheus, past: Duration) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring/dashboard.json");
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let fill = |expr: &Value| {
        let expr = expr
            .as_str()
            .unwrap()
            .replace("$__rate_interval", "10s")
            .replace("$__interval", "1s");
        let expr = expr.replace("$__range", &format!("{}s", past.as_secs()));
        expr.replace("$namespace", ".*").replace("$pod", ".*")
    };
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let mut panels = Map::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let mut lines = Vec::new();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = fill(&target["expr"]);
            let series = match target["instant"].as_bool() {
                Some(true) => prometheus.instant(&expr).await.unwrap(),
                _ => prometheus.range(&expr, past, STEP).await.unwrap(),
            };
            lines.extend(
                series
                    .iter()
                    .filter_map(|series| line(series, target["legendFormat"].as_str()?)),
            );
        }
        panels.insert(panel["id"].to_string(), lines.into());
    }
    let mut marks = Vec::new();
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        for series in prometheus.range(&fill(&annotation["expr"]), past, STEP).await.unwrap() {
            let times: Vec<f64> = points(&series).into_iter().map(|(at, _)| at).collect();
            let begins = times
                .iter()
                .enumerate()
                .filter(|(n, at)| *n == 0 || **at - times[n - 1] > 5.0);
            marks.extend(begins.map(|(_, at)| json!({"at": at, "colour": annotation["iconColor"]})));
        }
    }
    json!({"dashboard": dashboard, "from": now - past.as_secs_f64(), "to": now, "step": STEP.as_secs_f64(), "marks": marks, "panels": panels})
}

/// Returns a series with its name in the legend, without values that are not numbers; `None` if nothing remains.
fn line(series: &Value, legend: &str) -> Option<Value> {
    let labels = series["metric"].as_object()?;
    let name = labels.iter().fold(legend.to_owned(), |name, (label, value)| {
        name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default())
    });
    let points = points(series);
    (!points.is_empty()).then(|| json!({"name": name, "values": points}))
}

fn points(series: &Value) -> Vec<(f64, f64)> {
    let values = series["values"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![series["value"].clone()]);
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_str()?.parse().ok()?));
    values
        .iter()
        .filter_map(point)
        .filter(|(_, value): &(f64, f64)| value.is_finite())
        .collect()
}

async fn draw(browser: &Browser, folder: &Path, data: &Value) {
    let look = Look {
        width: 1400,
        height: 900,
        dark: false,
    };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rig/panels.html");
    let page = browser.open(&format!("file://{}", file.display()), look, "").await;
    page.evaluate(&format!("draw({data})")).await;
    fs::write(folder.join("dashboard.png"), page.picture().await).unwrap();
}
