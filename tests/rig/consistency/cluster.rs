//! The cluster under test: three members, the servers of the DCS and two pgnorths, each on a host of its own, so that any of
//! them can be cut off from any other. One pgnorth reads the DCS, the other one asks the members alone.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::Signal;
use serde_json::json;

use super::dcs;
use super::workload::ROLE;
use crate::support::network::Host;
use crate::support::process::Process;
use crate::support::rig::SCOPE;
use crate::support::{Dcs, Member, Rig, Settings};

const MEMBERS: usize = 3;
pub const PGNORTHS: usize = 2;
/// Number of the first pgnorth's host.
const FIRST_HOST: u8 = 20;

/// A host of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    Member(usize),
    /// A server of the DCS: an etcd, or the Kubernetes API server.
    Dcs(usize),
    Pgnorth(usize),
}

/// The cluster. Its drop ends everything; if the test has failed, it keeps the logs.
pub struct Cluster {
    pub pgnorths: Vec<Pgnorth>,
    _logs: Logs,
    pub rig: Rig,
}

/// A pgnorth on a host of its own.
pub struct Pgnorth {
    process: Mutex<Process>,
    host: Host,
    arguments: Vec<String>,
    kubeconfig: Option<PathBuf>,
    log: PathBuf,
}

/// The logs, which are copied out of the rig's folder if the test fails.
struct Logs {
    from: PathBuf,
    to: PathBuf,
}

impl Cluster {
    /// Starts the cluster, in failsafe mode or not; `kept` is the folder for the logs of a test that fails.
    pub async fn start(kept: &Path, dcs: Dcs, failsafe: bool) -> Self {
        let settings = Settings {
            synchronous: true,
            failsafe,
            dcs_hosts: true,
            clocks: true,
            dynamic: json!({
                "synchronous_mode_strict": true,
                // Patroni takes this parameter from here alone.
                "postgresql": {"use_pg_rewind": true, "use_slots": true, "parameters": {"max_connections": 300}},
            }),
            ..Settings::default()
        };
        let rig = Rig::start_with(dcs, settings).await;
        rig.leader().await.psql(ROLE).await.expect("make the role");
        let urls: Vec<_> = rig.members().iter().map(Member::rest_url).collect();
        let members = ["--patroni".to_owned(), urls.join(",")].to_vec();
        let pgnorths = [
            Pgnorth::start(&rig, 0, dcs::arguments(&rig), rig.kubeconfig()),
            Pgnorth::start(&rig, 1, members, None),
        ];
        Self {
            pgnorths: pgnorths.into(),
            _logs: Logs {
                from: rig.folder().to_owned(),
                to: kept.to_owned(),
            },
            rig,
        }
    }

    /// Returns every node.
    pub fn nodes(&self) -> Vec<Node> {
        let members = (0..MEMBERS).map(Node::Member);
        members
            .chain((0..dcs::servers(&self.rig)).map(Node::Dcs))
            .chain((0..PGNORTHS).map(Node::Pgnorth))
            .collect()
    }

    /// Drops the packets of each pair's first node at its second one.
    pub fn cut(&self, pairs: &[(Node, Node)]) {
        for to in self.nodes() {
            let from = pairs.iter().filter(|pair| pair.1 == to);
            let from: Vec<Ipv4Addr> = from.map(|pair| self.host(pair.0).address).collect();
            if !from.is_empty() {
                self.host(to).drop_packets_from(&from);
            }
        }
    }

    /// Reconnects all nodes.
    pub fn reconnect(&self) {
        self.nodes()
            .into_iter()
            .for_each(|node| self.host(node).drop_no_packets());
    }

    pub fn host(&self, node: Node) -> &Host {
        match node {
            Node::Member(number) => self.rig.member(number).host(),
            Node::Dcs(number) => dcs::host(&self.rig, number),
            Node::Pgnorth(number) => &self.pgnorths[number].host,
        }
    }
}

impl Pgnorth {
    fn start(rig: &Rig, number: u8, source: Vec<String>, kubeconfig: Option<PathBuf>) -> Self {
        let host = Host::start(rig.network(), FIRST_HOST + number).with_clock(rig.folder());
        let listen = format!("{}:5432", host.address);
        let admin = format!("{}:9090", host.address);
        let mut arguments = ["--listen", &listen, "--admin", &admin, "--log-format", "json"]
            .map(str::to_owned)
            .to_vec();
        arguments.extend(source);
        let log = rig.folder().join(format!("pgnorth-{number}.log"));
        let process = Mutex::new(run(&host, &arguments, kubeconfig.as_deref(), &log));
        Self {
            process,
            host,
            arguments,
            kubeconfig,
            log,
        }
    }

    /// Returns the address for clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((self.host.address, 5432))
    }

    /// Returns the URL of a page of the admin port.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}:9090{path}", self.host.address)
    }

    /// Returns the id of the process.
    pub fn id(&self) -> u32 {
        self.process().id()
    }

    /// Returns all TCP sockets of the host, with their memory, as ss prints them.
    pub fn sockets(&self) -> String {
        let ss = self.host.command_as_root("ss").args(["-tmnH"]).output();
        String::from_utf8_lossy(&ss.expect("run ss").stdout).into_owned()
    }

    pub fn kill(&self) {
        self.process().kill();
    }

    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Starts it again if it has ended.
    pub fn start_again(&self) {
        let mut process = self.process();
        if process.exit_status().is_some() {
            *process = run(&self.host, &self.arguments, self.kubeconfig.as_deref(), &self.log);
        }
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(host: &Host, arguments: &[String], kubeconfig: Option<&Path>, log: &Path) -> Process {
    let mut command = host.command_as_root(env!("CARGO_BIN_EXE_pgnorth"));
    command.env_remove("KUBECONFIG").args(arguments);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    Process::start("pgnorth", command, log)
}

impl Drop for Logs {
    fn drop(&mut self) {
        if thread::panicking() && copy_logs(&self.from, &self.to).is_ok() {
            eprintln!("the logs are in {}", self.to.display());
        }
    }
}

/// Copies the logs of this folder and of its members' folders, each with its path as its name.
fn copy_logs(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    let members = (0..MEMBERS).map(|number| format!("{SCOPE}-{number}/"));
    for prefix in members.chain([String::new()]) {
        for entry in fs::read_dir(from.join(&prefix))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".log") {
                fs::copy(entry.path(), to.join((prefix.clone() + &name).replace('/', "-")))?;
            }
        }
    }
    Ok(())
}
