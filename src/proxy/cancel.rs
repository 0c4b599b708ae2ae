//! Cancel requests: each is sent to the members whose sessions are kept, one after the other, even while clients that
//! want a session are held, and even if its sender has disconnected.
//!
//! A request identifies the backend by its process ID and a secret key. It does not say on which of a route's members
//! the backend runs, so each of them gets the request; a server without that backend ignores it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use super::connect::DialError;
use super::forward::Socket;
use crate::leader::Server;
use crate::slot::Target;

/// Maximum number of cancel requests that are delivered at the same time. PostgreSQL forks a process for each, as for a
/// session.
pub(super) const CANCELS: usize = 64;
/// Maximum time for a delivery to one member, up to the member's close. PostgreSQL signals the backend and closes
/// immediately.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Shared {
    /// Delivers the request. Returns true if it was sent to a leader. A leader closes the connection after it has
    /// signalled the backend; libpq waits for this close.
    pub(super) async fn deliver_cancel(&self, client: &Socket, peer: SocketAddr, request: &[u8]) -> bool {
        let targets: Vec<_> = self.route.slot.snapshot().kept().collect();
        if targets.is_empty() {
            debug!(%peer, "dropped a cancel request: its route has no server now");
        }
        let mut sent = false;
        // The members are dialled one after the other, because a client's socket has one peer at a time.
        for target in targets {
            sent |= self.deliver_to(target, client, peer, request).await;
        }
        sent
    }

    async fn deliver_to(&self, target: Target, client: &Socket, peer: SocketAddr, request: &[u8]) -> bool {
        let mut sent = false;
        let delivery = timeout(TIMEOUT, self.send_cancel(client, &target.server, request, &mut sent));
        tokio::select! {
            biased;
            () = target.ended() => {}
            in_time = delivery => if !matches!(in_time, Ok(Ok(()))) {
                debug!(
                    %peer, leader = %target.server, ?in_time,
                    "a cancel request was not sent, or the server did not close the connection after it"
                );
            },
        }
        sent
    }

    async fn send_cancel(
        &self,
        client: &Socket,
        leader: &Server,
        request: &[u8],
        sent: &mut bool,
    ) -> Result<(), DialError> {
        let _permit = self.cancels.acquire().await;
        let socket = self.dial(client, leader, None).await?;
        socket.send(request).await?;
        *sent = true;
        self.traffic.to_leader.inc_by(request.len() as u64);
        while !socket.receive().await?.is_empty() {}
        Ok(())
    }
}
