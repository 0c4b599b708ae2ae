//! What goes wrong with a watch: how long to pause, and what to tell, once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kube::runtime::watcher;
use tracing::{debug, info, warn};

use super::annotations::Malformed;

/// Faults that recur within this are one row: a list that succeeds before each watch that fails is no recovery.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);
/// Pause between two tries while the API does not answer.
const RETRY: Duration = Duration::from_millis(500);
/// Pause between two tries while the API has never answered but to forbid it: that changes only by an operator's hand. (An API server that has just started
/// forbids everything for a moment, too, until it has loaded its roles.)
const FORBIDDEN_RETRY: Duration = Duration::from_secs(10);

/// What is wrong with objects: told once, and again when it changes.
#[derive(Default)]
pub(super) struct Problems(HashMap<String, Malformed>);

impl Problems {
    pub(super) fn tell(&mut self, object: &str, problem: Option<Malformed>) {
        match problem {
            Some(problem) if self.0.get(object) == Some(&problem) => {}
            Some(problem) => {
                warn!("{object}: {problem}");
                self.0.insert(object.to_owned(), problem);
            }
            None => {
                self.0.remove(object);
            }
        }
    }
}

/// Why a stream brings nothing more.
pub(super) enum Ended {
    /// To be opened anew at once.
    Anew,
    /// 410 Gone is an answer, no silence: a list tells at once what the watch could not.
    HistoryLost,
    Failed(watcher::Error),
}

/// Repeated faults of one watch: the first is told, then the recovery with a count.
pub(super) struct Faults {
    title: String,
    needs: &'static str,
    count: u64,
    last: Option<Instant>,
    /// An answer came before: who was allowed once is most likely allowed again in a moment.
    answered: bool,
    /// When the API last said that history is lost.
    lost: Option<tokio::time::Instant>,
}

/// What to do about a fault.
pub(super) struct Fault {
    pub(super) pause: Duration,
    pub(super) why: String,
}

impl Faults {
    /// `needs`: the verbs to name where one is forbidden.
    pub(super) fn new(title: &str, needs: &'static str) -> Self {
        Self {
            title: title.to_owned(),
            needs,
            count: 0,
            last: None,
            answered: false,
            lost: None,
        }
    }

    /// Waits until the stream may be opened anew.
    pub(super) async fn pause_after(&mut self, ended: Ended) {
        match ended {
            Ended::Anew => {}
            Ended::HistoryLost => self.history_lost().await,
            Ended::Failed(error) => tokio::time::sleep(self.happened(&error).pause).await,
        }
    }

    /// The wait is for an API that says so again and again.
    async fn history_lost(&mut self) {
        debug!("the history of {} is lost: listing anew", self.title);
        if let Some(lost) = self.lost {
            tokio::time::sleep_until(lost + RETRY).await;
        }
        self.lost = Some(tokio::time::Instant::now());
    }

    pub(super) fn happened(&mut self, error: &watcher::Error) -> Fault {
        self.count += 1;
        self.last = Some(Instant::now());
        let forbidden = is_forbidden(error);
        let why = if forbidden {
            format!(
                "{}: forbidden; the service account needs {} on it: {}",
                self.title,
                self.needs,
                root(error)
            )
        } else {
            format!("{}: {}", self.title, root(error))
        };
        match self.count {
            1 if forbidden => info!("{why}"),
            1 => warn!("the Kubernetes API does not answer: {why}"),
            _ => debug!(count = self.count, "the Kubernetes API still does not answer: {why}"),
        }
        Fault {
            pause: if forbidden && !self.answered {
                FORBIDDEN_RETRY
            } else {
                RETRY
            },
            why,
        }
    }

    /// An answer came; `true` if that ended a row of faults, the last of which is some time ago.
    pub(super) fn are_over(&mut self) -> bool {
        self.answered = true;
        if self.last.is_some_and(|last| last.elapsed() < RECOVERED_AFTER) {
            return false;
        }
        let count = std::mem::take(&mut self.count);
        if count > 0 {
            info!(faults = count, "the Kubernetes API answers again for {}", self.title);
        }
        count > 0
    }
}

pub(super) fn is_forbidden(error: &watcher::Error) -> bool {
    status_of(error) == Some(403)
}

pub(super) fn is_gone(error: &watcher::Error) -> bool {
    status_of(error) == Some(410)
}

/// The HTTP status that the API refused with, whether as an answer or as an event.
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

/// The innermost error: what a person can act on ("connection refused"), without the layers it came through.
pub(super) fn root(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => root(source),
        None => error.to_string(),
    }
}
