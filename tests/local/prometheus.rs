//! A real Prometheus that scrapes each second, and what it answers to queries.

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
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A running Prometheus; dropping it kills it.
pub struct Prometheus {
    child: Child,
    pub address: SocketAddr,
}

impl Prometheus {
    /// Scrapes these admin addresses as pods of these names in the namespace `default`; afterwards each has been scraped. Its data lie in `folder`.
    pub async fn start(folder: &Path, targets: &[(&str, SocketAddr)]) -> Self {
        let targets: Vec<_> = targets
            .iter()
            .map(|(pod, address)| json!({"targets": [address], "labels": {"namespace": "default", "pod": pod}}))
            .collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "pgnorth", "static_configs": targets}],
        });
        // JSON is YAML.
        fs::write(folder.join("prometheus.yml"), config.to_string()).expect("write Prometheus' configuration");
        let prometheus = Self::listening(folder).await;
        let count = format!("count(up == 1) == {}", targets.len());
        prometheus.until("every target is scraped", &count).await;
        prometheus
    }

    /// It does not choose a port by itself; one that somebody else took meanwhile ends it, and another is tried.
    async fn listening(folder: &Path) -> Self {
        let begin = Instant::now();
        loop {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
            let address = free.expect("a free port");
            let log = File::create(folder.join("prometheus.log")).expect("create Prometheus' log");
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
                .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
                .arg(format!("--web.listen-address={address}"))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|error| panic!("prometheus: {error}; `tests/support/install.sh test` installs it"));
            let mut prometheus = Self { child, address };
            while prometheus.child.try_wait().expect("ask for its end").is_none() {
                if prometheus
                    .get("/-/ready")
                    .await
                    .is_some_and(|(status, _)| status == 200)
                {
                    return prometheus;
                }
                assert!(begin.elapsed() < SOON, "Prometheus is not ready");
                sleep(INTERVAL).await;
            }
            let log = fs::read_to_string(folder.join("prometheus.log")).unwrap_or_default();
            assert!(begin.elapsed() < SOON, "Prometheus ends: {log}");
        }
    }

    /// The result of a query now; its complaint, if it has one.
    pub async fn query(&self, expr: &str) -> Result<Vec<Value>, String> {
        self.ask(&format!("/api/v1/query?query={}", encoded(expr))).await
    }

    /// The same over the last `past`, in steps of this length.
    pub async fn range(&self, expr: &str, past: Duration, step: Duration) -> Result<Vec<Value>, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let (now, step) = (now.expect("a clock that is set").as_secs_f64(), step.as_secs_f64());
        let begin = now - past.as_secs_f64();
        let query = format!("query={}&start={begin}&end={now}&step={step}", encoded(expr));
        self.ask(&format!("/api/v1/query_range?{query}")).await
    }

    /// Waits until a query has a result.
    pub async fn until(&self, what: &str, expr: &str) {
        let begin = Instant::now();
        while !self.query(expr).await.is_ok_and(|result| !result.is_empty()) {
            assert!(begin.elapsed() < SOON, "in Prometheus never: {what}");
            sleep(INTERVAL).await;
        }
    }

    async fn ask(&self, path: &str) -> Result<Vec<Value>, String> {
        let (_, body) = self.get(path).await.expect("Prometheus answers");
        let mut answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        match answer["data"]["result"].take() {
            Value::Array(result) => Ok(result),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Status and body; none if it does not answer.
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

fn encoded(expr: &str) -> String {
    byte_serialize(expr.as_bytes()).collect()
}
