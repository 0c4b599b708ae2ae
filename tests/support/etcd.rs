//! etcd: Patroni's DCS, or the store of kube-apiserver.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::http::{Http, Request};
use super::process::Process;
use super::wait::wait_until;

pub const PORT: u16 = 2379;

pub struct Etcd {
    process: Mutex<Process>,
    folder: PathBuf,
    http: Http,
    address: Ipv4Addr,
}

impl Etcd {
    /// Starts etcd on one address; returns when it is healthy.
    pub async fn start(folder: &Path, http: &Http, address: Ipv4Addr) -> Self {
        let etcd = Self {
            process: Mutex::new(start(folder, address)),
            folder: folder.to_owned(),
            http: http.clone(),
            address,
        };
        etcd.wait_until_healthy().await;
        etcd
    }

    /// Kills etcd: connections to it are refused. Its files stay, so it keeps its data.
    pub fn stop(&self) {
        self.process().kill();
    }

    /// Starts etcd again after `stop`; returns when it is healthy.
    pub async fn start_again(&self) {
        assert!(self.process().exit_status().is_some(), "etcd runs already");
        *self.process() = start(&self.folder, self.address);
        self.wait_until_healthy().await;
    }

    /// The client URLs, comma-separated.
    pub fn urls(&self) -> String {
        format!("http://{}:{PORT}", self.address)
    }

    async fn wait_until_healthy(&self) {
        let health = format!("http://{}:{PORT}/health", self.address);
        wait_until("etcd is healthy", Duration::from_secs(60), async || {
            let answer = self.http.ask(&Request::get(&health)).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(folder: &Path, address: Ipv4Addr) -> Process {
    let url = format!("http://{address}:{PORT}");
    let peer = format!("http://{address}:2380");
    let mut command = Command::new(program("etcd").unwrap_or("etcd".into()));
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
    command.args(["--initial-cluster", &format!("default={peer}")]);
    Process::start("etcd", command, &folder.join("etcd.log"))
}

/// Returns a program of the folder KUBEBUILDER_ASSETS, the convention of Kubernetes' own test environments.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("KUBEBUILDER_ASSETS")?).join(name);
    path.exists().then_some(path)
}
