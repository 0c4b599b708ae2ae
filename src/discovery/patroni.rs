//! Patroni's REST API as a source: members are asked according to the plan, and `/cluster` lists the members.
//!
//! Every request has a deadline, a connection of its own (Patroni speaks HTTP/1.0) and a bounded answer. `answers`
//! parses the answers.

pub mod answers;
mod client;

pub use client::Client;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::backoff::{Backoff, jittered, random};
pub use crate::discovery::http::tls::{TlsError, TlsFiles, TlsProblem};
pub use crate::discovery::http::{Answer, Unreachable};
use crate::discovery::patroni::answers::{
    UnusableRow, read_cluster, read_failsafe, read_identity, read_leader, read_race_backoff, read_report, read_ttl,
};
use crate::leader::identity::Identity;
use crate::leader::observation::{Claim, NoReport, Observation};
use crate::leader::probing::Urgency;
use crate::leader::probing::pacing::Pacer;
use crate::leader::{BaseUrl, MemberName};
use crate::log_limiter::LogLimiter;

/// Interval of requests for `/cluster`: membership changes seldom.
pub const CLUSTER_EVERY: Duration = Duration::from_secs(10);
/// Intervals of requests for `/cluster` while new clients are held; they grow for as long as that lasts.
pub const CLUSTER_ON_ALERT: Backoff = Backoff::new(Duration::from_secs(3), CLUSTER_EVERY);
/// Intervals of requests for `/cluster` while no member answers, for example before Patroni has started.
const CLUSTER_UNANSWERED: Backoff = Backoff::new(Duration::from_millis(500), CLUSTER_EVERY);
/// Interval of requests for `/config`, which has the lock's ttl.
pub const CONFIG_EVERY: Duration = Duration::from_secs(20);

/// Interval of requests for the identity of the cluster at each base URL of `--patroni`, while all is well. Each
/// costs an SQL query there.
pub const SEEDS_EVERY: Duration = Duration::from_secs(60);
/// Interval of these requests while no member answers `/cluster`, or new clients are held.
pub const SEEDS_ON_ALERT: Duration = Duration::from_secs(30);

/// The path that a member is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `/primary`: the member's own role and state.
    Primary,
    /// `/cluster`: the leader that the member reads from the DCS.
    Leader,
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Self::Primary => "/primary",
            Self::Leader => "/cluster",
        }
    }
}

/// A member to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the member. The answer to `/primary` must come from a member of this name.
    pub member: MemberName,
    /// Question to the member.
    pub question: Question,
    /// Base URL of its REST API.
    pub url: BaseUrl,
    /// Urgency of the answer.
    pub urgency: Urgency,
}

impl Target {
    /// Returns a key that differs for another member, for the same member at another address, and for another question.
    fn key(&self) -> String {
        format!("{} {}{}", self.member, self.url, self.question.path())
    }

    /// Sends the request and returns the reply.
    async fn ask(self, client: &Client) -> Reply {
        let answer = client.get(&self.url, self.question.path()).await;
        let (key, member) = (self.key(), self.member);
        let (answered, claim) = match self.question {
            Question::Primary => {
                let report = answer.and_then(|answer| read_report(&member, &answer));
                let answered = report.is_ok();
                let report = report.map_err(|unreachable| NoReport::Unreachable(unreachable.to_string()));
                (answered, Some(Claim::Report(member, report)))
            }
            Question::Leader => match answer.and_then(|answer| read_leader(&answer)) {
                Ok(leader) => (true, Some(Claim::NamedLeader(member, leader))),
                Err(_) => (false, None),
            },
        };
        Reply { key, answered, claim }
    }
}

/// The requests to make. Discovery writes the plan, and the sources read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Members to ask, and the question to each.
    pub targets: Vec<Target>,
    /// Base URLs of every known member, for `/cluster`.
    pub urls: Vec<BaseUrl>,
    /// True while new clients are held.
    pub alert: bool,
    /// Cluster that pgnorth follows. Answers of another one add no members.
    pub followed: Identity,
}

/// Asks members according to the plan.
pub struct Prober {
    client: Client,
    plan: watch::Receiver<Plan>,
    observations: mpsc::Sender<Observation>,
}

/// The result of one request.
struct Reply {
    key: String,
    answered: bool,
    /// Claim for discovery; `None` if `/cluster` was not answered.
    claim: Option<Claim>,
}

impl Prober {
    /// Returns a prober. It asks no member until the plan has one.
    pub fn new(client: Client, plan: watch::Receiver<Plan>, observations: mpsc::Sender<Observation>) -> Self {
        Self {
            client,
            plan,
            observations,
        }
    }

    /// Asks until the plan's writer or the observations' reader is gone. One request at a time is under way for
    /// each question to each member.
    pub async fn run(mut self) {
        let mut pacer = Pacer::default();
        let mut requests: JoinSet<Reply> = JoinSet::new();
        loop {
            let next = self.ask_the_due(&mut pacer, &mut requests);
            tokio::select! {
                changed = self.plan.changed() => if changed.is_err() { return },
                Some(reply) = requests.join_next() => {
                    // A request that panicked is a bug in pgnorth. The end of this task ends the process with an error.
                    let Ok(Reply { key, answered, claim }) = reply else { return };
                    // An answer from an address that the member no longer has says nothing about it.
                    if !pacer.ended(&key, answered, Instant::now()) {
                        continue;
                    }
                    let Some(claim) = claim else { continue };
                    let observation = Observation { at: Instant::now(), claim };
                    if self.observations.send(observation).await.is_err() {
                        return;
                    }
                }
                () = sleep_until(next) => {}
            }
        }
    }

    /// Starts the requests that are due, and returns the time of the next one.
    fn ask_the_due(&mut self, pacer: &mut Pacer, requests: &mut JoinSet<Reply>) -> Option<Instant> {
        let targets = self.plan.borrow_and_update().targets.clone();
        let keys: Vec<_> = targets.iter().map(Target::key).collect();
        let plan = keys
            .iter()
            .zip(&targets)
            .map(|(key, target)| (key.as_str(), target.urgency));
        let (due, next) = pacer.due(plan, Instant::now(), random);
        for place in due {
            let (client, target) = (self.client.clone(), targets[place].clone());
            requests.spawn(async move { target.ask(&client).await });
        }
        next
    }
}

/// The result of one round of requests for `/cluster`.
struct ClusterRound {
    /// Member that answered for the followed cluster.
    responder: Option<Responder>,
    claims: Vec<Claim>,
}

/// A member that answered `/cluster`.
struct Responder {
    url: BaseUrl,
    /// Its system identifier, from its newest answer that had one.
    system: Option<String>,
}

/// Asks one member at a time for `/cluster`, and for the lock's ttl.
pub struct ClusterPoller {
    client: Client,
    seeds: Vec<BaseUrl>,
    plan: watch::Receiver<Plan>,
    log_limiter: LogLimiter,
    observations: mpsc::Sender<Observation>,
}

impl ClusterPoller {
    /// Returns a poller that begins with the given base URLs and continues with those of the members that it learns of.
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

    /// Asks until the plan's writer or the observations' reader is gone.
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
            // All seeds are asked before a cluster is followed: two clusters among them must be noticed first.
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

    /// Asks all seeds at once for their cluster's identity, each before its deadline. Returns nothing if that is
    /// not due.
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

    /// Returns the identity of the cluster that answers at this URL, if any does.
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

    /// Asks the last responder, then the other members, one after the other, until one answers for the followed
    /// cluster.
    async fn ask_any(&self, last: Option<&Responder>, due: bool, with_config: bool) -> ClusterRound {
        let mut known = self.plan.borrow().urls.clone();
        // Begins with a random member, so that many pgnorths share the load among the members.
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
                        // Every answer has this row, so it is not logged each time.
                        if self
                            .log_limiter
                            .should_log(&format!("/cluster: the row of {member} cannot be used"))
                        {
                            warn!(%url, %member, "/cluster: the row of this member cannot be used: {problem}");
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
                    why.push(format!("{url}: another cluster answers, {identity}"));
                }
                Err(unreachable) => {
                    debug!(%url, %unreachable, "no usable answer to /cluster");
                    why.push(format!("{url}: {unreachable}"));
                }
            }
        }
        let unanswered = format!("no member answers /cluster ({})", why.join("; "));
        if no_member_is_known {
            claims.extend(self.failsafe_members(&urls).await);
        }
        claims.push(Claim::ClusterUnreachable(unanswered));
        ClusterRound {
            responder: None,
            claims,
        }
    }

    /// Returns the members from `/failsafe`, for a start while the DCS is down: members then do not answer `/cluster`.
    async fn failsafe_members(&self, urls: &[BaseUrl]) -> Option<Claim> {
        for url in urls {
            let answer = self.client.get(url, "/failsafe").await;
            if let Ok(members) = answer.and_then(|answer| read_failsafe(&answer)) {
                return Some(Claim::Failsafe(members));
            }
        }
        None
    }

    /// Returns the lock's ttl and `primary_race_backoff`. Returns neither unless `wanted`: the last values remain
    /// in force.
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

/// Sleeps until that time, or for ever if it is `None`.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
