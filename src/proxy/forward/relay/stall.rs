//! Keeps TCP_USER_TIMEOUT from ending the connection of a peer that is alive and merely does not read.
//!
//! Linux counts a closed window as silence. It cuts off a peer that acknowledges every probe but reads nothing for
//! longer than TCP_USER_TIMEOUT, such as a COPY that waits for a lock, or a pg_dump whose disk is slow. (Measured on
//! Linux 6.18: with 5 s, ETIMEDOUT after 5.6 s, even if no send(2) ever blocked.) So the option is off while a socket
//! has *unsent* bytes, and on again afterwards. Bytes in flight that the peer does not acknowledge are still noticed in
//! time; a host that vanishes during a session of queries and answers leaves such bytes.
//!
//! One case remains: a peer that vanishes while bytes for it are unsent. On the leader's side the end of its epoch
//! comes first; on the client's side the kernel gives up by itself (tcp_retries2).

use std::net::TcpStream;
use std::time::Duration;

use rustix::net::sockopt::set_tcp_user_timeout;
use serde::{Deserialize, Serialize};

use crate::proxy::forward::reactor::has_unsent;

/// The sockets whose TCP_USER_TIMEOUT is switched off.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stall {
    client: bool,
    leader: bool,
}

impl Stall {
    /// Returns true if the option of a socket is switched off, so that the socket has to be checked again.
    pub(crate) fn is_active(&self) -> bool {
        self.client || self.leader
    }

    /// Switches the option off or on, as each socket needs. The durations are the sockets' TCP_USER_TIMEOUT; zero
    /// leaves a socket unchanged. Must be called several times in that time while there may be unsent bytes.
    pub(crate) fn check(&mut self, client: (&TcpStream, Duration), leader: (&TcpStream, Duration)) {
        for (is_off, (socket, user_timeout)) in [(&mut self.client, client), (&mut self.leader, leader)] {
            if user_timeout.is_zero() {
                // Another process may have switched the option off. That is what zero means, so it stays off.
                *is_off = false;
                continue;
            }
            let unsent = has_unsent(socket);
            let timeout = if unsent { Duration::ZERO } else { user_timeout };
            if unsent != *is_off && set(socket, timeout) {
                *is_off = unsent;
            }
        }
    }
}

fn set(socket: &TcpStream, timeout: Duration) -> bool {
    let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    set_tcp_user_timeout(socket, millis).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use rustix::net::sockopt::tcp_user_timeout;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(7);

    /// Makes a connection whose second end has TCP_USER_TIMEOUT set; returns the peer's end first.
    fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (own, _) = listener.accept().unwrap();
        own.set_nonblocking(true).unwrap();
        assert!(set(&own, TIMEOUT));
        (peer, own)
    }

    /// Sends until the peer's window and the own buffer are full; returns the number of bytes.
    fn fill(mut own: &TcpStream) -> usize {
        std::iter::from_fn(|| own.write(&[7; 65_536]).ok()).sum()
    }

    #[test]
    fn the_timeout_is_off_while_a_peer_does_not_read() {
        let off = |stream: &TcpStream| tcp_user_timeout(stream).unwrap() == 0;
        for stalled in [0, 1] {
            let ends = [connected(), connected()];
            let [client, leader] = [&ends[0].1, &ends[1].1];
            let mut stall = Stall::default();
            let mut check = || {
                stall.check((client, TIMEOUT), (leader, TIMEOUT));
                (stall.is_active(), [client, leader].map(off))
            };
            assert_eq!(check(), (false, [false; 2]), "nothing is unsent");

            let (mut peer, own) = (&ends[stalled].0, &ends[stalled].1);
            let sent = fill(own);
            assert_eq!(check(), (true, [0, 1].map(|side| side == stalled)));
            // The last byte arrives only after every byte before it was sent.
            peer.read_exact(&mut vec![0; sent]).unwrap();
            assert_eq!(check(), (false, [false; 2]), "everything was read");
            assert_eq!(tcp_user_timeout(own).unwrap(), TIMEOUT.as_millis() as u32);
        }
    }

    #[test]
    fn a_session_of_a_process_with_a_timeout_is_not_checked_for_ever_without_one() {
        let (_peer, own) = connected();
        assert!(set(&own, Duration::ZERO));
        let mut stall = Stall {
            client: true,
            leader: true,
        };
        stall.check((&own, Duration::ZERO), (&own, Duration::ZERO));
        assert!(!stall.is_active());
        assert_eq!(tcp_user_timeout(&own).unwrap(), 0, "the system default applies");
    }

    #[test]
    fn the_system_default_is_left_alone() {
        let (_peer, own) = connected();
        fill(&own);
        let mut stall = Stall::default();
        stall.check((&own, Duration::ZERO), (&own, Duration::ZERO));
        assert!(!stall.is_active());
        assert_eq!(tcp_user_timeout(&own).unwrap(), TIMEOUT.as_millis() as u32);
    }
}
