//! Follows one endpoint: reports its listing, then every change, and checks the lock, until the watch or a check fails.

use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::{Opened, send};
use crate::backoff::random;
use crate::discovery::etcd::faults::Faults;
use crate::discovery::etcd::gateway::{CheckedListing, GatewayError, Session};
use crate::discovery::etcd::lease::Pace;
use crate::discovery::etcd::messages::WatchMessage;
use crate::discovery::etcd::tracked::Tracked;
use crate::leader::observation::{Claim, Observation};
use crate::log_limiter::LogLimiter;

/// Time for the watch to deliver a change that a check has found.
const CATCH_UP: Duration = Duration::from_millis(250);

/// Reason for the end of a watch.
pub(super) enum Ended {
    /// The receiver of claims was dropped.
    Unheard,
    /// The keys must be listed again, for this reason: the watch missed a change, or etcd has compacted changes.
    ListAgain(&'static str),
    Failed(GatewayError),
}

/// A follower of the keys: their state, and the receivers of reports about it.
pub(super) struct KeyFollower<'a> {
    pub(super) tracked: &'a mut Tracked,
    pub(super) faults: &'a mut Faults,
    pub(super) log_limiter: &'a LogLimiter,
    pub(super) observations: &'a mpsc::Sender<Observation>,
}

/// A check under way. It returns its session.
type Checking<'a> = Pin<Box<dyn Future<Output = (Session<'a>, Result<CheckedListing, GatewayError>)> + Send + 'a>>;

impl KeyFollower<'_> {
    /// Reports the listing, then every change, and checks the lock, until the watch ends.
    pub(super) async fn follow(mut self, opened: Opened<'_>, prefix: &str) -> Ended {
        let Opened {
            session,
            checked,
            mut watch,
            ..
        } = opened;
        let claims = self.tracked.replace(checked, Instant::now());
        if self.tracked.is_empty() && self.log_limiter.should_log(&format!("no key begins with {prefix}")) {
            warn!(
                "no key in etcd begins with {prefix}: check --scope, --etcd-namespace and --citus-group, unless Patroni \
                 has not started yet"
            );
        }
        if !self.report(claims).await {
            return Ended::Unheard;
        }
        let mut pace = Pace::default();
        let mut session = Some(session);
        let mut checking: Option<Checking<'_>> = None;
        let mut check_at = self.next_check(&mut pace);
        let mut is_behind = false;
        loop {
            let claims = tokio::select! {
                biased;
                message = watch.next() => match message {
                    Ok(WatchMessage::Changes(changes)) => {
                        let claims = self.tracked.apply(changes, Instant::now());
                        // A new holder's lease may be older than its key.
                        if claims.iter().any(|claim| matches!(claim, Claim::Lock(..))) {
                            check_at = tokio::time::Instant::now();
                        }
                        claims
                    }
                    Ok(WatchMessage::Created) => Vec::new(),
                    Ok(WatchMessage::Compacted) => {
                        return Ended::ListAgain("etcd has compacted changes that the watch needs");
                    }
                    Err(error) => return Ended::Failed(error),
                },
                (unused, checked) = finished(&mut checking) => {
                    checking = None;
                    session = Some(unused);
                    let checked = match checked {
                        Ok(checked) => checked,
                        Err(error) => return Ended::Failed(error),
                    };
                    let was_behind = std::mem::replace(&mut is_behind, self.tracked.is_behind(&checked.listing));
                    if is_behind && (was_behind || self.tracked.has_another_leader(&checked.listing)) {
                        return Ended::ListAgain("the watch missed a change that a listing shows");
                    }
                    if is_behind {
                        // The change may be so recent that its event is still under way.
                        check_at = tokio::time::Instant::now() + CATCH_UP;
                        continue;
                    }
                    let claims = self.tracked.checked(checked.lease);
                    check_at = self.next_check(&mut pace);
                    claims
                }
                () = tokio::time::sleep_until(check_at), if session.is_some() => {
                    checking = session.take().map(|session| check(session, prefix));
                    continue;
                }
                () = self.faults.recovered() => continue,
            };
            if !self.report(claims).await {
                return Ended::Unheard;
            }
        }
    }

    fn next_check(&self, pace: &mut Pace) -> tokio::time::Instant {
        tokio::time::Instant::now() + pace.pause(self.tracked.lease(), Instant::now(), random())
    }

    /// Sends the claims, and logs values that cannot be parsed. Returns false if the receiver was dropped.
    async fn report(&mut self, claims: Vec<Claim>) -> bool {
        for problem in self.tracked.take_problems() {
            warn!("etcd: {problem}");
        }
        if claims.is_empty() {
            return true;
        }
        self.faults.answered();
        send(self.observations, claims).await
    }
}

fn check<'a>(mut session: Session<'a>, prefix: &'a str) -> Checking<'a> {
    Box::pin(async move {
        let checked = session.check(prefix, true).await;
        (session, checked)
    })
}

/// Waits for the check under way; forever if there is none. Cancel-safe.
async fn finished<'a>(checking: &mut Option<Checking<'a>>) -> (Session<'a>, Result<CheckedListing, GatewayError>) {
    match checking {
        Some(checking) => checking.await,
        None => std::future::pending().await,
    }
}
