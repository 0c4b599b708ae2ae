//! Pauses and log lines for the faults of a watch.

use std::time::Duration;

use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::annotations::Malformed;
#[cfg(test)]
use super::checks::LOCK_RETRY;
use crate::backoff::{Backoff, jittered};
use crate::discovery::outage::{Outage, RECOVERED_AFTER};
use crate::log_limiter::CurrentProblems;
use crate::root_cause::root_cause;

/// Pause between attempts if the API has forbidden every attempt so far: only an operator can change that.
const FORBIDDEN_RETRY: Duration = Duration::from_secs(10);
/// Time for which a restarted API server may forbid everything, because it has not yet loaded its roles. After that, a
/// right counts as missing.
const ROLES_LOAD: Duration = Duration::from_secs(30);

/// The known problems of one watch's objects.
#[derive(Default)]
pub(super) struct Problems(CurrentProblems);

impl Problems {
    /// Logs the problem of an object that was read, unless it was logged before.
    pub(super) fn log(&mut self, object: &str, problem: Option<Malformed>) {
        match problem.map(|problem| problem.to_string()) {
            Some(problem) if self.0.is_new(object, &problem) => warn!("{object}: {problem}"),
            Some(_) => {}
            None => _ = self.0.solved(object),
        }
    }
}

/// Reason for the end of a stream.
pub(super) enum StreamEnd {
    /// A restart of all watches was requested, or the stream ended without an error. The watch is reopened immediately.
    Restarted,
    /// 410 Gone. This is an answer: a new list replaces the missed changes.
    HistoryLost,
    Failed(watcher::Error),
}

/// Repeated faults of one watch. The first fault is logged, and the recovery with the number of faults.
pub(super) struct Faults {
    title: String,
    needs: &'static str,
    backoff: Backoff,
    outage: Outage,
    /// True once the API has answered: a right that existed before is probably missing only briefly.
    answered: bool,
    /// Time of the first refusal after requests were allowed, and true once the warning is logged.
    forbidden: Option<(Instant, bool)>,
    /// Time of the last 410 Gone.
    lost: Option<Instant>,
}

/// The pause after a fault, and the fault's description.
pub(super) struct Fault {
    pub(super) pause: Duration,
    pub(super) why: String,
}

impl Faults {
    /// Returns the state before any fault. `needs` are the verbs to name if one is forbidden; `backoff` has the pauses
    /// between attempts.
    pub(super) fn new(title: &str, needs: &'static str, backoff: Backoff) -> Self {
        Self {
            title: title.to_owned(),
            needs,
            backoff,
            outage: Outage::default(),
            answered: false,
            forbidden: None,
            lost: None,
        }
    }

    /// Waits until the stream may be opened again, or until all watches are restarted.
    pub(super) async fn pause_after(&mut self, ended: StreamEnd, restart: &mut watch::Receiver<u64>) {
        let pause = match ended {
            StreamEnd::Restarted => return,
            StreamEnd::HistoryLost => self.history_lost(),
            StreamEnd::Failed(error) => self.record(&error).pause,
        };
        tokio::select! {
            () = sleep(pause) => {}
            // An error here means that the sender was dropped, and with it the receiver of this stream's claims.
            _ = restart.changed() => {}
        }
    }

    /// Returns the pause after 410 Gone: zero the first time, and a growing pause if it recurs soon.
    fn history_lost(&mut self) -> Duration {
        debug!(
            "{}: the API no longer has the changes since the version that was read last (410 Gone); listing again",
            self.title
        );
        let again = self.lost.is_some_and(|lost| lost.elapsed() < 2 * RECOVERED_AFTER);
        self.lost = Some(Instant::now());
        match again {
            true => self.backoff.pause(),
            false => Duration::ZERO,
        }
    }

    /// Records and logs a fault, and returns the pause before the next attempt.
    pub(super) fn record(&mut self, error: &watcher::Error) -> Fault {
        let count = self.outage.count();
        if is_forbidden(error) {
            return self.record_forbidden(error, count);
        }
        self.forbidden = None;
        let (title, cause) = (&self.title, root_cause(error));
        match count {
            1 => warn!("cannot read or watch {title} in the Kubernetes API; retrying: {cause}"),
            _ => debug!(
                count,
                "still cannot read or watch {title} in the Kubernetes API: {cause}"
            ),
        }
        let why = format!("{title}: {cause}");
        let pause = self.backoff.pause();
        Fault { pause, why }
    }

    fn record_forbidden(&mut self, error: &watcher::Error, count: u64) -> Fault {
        let (title, cause) = (&self.title, root_cause(error));
        let fix = format!("grant {} to pgnorth's service account or user", self.needs);
        let lacks = format!("{title}: forbidden; {fix}: {cause}");
        if !self.answered {
            match count {
                1 => info!("{lacks}"),
                _ => debug!(count, "{lacks}"),
            }
            let pause = jittered(FORBIDDEN_RETRY);
            return Fault { pause, why: lacks };
        }
        let pause = self.backoff.pause();
        let (since, logged) = self.forbidden.get_or_insert((Instant::now(), false));
        if since.elapsed() < ROLES_LOAD {
            let why = format!(
                "the Kubernetes API forbids access to {title}, which was allowed before; retrying, because an API \
                 server that has just started forbids everything until it has loaded its roles: {cause}"
            );
            match count {
                1 => info!("{why}"),
                _ => debug!(count, "{why}"),
            }
            return Fault { pause, why };
        }
        if !std::mem::replace(logged, true) {
            let seconds = since.elapsed().as_secs();
            warn!(
                "the Kubernetes API has forbidden access to {title} for {seconds} s, which was allowed before; {fix}: \
                 {cause}"
            );
        }
        Fault { pause, why: lacks }
    }

    /// Records an answer.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.outage.answered();
    }

    /// Waits for the recovery, and logs it. Waits forever if there was no fault. Cancel-safe.
    pub(super) async fn recovered(&mut self) {
        let faults = self.outage.recovered().await;
        (self.forbidden, self.lost) = (None, None);
        self.backoff.reset();
        info!(faults, "the Kubernetes API serves {} again", self.title);
    }
}

pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    status_of(error) == Some(403)
}

pub(super) fn is_gone(error: &watcher::Error) -> bool {
    status_of(error) == Some(410)
}

/// Returns the HTTP status of the API's error, which arrives as an answer or as an event of the watch.
pub(super) fn status_of(error: &watcher::Error) -> Option<u16> {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status.code),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => None,
    }
}

#[cfg(test)]
mod tests;
