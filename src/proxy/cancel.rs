//! CancelRequests: each goes at once to the leader whose sessions stay, while clients that want a session are held, and whether or not its sender is still there.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use super::connect::DialError;
use super::forward::Socket;
use crate::leader::Leader;

/// Cancellations that are delivered at once: PostgreSQL forks a process for each, as for a session.
pub(super) const CANCELS: usize = 64;
/// From the request to the leader's close. PostgreSQL signals the backend and closes at once; a leader that does not will not.
const TIMEOUT: Duration = Duration::from_secs(10);

impl Shared {
    /// Tells whether the request was sent to a leader. Where that closes the connection, it has done what was asked for: libpq waits for this.
    pub(super) async fn deliver_cancel(&self, client: &Socket, peer: SocketAddr, request: &[u8]) -> bool {
        let Some(lease) = self.context.slot.snapshot().kept() else {
            debug!(%peer, "a cancel request was dropped: there is no leader whose sessions stay");
            return false;
        };
        let mut sent = false;
        let delivery = timeout(TIMEOUT, self.send_cancel(client, &lease.leader, request, &mut sent));
        tokio::select! {
            biased;
            () = lease.ended() => {}
            in_time = delivery => if !matches!(in_time, Ok(Ok(()))) {
                debug!(%peer, leader = %lease.leader, ?in_time, "a cancel request was not answered by an end of the connection");
            },
        }
        sent
    }

    async fn send_cancel(
        &self,
        client: &Socket,
        leader: &Leader,
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
