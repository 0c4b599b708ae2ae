//! A real DNS server, dnsmasq, with the names that a headless Service gives to members; and its outages. The world's
//! /etc/resolv.conf is as in a pod.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::process::{Process, run};
use super::rig::SCOPE;
use super::tls::path;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const START: Duration = Duration::from_secs(20);

pub struct Dns {
    server: Mutex<Process>,
    hosts: PathBuf,
    folder: PathBuf,
    address: Ipv4Addr,
    records: Mutex<BTreeMap<String, Ipv4Addr>>,
}

/// Returns a member's name in DNS.
pub fn name_of(member: &str) -> String {
    format!("{member}.{SCOPE}-headless.default.svc.cluster.local")
}

impl Dns {
    /// Starts the server, and makes it the world's.
    pub fn start(folder: &Path, address: Ipv4Addr) -> Self {
        let hosts = folder.join("dns-hosts");
        fs::write(&hosts, "").expect("write the names");
        let resolv_conf = folder.join("resolv.conf");
        let search = "search default.svc.cluster.local svc.cluster.local cluster.local";
        let text = format!("nameserver {address}\n{search}\noptions ndots:5\n");
        fs::write(&resolv_conf, text).expect("write resolv.conf");
        run("mount", &["--bind", path(&resolv_conf), RESOLV_CONF]);
        Self {
            server: Mutex::new(start_server(folder, &hosts, address)),
            hosts,
            address,
            folder: folder.to_owned(),
            records: Mutex::default(),
        }
    }

    /// Sets the address of a member's name, from the next query on.
    pub fn set(&self, member: &str, address: Ipv4Addr) {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(name_of(member), address);
        let text: String = records
            .iter()
            .map(|(name, address)| format!("{address} {name}\n"))
            .collect();
        fs::write(&self.hosts, text).expect("write the names");
        // It reads the file again.
        self.server().signal(Signal::HUP);
    }

    /// Makes the server refuse queries at once.
    pub fn stop(&self) {
        self.server().kill();
    }

    pub fn start_again(&self) {
        *self.server() = start_server(&self.folder, &self.hosts, self.address);
    }

    /// Makes the server leave queries unanswered.
    pub fn freeze(&self) {
        self.server().signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.server().signal(Signal::CONT);
    }

    fn server(&self) -> MutexGuard<'_, Process> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(RESOLV_CONF).output();
    }
}

fn start_server(folder: &Path, hosts: &Path, address: Ipv4Addr) -> Process {
    let mut command = Command::new("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--no-daemon",
    ]);
    command.args([
        "--port=53",
        "--bind-interfaces",
        "--local-ttl=0",
        "--user=root",
        "--pid-file",
    ]);
    command.args(["--local=/cluster.local/", "--log-queries", "--log-facility=-"]);
    command.arg(format!("--listen-address={address}"));
    command.arg(format!("--addn-hosts={}", path(hosts)));
    let log = folder.join("dnsmasq.log");
    let _ = fs::remove_file(&log);
    let process = Process::start("dnsmasq", command, &log);
    // A signal before its handler is set would end it.
    let began = Instant::now();
    while !process.log().contains("started, version") {
        assert!(began.elapsed() < START, "dnsmasq does not start: {}", process.log());
        thread::sleep(Duration::from_millis(10));
    }
    process
}
