//! A real Prometheus that scrapes pgnorth each second and evaluates rules as often.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use url::Url;

use super::http::{Http, Request};
use super::process::Process;
use super::rig::Rig;
use super::wait::wait_until;

const PORT: u16 = 9090;
const START: Duration = Duration::from_secs(30);

pub struct Prometheus {
    _process: Process,
    url: Url,
    http: Http,
    started: Instant,
}

impl Prometheus {
    /// Starts it with one target, an admin port, and these rules; afterwards it is ready. It keeps its data in the rig's folder.
    pub async fn start(rig: &Rig, target: SocketAddr, rules: &Value) -> Self {
        let folder = rig.folder().join("prometheus");
        fs::create_dir(&folder).expect("create a folder");
        let write = |name: &str, content: &Value| {
            let file = folder.join(name);
            // JSON is YAML.
            fs::write(&file, content.to_string()).expect("write a file");
            file
        };
        let rules = write("rules.yaml", rules);
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{
                "job_name": "pgnorth",
                "static_configs": [{"targets": [target.to_string()], "labels": {"namespace": "default"}}],
            }],
        });
        let config = write("prometheus.yaml", &config);
        let address = SocketAddr::from((rig.network().gateway(), PORT));
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(config);
        command.arg("--storage.tsdb.path").arg(folder.join("data"));
        command.args(["--web.listen-address", &address.to_string(), "--log.level", "warn"]);
        let prometheus = Self {
            _process: Process::start("prometheus", command, &folder.join("log")),
            url: Url::parse(&format!("http://{address}")).expect("a URL"),
            http: rig.http().clone(),
            started: Instant::now(),
        };
        wait_until("Prometheus is ready", START, async || {
            let ready = prometheus.url.join("/-/ready").ok()?;
            let answer = prometheus.http.ask(&Request::get(ready.as_str())).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        prometheus
    }

    /// `data` of an answer of its API.
    async fn data(&self, path: &str, query: &[(&str, &str)]) -> Value {
        let mut url = self.url.join(path).expect("a path");
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let answer = self
            .http
            .ask(&Request::get(url.as_str()))
            .await
            .expect("Prometheus answers");
        assert_eq!(answer.status, 200, "{url}: {}", answer.body);
        answer.json()["data"].clone()
    }

    /// Labels and value of each series of an expression, now.
    pub async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let data = self.data("/api/v1/query", &[("query", expression)]).await;
        let series = data["result"].as_array().expect("a vector").iter();
        series
            .map(|series| {
                let value = series["value"][1].as_str().and_then(|value| value.parse().ok());
                (series["metric"].clone(), value.expect("a number"))
            })
            .collect()
    }

    /// The value of an expression of one series; none when there is no such series.
    pub async fn value(&self, expression: &str) -> Option<f64> {
        let series = self.query(expression).await;
        assert!(series.len() < 2, "{expression}: {series:?}");
        series.first().map(|(_, value)| *value)
    }

    /// Its targets' health and last error.
    pub async fn targets(&self) -> Vec<(String, String)> {
        let data = self.data("/api/v1/targets", &[("state", "active")]).await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let targets = data["activeTargets"].as_array().expect("a list").iter();
        targets
            .map(|target| (text(&target["health"]), text(&target["lastError"])))
            .collect()
    }

    /// Every alert that is pending or firing.
    pub async fn alerts(&self) -> Vec<Value> {
        let data = self.data("/api/v1/alerts", &[]).await;
        data["alerts"].as_array().expect("a list").clone()
    }

    /// Waits until this alert is in this state (`inactive` when it is in none); tells what is seen of it.
    pub async fn wait_for(&self, name: &str, state: &str, within: Duration) -> Option<Value> {
        let found = wait_until(&format!("{name} is {state}"), within, async || {
            let mut alerts = self.alerts().await;
            let of_name = alerts.iter().position(|alert| alert["labels"]["alertname"] == name);
            match of_name {
                None => (state == "inactive").then_some(None),
                Some(at) => (alerts[at]["state"] == state).then(|| Some(alerts.swap_remove(at))),
            }
        })
        .await;
        let seconds = self.started.elapsed().as_secs_f64();
        println!("{seconds:6.1} s  {name} is {state}");
        if let Some(alert) = &found {
            println!("          {} {}", alert["labels"], alert["annotations"]["description"]);
        }
        found
    }

    /// Since its start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
