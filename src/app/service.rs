//! Reports to the service manager: readiness, a status line, and the watchdog's heartbeat.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::AppState;
use crate::leader::RoutingState;
use crate::liveness::Liveness;
use crate::metrics::{Metrics, SessionState};
use crate::slot::{RouteSlot, RouteSnapshot};
use crate::systemd::{Notifier, watchdog_interval};

/// Interval at which the status line is updated with the number of sessions.
const REFRESH: Duration = Duration::from_secs(10);

/// The process as its service manager sees it. Only the main process reports.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) notifier: Notifier,
    watchdog: Option<Duration>,
    slot: Arc<RouteSlot>,
    metrics: Arc<Metrics>,
    liveness: Liveness,
    has_sessions: bool,
    /// Cancelled when this process becomes the main process.
    pub(super) main: CancellationToken,
    /// Cancelled when this process has been replaced, or shuts down.
    pub(super) over: CancellationToken,
}

impl Service {
    /// Returns the service of a process that is not yet the main process.
    pub(super) fn new(notifier: Notifier, state: &AppState) -> Self {
        let variable = |name| std::env::var_os(name);
        Self {
            notifier,
            watchdog: watchdog_interval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID")),
            slot: state.slot.clone(),
            metrics: state.metrics.clone(),
            liveness: state.liveness.clone(),
            has_sessions: true,
            main: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// Reports while this is the main process. Runs on the control thread, so that the watchdog notices if that thread
    /// is stuck. Never returns.
    pub(super) async fn report(self) {
        if self.notifier.is_on() {
            self.main.cancelled().await;
            self.ready();
            tokio::select! {
                () = self.over.cancelled() => {}
                () = self.keep_status() => {}
                () = self.feed() => {}
            }
        }
        std::future::pending().await
    }

    /// Returns the service of a process that is never replaced and has no sessions.
    pub(super) fn without_sessions(notifier: Notifier, state: &AppState) -> Self {
        let service = Self {
            has_sessions: false,
            ..Self::new(notifier, state)
        };
        service.main.cancel();
        service
    }

    /// Reports that the process shuts down.
    pub(super) fn stopping(&self) {
        self.over.cancel();
        self.notifier.stopping();
    }

    /// Reports that the process serves.
    pub(super) fn ready(&self) {
        self.notifier.ready(&self.status(&self.slot.snapshot()));
    }

    async fn keep_status(&self) {
        loop {
            // Keeping the snapshot would delay the end of its epoch.
            let (status, replaced) = {
                let snapshot = self.slot.snapshot();
                (self.status(&snapshot), snapshot.replaced())
            };
            self.notifier.status(&status);
            tokio::select! {
                () = replaced => {}
                () = sleep(REFRESH) => {}
            }
        }
    }

    /// Feeds the watchdog while no thread is stuck.
    async fn feed(&self) {
        let Some(every) = self.watchdog else {
            return std::future::pending().await;
        };
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.liveness.stuck().is_none() {
                self.notifier.watchdog();
            }
        }
    }

    fn status(&self, snapshot: &RouteSnapshot) -> String {
        if !self.has_sessions {
            return match &snapshot.state() {
                RoutingState::Route(leader) => format!("the primary is {}", leader.member),
                RoutingState::Hold(_) | RoutingState::Fence => {
                    format!("no primary for new clients: {}", snapshot.reason)
                }
            };
        }
        let count = |state| self.metrics.sessions(state).get();
        let (open, held) = (count(SessionState::Forwarding), count(SessionState::Held));
        match &snapshot.state() {
            RoutingState::Route(leader) => format!("routing to {}, {open} sessions", leader.member),
            RoutingState::Hold(_) => format!("holding {held} clients: {}; {open} sessions", snapshot.reason),
            RoutingState::Fence => format!("fencing, {held} clients wait: {}", snapshot.reason),
        }
    }
}
