//! etcd as a source: a watch of the keys of Patroni's scope, and checks of the lock.
//!
//! The watch reports changes, but no renewal of the leader key's lease, and a watch that is silent may be dead. A check
//! (`gateway`) therefore makes two requests: it lists the keys at a revision that a majority of etcd's members
//! confirms, and it asks for the remaining time of the lease. `tracked` turns the answers into claims, `lease` decides
//! when to check.

mod content;
mod faults;
mod follow;
mod gateway;
mod keys;
mod lease;
pub mod messages;
mod tracked;

use std::fmt;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::backoff::random;
pub use crate::discovery::etcd::content::Content;
use crate::discovery::etcd::faults::Faults;
use crate::discovery::etcd::follow::{Ended, KeyFollower};
use crate::discovery::etcd::gateway::CheckedListing;
pub use crate::discovery::etcd::gateway::{Gateway, GatewayError, Login, Session, Watch};
pub use crate::discovery::etcd::lease::Lease;
use crate::discovery::etcd::lease::RESERVE;
use crate::discovery::etcd::tracked::Tracked;
use crate::leader::BaseUrl;
use crate::leader::observation::{Claim, ObjectKind, Observation};
use crate::log_limiter::LogLimiter;

const KIND: ObjectKind = ObjectKind::EtcdKey;

/// The scope's keys in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeKeys {
    /// Prefix of every key: `/<namespace>/<scope>/`, followed by the group of a Citus cluster.
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

/// An endpoint that answers, its listing of the keys, and a watch of the changes since.
struct Opened<'a> {
    url: BaseUrl,
    session: Session<'a>,
    checked: CheckedListing,
    watch: Watch,
}

/// The error of each endpoint, if all have failed.
struct EndpointFailures(Vec<(BaseUrl, GatewayError)>);

impl Etcd {
    /// Returns a source that has not sent any request yet.
    pub fn new(endpoints: Endpoints, log_limiter: LogLimiter) -> Self {
        Self { endpoints, log_limiter }
    }

    /// Watches until the receiver of observations is dropped.
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
        // Starts with a random endpoint, so that many pgnorths spread their load over the endpoints.
        let begin = (endpoints.len() as f64 * random()) as usize;
        endpoints.rotate_left(begin);
        let mut tracked = Tracked::new(&scope.prefix, scope.citus_group);
        let mut faults = Faults::default();
        loop {
            let opened = match open(&gateway, &endpoints, &scope.prefix).await {
                Ok(opened) => opened,
                Err(failures) => {
                    let pause = faults.record(&failures);
                    let claim = Claim::ApiUnreachable(KIND, failures.to_string());
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
            let follower = KeyFollower {
                tracked: &mut tracked,
                faults: &mut faults,
                log_limiter: &log_limiter,
                observations: &observations,
            };
            match follower.follow(opened, &scope.prefix).await {
                Ended::Unheard => return,
                Ended::ListAgain(why) => {
                    debug!(%url, "{why}; listing the keys again");
                    tokio::time::sleep(faults.pause_before_listing()).await;
                }
                Ended::Failed(error) => {
                    let why = format!("{url}: {error}");
                    // The lock must not count as expired while the other endpoints are tried.
                    let is_late = tracked
                        .lease()
                        .is_some_and(|lease| lease.expiry() < Instant::now() + 2 * RESERVE);
                    if is_late && !send(&observations, vec![Claim::ApiUnreachable(KIND, why.clone())]).await {
                        return;
                    }
                    if 1 < endpoints.len() && log_limiter.should_log(&format!("an etcd endpoint failed: {url}")) {
                        warn!("an etcd endpoint failed; trying the others: {why}");
                    }
                    endpoints.rotate_left(1);
                }
            }
        }
    }
}

/// Lists and watches the keys at the first endpoint. If that fails, asks all others, and uses the first that answers.
async fn open<'a>(gateway: &'a Gateway, endpoints: &[BaseUrl], prefix: &str) -> Result<Opened<'a>, EndpointFailures> {
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
    Err(EndpointFailures(errors))
}

async fn open_at<'a>(gateway: &'a Gateway, url: &BaseUrl, prefix: &str) -> Result<Opened<'a>, (BaseUrl, GatewayError)> {
    let mut session = gateway.session(url);
    let opening = async {
        // Includes the age of the lease: after an outage, the lock must not look as old as the last answer before the
        // outage.
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

/// Sends claims with the current time. Returns false if the receiver was dropped.
async fn send(observations: &mpsc::Sender<Observation>, claims: Vec<Claim>) -> bool {
    let at = Instant::now();
    for claim in claims {
        if observations.send(Observation { at, claim }).await.is_err() {
            return false;
        }
    }
    true
}

impl fmt::Display for EndpointFailures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<_> = self.0.iter().map(|(url, error)| format!("{url}: {error}")).collect();
        out.write_str(&errors.join("; "))
    }
}
