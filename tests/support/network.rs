//! Hosts: a bridge, and for each host one network namespace that a veth pair joins to it. Each rig of a world has a
//! network of its own: 10.244.0.0/16 is the first rig's. Kubernetes refuses loopback addresses in Endpoints, so members
//! need addresses of their own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use super::clock::Clock;
use super::process::{run, send};

/// The bridge. Its drop removes it.
pub struct Network {
    place: u8,
    bridge: String,
}

/// One network namespace with an address. Its drop kills the processes in it and removes it.
pub struct Host {
    namespace: String,
    veth: String,
    pub address: Ipv4Addr,
    /// `None`: its programs read the machine's clock.
    clock: Option<Clock>,
}

/// A process of a host.
pub struct HostProcess {
    pub id: u32,
    pub parent: u32,
    /// The program's name as the kernel has it: `postgres` for every process of PostgreSQL.
    pub program: String,
}

impl Network {
    /// Creates the network of the rig number `place`.
    pub fn start(place: u8) -> Self {
        let network = Self {
            place,
            bridge: format!("hosts{place}"),
        };
        let bridge = network.bridge.as_str();
        run("ip", &["link", "add", bridge, "type", "bridge"]);
        run(
            "ip",
            &["address", "add", &format!("{}/16", network.gateway()), "dev", bridge],
        );
        run("ip", &["link", "set", bridge, "up"]);
        network
    }

    /// Returns the address on which etcd and kube-apiserver listen, and which members see as the product's.
    pub fn gateway(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Returns an address without a host: a Service's, which the kernel translates.
    pub fn service(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96, self.place, 10)
    }

    /// Returns the interface for addresses other than the hosts'.
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// Returns the address of the host number `index`: 10.244.0.10 and up.
    pub fn host(&self, index: u8) -> Ipv4Addr {
        self.address(10 + index)
    }

    fn address(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244 + self.place, 0, last)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", &self.bridge]).output();
    }
}

impl Host {
    /// Creates the host number `index` of a network.
    pub fn start(network: &Network, index: u8) -> Self {
        let (place, bridge, address) = (network.place, network.bridge.as_str(), network.host(index));
        let host = Self {
            namespace: format!("host{place}-{index}"),
            veth: format!("host{place}-{index}"),
            address,
            clock: None,
        };
        let (name, veth) = (host.namespace.as_str(), host.veth.as_str());
        run("ip", &["netns", "add", name]);
        let mac = format!("02:00:00:00:{place:02x}:{:02x}", 10 + index);
        run(
            "ip",
            &[
                "link", "add", veth, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", name,
            ],
        );
        run("ip", &["link", "set", veth, "master", bridge, "up"]);
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
        // As behind a router: packets to a host that is gone are lost without a notice, and no ARP informs the sender.
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
                bridge,
                "nud",
                "permanent",
            ],
        );
        host
    }

    /// Gives the host a wall clock of its own, whose files are in `folder`. Commands that are made later read it.
    pub fn with_clock(mut self, folder: &Path) -> Self {
        self.clock = Some(Clock::create(folder, &self.namespace));
        self
    }

    /// Sets the host's own clock this many seconds ahead of the machine's.
    pub fn step_clock(&self, seconds: i64) {
        self.clock.as_ref().expect("a host with a clock").step(seconds);
    }

    /// Returns a command that runs on this host.
    pub fn command_as_root(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/run/netns/{}", self.namespace), program]);
        if let Some(clock) = &self.clock {
            clock.apply(&mut command);
        }
        command
    }

    /// Returns a command that runs on this host as the user postgres.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.command_as_root("setpriv");
        command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", program]);
        command
    }

    /// Disconnects the host: packets are lost without a notice.
    pub fn link_down(&self) {
        run("ip", &["link", "set", &self.veth, "down"]);
    }

    /// Drops packets from these addresses; none of theirs arrives any more, while its own still leave.
    pub fn drop_packets_from(&self, addresses: &[Ipv4Addr]) {
        let addresses: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let rule = format!("ip saddr {{ {} }} drop", addresses.join(", "));
        self.filter(&format!(
            "table ip cut {{\nchain input {{ type filter hook input priority 0; {rule}; }}\n}}"
        ));
    }

    /// Accepts packets from every address again.
    pub fn drop_no_packets(&self) {
        self.filter("flush ruleset");
    }

    fn filter(&self, rules: &str) {
        run(
            "nsenter",
            &[&format!("--net=/run/netns/{}", self.namespace), "nft", rules],
        );
    }

    /// Adds an address to the host.
    pub fn add_address(&self, address: Ipv4Addr) {
        let address = format!("{address}/16");
        run(
            "ip",
            &["-netns", &self.namespace, "address", "add", &address, "dev", "eth0"],
        );
    }

    pub fn link_up(&self) {
        run("ip", &["link", "set", &self.veth, "up"]);
    }

    /// Returns every living process of the host. Zombies have no namespace, so they are not counted.
    pub fn processes(&self) -> Vec<HostProcess> {
        let ids = run("ip", &["netns", "pids", &self.namespace]);
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
        // A host whose start failed has no namespace.
        if fs::exists(format!("/run/netns/{}", self.namespace)).unwrap_or(false) {
            self.kill_all();
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).output();
        }
        // The kernel frees a namespace some time later; the veth must be gone at once, for the next rig.
        let _ = Command::new("ip").args(["link", "delete", &self.veth]).output();
    }
}

impl HostProcess {
    /// Reads `/proc/<id>/stat`; `None` for a process that has just ended.
    fn read(id: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // "id (program) state parent ...", where the program's name may contain spaces and parentheses.
        let (program, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        Some(Self {
            id,
            parent,
            program: program.to_owned(),
        })
    }
}
