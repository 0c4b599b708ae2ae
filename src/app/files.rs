//! The limit of open files: raised to what the system allows, and the cap on sessions that fits below it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Files that are no session's: listeners, watches, probes, admin connections, epoll, the log, and pipes for splice.
const RESERVE: u64 = 512;
/// A session's files: the client's socket and the leader's.
const PER_SESSION: u64 = 2;

/// Raises the limit of open files to the hard limit, and returns the cap on sessions: `wanted`, or what fits.
pub fn make_room(wanted: usize) -> usize {
    let limit = raise();
    let room = usize::try_from(limit.saturating_sub(RESERVE) / PER_SESSION).unwrap_or(usize::MAX);
    let cap = wanted.min(room.max(1));
    if cap < wanted {
        warn!(
            max_sessions = cap,
            wanted,
            open_files = limit,
            "fewer sessions than --max-sessions are possible: the hard limit of open files is too low (ulimit -Hn)"
        );
    }
    cap
}

fn raise() -> u64 {
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
    // `None` is the kernel's "unlimited".
    in_force.unwrap_or(u64::MAX)
}
