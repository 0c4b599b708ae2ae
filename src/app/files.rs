//! The limit of open files: raised to what the system allows, and the cap on sessions that fits below it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

use crate::doctor::Room;
use crate::proxy::files_needed;

/// Files that are not the proxy's: watches, probes, admin connections, epoll, the log.
const RESERVE: usize = 192;

/// Raises the limit of open files to the hard limit, and returns the cap on sessions: `wanted`, or what fits.
pub fn make_room(wanted: usize, workers: usize) -> usize {
    let limit = raise();
    let cap = wanted.min(sessions_below(limit, workers));
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

/// What would fit below the hard limit of open files here, and that limit. Nothing is changed.
pub fn room(workers: usize) -> Room {
    let files = count(getrlimit(Resource::Nofile).maximum);
    Room {
        sessions: sessions_below(files, workers),
        files,
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
