//! A real Prometheus that scrapes pgnorth each second and evaluates rules as often. It does not depend on the rig:
//! tests with a fake cluster use it, too.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use url::form_urlencoded::byte_serialize;

/// A deadline against hanging, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Pause between two checks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A running Prometheus. Its drop kills it.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    started: Instant,
}

impl Prometheus {
    /// Starts it with these rules, in `folder`. It scrapes these admin addresses as pods of these names in the
    /// namespace `default`; returns when each is up.
    pub async fn start(folder: &Path, targets: &[(&str, SocketAddr)], rules: &Value) -> Self {
        let count = targets.len();
        let targets = targets
            .iter()
            .map(|(pod, address)| json!({"targets": [address], "labels": {"namespace": "default", "pod": pod}}));
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "pgnorth", "static_configs": targets.collect::<Vec<_>>()}],
        });
        // JSON is YAML.
        for (name, content) in [("prometheus.yaml", &config), ("rules.yaml", rules)] {
            fs::write(folder.join(name), content.to_string()).expect("write a file");
        }
        let prometheus = Self::listening(folder).await;
        prometheus
            .until("every target is up", &format!("count(up == 1) == {count}"))
            .await;
        prometheus
    }

    /// Starts it on a free port. It does not choose one by itself; if another process takes the port meanwhile, it
    /// ends, and another port is tried.
    async fn listening(folder: &Path) -> Self {
        let started = Instant::now();
        loop {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
            let address = free.expect("a free port");
            let log = File::create(folder.join("prometheus.log")).expect("create Prometheus' log");
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", folder.join("prometheus.yaml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
                .arg(format!("--web.listen-address={address}"))
                .args(["--log.level", "warn"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("prometheus: {error}; `tests/support/install.sh test` installs it"));
            let mut prometheus = Self {
                child,
                address,
                started,
            };
            while prometheus.child.try_wait().expect("ask for its end").is_none() {
                if prometheus
                    .get("/-/ready")
                    .await
                    .is_some_and(|(status, _)| status == 200)
                {
                    return prometheus;
                }
                assert!(started.elapsed() < SOON, "Prometheus is not ready");
                sleep(INTERVAL).await;
            }
            let log = fs::read_to_string(folder.join("prometheus.log")).unwrap_or_default();
            assert!(started.elapsed() < SOON, "Prometheus ends: {log}");
        }
    }

    /// Returns each series of an expression now, as the API gives it, or Prometheus' error.
    pub async fn instant(&self, expression: &str) -> Result<Vec<Value>, String> {
        let query = format!("query={}", encoded(expression));
        list(self.ask(&format!("/api/v1/query?{query}")).await?["result"].take())
    }

    /// Returns each series over the last `past`, in steps of this length.
    pub async fn range(&self, expression: &str, past: Duration, step: Duration) -> Result<Vec<Value>, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let (now, step) = (now.expect("a clock that is set").as_secs_f64(), step.as_secs_f64());
        let begin = now - past.as_secs_f64();
        let query = format!("query={}&start={begin}&end={now}&step={step}", encoded(expression));
        list(self.ask(&format!("/api/v1/query_range?{query}")).await?["result"].take())
    }

    /// Returns labels and value of each series of an expression now.
    pub async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let series = self
            .instant(expression)
            .await
            .unwrap_or_else(|error| panic!("{expression}: {error}"));
        let value = |series: &Value| series["value"][1].as_str()?.parse().ok();
        let pair = |series: &Value| (series["metric"].clone(), value(series).expect("a number"));
        series.iter().map(pair).collect()
    }

    /// Returns the value of an expression of one series; `None` if there is no such series.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        let series = self.query(expression).await;
        assert!(series.len() < 2, "{expression}: {series:?}");
        series.first().map(|(_, value)| *value)
    }

    /// Waits until an expression has a result.
    pub async fn until(&self, what: &str, expression: &str) {
        self.wait(what, async || (!self.query(expression).await.is_empty()).then_some(()))
            .await;
    }

    /// Returns every rule's name, and the error of its last evaluation; empty if there was none.
    pub async fn rules(&self) -> Vec<(String, String)> {
        let mut data = self.ask("/api/v1/rules").await.expect("the rules");
        let groups = list(data["groups"].take()).expect("a list");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().into_iter().flatten());
        rules
            .map(|rule| (text(&rule["name"]), text(&rule["lastError"])))
            .collect()
    }

    /// Returns every alert that is pending or firing.
    pub async fn alerts(&self) -> Vec<Value> {
        let mut data = self.ask("/api/v1/alerts").await.expect("the alerts");
        list(data["alerts"].take()).expect("a list")
    }

    /// Waits until this alert has this state (`inactive` if it has none); returns the alert.
    pub async fn wait_for(&self, name: &str, state: &str) -> Option<Value> {
        let found = self
            .wait(&format!("{name} is {state}"), async || {
                let mut alerts = self.alerts().await;
                let of_name = alerts.iter().position(|alert| alert["labels"]["alertname"] == name);
                match of_name {
                    None => (state == "inactive").then_some(None),
                    Some(at) => (alerts[at]["state"] == state).then(|| Some(alerts.swap_remove(at))),
                }
            })
            .await;
        println!("{:6.1} s  {name} is {state}", self.elapsed().as_secs_f64());
        if let Some(alert) = &found {
            println!("          {} {}", alert["labels"], alert["annotations"]["description"]);
        }
        found
    }

    /// Returns the time since its start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn wait<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(begin.elapsed() < SOON, "in Prometheus never: {what}");
            sleep(INTERVAL).await;
        }
    }

    /// Returns `data` of an answer of its API.
    async fn ask(&self, path: &str) -> Result<Value, String> {
        let (_, body) = self.get(path).await.expect("Prometheus answers");
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        if answer["status"] == "success" {
            Ok(answer["data"].take())
        } else {
            Err(answer["error"].to_string())
        }
    }

    /// Returns status and body; `None` if it does not answer.
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.ok()?;
            let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            let (head, body) = answer.split_once("\r\n\r\n")?;
            Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
        };
        timeout(SOON, exchange).await.ok()?
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn list(value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(format!("no list: {other}")),
    }
}

fn encoded(expression: &str) -> String {
    byte_serialize(expression.as_bytes()).collect()
}
