//! Starts the proxy in place of another process, and hands over to a successor.

use std::future::pending;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{ADMIN, Bound};
use crate::app::BoundRoute;
use crate::app::inherited::Listeners;
use crate::app::reload::{self, Attempt, ReloadError, Replies, Request, Requests, Successor};
use crate::app::successor::{self, Predecessor};
use crate::app::{ended_early, no_error};
use crate::leader::observation::Observation;
use crate::metrics::SessionState;
use crate::systemd::Notifier;

/// The result of a request for a reload.
pub(super) enum Reload {
    /// This process continues.
    Failed,
    /// This process shuts down, as was requested during the reload.
    Aborted,
    /// A successor has taken over.
    Done(Replaced),
}

/// The state of this process after a successor has taken over.
pub(super) struct Replaced {
    successor: Successor,
    replies: Replies,
    /// True if a shutdown was requested during the reload.
    shutdown: bool,
}

impl Bound {
    /// Starts to accept clients, immediately or when the replaced process asks for it, and to report to the service
    /// manager.
    pub(super) fn begin(
        &mut self,
        predecessor: Option<Predecessor>,
        observations: mpsc::Sender<Observation>,
    ) -> Result<()> {
        match predecessor {
            None => {
                self.accept.cancel();
                self.service.main.cancel();
            }
            Some(predecessor) => {
                let following = predecessor.follow(successor::Facts {
                    slot: self.state.slot.clone(),
                    slots: self.slots.clone(),
                    metrics: self.state.metrics.clone(),
                    readiness: self.state.readiness.clone(),
                    recorder: self.state.recorder.clone(),
                    view: self.state.view.subscribe(),
                    observations,
                    sessions: self.sessions.clone(),
                    accept: self.accept.clone(),
                    main: self.service.main.clone(),
                })?;
                self.tasks.spawn(async { ("the hand-over", following.await) });
            }
        }
        let reporting = self.service.clone().report();
        self.tasks
            .spawn(async { ("the service's status", no_error(reporting).await) });
        let (accept, routes, admin) = (self.accept.clone(), self.routes.clone(), self.admin);
        self.tasks.spawn(async move {
            accept.cancelled().await;
            for (place, bound) in routes.iter().enumerate() {
                let BoundRoute {
                    kind,
                    upstream,
                    address,
                    ..
                } = bound;
                match place {
                    0 => info!(postgres = %address, %admin, "listening"),
                    _ => info!(route = %kind, target = %upstream, %address, "listening for clients of an additional route"),
                }
            }
            pending().await
        });
        Ok(())
    }

    /// Tries to hand over to a successor.
    ///
    /// # Errors
    /// Returns the cause if a long-lived task ends during the reload.
    pub(super) async fn reload(&mut self, request: Request) -> Result<Reload> {
        let Request { by, change, replies } = request;
        info!(by, "reload requested");
        if let Some(why) = reload::unsupported(self.start.is_successor) {
            return Ok(self.not_reloaded(replies, &ReloadError::Unsupported(why)).await);
        }
        self.service.notifier.reloading();
        let listeners = match self.listeners.copies() {
            Ok(listeners) => listeners,
            Err(error) => return Ok(self.not_reloaded(replies, &ReloadError::Listeners(error)).await),
        };
        let aborted = CancellationToken::new();
        let attempt = Attempt {
            start: self.start.clone(),
            change,
            listeners,
            slot: self.state.slot.clone(),
            slots: self.slots.clone(),
            metrics: self.state.metrics.clone(),
            recorder: self.state.recorder.clone(),
            view: self.state.view.subscribe(),
            drain: self.drain.clone(),
            sessions: self.sessions.clone(),
            aborted: aborted.clone(),
        };
        // The attempt ends soon after it is aborted, so that no successor outlives this process unnoticed.
        let _abort = aborted.clone().drop_guard();
        let mut attempt = tokio::task::spawn_blocking(|| attempt.run());
        let outcome = tokio::select! {
            outcome = &mut attempt => outcome?,
            Some(task) = self.tasks.join_next() => return Err(ended_early(task)),
            by = self.shutdown.requested() => {
                info!(by, "shutdown requested during a reload");
                aborted.cancel();
                attempt.await?
            }
        };
        match outcome {
            Ok(successor) => Ok(Reload::Done(Replaced {
                successor,
                replies,
                shutdown: aborted.is_cancelled(),
            })),
            Err(error) => {
                let failed = self.not_reloaded(replies, &error).await;
                Ok(if aborted.is_cancelled() {
                    Reload::Aborted
                } else {
                    failed
                })
            }
        }
    }

    async fn not_reloaded(&self, replies: Replies, error: &ReloadError) -> Reload {
        warn!(%error, "not reloaded; this process keeps its settings");
        self.listeners.keep_ports();
        self.service.ready();
        let text = format!("not reloaded: {error}; the running process keeps its settings");
        replies.send(false, text).await;
        Reload::Failed
    }

    /// Stops accepting, because the successor accepts, and lets sessions finish while discovery follows the leader.
    /// After a request to shut down, sessions have `--drain` to finish.
    pub(super) async fn retire(mut self, replaced: Replaced) -> Result<()> {
        let Replaced {
            successor,
            replies,
            shutdown,
        } = replaced;
        self.drain.pause_accepting(true);
        self.drain.stop_accepting();
        self.listeners = Listeners::default();
        self.stop_admin.cancel();
        self.service.notifier.main_process(successor.pid());
        // From here on, systemd accepts notifications from the successor only.
        self.service.notifier = Notifier::default();
        successor.done(&self.state.metrics, reload::operator_hold(&self.state.view.borrow()));
        let pid = successor.pid();
        replies
            .send(true, format!("reloaded: process {pid} has taken over"))
            .await;
        let open = self.state.metrics.sessions(SessionState::Forwarding).get();
        info!(
            successor = pid,
            sessions = open,
            "reloaded: the new process accepts clients; this process exits when its remaining sessions have ended"
        );
        self.lame_duck = Duration::ZERO;
        if shutdown {
            return self.shut_down().await;
        }
        let drain = self.drain.clone();
        let mut finishing = self
            .runtime
            .handle()
            .spawn(async move { drain.finish(Duration::MAX).await });
        loop {
            tokio::select! {
                _ = &mut finishing => {
                    info!("every session finished");
                    return Ok(());
                }
                Some(task) = self.tasks.join_next() => if !matches!(task, Ok((ADMIN, Ok(())))) {
                    return Err(ended_early(task));
                },
                by = self.shutdown.requested() => {
                    info!(by, "shutdown requested");
                    break;
                }
            }
        }
        self.shut_down().await
    }
}

/// Waits for a request for a reload. A successor accepts no request before it has replaced the old process.
pub(super) async fn next_after(main: &CancellationToken, reloads: &mut Requests) -> Request {
    main.cancelled().await;
    reloads.next().await
}
