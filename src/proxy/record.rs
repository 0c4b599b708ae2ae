//! The record of one session: gauges while it is open, a counter and a log line when it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::debug;

use super::forward::{Socket, Transferred};
use super::{Dependencies, Route};
use crate::ending::Ending;
use crate::leader::Server;
use crate::metrics::SessionState;
use crate::route::{RouteKind, Upstream};

/// The leader that a session has reached.
#[derive(Debug)]
struct Reached {
    leader: Arc<Server>,
    /// Local address of the connection to the leader, under which PostgreSQL shows the session; `None` unless it will
    /// be logged. It is boxed, because every session has this field and few have an address.
    leader_side: Option<Box<SocketAddr>>,
}

/// A record as it is handed over to another process. Its times are ages.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct PassedRecord {
    begun: Duration,
    reached: Duration,
}

/// One session's record. The gauges stay correct even if it is dropped without an ending, as in a panic.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) dependencies: Arc<Dependencies>,
    pub(super) route: RouteKind,
    pub(super) upstream: Upstream,
    pub(super) peer: SocketAddr,
    state: SessionState,
    pub(super) begun: Instant,
    /// Start of the last dial; once the leader is reached, the time at which it was reached.
    changed_at: Instant,
    reached: Option<Reached>,
}

impl Record {
    /// Opens the record of a session whose client has been held since `begun`.
    pub(super) fn open(dependencies: Arc<Dependencies>, route: &Route, peer: SocketAddr, begun: Instant) -> Self {
        dependencies.metrics.sessions(SessionState::Held).inc();
        Self {
            dependencies,
            route: route.kind,
            upstream: route.upstream,
            peer,
            state: SessionState::Held,
            begun,
            changed_at: begun,
            reached: None,
        }
    }

    /// Returns the record of a forwarded session, for another process.
    pub(super) fn passed(&self) -> PassedRecord {
        PassedRecord {
            begun: self.begun.elapsed(),
            reached: self.changed_at.elapsed(),
        }
    }

    /// Returns the record of a session that another process forwarded before.
    pub(super) fn resumed(
        dependencies: Arc<Dependencies>,
        route: &Route,
        peer: SocketAddr,
        passed: &PassedRecord,
        (leader, leader_side): (&Arc<Server>, Option<SocketAddr>),
    ) -> Self {
        let ago = |age| Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        dependencies.metrics.sessions(SessionState::Forwarding).inc();
        Self {
            dependencies,
            route: route.kind,
            upstream: route.upstream,
            peer,
            state: SessionState::Forwarding,
            begun: ago(passed.begun),
            changed_at: ago(passed.reached),
            reached: Some(Reached {
                leader: leader.clone(),
                leader_side: leader_side.map(Box::new),
            }),
        }
    }

    fn enter(&mut self, state: SessionState) {
        let metrics = &self.dependencies.metrics;
        metrics.sessions(self.state).dec();
        metrics.sessions(state).inc();
        self.state = state;
    }

    pub(super) fn held(&mut self) {
        self.enter(SessionState::Held);
    }

    pub(super) fn dialling(&mut self) {
        self.changed_at = Instant::now();
        self.enter(SessionState::Dialling);
    }

    /// Records that the leader was reached through `socket`.
    pub(super) fn forwarding(&mut self, leader: &Arc<Server>, socket: &Socket) {
        // The address costs a system call, so it is read only if it will be logged.
        let leader_side = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| socket.local_addr().ok())
            .flatten();
        debug!(peer = %self.peer, route = %self.route, %leader, leader_side = leader_side.map(tracing::field::display), "session begins");
        self.reached = Some(Reached {
            leader: leader.clone(),
            leader_side: leader_side.map(Box::new),
        });
        self.enter(SessionState::Forwarding);
        let dialled_at = std::mem::replace(&mut self.changed_at, Instant::now());
        self.observe_hold(dialled_at);
        if self.route == RouteKind::Primary {
            self.dependencies
                .recorder
                .session(leader, dialled_at.duration_since(self.begun));
        }
    }

    /// Records that the client gave up, or was refused, before a leader was reached.
    pub(super) fn gave_up(&self) {
        self.observe_hold(Instant::now());
    }

    /// Counts and logs the end of the session.
    pub(super) fn end(self, ending: Ending, transferred: Transferred) {
        self.dependencies.metrics.ended(ending);
        let reached = self.reached.as_ref();
        debug!(
            peer = %self.peer,
            leader = reached.map(|reached| tracing::field::display(&reached.leader)),
            leader_side = reached.and_then(|reached| reached.leader_side.as_deref()).map(tracing::field::display),
            %ending,
            bytes_to_leader = transferred.to_leader,
            bytes_to_client = transferred.to_client,
            reached_after = reached.map(|_| tracing::field::debug(self.changed_at.duration_since(self.begun))),
            lasted = ?self.begun.elapsed(),
            "session ended"
        );
    }

    fn observe_hold(&self, until: Instant) {
        self.dependencies
            .metrics
            .hold_seconds
            .record(until.duration_since(self.begun));
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.dependencies.metrics.sessions(self.state).dec();
    }
}
