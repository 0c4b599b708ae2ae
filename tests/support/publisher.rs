//! `pgnorth publish`: the real binary, and the Service that it keeps.

use std::net::SocketAddr;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::http::Request;
use super::kubernetes::{Kubernetes, User};
use super::pgnorth::{events, log_file, sum};
use super::process::Process;
use super::rig::{Rig, SCOPE};
use super::wait::wait_until;

/// The Service that tests keep.
pub const SERVICE: &str = "postgres-primary";

const START: Duration = Duration::from_secs(20);

/// A running publisher. Its drop kills it.
pub struct Publisher {
    process: Process,
}

impl Publisher {
    /// Starts the binary with the rights of `deploy/publish/rbac.yaml`. Waits for nothing.
    pub fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.env("KUBECONFIG", rig.kubernetes().kubeconfig(User::Publisher));
        Self {
            process: Process::start("pgnorth publish", command, &log_file(rig)),
        }
    }

    /// Starts it as in a pod, with its credentials in kubelet's paths.
    pub fn start_in_a_pod(rig: &Rig, arguments: &[&str]) -> Self {
        let mut command = command(arguments);
        command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
        command.envs(rig.kubernetes().service_env());
        Self {
            process: Process::start("pgnorth publish", command, &log_file(rig)),
        }
    }

    /// Returns every log line so far.
    pub fn events(&self) -> Vec<Value> {
        events(&self.process)
    }

    /// Returns the fields of the newest log line with this message.
    pub fn newest(&self, message: &str) -> Option<Value> {
        let mut events = self.events().into_iter().rev();
        Some(events.find(|event| event["fields"]["message"] == message)?["fields"].clone())
    }

    /// Waits for a log line whose message has this text; returns its fields.
    pub async fn wait_for_event(&self, text: &str, within: Duration) -> Value {
        wait_until(&format!("pgnorth publish logs: {text}"), within, async || {
            let mut events = self.events().into_iter().map(|event| event["fields"].clone());
            events.find(|fields| fields["message"].as_str().is_some_and(|message| message.contains(text)))
        })
        .await
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    pub async fn metric(&self, rig: &Rig, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let listening = self.wait_for_event("listening", START).await;
        let admin: SocketAddr = listening["admin"].as_str()?.parse().ok()?;
        let answer = rig.http().ask(&Request::get(&format!("http://{admin}/metrics"))).await;
        sum(&answer.expect("the admin address answers").body, name, labels)
    }

    pub fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it ends, by itself or after a signal; returns its exit status.
    pub async fn wait_for_end(&mut self, within: Duration) -> ExitStatus {
        wait_until("pgnorth publish has ended", within, async || self.process.exit_status()).await
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    command.args([
        "publish",
        "--admin",
        "127.0.0.1:0",
        "--log-format",
        "json",
        "--log",
        "debug",
    ]);
    command.args(["--scope", SCOPE]).args(arguments);
    command
}

/// Creates a Service with one port; `spec` adds to it.
pub async fn create_service(rig: &Rig, name: &str, spec: &Value) {
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "postgresql", "port": 5432}]},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    rig.kubernetes().create("services", &service).await;
}

/// Returns the slice; `None` if there is none.
pub async fn slice(rig: &Rig, service: &str) -> Option<Value> {
    let answer = rig
        .kubernetes()
        .ask(User::Admin, "GET", &rig.kubernetes().slice_path(service), None)
        .await
        .ok()?;
    (answer.status == 200).then(|| answer.json())
}

/// Returns the addresses in the Service's slice; `None` if there is no slice.
pub async fn leads_to(rig: &Rig, service: &str) -> Option<Vec<String>> {
    let slice = slice(rig, service).await?;
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    let addresses = endpoints.flat_map(|endpoint| endpoint["addresses"].as_array().cloned().unwrap_or_default());
    Some(
        addresses
            .filter_map(|address| Some(address.as_str()?.to_owned()))
            .collect(),
    )
}

/// Waits until the Service has exactly these addresses.
pub async fn wait_until_leads_to(rig: &Rig, service: &str, addresses: &[String], within: Duration) {
    wait_until(&format!("{service} leads to {addresses:?}"), within, async || {
        (leads_to(rig, service).await? == addresses).then_some(())
    })
    .await;
}
