//! The limit of open files: raised to what the system allows, and the cap on sessions that fits below it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::proxy::files_needed;

/// Files that are not the proxy's: watches, probes, admin connections, epoll, the log.
const RESERVE: usize = 192;

/// Raises the limit of open files to the hard limit, and returns the cap on sessions: `wanted`, or what fits.
pub fn make_room(wanted: usize, workers: usize) -> usize {
    let limit = usize::try_from(raise()).unwrap_or(usize::MAX);
    let others = RESERVE + files_needed(0, workers);
    let each = files_needed(1, 0) - files_needed(0, 0);
    let cap = wanted.min((limit.saturating_sub(others) / each).max(1));
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
