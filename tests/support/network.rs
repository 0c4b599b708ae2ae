//! Hosts: a bridge at 10.244.0.1 and one network namespace a host, joined by a veth pair.
//! Kubernetes refuses loopback addresses in Endpoints, so members need addresses of their own.

use std::fs;
use std::net::Ipv4Addr;
use std::process::Command;

use rustix::process::Signal;

use super::process::{run, send};

/// Where etcd and kube-apiserver listen, and where members see the product's connections come from.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

const BRIDGE: &str = "hosts";

/// The bridge; dropping it removes it.
pub struct Network(());

/// One network namespace with an address; dropping it kills what runs in it and removes it.
pub struct Host {
    name: String,
    veth: String,
    pub address: Ipv4Addr,
}

/// A process of a host.
pub struct HostProcess {
    pub id: u32,
    pub parent: u32,
    /// The program's name as the kernel has it: `postgres` for every process of PostgreSQL.
    pub program: String,
}

impl Network {
    pub fn start() -> Self {
        run("ip", &["link", "add", BRIDGE, "type", "bridge"]);
        let network = Self(());
        run("ip", &["address", "add", &format!("{GATEWAY}/16"), "dev", BRIDGE]);
        run("ip", &["link", "set", BRIDGE, "up"]);
        network
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", BRIDGE]).output();
    }
}

impl Host {
    /// The host number `index`: 10.244.0.10 and up.
    pub fn start(_: &Network, name: &str, index: u8) -> Self {
        let address = Ipv4Addr::new(10, 244, 0, 10 + index);
        let host = Self {
            name: name.to_owned(),
            veth: format!("host{index}"),
            address,
        };
        let veth = host.veth.as_str();
        run("ip", &["netns", "add", name]);
        let mac = format!("02:00:00:00:00:{:02x}", 10 + index);
        run(
            "ip",
            &[
                "link", "add", veth, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", name,
            ],
        );
        run("ip", &["link", "set", veth, "master", BRIDGE, "up"]);
        run(
            "ip",
            &[
                "-netns",
                name,
                "address",
                "add",
                &format!("{address}/16"),
                "dev",
                "eth0",
            ],
        );
        run("ip", &["-netns", name, "link", "set", "lo", "up"]);
        run("ip", &["-netns", name, "link", "set", "eth0", "up"]);
        // As behind a router: packets to a host that has vanished are lost in silence, and no ARP tells the sender.
        let ip = address.to_string();
        run(
            "ip",
            &[
                "neighbour",
                "replace",
                &ip,
                "lladdr",
                &mac,
                "dev",
                BRIDGE,
                "nud",
                "permanent",
            ],
        );
        host
    }

    /// A command that runs on this host as the user postgres.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        command.args([
            "setpriv",
            "--reuid",
            "postgres",
            "--regid",
            "postgres",
            "--clear-groups",
            program,
        ]);
        command
    }

    /// Pulls the cable: from now on nothing passes, and no one is told.
    pub fn link_down(&self) {
        run("ip", &["link", "set", &self.veth, "down"]);
    }

    /// The host answers at this address, too.
    pub fn add_address(&self, address: Ipv4Addr) {
        let address = format!("{address}/16");
        run("ip", &["-netns", &self.name, "address", "add", &address, "dev", "eth0"]);
    }

    pub fn link_up(&self) {
        run("ip", &["link", "set", &self.veth, "up"]);
    }

    /// Every living process of the host. Zombies hold no namespace, so they don't count.
    pub fn processes(&self) -> Vec<HostProcess> {
        let ids = run("ip", &["netns", "pids", &self.name]);
        ids.lines()
            .filter_map(|id| HostProcess::read(id.trim().parse().ok()?))
            .collect()
    }

    /// Kills every process with SIGKILL until none is left.
    pub fn kill_all(&self) {
        loop {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            processes.iter().for_each(|process| send(process.id, Signal::KILL));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A host whose start failed half way has no namespace to look into.
        if fs::exists(format!("/run/netns/{}", self.name)).unwrap_or(false) {
            self.kill_all();
            let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
        }
        // The kernel frees a namespace some time later; the veth has to be gone at once, for the next rig.
        let _ = Command::new("ip").args(["link", "delete", &self.veth]).output();
    }
}

impl HostProcess {
    /// Reads `/proc/<id>/stat`; a process that has just ended is none.
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // "id (program) state parent ...", where the program's name may itself hold spaces and parentheses.
        let (program, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self {
            id,
            parent,
            program: program.to_owned(),
        })
    }
}
