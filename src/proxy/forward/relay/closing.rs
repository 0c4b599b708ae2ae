//! Decides how a pair is closed: which side closed first, when the client's FIN is passed on, and for how long a
//! session outlives its leader.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::context::IoContext;
use super::direction::EofAction;
use super::pipes::BUFFER;
use crate::proxy::forward::reactor::{PolledStream, Side, Syscalls};

/// Maximum number of a client's bytes that are discarded before its socket is closed. A client that has sent more gets
/// a reset.
const MAX_DISCARDED: usize = 1 << 20;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Closing {
    first: Option<Side>,
    client_fin: ClientFin,
    /// Number of bytes delivered to a leader that has closed, at the last check.
    to_leader_at_linger: Option<u64>,
}

/// The state of the client's FIN, which is to be passed on to the leader.
///
/// A client of PostgreSQL sends Terminate and closes immediately; the server closes when it reads that message. The
/// side that closes first keeps the port in TIME_WAIT for a minute. If pgnorth passed the FIN on together with the
/// message, pgnorth would be that side, and it has few ports to one leader. So the FIN is held back for a few
/// milliseconds, in which the leader's FIN can come first. A leader that waits for the client's FIN gets it afterwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum ClientFin {
    #[default]
    NotYet,
    Deferred,
    /// The FIN was deferred for long enough.
    Due,
}

impl Closing {
    /// Returns the side that closed first, if any has closed.
    pub(crate) fn first(&self) -> Option<Side> {
        self.first
    }

    /// Records the side that closed first.
    pub(crate) fn observe(&mut self, client_closed: bool, leader_closed: bool) {
        if self.first.is_none() {
            self.first = match (client_closed, leader_closed) {
                (true, _) => Some(Side::Client),
                (false, true) => Some(Side::Leader),
                (false, false) => None,
            };
        }
    }

    pub(crate) fn eof_to_leader(&self, to_client_ended: bool, fin_delay: Duration) -> EofAction {
        match self.client_fin {
            _ if to_client_ended => EofAction::Skip,
            ClientFin::Due => EofAction::PassOn,
            _ if fin_delay.is_zero() => EofAction::PassOn,
            ClientFin::NotYet | ClientFin::Deferred => EofAction::Defer,
        }
    }

    pub(crate) fn eof_to_client(&self, to_leader_ended: bool) -> EofAction {
        if to_leader_ended || self.is_fin_deferred() {
            EofAction::Skip
        } else {
            EofAction::PassOn
        }
    }

    pub(crate) fn defer_fin(&mut self) {
        self.client_fin = ClientFin::Deferred;
    }

    pub(crate) fn is_fin_deferred(&self) -> bool {
        self.client_fin == ClientFin::Deferred
    }

    /// Ends the wait of a client's FIN.
    pub(crate) fn stop_deferring(&mut self) {
        if self.is_fin_deferred() {
            self.client_fin = ClientFin::Due;
        }
    }

    /// Records that the leader has closed, and that `to_leader` bytes were delivered to it until then.
    pub(crate) fn begin_linger(&mut self, to_leader: u64) {
        self.to_leader_at_linger.get_or_insert(to_leader);
    }

    /// Returns true if no byte was delivered to the leader, which has closed, since the last call; at the first call,
    /// since [`begin_linger`](Self::begin_linger).
    ///
    /// PostgreSQL never half-closes: unless the leader still accepts bytes, the session is over, although an idle
    /// client may notice that only when it next uses its connection.
    pub(crate) fn leader_is_gone(&mut self, to_leader: u64) -> bool {
        self.to_leader_at_linger.replace(to_leader) == Some(to_leader)
    }
}

/// Reads and drops the bytes that the client has sent, before its socket is closed after a FIN. If bytes were left
/// unread, Linux would close with a reset, which may destroy bytes that the client has not read yet.
pub(crate) fn discard_unread<S: Syscalls>(client: &PolledStream, io: &mut IoContext<S>) {
    for _ in 0..MAX_DISCARDED / BUFFER {
        match io.syscalls.recv(&client.stream, &mut io.buffer) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_takes_nothing_after_its_end_is_gone_at_the_first_look() {
        let mut closing = Closing::default();
        closing.begin_linger(5);
        assert!(closing.leader_is_gone(5));
    }

    #[test]
    fn a_leader_that_still_takes_bytes_after_its_end_is_not_gone() {
        let mut closing = Closing::default();
        closing.begin_linger(5);
        assert!(!closing.leader_is_gone(6));
        assert!(closing.leader_is_gone(6));
    }
}
