//! Makes the proxy's requests to etcd: a listing and a watch at every endpoint, and the remaining time of the lock's
//! lease at the first endpoint that answers.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::ListedMember;
use crate::discovery::etcd::messages::Listing;
use crate::discovery::etcd::{Content, Endpoints, GatewayError, Lease, ScopeKeys};
use crate::discovery::http::Unreachable;
use crate::doctor::facts::{Answer, Config, EtcdFacts, EtcdFailure, Renewal};
use crate::leader::BaseUrl;
use crate::root_cause::root_cause;
use crate::route::Upstream;

/// Interval at which the lease's remaining time is read, until the lease is renewed.
const EVERY: Duration = Duration::from_millis(500);
/// Time beyond Patroni's loop_wait that a renewal may take.
const SLACK: Duration = Duration::from_secs(5);
/// Patroni's default loop_wait, used if the configuration cannot be read.
const LOOP_WAIT: Duration = Duration::from_secs(10);

/// Collects all facts from etcd, the renewal included, and the members from their keys.
pub(super) async fn collect(etcd: &Endpoints, upstreams: &[Upstream]) -> (EtcdFacts, Vec<ListedMember>) {
    let asking = etcd
        .urls
        .iter()
        .map(async |url| (url.clone(), listing(etcd, url).await));
    let answers: Vec<(BaseUrl, Result<Listing, GatewayError>)> = join_all(asking).await;
    let content = answers
        .iter()
        .find_map(|(_, answer)| answer.as_ref().ok())
        .map(|listing| Content::of(&etcd.scope, listing));
    let endpoints = answers
        .into_iter()
        .map(|(url, answer)| {
            let answer = answer.map(|listing| listing.keys.len());
            (url, answer.map_err(|error| EtcdFailure::from(&error)))
        })
        .collect();
    let Some(content) = content else {
        let renewal = Err("no etcd endpoint gave a usable answer".to_owned());
        return (facts(&etcd.scope, endpoints, &Content::default(), renewal), Vec::new());
    };
    let renewal = renewal(etcd, &content).await;
    let facts = facts(&etcd.scope, endpoints, &content, renewal);
    let members = content
        .members
        .into_iter()
        .map(|(pod, problem)| ListedMember::of_pod(pod, problem, upstreams));
    (facts, members.collect())
}

fn facts(
    scope: &ScopeKeys,
    endpoints: Vec<(BaseUrl, Result<usize, EtcdFailure>)>,
    content: &Content,
    renewal: Answer<Renewal>,
) -> EtcdFacts {
    EtcdFacts {
        prefix: scope.prefix.clone(),
        endpoints,
        holder: content.leader.as_ref().map(|(holder, _)| holder.clone()),
        ttl: content.ttl,
        config: content.settings.clone().map(|settings| Config {
            settings,
            loop_wait: content.loop_wait,
            failsafe: content.failsafe,
        }),
        groups: content.groups.clone(),
        renewal,
    }
}

/// Lists the keys, then opens a watch on them.
async fn listing(etcd: &Endpoints, url: &BaseUrl) -> Result<Listing, GatewayError> {
    let prefix = &etcd.scope.prefix;
    let mut session = etcd.gateway.session(url);
    let listing = session.list(prefix, false).await?;
    session.watch(prefix, listing.revision + 1).await?;
    Ok(listing)
}

/// Waits for a renewal of the lock's lease.
async fn renewal(etcd: &Endpoints, content: &Content) -> Answer<Renewal> {
    let (_, lease) = *content.leader.as_ref().ok_or("there is no leader key")?;
    if lease == 0 {
        return Err("the leader key has no lease, so it never expires".into());
    }
    let within = content.loop_wait.unwrap_or(LOOP_WAIT) + SLACK;
    let begun = Instant::now();
    let mut known: Option<Lease> = None;
    let mut failed = "no etcd endpoint gave a usable answer".to_owned();
    while begun.elapsed() < within {
        for url in &etcd.urls {
            let sent = Instant::now();
            match etcd.gateway.session(url).lease_time(lease).await {
                Ok(time) => {
                    let is_first = known.is_none();
                    let known = known.get_or_insert_with(|| Lease::unknown(lease, Duration::ZERO, sent));
                    if known.record(time, sent, Instant::now()) && !is_first {
                        let after = begun.elapsed();
                        return Ok(Renewal::Renewed { after, ahead: None });
                    }
                    failed.clear();
                    break;
                }
                Err(error) => failed = error.to_string(),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    match failed.as_str() {
        "" => Ok(Renewal::Missing(within)),
        _ => Err(failed),
    }
}

impl From<&GatewayError> for EtcdFailure {
    fn from(error: &GatewayError) -> Self {
        Self {
            why: match error {
                GatewayError::Unreachable(unreachable) => root_cause(unreachable),
                other => other.to_string(),
            },
            tls: match error {
                GatewayError::Unreachable(unreachable) => Unreachable::tls_problem(unreachable),
                _ => None,
            },
            is_denied: error.is_denied(),
            is_login: error.is_login(),
        }
    }
}
