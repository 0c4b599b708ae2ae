//! Keeps TCP_USER_TIMEOUT from killing a peer that is alive and merely does not read.
//!
//! The trap: Linux counts a closed window as silence. A peer that acknowledges every probe, but reads nothing for longer than TCP_USER_TIMEOUT, is
//! cut off: a COPY that waits for a lock, a pg_dump whose disk is slow. Measured on Linux 6.18: with 5 s, ETIMEDOUT after 5.6 s, even when no send(2)
//! ever blocked. So while a socket has *unsent* bytes the option is off, and it is on again afterwards; bytes in flight that nobody acknowledges,
//! which is how a vanished peer looks to a session of queries and answers, are still noticed in time. What remains is a peer that vanishes while its
//! window was full: on the leader's side the end of its epoch comes first, on the client's the kernel's own patience (tcp_retries2).

use std::net::TcpStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_tcp_user_timeout;

use crate::proxy::socket;

/// Which sockets have their TCP_USER_TIMEOUT lifted.
#[derive(Debug, Default)]
pub(super) struct Stall {
    client: bool,
    leader: bool,
}

impl Stall {
    /// Whether any is lifted, so that it has to be checked again.
    pub(super) fn seen(&self) -> bool {
        self.client || self.leader
    }

    /// To be called, with each socket's TCP_USER_TIMEOUT, at least four times in that time while there may be unsent bytes.
    pub(super) fn check(&mut self, client: (&TcpStream, Duration), leader: (&TcpStream, Duration)) {
        for (lifted, (socket, user_timeout)) in [(&mut self.client, client), (&mut self.leader, leader)] {
            if user_timeout.is_zero() {
                continue;
            }
            let unsent = has_unsent(socket);
            let timeout = if unsent { Duration::ZERO } else { user_timeout };
            if unsent != *lifted && set(socket, timeout) {
                *lifted = unsent;
            }
        }
    }
}

fn set(socket: &TcpStream, timeout: Duration) -> bool {
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    set_tcp_user_timeout(socket, millis).is_ok()
}

/// Whether the kernel holds bytes that it has not yet sent for the first time. There is no safe call for SIOCOUTQNSD, but a socket with
/// TCP_NOTSENT_LOWAT = 1 is writable exactly when there are none (and its buffer isn't full). Afterwards the option is what it was. An error counts as none.
fn has_unsent(stream: &TcpStream) -> bool {
    let Ok(before) = socket::notsent_lowat(stream) else {
        return false;
    };
    let unsent = ask_for_unsent(stream);
    let _gone = socket::set_notsent_lowat(stream, before);
    unsent
}

/// As above, and leaves the option at 1: from now on epoll tells when all is sent, if it watches for room.
pub(super) fn ask_for_unsent(stream: &TcpStream) -> bool {
    if socket::set_notsent_lowat(stream, 1).is_err() {
        return false;
    }
    let mut asked = [PollFd::new(stream, PollFlags::OUT)];
    matches!(poll(&mut asked, Some(&Timespec::default())), Ok(0))
}
