//! `pgnorth doctor`: makes each request of the proxy once, with the same settings, and reports each problem with its
//! fix.
//!
//! `ask` collects facts, each within a deadline and independently; `judge` turns them into lines, without I/O. The
//! doctor writes nothing, and never logs in to PostgreSQL: it sends only an SSLRequest.

mod ask;
mod check;
mod facts;
mod judge;

pub use check::{Check, Level, Report};
pub use facts::Capacity;

use crate::config::Doctor;
use crate::discovery::etcd::Endpoints;
use crate::discovery::patroni::{Client, TlsError};

/// Runs all checks. `client` and `etcd` are errors if their files cannot be used. `capacity` is the number of sessions
/// that the limits of this host allow.
///
/// Waits for the lock's next renewal, for at most Patroni's loop_wait and a few seconds.
pub async fn examine(
    settings: &Doctor,
    client: Result<Client, TlsError>,
    etcd: Option<Result<Endpoints, String>>,
    capacity: Capacity,
) -> Report {
    let facts = Box::pin(ask::everything(settings, client, etcd, capacity)).await;
    Report {
        checks: judge::everything(settings, &facts),
    }
}
