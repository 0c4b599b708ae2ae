//! What the system allows: open files, raised as far as it goes, and local ports; and the cap on sessions that fits
//! below both.

use std::fs;
use std::net::IpAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::doctor::Capacity;
use crate::proxy::files_needed;

/// Files that are not the proxy's: watches, probes, admin connections, epoll, the log.
const RESERVE: usize = 192;

/// Raises the limit of open files to the hard limit, and returns the cap on sessions: `wanted`, or what fits below
/// that and below `ports`.
pub fn make_room(wanted: usize, workers: usize, ports: usize) -> usize {
    let limit = raise();
    let by_files = sessions_below(limit, workers);
    let cap = wanted.min(by_files).min(ports);
    if cap < wanted && ports < by_files {
        warn!(
            max_sessions = cap,
            wanted,
            local_ports = ports,
            "fewer sessions than --max-sessions are possible: each takes a local port of net.ipv4.ip_local_port_range; widen it, or give more addresses with --source"
        );
    } else if cap < wanted {
        warn!(
            max_sessions = cap,
            wanted,
            open_files = limit,
            "fewer sessions than --max-sessions are possible: the hard limit of open files is too low (ulimit -Hn)"
        );
    }
    cap
}

/// How many local ports there are for connections to one leader: a range for each source.
pub fn local_ports(sources: &[IpAddr]) -> usize {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(RANGE);
    let range = text.ok().and_then(|text| ports_in(&text));
    // Where it cannot be read, there is nothing to be said.
    range.map_or(usize::MAX, |range| range * sources.len().max(1))
}

/// The file has the lowest and the highest port, both included.
fn ports_in(text: &str) -> Option<usize> {
    let mut bounds = text.split_whitespace().map(|bound| bound.parse::<usize>().ok());
    let (low, high) = (bounds.next()??, bounds.next()??);
    high.checked_sub(low).map(|difference| difference + 1)
}

/// What would fit below the hard limit of open files here, that limit, and the local ports. Nothing is changed.
pub fn room(workers: usize, sources: &[IpAddr]) -> Capacity {
    let files = count(getrlimit(Resource::Nofile).maximum);
    Capacity {
        sessions: sessions_below(files, workers),
        files,
        ports: local_ports(sources),
    }
}

fn sessions_below(limit: usize, workers: usize) -> usize {
    let others = RESERVE + files_needed(0, workers);
    let each = files_needed(1, 0) - files_needed(0, 0);
    (limit.saturating_sub(others) / each).max(1)
}

fn raise() -> usize {
    let now = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    let in_force = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(error) => {
            info!(%error, "the limit of open files stays as it is");
            now.current
        }
    };
    count(in_force)
}

/// `None` is the kernel's "unlimited".
fn count(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_ports_includes_both_ends() {
        assert_eq!(ports_in("32768\t60999\n"), Some(28_232));
        assert_eq!(ports_in("60999\t32768\n"), None);
        assert_eq!(ports_in(""), None);
    }

    #[test]
    fn the_cap_on_sessions_is_below_the_local_ports() {
        assert_eq!(make_room(10_000, 2, 100), 100);
    }

    #[test]
    fn each_source_has_the_range() {
        let one = local_ports(&[]);
        let addresses = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert_eq!(local_ports(&addresses), 2 * one);
    }
}
