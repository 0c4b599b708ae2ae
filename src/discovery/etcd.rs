//! etcd as a source: a watch of the keys of Patroni's scope, and checks of the lock.
//!
//! The watch reports changes, but no renewal of the leader key's lease, and a watch that is silent may be dead. A check
//! (`gateway`) proves both with two requests: it lists the keys at a revision that a majority of etcd confirms, and it
//! asks how much of the lease is left. `tracked` turns the answers into claims, `lease` decides when to check.

mod content;
mod faults;
mod gateway;
mod keys;
mod lease;
pub mod messages;
mod tracked;

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::backoff::random;
pub use crate::discovery::etcd::content::Content;
use crate::discovery::etcd::faults::Faults;
use crate::discovery::etcd::gateway::Checked;
pub use crate::discovery::etcd::gateway::{Gateway, GatewayError, Login, Session, Watch};
pub use crate::discovery::etcd::lease::Lease;
use crate::discovery::etcd::lease::{Pace, RESERVE};
use crate::discovery::etcd::messages::WatchMessage;
use crate::discovery::etcd::tracked::Tracked;
use crate::leader::BaseUrl;
use crate::leader::observation::{Claim, ObjectKind, Observation};
use crate::log_limiter::LogLimiter;

const KIND: ObjectKind = ObjectKind::EtcdKey;
/// Time for a change that a check has found to arrive by the watch.
const CATCH_UP: Duration = Duration::from_millis(250);

/// The scope's keys in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeKeys {
    /// `/<namespace>/<scope>/`, with the group of a Citus cluster: every key begins with it.
    pub prefix: String,
    /// The Citus group.
    pub citus_group: Option<u32>,
}

/// The endpoints of etcd, and the keys to read there.
pub struct Endpoints {
    /// TLS, user and token.
    pub gateway: Gateway,
    /// Client URLs.
    pub urls: Vec<BaseUrl>,
    /// The scope's keys.
    pub scope: ScopeKeys,
}

/// The etcd source.
pub struct Etcd {
    endpoints: Endpoints,
    log_limiter: LogLimiter,
}

/// An endpoint that answers: what it listed, and a watch of the changes since.
struct Opened<'a> {
    url: BaseUrl,
    session: Session<'a>,
    checked: Checked,
    watch: Watch,
}

/// Reason for the end of a watch.
enum Ended {
    /// The receiver of claims is gone.
    Unheard,
    /// The keys are listed again: a check found a change that the watch did not report, or etcd has compacted it.
    ListAgain(&'static str),
    Failed(GatewayError),
}

/// The error of each endpoint.
struct Unanswered(Vec<(BaseUrl, GatewayError)>);

impl Etcd {
    /// Returns a source that has not sent any request yet.
    pub fn new(endpoints: Endpoints, log_limiter: LogLimiter) -> Self {
        Self { endpoints, log_limiter }
    }

    /// Watches until the receiver of observations is gone.
    pub async fn run(self, observations: mpsc::Sender<Observation>) {
        let Self { endpoints, log_limiter } = self;
        let Endpoints {
            gateway,
            urls: mut endpoints,
            scope,
        } = endpoints;
        let urls: Vec<_> = endpoints.iter().map(|url| &**url).collect();
        info!(endpoints = %urls.join(","), prefix = %scope.prefix, "watching Patroni's keys in etcd");
        if !send(&observations, vec![Claim::Watching(KIND)]).await {
            return;
        }
        // Begins with a random endpoint, so that many pgnorths share the load among them.
        let begin = (endpoints.len() as f64 * random()) as usize;
        endpoints.rotate_left(begin);
        let mut tracked = Tracked::new(&scope.prefix, scope.citus_group);
        let mut faults = Faults::default();
        loop {
            let opened = match open(&gateway, &endpoints, &scope.prefix).await {
                Ok(opened) => opened,
                Err(unanswered) => {
                    let pause = faults.record(&unanswered);
                    let claim = Claim::ApiUnreachable(KIND, unanswered.to_string());
                    if !send(&observations, vec![claim]).await {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                    continue;
                }
            };
            let url = opened.url.clone();
            debug!(%url, revision = opened.checked.listing.revision, "listed Patroni's keys");
            endpoints.sort_by_key(|endpoint| *endpoint != url);
            let followed = Followed {
                tracked: &mut tracked,
                faults: &mut faults,
                log_limiter: &log_limiter,
                observations: &observations,
            };
            match followed.follow(opened, &scope.prefix).await {
                Ended::Unheard => return,
                Ended::ListAgain(why) => {
                    debug!(%url, "{why}: listing the keys again");
                    tokio::time::sleep(faults.pause_before_listing()).await;
                }
                Ended::Failed(error) => {
                    let why = format!("{url}: {error}");
                    // While the other endpoints are tried, the lock must not expire here.
                    let is_late = tracked
                        .lease()
                        .is_some_and(|lease| lease.expiry() < Instant::now() + 2 * RESERVE);
                    if is_late && !send(&observations, vec![Claim::ApiUnreachable(KIND, why.clone())]).await {
                        return;
                    }
                    if 1 < endpoints.len()
                        && log_limiter.should_log(&format!("an endpoint of etcd does not answer: {url}"))
                    {
                        warn!("an endpoint of etcd does not answer; trying the others: {why}");
                    }
                    endpoints.rotate_left(1);
                }
            }
        }
    }
}

/// Lists and watches the keys at the first endpoint; if that fails, at the first of the others that answers.
async fn open<'a>(gateway: &'a Gateway, endpoints: &[BaseUrl], prefix: &str) -> Result<Opened<'a>, Unanswered> {
    let mut errors = Vec::new();
    let (first, others) = endpoints.split_at(endpoints.len().min(1));
    for together in [first, others] {
        let mut attempts: FuturesUnordered<_> = together
            .iter()
            .map(|url| Box::pin(open_at(gateway, url, prefix)))
            .collect();
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(opened) => return Ok(opened),
                Err(error) => errors.push(error),
            }
        }
    }
    Err(Unanswered(errors))
}

async fn open_at<'a>(gateway: &'a Gateway, url: &BaseUrl, prefix: &str) -> Result<Opened<'a>, (BaseUrl, GatewayError)> {
    let mut session = gateway.session(url);
    let opening = async {
        // With the age of the lease: after an outage, the lock must not look as old as the last answer before it.
        let checked = session.check(prefix, false).await?;
        let watch = session.watch(prefix, checked.listing.revision + 1).await?;
        Ok((checked, watch))
    };
    match opening.await {
        Ok((checked, watch)) => Ok(Opened {
            url: url.clone(),
            session,
            checked,
            watch,
        }),
        Err(error) => Err((url.clone(), error)),
    }
}

/// The state of the keys, and where it is reported.
struct Followed<'a> {
    tracked: &'a mut Tracked,
    faults: &'a mut Faults,
    log_limiter: &'a LogLimiter,
    observations: &'a mpsc::Sender<Observation>,
}

/// A check under way, and the session that it gives back.
type Checking<'a> = Pin<Box<dyn Future<Output = (Session<'a>, Result<Checked, GatewayError>)> + Send + 'a>>;

impl Followed<'_> {
    /// Reports the listing, then every change, and checks the lock, until the watch ends.
    async fn follow(mut self, opened: Opened<'_>, prefix: &str) -> Ended {
        let Opened {
            session,
            checked,
            mut watch,
            ..
        } = opened;
        let claims = self.tracked.replace(checked, Instant::now());
        if self.tracked.is_empty() && self.log_limiter.should_log(&format!("no key begins with {prefix}")) {
            warn!("no key in etcd begins with {prefix}: check --scope and --etcd-namespace");
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
                    Ok(WatchMessage::Compacted) => return Ended::ListAgain("etcd has compacted the changes"),
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
                        return Ended::ListAgain("the watch has not reported a change");
                    }
                    if is_behind {
                        // The change may have been made a moment ago, and its report be under way.
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

    /// Sends the claims, and logs texts that cannot be used. Returns false if the receiver is gone.
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

/// Waits for the check under way; for ever if there is none. Cancel-safe.
async fn finished<'a>(checking: &mut Option<Checking<'a>>) -> (Session<'a>, Result<Checked, GatewayError>) {
    match checking {
        Some(checking) => checking.await,
        None => std::future::pending().await,
    }
}

/// Sends claims that arrived now. Returns false if the receiver is gone.
async fn send(observations: &mpsc::Sender<Observation>, claims: Vec<Claim>) -> bool {
    let at = Instant::now();
    for claim in claims {
        if observations.send(Observation { at, claim }).await.is_err() {
            return false;
        }
    }
    true
}

impl fmt::Display for Unanswered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<_> = self.0.iter().map(|(url, error)| format!("{url}: {error}")).collect();
        out.write_str(&errors.join("; "))
    }
}
