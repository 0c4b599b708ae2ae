//! The private world that everything runs in: made by `tests/support/inside.sh`, set up here.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getpid, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// HAProxy and nginx are given two threads, so nobody has more CPUs than these.
const CPUS: usize = 2;
/// Both ends of every session of the largest workload are open here; a contender may want more for pipes.
const FILES: u64 = 100_000;
/// As the workload's name says; fewer where files are short.
const MOST_SESSIONS: usize = 10_000;
/// Listeners have the ports below.
const PORTS: &str = "10000 65535";

/// What the world is like: for the report.
pub struct World {
    /// The CPUs that all share.
    pub cpus: Vec<usize>,
    pub congestion_control: String,
    /// How many sessions the largest workload may open.
    pub most_sessions: usize,
}

/// Where configurations and logs go. It vanishes with the world.
pub fn folder() -> PathBuf {
    let world = std::env::var_os("PGNORTH_RIG").expect("checked at the start");
    PathBuf::from(world).join("forward")
}

impl World {
    /// Sets the world up; tells what stands in the way.
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
        // The machine's own choice may halve the figures (bbr does); one that the kernel always has.
        set("net/ipv4/tcp_congestion_control", "reno")?;
        Ok(Self {
            cpus: share_cpus()?,
            congestion_control: get("net/ipv4/tcp_congestion_control"),
            // Two for each session, and half of one for pipes: what HAProxy reckons with.
            most_sessions: MOST_SESSIONS.min(files / 8 * 3),
        })
    }
}

/// Raises the limit of open files as far as it goes; returns how far.
fn allow_files() -> Result<usize, String> {
    let limit = |files| Rlimit {
        current: Some(files),
        maximum: Some(files),
    };
    if setrlimit(Resource::Nofile, limit(FILES)).is_ok() {
        return Ok(to_usize(FILES));
    }
    // Even root may have lost the right to go beyond the hard limit.
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(FILES);
    setrlimit(Resource::Nofile, limit(hard)).map_err(|error| format!("allow {hard} open files: {error}"))?;
    Ok(to_usize(hard))
}

fn to_usize(files: u64) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// Everything that is started from now on runs on the first CPUs that this process may use.
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

/// This process.
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
