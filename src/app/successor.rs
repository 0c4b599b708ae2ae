//! The successor's side of a reload: receives the listeners, reports whether it can route, and accepts clients when the
//! old process asks for it.

use std::collections::HashMap;
use std::future::pending;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::inherited::Inherited;
use super::reload::{RouteSlots, members};
use crate::config::VERSION;
use crate::handover::{Channel, ChannelError, FromPredecessor, FromSuccessor, HandoverState, PassedHold, Received};
use crate::leader::observation::{Claim, Observation};
use crate::leader::view::View;
use crate::metrics::Metrics;
use crate::proxy::{Resumed, SESSION_FORMAT, Sessions};
use crate::readiness::{Readiness, ReadinessHandle};
use crate::recorder::Recorder;
use crate::slot::RouteSlot;

/// Time limit for sending or receiving one message. Until this process can take over, the old process sends one every
/// 20 ms.
const PATIENCE: Duration = Duration::from_secs(15);

/// The process that this one replaces.
#[derive(Clone, Debug)]
pub struct Predecessor(Arc<Channel>);

/// The parts of this process that the hand-over uses.
pub(super) struct Facts {
    pub(super) slot: Arc<RouteSlot>,
    pub(super) slots: RouteSlots,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: ReadinessHandle,
    pub(super) recorder: Arc<Recorder>,
    pub(super) view: watch::Receiver<Arc<View>>,
    /// The channel that passes an operator's hold to discovery.
    pub(super) observations: mpsc::Sender<Observation>,
    pub(super) sessions: Sessions,
    /// Cancelled to start accepting clients.
    pub(super) accept: CancellationToken,
    /// Cancelled when this process becomes the service's main process.
    pub(super) main: CancellationToken,
}

impl Predecessor {
    /// Wraps the channel to the old process.
    pub fn new(channel: Channel) -> Self {
        Self(Arc::new(channel))
    }

    /// Tells the old process why this process cannot start.
    pub fn refuse(&self, why: &str) {
        let why = why.trim_end().to_owned();
        // If this fails, the old process sees that this process has ended, or reaches its own deadline.
        let _gone = self.0.send(&FromSuccessor::Refused { why }, &[], &[], PATIENCE);
    }

    /// Sends Hello and receives the listeners. Blocks, usually for a few milliseconds.
    pub(super) fn listeners(&self) -> Result<Inherited> {
        let hello = FromSuccessor::Hello {
            version: VERSION.to_owned(),
            session_format: SESSION_FORMAT,
        };
        let lost = "the process being replaced did not pass its listeners";
        self.0.send(&hello, &[], &[], PATIENCE).context(lost)?;
        let Received { message, files, .. } = self.0.receive(PATIENCE).context(lost)?;
        match message {
            FromPredecessor::Hello { version, listeners, .. } if listeners.len() == files.len() => {
                info!(
                    version,
                    listeners = listeners.len(),
                    "replacing a running pgnorth: received its listeners"
                );
                Ok(Inherited::from_predecessor(listeners, files))
            }
            _ => bail!("{lost}: its first message was not a valid Hello"),
        }
    }

    /// Answers the old process on a separate thread. The returned future completes only if the hand-over fails and this
    /// process must exit.
    pub(super) fn follow(self, facts: Facts) -> Result<impl Future<Output = Result<()>>> {
        let (sender, ended) = oneshot::channel();
        thread::Builder::new()
            .name("hand-over".to_owned())
            .spawn(move || {
                if let Err(error) = self.answer(&facts) {
                    let _process_is_ending = sender.send(error);
                }
            })
            .context("cannot start the hand-over thread")?;
        Ok(async {
            match ended.await {
                Ok(error) => Err(error),
                // The hand-over is complete.
                Err(_) => pending().await,
            }
        })
    }

    /// Answers the old process until the hand-over is complete.
    fn answer(&self, facts: &Facts) -> Result<()> {
        let (mut carried, mut failovers, mut hold) = (HashMap::new(), Vec::new(), None);
        loop {
            let asked = match self.0.receive(PATIENCE) {
                Ok(received) => received,
                // The old process waits for an answer, and still has all sessions of this message.
                Err(error @ (ChannelError::FilesLost | ChannelError::TooLong)) => {
                    self.refuse_sessions(&error)?;
                    continue;
                }
                Err(error) if !facts.accept.is_cancelled() => return Err(given_up(error)),
                // This process already accepts clients, so it continues without the old process.
                Err(error) => {
                    info!(
                        %error,
                        "lost contact with the replaced process before the hand-over was complete; this process \
                         already accepts clients and continues"
                    );
                    facts.main.cancel();
                    return Ok(());
                }
            };
            match asked.message {
                FromPredecessor::Ask { hold: in_force } => {
                    facts.follow_hold(&mut hold, in_force);
                    let state = FromSuccessor::State(facts.state());
                    self.0.send(&state, &[], &[], PATIENCE).map_err(given_up)?;
                }
                FromPredecessor::Failovers { failovers: more } => {
                    // Records that this version cannot read are left out.
                    let more = more.into_iter().map(serde_json::from_value);
                    failovers.extend(more.filter_map(Result::ok));
                }
                FromPredecessor::Take { counters, histograms } => {
                    // Without this answer, the old process accepts again, and this process must not accept at the same
                    // time.
                    self.0
                        .send(&FromSuccessor::Taken, &[], &[], PATIENCE)
                        .map_err(given_up)?;
                    facts.metrics.carry_on(&counters);
                    facts.metrics.carry_histograms(histograms);
                    facts.recorder.carry_on(std::mem::take(&mut failovers));
                    carried = counters.into_iter().collect();
                    facts.accept.cancel();
                }
                FromPredecessor::Sessions { sessions } => {
                    self.take_sessions(facts, sessions, &asked.bytes, asked.files)?;
                }
                FromPredecessor::Done {
                    mut counters,
                    histograms,
                    hold: in_force,
                } => {
                    facts.follow_hold(&mut hold, in_force);
                    facts.metrics.carry_histograms(histograms);
                    for (series, count) in &mut counters {
                        *count = count.saturating_sub(carried.get(series).copied().unwrap_or(0));
                    }
                    facts.metrics.carry_on(&counters);
                    facts.main.cancel();
                    return Ok(());
                }
                FromPredecessor::Hello { .. } => bail!("the process being replaced sent Hello twice"),
            }
        }
    }
}

impl Predecessor {
    /// Takes over sessions. The old process is told before any byte moves, so that it can keep them if this process
    /// dies first.
    fn take_sessions(&self, facts: &Facts, sessions: Vec<Value>, bytes: &[u8], files: Vec<OwnedFd>) -> Result<()> {
        let passed: Result<Vec<_>, _> = sessions.into_iter().map(serde_json::from_value).collect();
        let complete = match passed {
            Ok(passed) => facts.sessions.resume(passed, bytes, files),
            Err(error) => return self.refuse_sessions(&error),
        };
        match complete {
            Ok(resumed) => match self.0.send(&taken(&resumed), &[], &[], PATIENCE) {
                // The old process has ended, so no other process has these sessions.
                Ok(()) | Err(ChannelError::Closed) => {
                    resumed.begin();
                    Ok(())
                }
                Err(error) => Err(given_up(error)),
            },
            Err(error) => self.refuse_sessions(&error),
        }
    }

    fn refuse_sessions(&self, why: &dyn std::fmt::Display) -> Result<()> {
        let refused = FromSuccessor::SessionsRefused { why: why.to_string() };
        self.0.send(&refused, &[], &[], PATIENCE).map_err(given_up)
    }
}

impl Facts {
    fn state(&self) -> HandoverState {
        let snapshot = self.slot.snapshot();
        let ready = self.readiness.now() == Readiness::Ready;
        let (state, members) = (snapshot.state(), members(&self.slots));
        HandoverState::new(&state, &snapshot.reason, ready, members, &self.view.borrow())
    }

    /// Applies the operator's hold of the old process if it has changed since the last call.
    fn follow_hold(&self, last: &mut Option<SystemTime>, in_force: Option<PassedHold>) {
        let until = in_force.map(|hold| hold.until);
        if std::mem::replace(last, until) == until {
            return;
        }
        let at = Instant::now();
        let claim = Claim::Held(in_force.map(|hold| hold.resume(at)));
        // Without discovery, this process is ending.
        let _ending = self.observations.blocking_send(Observation { at, claim });
    }
}

fn taken(resumed: &Resumed) -> FromSuccessor {
    let left = resumed.left.clone();
    FromSuccessor::SessionsTaken { left }
}

fn given_up(error: ChannelError) -> anyhow::Error {
    anyhow!(error).context("this process exits, because it lost contact with the process being replaced")
}
