//! etcd: Patroni's DCS, or the store of kube-apiserver.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use super::http::{Http, Request};
use super::network::Host;
use super::process::Process;
use super::tls::Tls;
use super::wait::wait_until;

/// Client port of the first etcd.
pub const PORT: u16 = 2379;
/// Distance between a port of one etcd and of the next, if they share an address.
const NEXT: u16 = 1000;

/// The place of one etcd: a host of its own, or a port of a host that it shares.
pub struct Place {
    host: Option<Host>,
    address: Ipv4Addr,
    port: u16,
}

impl Place {
    /// Returns the place of etcd number `number` of those that share an address.
    pub fn shared(address: Ipv4Addr, number: u16) -> Self {
        Self {
            host: None,
            address,
            port: PORT + number * NEXT,
        }
    }

    /// Returns the place of an etcd alone on its host.
    pub fn alone(host: Host) -> Self {
        Self {
            address: host.address,
            host: Some(host),
            port: PORT,
        }
    }

    /// Returns a command that runs in this place.
    fn command(&self, program: &str) -> Command {
        let on = |host: &Host| host.command_as_root(program);
        self.host.as_ref().map_or_else(|| Command::new(program), on)
    }

    fn peer_url(&self) -> String {
        format!("http://{}:{}", self.address, self.port + 1)
    }

    /// Returns the URL at which etcd says whether it is healthy, without TLS and without a client certificate.
    fn metrics_url(&self) -> String {
        format!("http://{}:{}", self.address, self.port + 2)
    }
}

/// One etcd, or three of them.
pub struct Etcd {
    processes: Mutex<Vec<Process>>,
    places: Vec<Place>,
    folder: PathBuf,
    http: Http,
    /// Clients speak TLS, and show a certificate.
    tls: Option<Tls>,
}

impl Etcd {
    /// Starts one etcd in each place; returns when all are healthy.
    pub async fn start(folder: &Path, http: &Http, places: Vec<Place>, tls: Option<&Tls>) -> Self {
        let etcd = Self {
            processes: Mutex::default(),
            places,
            folder: folder.to_owned(),
            http: http.clone(),
            tls: tls.cloned(),
        };
        *etcd.processes() = (0..etcd.places.len()).map(|number| etcd.launch(number)).collect();
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

    /// Kills one.
    pub fn kill(&self, number: usize) {
        self.processes()[number].kill();
    }

    /// Sends a signal to one.
    pub fn signal(&self, number: usize, signal: Signal) {
        self.processes()[number].signal(signal);
    }

    /// Returns the host of an etcd that has one of its own.
    pub fn host(&self, number: usize) -> &Host {
        self.places[number].host.as_ref().expect("an etcd on a host of its own")
    }

    /// Returns the address of the first one.
    pub fn address(&self) -> Ipv4Addr {
        self.places[0].address
    }

    /// Returns a command that runs beside the first one.
    pub fn command(&self, program: &str) -> Command {
        self.places[0].command(program)
    }

    /// Starts those again that have ended; returns when all are healthy.
    pub async fn start_again(&self) {
        self.launch_ended();
        self.wait_until_healthy().await;
    }

    /// Starts those again that have ended. Waits for none.
    pub fn launch_ended(&self) {
        for (number, process) in self.processes().iter_mut().enumerate() {
            if process.exit_status().is_some() {
                *process = self.launch(number);
            }
        }
    }

    /// Returns the client URLs, comma-separated.
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self.places.iter().map(|place| self.client_url(place)).collect();
        urls.join(",")
    }

    /// Returns the certificates that clients need, if they speak TLS.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Returns the addresses, as Patroni's configuration lists them.
    pub fn hosts(&self) -> Vec<String> {
        let host = |place: &Place| format!("{}:{}", place.address, place.port);
        self.places.iter().map(host).collect()
    }

    async fn wait_until_healthy(&self) {
        for place in &self.places {
            let health = format!("{}/health", place.metrics_url());
            wait_until("etcd is healthy", Duration::from_secs(60), async || {
                let answer = self.http.ask(&Request::get(&health)).await.ok()?;
                (answer.status == 200).then_some(())
            })
            .await;
        }
    }

    fn client_url(&self, place: &Place) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}", place.address, place.port)
    }

    fn launch(&self, number: usize) -> Process {
        let place = &self.places[number];
        let (client, peer) = (self.client_url(place), place.peer_url());
        let name = |number| format!("etcd{number}");
        let all = self.places.iter().enumerate();
        let all: Vec<_> = all
            .map(|(number, place)| format!("{}={}", name(number), place.peer_url()))
            .collect();
        let program = program("etcd").unwrap_or("etcd".into());
        let mut command = place.command(program.to_str().expect("an ASCII path"));
        command.arg("--data-dir").arg(self.folder.join(name(number)));
        command.args(["--name", &name(number), "--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--listen-metrics-urls", &place.metrics_url()]);
        if let Some(tls) = &self.tls {
            command.arg("--cert-file").arg(&tls.certificate);
            command.arg("--key-file").arg(&tls.key);
            command.arg("--client-cert-auth");
            command.arg("--trusted-ca-file").arg(&tls.authority);
        }
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
