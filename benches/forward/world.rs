//! The private world of the benchmark: made by `tests/support/inside.sh`, configured here.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::delay_line;
use crate::process::{Process, run};

/// Number of CPUs of all processes: HAProxy and nginx have two threads.
const CPUS: usize = 2;
/// Limit of open files. Both ends of every session of the largest workload are open here; a contender may need more for
/// pipes.
const FILES: u64 = 100_000;
/// Sessions of the largest workload; fewer if files are short.
const MOST_SESSIONS: usize = 10_000;
/// Range of local ports. Listeners have the ports below.
const PORTS: &str = "10000 65535";

/// The machine, for the report.
pub struct World {
    /// The CPUs that all processes share.
    pub cpus: Vec<usize>,
    pub congestion_control: String,
    /// The number of sessions that the largest workload may open.
    pub most_sessions: usize,
}

/// Returns the folder of configurations and logs. It is removed with the world.
pub fn folder() -> PathBuf {
    let world = std::env::var_os("PGNORTH_RIG").expect("checked at the start");
    PathBuf::from(world).join("forward")
}

impl World {
    /// Configures the world; otherwise returns the obstacle.
    pub fn enter() -> Result<Self, String> {
        if std::env::var_os("PGNORTH_RIG").is_none() {
            return Err("this needs a network of its own: run it with `make bench-forward`".into());
        }
        fs::create_dir_all(folder()).map_err(|error| format!("create {}: {error}", folder().display()))?;
        let files = allow_files()?;
        // A connection a round trip leaves a port in TIME_WAIT behind: many ports, used again after a second.
        set("net/ipv4/ip_local_port_range", PORTS)?;
        set("net/ipv4/tcp_tw_reuse", "1")?;
        set("net/core/somaxconn", "4096")?;
        // The machine's own choice may halve the figures (bbr does); this one exists in every kernel.
        set("net/ipv4/tcp_congestion_control", "reno")?;
        Ok(Self {
            cpus: share_cpus()?,
            congestion_control: get("net/ipv4/tcp_congestion_control"),
            // Two for each session, and half of one for pipes, as HAProxy calculates.
            most_sessions: MOST_SESSIONS.min(files / 8 * 3),
        })
    }
}

/// A host beside this one, joined by a veth pair. It is removed with the world.
pub struct Neighbour {
    pub namespace: fs::File,
    pub address: Ipv4Addr,
    /// The delay of one direction, and the process that makes it if the kernel cannot.
    delay: Duration,
    line: Option<Process>,
}

/// The neighbour's network namespace.
const NEIGHBOUR: &str = "bench-far";
/// The addresses of this side and of the neighbour.
const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2)];

impl Neighbour {
    /// Makes the host. From now on local ports have the kernel's defaults: in TIME_WAIT they are used again on loopback
    /// only.
    pub fn join() -> Result<Self, String> {
        const NAME: &str = NEIGHBOUR;
        let [_, address] = ADDRESSES;
        run("ip", &["netns", "add", NAME]);
        run(
            "ip",
            &[
                "link", "add", "bench0", "type", "veth", "peer", "name", "bench1", "netns", NAME,
            ],
        );
        run("ip", &["address", "add", "10.9.0.1/24", "dev", "bench0"]);
        run("ip", &["link", "set", "bench0", "up"]);
        run(
            "ip",
            &["-n", NAME, "address", "add", &format!("{address}/24"), "dev", "bench1"],
        );
        run("ip", &["-n", NAME, "link", "set", "bench1", "up"]);
        set("net/ipv4/ip_local_port_range", "32768 60999")?;
        set("net/ipv4/tcp_tw_reuse", "2")?;
        let file = format!("/run/netns/{NAME}");
        let namespace = fs::File::open(&file).map_err(|error| format!("open {file}: {error}"))?;
        Ok(Self {
            namespace,
            address,
            delay: Duration::ZERO,
            line: None,
        })
    }

    /// Delays packets, so that a round trip takes this much longer: by netem if the kernel has it, otherwise by a
    /// process that all packets pass.
    pub fn delay(&mut self, round_trip: Duration) -> Result<(), String> {
        let delay = round_trip / 2;
        if delay == self.delay {
            return Ok(());
        }
        self.delay = delay;
        self.line = None;
        match delay {
            Duration::ZERO => remove_netem(),
            _ if set_netem(delay) => {}
            _ => self.line = Some(route_through_a_line(delay)?),
        }
        Ok(())
    }

    pub fn has_a_delay_line(&self) -> bool {
        self.line.is_some()
    }
}

/// The two ends of the veth pair, as arguments of `tc` and `ip`.
const ENDS: [(&[&str], &str); 2] = [(&[], "bench0"), (&["-n", NEIGHBOUR], "bench1")];

/// Returns false if this kernel has no netem.
fn set_netem(delay: Duration) -> bool {
    let delay = format!("{}us", delay.as_micros());
    ENDS.iter().all(|(place, device)| {
        // As many packets as the fastest stream has under way.
        let netem = ["root", "netem", "delay", &delay, "limit", "100000"];
        let mut tc = Command::new("tc");
        tc.args(*place).args(["qdisc", "replace", "dev", device]).args(netem);
        tc.output().is_ok_and(|output| output.status.success())
    })
}

fn remove_netem() {
    for (place, device) in ENDS {
        // Without netem there is none to delete.
        let _none = Command::new("tc")
            .args(place)
            .args(["qdisc", "delete", "dev", device, "root"])
            .output();
    }
}

/// Starts a delay line and makes it the way to the neighbour. The addresses stay those of the veth pair. The routes
/// vanish with the line's devices.
fn route_through_a_line(delay: Duration) -> Result<Process, String> {
    let mut line = delay_line::start(delay).map_err(|error| format!("start a delay line: {error}"))?;
    let start = Instant::now();
    let exists = |device: &str| fs::exists(format!("/proc/sys/net/ipv4/conf/{device}")).unwrap_or(false);
    while !exists(delay_line::NEAR) || !exists(delay_line::FAR) {
        if line.exit_status().is_some() || start.elapsed() > Duration::from_secs(5) {
            return Err(format!("the delay line does not start: {}", line.log()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    run("ip", &["link", "set", delay_line::FAR, "netns", NEIGHBOUR]);
    let [near, far] = ADDRESSES.map(|address| address.to_string());
    let none: &[&str] = &[];
    for (place, device, from, to) in [
        (none, delay_line::NEAR, &near, &far),
        (&["-n", NEIGHBOUR], delay_line::FAR, &far, &near),
    ] {
        let ip = |arguments: &[&str]| run("ip", &[place, arguments].concat());
        ip(&["link", "set", device, "up"]);
        ip(&["route", "replace", &format!("{to}/32"), "dev", device, "src", from]);
    }
    Ok(line)
}

/// Returns the connections in TIME_WAIT to this port of the neighbour, on this side.
pub fn in_time_wait(port: u16) -> usize {
    const TIME_WAIT: &str = "06";
    let remote = format!(":{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let is_one = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields[..], [_, _, to, state, ..] if to.ends_with(&remote) && state == TIME_WAIT)
    };
    sockets.lines().skip(1).filter(is_one).count()
}

/// Raises the limit of open files as far as possible, and returns it.
fn allow_files() -> Result<usize, String> {
    let limit = |files| Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    if setrlimit(Resource::Nofile, limit(FILES)).is_ok() {
        return Ok(to_usize(FILES));
    }
    // Even root may lack the right to exceed the hard limit.
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES);
    setrlimit(Resource::Nofile, limit(hard)).map_err(|error| format!("allow {hard} open files: {error}"))?;
    Ok(to_usize(hard))
}

fn to_usize(files: u64) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// Restricts all processes that are started from now on to the first CPUs of this process.
fn share_cpus() -> Result<Vec<usize>, String> {
    let allowed = sched_getaffinity(None).map_err(|error| format!("which CPUs there are: {error}"))?;
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .take(CPUS)
        .collect();
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).map_err(|error| format!("run on the CPUs {cpus:?}: {error}"))?;
    Ok(cpus)
}

/// Returns the id of this process.
pub fn own_id() -> u32 {
    u32::try_from(getpid().as_raw_nonzero().get()).expect("a process id is a positive number")
}

fn set(name: &str, value: &str) -> Result<(), String> {
    fs::write(format!("/proc/sys/{name}"), value).map_err(|error| format!("set {name} to {value}: {error}"))
}

fn get(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/{name}"));
    text.map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}
