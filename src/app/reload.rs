//! Replaces this process with a successor: starts the binary that is now on disk, passes it the listeners, waits until
//! it can take over, and passes it the waiting clients and the sessions. `reload/requests.rs` receives the requests;
//! `successor.rs` is the successor's side.
//!
//! Until the successor confirms that it accepts clients, this process keeps its listeners, and continues after any
//! failure.

mod command;
mod passing;
mod requests;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub(super) use self::command::run as run_command;
use self::passing::Passing;
pub(super) use self::requests::{Change, Replies, Request, Requests};
use crate::config::{VERSION, with_flags};
use crate::drain::Drain;
use crate::handover::{
    Channel, ChannelError, FromPredecessor, FromSuccessor, HandoverState, PREDECESSOR, PassedHold, PassedListener,
};
use crate::leader::view::View;
use crate::metrics::Metrics;
use crate::proxy::{SESSION_FORMAT, Sessions};
use crate::recorder::Recorder;
use crate::route::RouteKind;
use crate::slot::RouteSlot;
use crate::systemd::OF_ONE_PROCESS;

/// Time for the successor to read its settings and send Hello.
const HELLO: Duration = Duration::from_secs(15);
/// Time from the start of the successor until it must be able to take over. systemd gives a reload 90 s by default.
const READY: Duration = Duration::from_secs(60);
/// Time for each answer of the successor after Hello.
const ANSWER: Duration = Duration::from_secs(10);
/// Time for the successor to find every member that has sessions here. The reload does not depend on it: the successor
/// may have other limits for replicas, or a member may be about to lose its sessions.
const MEMBERS: Duration = Duration::from_secs(10);
/// Number of records of changes of leader in one message; each has a few hundred bytes.
const FAILOVERS: usize = 20;
/// Interval at which the successor is asked for its state, and at which an aborted attempt is noticed.
const ASK: Duration = Duration::from_millis(20);

/// The parameters with which this process was started.
#[derive(Clone, Debug, Default)]
pub(super) struct StartParameters {
    /// The arguments, beginning with the program.
    pub(super) arguments: Vec<OsString>,
    /// True if this process was started to replace another pgnorth.
    pub(super) is_successor: bool,
}

/// The slots of all routes.
pub(super) type RouteSlots = Vec<(RouteKind, Arc<RouteSlot>)>;

/// Returns every member whose sessions are kept, with its route.
pub(super) fn members(slots: &RouteSlots) -> Vec<String> {
    let of = |(kind, slot): &(RouteKind, Arc<RouteSlot>)| {
        let members: Vec<_> = slot
            .snapshot()
            .kept()
            .map(|target| format!("{} {}", kind.as_str(), target.server))
            .collect();
        members
    };
    slots.iter().flat_map(of).collect()
}

/// Returns the operator's hold that is in force, for the successor.
pub(super) fn operator_hold(view: &View) -> Option<PassedHold> {
    view.operator_hold().map(|hold| PassedHold::new(hold, Instant::now()))
}

/// One attempt to hand over to a successor.
pub(super) struct Attempt {
    pub(super) start: StartParameters,
    pub(super) change: Change,
    pub(super) listeners: (Vec<PassedListener>, Vec<OwnedFd>),
    pub(super) slot: Arc<RouteSlot>,
    pub(super) slots: RouteSlots,
    pub(super) metrics: Arc<Metrics>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) view: watch::Receiver<Arc<View>>,
    pub(super) drain: Drain,
    pub(super) sessions: Sessions,
    /// Cancelled to abort the attempt.
    pub(super) aborted: CancellationToken,
}

/// A process that accepts clients in place of this one.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    channel: Channel,
}

/// Reasons why this process was not replaced. The text follows "not reloaded:".
#[derive(Debug, Error)]
pub(super) enum ReloadError {
    #[error("{0}")]
    Unsupported(&'static str),
    #[error("cannot copy the listeners: {0}")]
    Listeners(#[source] io::Error),
    #[error("the arguments of this process cannot be combined with the flags of `pgnorth reload`")]
    Flags,
    #[error("cannot start {program:?}: {error}")]
    Start {
        program: OsString,
        #[source]
        error: io::Error,
    },
    #[error("the new process could not start: {0}")]
    Refused(String),
    #[error("the new process exited before it took over ({0}); see its log lines")]
    Ended(ExitStatus),
    #[error("the hand-over to the new process failed: {0}")]
    Channel(#[from] ChannelError),
    #[error("the new process sent an unexpected message; its version may be incompatible with this one")]
    OutOfTurn,
    #[error(
        "the new process was not ready to take over within {}: it reports {new:?}; this process reports {old:?}",
        humantime::format_duration(READY)
    )]
    NotReady { new: String, old: String },
    #[error(
        "the new process failed after it had taken over {taken} sessions and held clients, which ended with it: {error}"
    )]
    LostWithSessions {
        taken: usize,
        #[source]
        error: Box<Self>,
    },
    #[error("a shutdown was requested during the reload")]
    Aborted,
}

/// Returns the reason why this process cannot be replaced, if there is one.
pub(super) fn unsupported(is_successor: bool) -> Option<&'static str> {
    let alone = std::env::var_os("NOTIFY_SOCKET").is_none() && !is_successor;
    if std::process::id() == 1 {
        return Some(
            "this process is pid 1: the container would stop with it; deploy a new container instead (a rolling update \
             keeps the Service address)",
        );
    }
    if alone && std::env::var_os("INVOCATION_ID").is_some() {
        return Some(
            "systemd runs this service without Type=notify, and would stop it when this process exits; set Type=notify \
             in the unit, or use `systemctl restart`",
        );
    }
    if alone && std::os::unix::process::parent_id() == 1 {
        return Some(
            "the parent of this process is pid 1, which would not learn about a new process (NOTIFY_SOCKET is not set) \
             and may stop it when this process exits; restart the service or the container instead",
        );
    }
    None
}

impl Attempt {
    /// Starts the successor, waits until it accepts clients, and passes it the sessions. Blocks; each step has a
    /// deadline. After a failure, the successor has ended.
    pub(super) fn run(self) -> Result<Successor, ReloadError> {
        let (channel, other) = Channel::pair().map_err(ChannelError::Io)?;
        let mut child = self.spawn(other)?;
        info!(successor = child.id(), "reload: the new process has started");
        match self.hand_over(&channel, &mut child) {
            Ok(()) => Ok(Successor { child, channel }),
            Err(error) => {
                let closed = matches!(error, ReloadError::Channel(ChannelError::Closed));
                let status = if closed { wait(&mut child) } else { None };
                // The successor may have ended, or may hang.
                let _ended = child.kill();
                let _status = child.wait();
                Err(status.map_or(error, ReloadError::Ended))
            }
        }
    }

    fn spawn(&self, stdin: OwnedFd) -> Result<Child, ReloadError> {
        let mut arguments = self.start.arguments.clone();
        if !self.change.flags.is_empty() {
            arguments = with_flags(arguments, &self.change.flags).ok_or(ReloadError::Flags)?;
        }
        let program = arguments.first().cloned().unwrap_or_default();
        let mut command = Command::new(&program);
        command.args(&arguments[1..]);
        if let Some(variables) = &self.change.environment {
            let kept = ["NOTIFY_SOCKET", "WATCHDOG_USEC"];
            let kept = kept.map(|name| (name, std::env::var_os(name)));
            command
                .env_clear()
                .envs(variables.iter().map(|(name, value)| (name, value)));
            command.envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))));
        }
        for name in OF_ONE_PROCESS {
            command.env_remove(name);
        }
        command.env(PREDECESSOR, std::process::id().to_string());
        let spawned = command.stdin(Stdio::from(stdin)).spawn();
        spawned.map_err(|error| ReloadError::Start { program, error })
    }

    fn hand_over(&self, channel: &Channel, child: &mut Child) -> Result<(), ReloadError> {
        let deadline = Instant::now() + READY;
        let (version, session_format) = match self.receive(channel, HELLO)? {
            FromSuccessor::Hello {
                version,
                session_format,
            } => (version, session_format),
            FromSuccessor::Refused { why } => return Err(ReloadError::Refused(why)),
            _ => return Err(ReloadError::OutOfTurn),
        };
        info!(
            version,
            "reload: the new process has read its settings and now gets the listeners"
        );
        let (listeners, files) = &self.listeners;
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        let hello = FromPredecessor::Hello {
            version: VERSION.to_owned(),
            listeners: listeners.clone(),
            session_format: SESSION_FORMAT,
        };
        tell(channel, &hello, &files)?;
        self.wait_until_ready(channel, deadline)?;
        self.drain.pause_accepting(true);
        let taken_over = if session_format == SESSION_FORMAT {
            self.pass_all(channel, child)
        } else {
            info!(
                version,
                "reload: this version and the new one use different session formats; open sessions and held clients \
                 stay in this process until they end"
            );
            self.take(channel)
        };
        if taken_over.is_err() {
            self.drain.pause_accepting(false);
        }
        taken_over
    }

    /// Passes the waiting clients, makes the successor accept, and passes the sessions.
    fn pass_all(&self, channel: &Channel, child: &mut Child) -> Result<(), ReloadError> {
        let mut passing = Passing::new(&self.sessions, channel, child);
        passing.waiting_clients()?;
        self.take(channel).map_err(|error| passing.lost(error))?;
        passing.everything()
    }

    fn pass_failovers(&self, channel: &Channel) -> Result<(), ReloadError> {
        for part in self.recorder.failovers().chunks(FAILOVERS) {
            let failovers: Result<_, _> = part.iter().map(serde_json::to_value).collect();
            let failovers = failovers.map_err(|error| ChannelError::Io(error.into()))?;
            tell(channel, &FromPredecessor::Failovers { failovers }, &[])?;
        }
        Ok(())
    }

    /// Passes the records of changes of leader, and makes the successor accept clients. This step is never aborted,
    /// because the successor may already have clients.
    fn take(&self, channel: &Channel) -> Result<(), ReloadError> {
        // The successor needs the records before its admin port answers.
        self.pass_failovers(channel)?;
        let (counters, histograms) = (self.metrics.counters(), self.metrics.histograms());
        tell(channel, &FromPredecessor::Take { counters, histograms }, &[])?;
        match channel.receive(ANSWER)?.message {
            FromSuccessor::Taken => Ok(()),
            FromSuccessor::Refused { why } => Err(ReloadError::Refused(why)),
            _ => Err(ReloadError::OutOfTurn),
        }
    }

    /// Waits until the successor may take over ([`HandoverState::may_follow`]) and, for at most [`MEMBERS`], until it
    /// has found every member that has sessions here.
    fn wait_until_ready(&self, channel: &Channel, deadline: Instant) -> Result<(), ReloadError> {
        loop {
            let hold = operator_hold(&self.view.borrow());
            tell(channel, &FromPredecessor::Ask { hold }, &[])?;
            let new = match self.receive(channel, ANSWER)? {
                FromSuccessor::State(new) => new,
                FromSuccessor::Refused { why } => return Err(ReloadError::Refused(why)),
                _ => return Err(ReloadError::OutOfTurn),
            };
            let snapshot = self.slot.snapshot();
            let (state, members) = (snapshot.state(), members(&self.slots));
            let old = HandoverState::new(&state, &snapshot.reason, true, members, &self.view.borrow());
            let is_patient = Instant::now() + READY < deadline + MEMBERS;
            if new.may_follow(&old) && (new.keeps_all(&old) || !is_patient) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(ReloadError::NotReady {
                    new: new.reason,
                    old: old.reason,
                });
            }
            sleep(ASK);
        }
    }

    /// Receives an answer within this time, unless the attempt is aborted.
    fn receive(&self, channel: &Channel, within: Duration) -> Result<FromSuccessor, ReloadError> {
        let deadline = Instant::now() + within;
        loop {
            if self.aborted.is_cancelled() {
                return Err(ReloadError::Aborted);
            }
            match channel.receive(ASK) {
                Err(ChannelError::TimedOut(_)) if Instant::now() < deadline => {}
                Err(ChannelError::TimedOut(_)) => return Err(ChannelError::TimedOut(within).into()),
                received => return Ok(received?.message),
            }
        }
    }
}

/// Sends a message. If the successor has ended, returns the reason that it sent, if any.
fn tell(channel: &Channel, message: &FromPredecessor, files: &[BorrowedFd<'_>]) -> Result<(), ReloadError> {
    let sent = channel.send(message, &[], files, ANSWER);
    if let Err(ChannelError::Closed) = sent
        && let Ok(received) = channel.receive(ASK)
        && let FromSuccessor::Refused { why } = received.message
    {
        return Err(ReloadError::Refused(why));
    }
    Ok(sent?)
}

impl Successor {
    /// Returns the successor's process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells the successor that this process no longer accepts clients, and passes the final counters and the hold.
    pub(super) fn done(&self, metrics: &Metrics, hold: Option<PassedHold>) {
        let done = FromPredecessor::Done {
            counters: metrics.counters(),
            histograms: metrics.histograms(),
            hold,
        };
        // If the successor has ended, the service manager has to start pgnorth again.
        let _ended = self.channel.send(&done, &[], &[], ANSWER);
    }
}

/// Waits for the end of a process that has closed its channel.
fn wait(child: &mut Child) -> Option<ExitStatus> {
    let deadline = Instant::now() + ANSWER;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => sleep(ASK),
            ended => return ended.ok().flatten(),
        }
    }
    None
}
