//! etcd: Patroni's DCS, or the store of kube-apiserver.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::http::{Http, Request};
use super::process::Process;
use super::wait::wait_until;

/// Client port of the first etcd.
pub const PORT: u16 = 2379;
/// Distance between a port of one etcd and of the next.
const NEXT: u16 = 1000;

/// The addresses of these etcds, as Patroni's configuration lists them.
pub fn hosts(address: Ipv4Addr, count: u16) -> Vec<String> {
    let host = |number| format!("{address}:{}", PORT + number * NEXT);
    (0..count).map(host).collect()
}

/// One etcd, or three of them, on one address.
pub struct Etcd {
    processes: Mutex<Vec<Process>>,
    folder: PathBuf,
    http: Http,
    address: Ipv4Addr,
    count: u16,
}

impl Etcd {
    /// Starts etcd on one address; returns when it is healthy.
    pub async fn start(folder: &Path, http: &Http, address: Ipv4Addr, count: u16) -> Self {
        let etcd = Self {
            processes: Mutex::default(),
            folder: folder.to_owned(),
            http: http.clone(),
            address,
            count,
        };
        *etcd.processes() = (0..count).map(|number| etcd.launch(number)).collect();
        etcd.wait_until_healthy().await;
        etcd
    }

    /// Kills etcd: connections to it are refused. Its files stay, so it keeps its data.
    pub fn stop(&self) {
        self.processes().iter_mut().for_each(Process::kill);
    }

    /// Kills all but one: that one answers, and has no majority.
    pub fn stop_majority(&self) {
        self.processes()[1..].iter_mut().for_each(Process::kill);
    }

    /// Starts those again that were stopped; returns when all are healthy.
    pub async fn start_again(&self) {
        for (number, process) in (0..).zip(self.processes().iter_mut()) {
            if process.exit_status().is_some() {
                *process = self.launch(number);
            }
        }
        self.wait_until_healthy().await;
    }

    /// The client URLs, comma-separated.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = (0..self.count).map(|number| self.url(PORT, number)).collect();
        urls.join(",")
    }

    async fn wait_until_healthy(&self) {
        for number in 0..self.count {
            let health = format!("{}/health", self.url(PORT, number));
            wait_until("etcd is healthy", Duration::from_secs(60), async || {
                let answer = self.http.ask(&Request::get(&health)).await.ok()?;
                (answer.status == 200).then_some(())
            })
            .await;
        }
    }

    fn url(&self, first: u16, number: u16) -> String {
        format!("http://{}:{}", self.address, first + number * NEXT)
    }

    fn launch(&self, number: u16) -> Process {
        let (url, peer) = (self.url(PORT, number), self.url(PORT + 1, number));
        let name = |number| format!("etcd{number}");
        let all = (0..self.count).map(|number| format!("{}={}", name(number), self.url(PORT + 1, number)));
        let all: Vec<_> = all.collect();
        let mut command = Command::new(program("etcd").unwrap_or("etcd".into()));
        command.arg("--data-dir").arg(self.folder.join(name(number)));
        command.args(["--name", &name(number), "--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        let log = self.folder.join(format!("{}.log", name(number)));
        Process::start("etcd", command, &log)
    }

    fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a program of the folder KUBEBUILDER_ASSETS, the convention of Kubernetes' own test environments.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("KUBEBUILDER_ASSETS")?).join(name);
    path.exists().then_some(path)
}
