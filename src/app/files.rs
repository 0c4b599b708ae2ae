//! System limits: raises the limit of open files, counts local ports, and derives the limit of sessions from
//! both.

use std::fs;
use std::net::IpAddr;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::config::DEFAULT_SESSIONS;
use crate::doctor::Capacity;
use crate::proxy::files_needed;

/// Number of open files outside the proxy: watches, probes, admin connections, epoll, the log.
const RESERVE: usize = 192;

/// Raises the limit of open files to the hard limit, and returns the limit of sessions: `wanted`, or the default,
/// lowered to what open files and `ports` allow. Warns only if `wanted` does not fit.
pub fn session_limit(wanted: Option<usize>, workers: usize, ports: Option<usize>) -> usize {
    let open_files = raise();
    let by_ports = ports.unwrap_or(usize::MAX);
    let by_files = sessions_below(open_files, workers);
    let target = wanted.unwrap_or(DEFAULT_SESSIONS);
    let max_sessions = target.min(by_files).min(by_ports);
    if max_sessions == target {
        return max_sessions;
    }
    match wanted {
        None => info!(
            max_sessions,
            open_files,
            local_ports = ports,
            "session limit lowered from the default {DEFAULT_SESSIONS} to fit the limits of open files and local ports"
        ),
        Some(wanted) if by_ports < by_files => warn!(
            max_sessions,
            wanted,
            local_ports = ports,
            "--max-sessions is lowered: each session needs a local port of net.ipv4.ip_local_port_range; widen it, or add addresses with --source"
        ),
        Some(wanted) => warn!(
            max_sessions,
            wanted,
            open_files,
            "--max-sessions is lowered: each session needs two open files; raise the hard limit of open files (ulimit -Hn)"
        ),
    }
    max_sessions
}

/// Returns the number of local ports for connections to one leader, one range for each source; `None` if the range
/// cannot be read.
pub fn local_ports(sources: &[IpAddr]) -> Option<usize> {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(RANGE);
    let range = text.ok().and_then(|text| ports_in(&text));
    range.map(|range| range * sources.len().max(1))
}

/// Parses the lowest and the highest port of a range, and returns the number of its ports, both included.
fn ports_in(text: &str) -> Option<usize> {
    let mut bounds = text.split_whitespace().map(|bound| bound.parse::<usize>().ok());
    let (low, high) = (bounds.next()??, bounds.next()??);
    high.checked_sub(low).map(|difference| difference + 1)
}

/// Returns the hard limit of open files, the number of sessions that it allows, and the number of local ports. Changes
/// nothing.
pub fn capacity(workers: usize, sources: &[IpAddr]) -> Capacity {
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
            info!(%error, "cannot raise the limit of open files; the present limit applies");
            now.current
        }
    };
    count(in_force)
}

/// Returns the limit as a number. For `None`, the kernel's "unlimited", this is the largest number.
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
    fn the_limit_of_sessions_is_not_above_the_local_ports() {
        assert_eq!(session_limit(Some(10_000), 2, Some(100)), 100);
    }

    #[test]
    fn each_source_has_the_range() {
        let one = local_ports(&[]).unwrap();
        let addresses = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        assert_eq!(local_ports(&addresses), Some(2 * one));
    }
}
