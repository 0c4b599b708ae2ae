//! `pgnorth doctor`: asks once everything that the proxy will ask, in the same way and with the same settings, and says what is wrong and what to do.
//!
//! `ask` collects facts, each before a deadline, whatever became of the others; `judge` makes lines of them, without I/O. It logs in nowhere and writes nothing;
//! an SSLRequest is all that it says to PostgreSQL.

mod ask;
mod check;
mod facts;
mod judge;

pub use check::{Check, Level, Report};
pub use facts::Room;

use crate::config::Doctor;
use crate::discovery::patroni::{Client, TlsError};

/// Looks at everything. `room` is what the limit of open files leaves here.
///
/// It takes as long as the lock's next renewal: Patroni's loop_wait and some seconds, a minute or so at most.
pub async fn examine(settings: &Doctor, client: Result<Client, TlsError>, room: Room) -> Report {
    let facts = Box::pin(ask::everything(settings, client, room)).await;
    Report {
        checks: judge::everything(settings, &facts),
    }
}
