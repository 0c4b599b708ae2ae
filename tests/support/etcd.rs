//! etcd: Patroni's DCS, or the store below kube-apiserver.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::http::{Http, Request};
use super::process::Process;
use super::wait::wait_until;

pub const PORT: u16 = 2379;

pub struct Etcd {
    _process: Process,
    pub url: String,
}

impl Etcd {
    /// Starts etcd on one address; afterwards it is healthy.
    pub async fn start(folder: &Path, http: &Http, address: Ipv4Addr) -> Self {
        let url = format!("http://{address}:{PORT}");
        let peer = format!("http://{address}:2380");
        let mut command = Command::new(program("etcd").unwrap_or("etcd".into()));
        command.arg("--data-dir").arg(folder.join("etcd"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let etcd = Self {
            _process: Process::start("etcd", command, &folder.join("etcd.log")),
            url,
        };
        let health = format!("{}/health", etcd.url);
        wait_until("etcd is healthy", Duration::from_secs(20), async || {
            let answer = http.ask(&Request::get(&health)).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
        etcd
    }
}

/// A program of the folder KUBEBUILDER_ASSETS, the convention of Kubernetes' own test environments.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(&std::env::var_os("KUBEBUILDER_ASSETS")?).join(name);
    path.exists().then_some(path)
}
