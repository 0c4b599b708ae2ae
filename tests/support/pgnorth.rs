//! The product: the real binary, on ports of its own choice, in front of the rig's cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::http::{Answer, Http, Request};
use super::patroni::Member;
use super::process::{Process, send};
use super::rig::{Rig, SCOPE};
use super::wait::wait_until;

const START: Duration = Duration::from_secs(10);

/// A running pgnorth. Its drop kills it, and shows the end of its log if the test has failed.
pub struct Product {
    process: Process,
    /// The process that runs since the last reload.
    successor: Option<u32>,
    address: SocketAddr,
    admin: SocketAddr,
    http: Http,
}

impl Product {
    /// Starts the binary and waits until it listens. It need not know a leader yet.
    pub async fn start(rig: &Rig, arguments: &[&str], env: &[(&str, &str)]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::start_with(rig, any, any, arguments, env).await
    }

    /// Starts it at addresses that a balancer knows.
    pub async fn start_at(rig: &Rig, listen: SocketAddr, admin: SocketAddr, arguments: &[&str]) -> Self {
        Self::start_with(rig, listen, admin, arguments, &[]).await
    }

    /// The same with etcd as the source, and no member named.
    pub async fn start_on_etcd(rig: &Rig, arguments: &[&str]) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut command = command_at(any, any);
        command.env_remove("KUBECONFIG").args(["--scope", SCOPE]);
        command.args(["--etcd", &rig.etcd().urls()]).args(arguments);
        if let Some(tls) = rig.etcd().tls() {
            command.arg("--etcd-ca").arg(&tls.authority);
            command.arg("--etcd-cert").arg(&tls.certificate);
            command.arg("--etcd-key").arg(&tls.key);
        }
        let process = Process::start("pgnorth", command, &log_file(rig));
        Self::wait_until_listening(process, rig.http().clone()).await
    }

    async fn start_with(
        rig: &Rig,
        listen: SocketAddr,
        admin: SocketAddr,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let mut command = command_at(listen, admin);
        match rig.kubeconfig() {
            Some(kubeconfig) => {
                command.env("KUBECONFIG", kubeconfig).args(["--scope", SCOPE]);
            }
            None => {
                let urls: Vec<String> = rig.members().iter().map(Member::rest_url).collect();
                command.env_remove("KUBECONFIG").args(["--patroni", &urls.join(",")]);
            }
        }
        if rig.member(0).rest_url().starts_with("https") {
            command.arg("--patroni-ca").arg(rig.authority());
        }
        command.args(arguments).envs(env.iter().copied());
        let process = Process::start("pgnorth", command, &log_file(rig));
        Self::wait_until_listening(process, rig.http().clone()).await
    }

    async fn wait_until_listening(mut process: Process, http: Http) -> Self {
        let (address, admin) = wait_until("pgnorth logs that it is listening", START, async || {
            assert_eq!(process.exit_status(), None, "pgnorth ended");
            let event = events(&process)
                .into_iter()
                .find(|event| event["fields"]["message"] == "listening")?;
            let address = |field: &str| event["fields"][field].as_str()?.parse().ok();
            Some((address("postgres")?, address("admin")?))
        })
        .await;
        Self {
            process,
            successor: None,
            address,
            admin,
            http,
        }
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the admin address.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Returns the id of the process that runs now.
    pub fn id(&self) -> u32 {
        self.successor.unwrap_or(self.process.id())
    }

    /// Runs `pgnorth reload`; returns its output if that fails. Later it is the new process that gets signals.
    pub async fn reload(&mut self) -> Result<(), String> {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pgnorth"));
        command
            .args(["reload", "--pid", &self.id().to_string()])
            .kill_on_drop(true);
        let output = command.output().await.expect("run pgnorth reload");
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            return Err(String::from_utf8_lossy(&text).into_owned());
        }
        let started = |event: Value| u32::try_from(event["fields"]["successor"].as_u64()?).ok();
        let successor = self.events().into_iter().rev().find_map(started);
        self.successor = Some(successor.expect("the log names the new process"));
        Ok(())
    }

    /// Sends GET to the admin address.
    pub async fn admin_get(&self, path: &str) -> Answer {
        let url = format!("http://{}{path}", self.admin);
        self.http
            .ask(&Request::get(&url))
            .await
            .expect("the admin address answers")
    }

    /// Returns the sum of a metric over every series that has these labels; `None` if there is no such series.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let answer = self.admin_get("/metrics").await;
        assert_eq!(answer.status, 200, "/metrics: {}", answer.body);
        sum(&answer.body, name, labels)
    }

    /// Returns every log line so far, as JSON.
    pub fn events(&self) -> Vec<Value> {
        events(&self.process)
    }

    /// Returns the log as it was written.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits for a log line with this message, and returns it.
    pub async fn wait_for_event(&self, message: &str, within: Duration) -> Value {
        wait_until(&format!("pgnorth logs: {message}"), within, async || {
            self.events()
                .into_iter()
                .find(|event| event["fields"]["message"] == message)
        })
        .await
    }

    /// Waits until psql reaches a writable server, and returns that server's address.
    pub async fn wait_until_writable(&self, within: Duration) -> String {
        wait_until("pgnorth leads to a writable server", within, async || {
            let sql = "select host(inet_server_addr()) where not pg_is_in_recovery()";
            super::psql(self.address, sql)
                .await
                .ok()
                .filter(|address| !address.is_empty())
        })
        .await
    }

    /// Sends a signal, such as the second SIGTERM of an impatient operator.
    pub fn signal(&mut self, signal: Signal) {
        match self.successor {
            Some(id) => send(id, signal),
            None => self.process.signal(signal),
        }
    }

    /// Sends SIGTERM to a process that was not reloaded, and returns its exit status; panics if it has not ended in time.
    pub async fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.process.signal(Signal::TERM);
        wait_until("pgnorth has ended", within, async || self.process.exit_status()).await
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        // A successor is no child of the tests.
        if let Some(id) = self.successor
            && is_pgnorth(id)
        {
            send(id, Signal::KILL);
        }
    }
}

/// Returns true if the process runs pgnorth: its id may be another one's by now.
pub fn is_pgnorth(id: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{id}/exe"));
    program.is_ok_and(|program| program == std::path::Path::new(env!("CARGO_BIN_EXE_pgnorth")))
}

fn command_at(listen: SocketAddr, admin: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    // Of a service in which the tests run: pgnorth would refuse a reload.
    command.env_remove("INVOCATION_ID");
    command.args(["--listen", &listen.to_string(), "--admin", &admin.to_string()]);
    command.args(["--log-format", "json"]);
    command
}

/// Returns the path of a new log file, because a rig may run several processes.
pub(super) fn log_file(rig: &Rig) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    rig.folder()
        .join(format!("pgnorth-{}.log", NUMBER.fetch_add(1, Ordering::Relaxed)))
}

pub(super) fn events(process: &Process) -> Vec<Value> {
    process
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Adds up lines such as `name{label="value",other="x"} 3`.
pub fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let values = metrics.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, found_labels) = series.split_once('{').unwrap_or((series, ""));
        let has = |(key, value): &(&str, &str)| found_labels.contains(&format!("{key}=\"{value}\""));
        (found == name && labels.iter().all(has)).then(|| value.parse::<f64>().ok())?
    });
    values.reduce(|a, b| a + b)
}
