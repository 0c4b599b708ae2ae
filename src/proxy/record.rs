//! What is written down about one session: the gauges while it lives, one counter and one log line when it ends.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::Context;
use super::forward::Socket;
use crate::ending::Ending;
use crate::leader::Leader;
use crate::metrics::SessionState;

/// One session's record. Dropped without an ending, as in a panic, it still leaves the gauges right.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) context: Arc<Context>,
    pub(super) peer: SocketAddr,
    state: SessionState,
    pub(super) begun: Instant,
    dialled_at: Option<Instant>,
    reached: Option<(Arc<Leader>, u16, Instant)>,
}

impl Record {
    /// Of a session that begins now, with its client held.
    pub(super) fn open(context: Arc<Context>, peer: SocketAddr) -> Self {
        context.metrics.sessions(SessionState::Held).inc();
        Self {
            context,
            peer,
            state: SessionState::Held,
            begun: Instant::now(),
            dialled_at: None,
            reached: None,
        }
    }

    fn enter(&mut self, state: SessionState) {
        let metrics = &self.context.metrics;
        metrics.sessions(self.state).dec();
        metrics.sessions(state).inc();
        self.state = state;
    }

    pub(super) fn held(&mut self) {
        self.enter(SessionState::Held);
    }

    pub(super) fn dialling(&mut self) {
        self.dialled_at = Some(Instant::now());
        self.enter(SessionState::Dialling);
    }

    /// The leader was reached through `socket`.
    pub(super) fn forwarding(&mut self, leader: &Arc<Leader>, socket: &Socket) {
        // Under this port PostgreSQL shows the session (pg_stat_activity.client_port). It costs a system call, so only who will read it pays.
        let port = if tracing::enabled!(tracing::Level::DEBUG) {
            socket.local_addr().map_or(0, |address| address.port())
        } else {
            0
        };
        self.reached = Some((leader.clone(), port, Instant::now()));
        self.enter(SessionState::Forwarding);
        let dialled_at = self.dialled_at.unwrap_or(self.begun);
        self.observe_hold(dialled_at);
        self.context
            .recorder
            .session(leader, dialled_at.duration_since(self.begun));
    }

    /// The client was given up before a leader was reached.
    pub(super) fn gave_up(&self) {
        self.observe_hold(Instant::now());
    }

    /// `moved`: bytes delivered to the leader, and to the client.
    pub(super) fn end(self, ending: Ending, moved: (u64, u64)) {
        self.context.metrics.ended(ending);
        let reached = self.reached.as_ref();
        debug!(
            peer = %self.peer,
            leader = reached.map(|(leader, ..)| tracing::field::display(leader)),
            leader_side_port = reached.map(|(_, port, _)| *port),
            %ending,
            bytes_to_leader = moved.0,
            bytes_to_client = moved.1,
            reached_after = reached.map(|(.., at)| tracing::field::debug(at.duration_since(self.begun))),
            lasted = ?self.begun.elapsed(),
            "session ended"
        );
    }

    fn observe_hold(&self, until: Instant) {
        self.context
            .metrics
            .hold_seconds
            .observe(until.duration_since(self.begun).as_secs_f64());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.context.metrics.sessions(self.state).dec();
    }
}
