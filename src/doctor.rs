//! `pgnorth doctor`: asks once everything that the proxy will ask, in the same way and with the same settings, and
//! reports what is wrong and the fix.
//!
//! `ask` collects facts, each within a deadline and independently; `judge` turns them into lines, without I/O. The
//! doctor writes nothing and logs in nowhere: it sends PostgreSQL an SSLRequest only.

mod ask;
mod check;
mod facts;
mod judge;

pub use check::{Check, Level, Report};
pub use facts::Capacity;

use crate::config::Doctor;
use crate::discovery::etcd::Endpoints;
use crate::discovery::patroni::{Client, TlsError};

/// Examines everything. `client` and `etcd` are errors if their files cannot be used. `capacity` is the number of sessions that the limits of this host allow.
///
/// Takes until the lock's next renewal: Patroni's loop_wait and some seconds, about a minute at most.
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
