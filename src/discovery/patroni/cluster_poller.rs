//! Asks one member at a time for `/cluster`, which lists the members, and for the lock's ttl. Asks all base URLs of
//! `--patroni` (the seeds) for the identity of their cluster.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::answers::{UnusableRow, read_cluster, read_failsafe, read_identity, read_race_backoff, read_ttl};
use super::{Client, Plan};
use crate::backoff::{Backoff, jittered, random};
use crate::leader::BaseUrl;
use crate::leader::identity::Identity;
use crate::leader::observation::{Claim, Observation};
use crate::log_limiter::LogLimiter;

/// Longest pause between requests for `/cluster`. Membership rarely changes.
pub const CLUSTER_EVERY: Duration = Duration::from_secs(10);

/// Growing intervals of requests for `/cluster` while there is no leader for new clients.
pub const CLUSTER_ON_ALERT: Backoff = Backoff::new(Duration::from_secs(3), CLUSTER_EVERY);

/// Intervals of requests for `/cluster` while no member answers, for example before Patroni has started.
const CLUSTER_UNANSWERED: Backoff = Backoff::new(Duration::from_millis(500), CLUSTER_EVERY);

/// Shortest time between an answer to `/config` with the lock's ttl and the next request for `/config`.
pub const CONFIG_EVERY: Duration = Duration::from_secs(20);

/// Interval of requests for the identity of the cluster at each seed, while a member answers `/cluster` and there is a
/// leader for new clients. Each request costs an SQL query on that member.
pub const SEEDS_EVERY: Duration = Duration::from_secs(60);

/// Interval of requests for the identity of the cluster at each seed, while no member answers `/cluster`, or there is
/// no leader for new clients.
pub const SEEDS_ON_ALERT: Duration = Duration::from_secs(30);

/// The result of one round of requests for `/cluster`.
struct ClusterRound {
    /// Member that answered for the followed cluster; `None` if no member did.
    responder: Option<Responder>,
    claims: Vec<Claim>,
}

/// A member that answered `/cluster`.
struct Responder {
    url: BaseUrl,
    /// The system identifier in the member's newest answer to `/patroni`; `None` if there was none.
    system: Option<String>,
}

/// Poller of `/cluster` and the lock's ttl. It asks one member at a time.
pub struct ClusterPoller {
    client: Client,
    seeds: Vec<BaseUrl>,
    plan: watch::Receiver<Plan>,
    log_limiter: LogLimiter,
    observations: mpsc::Sender<Observation>,
}

impl ClusterPoller {
    /// Returns a poller that starts with the given base URLs, and later prefers those of the members in the plan.
    pub fn new(
        client: Client,
        seeds: Vec<BaseUrl>,
        plan: watch::Receiver<Plan>,
        log_limiter: LogLimiter,
        observations: mpsc::Sender<Observation>,
    ) -> Self {
        Self {
            client,
            seeds,
            plan,
            log_limiter,
            observations,
        }
    }

    /// Asks until the plan's sender or the observations' receiver is dropped.
    pub async fn run(mut self) {
        let mut responder: Option<Responder> = None;
        let mut identified: Option<Instant> = None;
        let mut config_at: Option<Instant> = None;
        let (mut on_alert, mut unanswered) = (CLUSTER_ON_ALERT, CLUSTER_UNANSWERED);
        loop {
            let alert = responder.is_none() || self.plan.borrow().alert;
            let every = if alert { SEEDS_ON_ALERT } else { SEEDS_EVERY };
            let due = identified.is_none_or(|at| every <= at.elapsed());
            let with_config = config_at.is_none_or(|at| CONFIG_EVERY <= at.elapsed());
            // All seeds are asked before a cluster is followed: two clusters among them must be detected first.
            let (cluster, seeds) = tokio::join!(
                Box::pin(self.ask_any(responder.as_ref(), due, with_config)),
                Box::pin(self.identities(due))
            );
            if due {
                identified = Some(Instant::now());
            }
            if cluster
                .claims
                .iter()
                .any(|claim| matches!(claim, Claim::Cluster(cluster) if cluster.ttl.is_some()))
            {
                config_at = Some(Instant::now());
            }
            responder = cluster.responder;
            for claim in seeds.into_iter().chain(cluster.claims) {
                let at = Instant::now();
                if self.observations.send(Observation { at, claim }).await.is_err() {
                    return;
                }
            }
            if responder.is_none() {
                tokio::time::sleep(unanswered.pause()).await;
                continue;
            }
            unanswered.reset();
            if self.pause(&mut on_alert).await.is_err() {
                return;
            }
        }
    }

    /// Asks all seeds concurrently for their cluster's identity, each within the deadline. Returns nothing unless `due`
    /// is true.
    async fn identities(&self, due: bool) -> Vec<Claim> {
        if !due {
            return Vec::new();
        }
        let asking = self.seeds.iter().map(async |url| {
            let identity = self.identity(url).await;
            Claim::Seed(url.clone(), identity)
        });
        join_all(asking).await
    }

    /// Returns the identity of the cluster that answers at this URL, if one does.
    async fn identity(&self, url: &BaseUrl) -> Option<Identity> {
        let answer = self.client.get(url, "/patroni").await.ok()?;
        read_identity(&answer).ok()
    }

    /// Waits until the next request for `/cluster` is due. An alert that begins meanwhile shortens the wait.
    async fn pause(&mut self, backoff: &mut Backoff) -> Result<(), watch::error::RecvError> {
        let asked = tokio::time::Instant::now();
        let urgent = |plan: &Plan| plan.alert;
        if urgent(&self.plan.borrow_and_update()) {
            tokio::time::sleep(backoff.pause()).await;
            return Ok(());
        }
        backoff.reset();
        let every = jittered(CLUSTER_EVERY * 4 / 5);
        tokio::select! {
            alert = self.plan.wait_for(urgent) => {
                let _plan = alert?;
            }
            () = tokio::time::sleep_until(asked + every) => return Ok(()),
        }
        tokio::time::sleep_until((asked + backoff.pause()).min(asked + every)).await;
        Ok(())
    }

    /// Asks the last responder, then the other members, then the seeds, one after the other, until one of them answers
    /// for the followed cluster.
    async fn ask_any(&self, last: Option<&Responder>, due: bool, with_config: bool) -> ClusterRound {
        let mut known = self.plan.borrow().urls.clone();
        // Starts with a random member, so that many pgnorths spread their requests over the members.
        let begin = (known.len() as f64 * random()) as usize;
        known.rotate_left(begin);
        let no_member_is_known = known.is_empty();
        let mut urls: Vec<BaseUrl> = last.map(|last| last.url.clone()).into_iter().collect();
        for url in known.into_iter().chain(self.seeds.iter().cloned()) {
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        let followed = self.plan.borrow().followed.clone();
        let (mut why, mut claims) = (Vec::new(), Vec::new());
        for url in urls.clone() {
            let answer = self.client.get(&url, "/cluster").await;
            match answer.and_then(|answer| read_cluster(&url, &answer)) {
                Ok((mut cluster, problems)) => {
                    for UnusableRow { member, problem } in problems {
                        // The row is in every answer, so it is not logged each time.
                        if self
                            .log_limiter
                            .should_log(&format!("ignoring the row of {member} in /cluster"))
                        {
                            warn!(%url, %member, "ignoring the row of this member in /cluster: {problem}");
                        }
                    }
                    // Asking for the identity costs another SQL query, so it is not done each time.
                    let known = last
                        .filter(|last| !due && last.url == url)
                        .map(|last| last.system.clone());
                    let config = self.config(&url, with_config);
                    ((cluster.ttl, cluster.race_backoff), cluster.system) = tokio::join!(config, async {
                        match known {
                            Some(system) => system,
                            None => self.identity(&url).await.and_then(|identity| identity.system),
                        }
                    });
                    let system = cluster.system.clone();
                    let identity = cluster.identity();
                    // The view decides which cluster is followed, so it gets the other cluster's answer, too.
                    claims.push(Claim::Cluster(cluster));
                    if !followed.contradicts(&identity) {
                        return ClusterRound {
                            responder: Some(Responder { url, system }),
                            claims,
                        };
                    }
                    why.push(format!("{url}: answered by a different cluster, {identity}"));
                }
                Err(unreachable) => {
                    debug!(%url, %unreachable, "no usable answer to /cluster");
                    why.push(format!("{url}: {unreachable}"));
                }
            }
        }
        let unanswered = format!("no member of this cluster answers /cluster ({})", why.join("; "));
        if no_member_is_known {
            claims.extend(self.failsafe_members(&urls).await);
        }
        claims.push(Claim::ClusterUnreachable(unanswered));
        ClusterRound {
            responder: None,
            claims,
        }
    }

    /// Returns the members from `/failsafe`. This allows a start while the DCS is down, when no member answers
    /// `/cluster`.
    async fn failsafe_members(&self, urls: &[BaseUrl]) -> Option<Claim> {
        for url in urls {
            let answer = self.client.get(url, "/failsafe").await;
            if let Ok(members) = answer.and_then(|answer| read_failsafe(&answer)) {
                return Some(Claim::Failsafe(members));
            }
        }
        None
    }

    /// Returns the lock's ttl and `primary_race_backoff`, each `None` if `wanted` is false or the value cannot be read.
    /// The last value then remains in force.
    async fn config(&self, url: &BaseUrl, wanted: bool) -> (Option<Duration>, Option<Duration>) {
        if !wanted {
            return (None, None);
        }
        match self.client.get(url, "/config").await {
            Ok(answer) => (read_ttl(&answer), read_race_backoff(&answer)),
            Err(_) => (None, None),
        }
    }
}
