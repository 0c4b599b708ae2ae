//! Patroni's REST API as a source: members are asked as the plan says, and `/cluster` tells which members there are.
//!
//! Every request has a deadline, a connection of its own (Patroni speaks HTTP/1.0) and a bounded answer. What the answers mean is read in `answers`.

pub mod answers;
mod client;
mod tls;

pub use client::{Answer, Client, Silence};
pub use tls::{TlsError, TlsFiles, TlsTrouble};

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::backoff::{Backoff, jittered, random};
use crate::discovery::patroni::answers::{
    Row, read_cluster, read_failsafe, read_identity, read_leader, read_race_backoff, read_report, read_ttl,
};
use crate::leader::identity::Identity;
use crate::leader::observation::{Claim, Observation};
use crate::leader::probing::Urgency;
use crate::leader::probing::pacing::Pacer;
use crate::leader::{BaseUrl, MemberName};
use crate::log_limiter::LogLimiter;

/// How often `/cluster` is asked: membership changes seldom.
pub const CLUSTER_EVERY: Duration = Duration::from_secs(10);
/// How often while new clients are held: less and less often for as long as that lasts.
pub const CLUSTER_ON_ALERT: Backoff = Backoff::new(Duration::from_secs(3), CLUSTER_EVERY);
/// How often while nobody answers it, as when Patroni has yet to start.
const CLUSTER_UNANSWERED: Backoff = Backoff::new(Duration::from_millis(500), CLUSTER_EVERY);
/// How often `/config` is asked for the lock's ttl.
pub const CONFIG_EVERY: Duration = Duration::from_secs(20);

/// How often the base URLs of `--patroni` are asked which cluster is there, while all is well: it costs each of them an SQL query.
pub const SEEDS_EVERY: Duration = Duration::from_secs(60);
/// How often while nobody answers `/cluster`, or new clients are held.
pub const SEEDS_ON_ALERT: Duration = Duration::from_secs(30);

/// What a member is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `/primary`: how it stands itself.
    Primary,
    /// `/cluster`: whom it takes for the leader.
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
    /// Its name: the answer to `/primary` must come from a member of this name.
    pub member: MemberName,
    /// What it is asked.
    pub question: Question,
    /// The base URL of its REST API.
    pub url: BaseUrl,
    /// How much depends on its answer.
    pub urgency: Urgency,
}

impl Target {
    /// Tells a member from the one that had its name, or its address, before; and one question from the other.
    fn key(&self) -> String {
        format!("{} {}{}", self.member, self.url, self.question.path())
    }

    /// Whether there was an answer, and what it claims.
    async fn ask(&self, client: &Client) -> (bool, Option<Claim>) {
        let answer = client.get(&self.url, self.question.path()).await;
        let member = self.member.clone();
        match self.question {
            Question::Primary => {
                let report = answer.and_then(|answer| read_report(&self.member, &answer));
                let answered = report.is_ok();
                let report = report.map_err(|silence| silence.to_string());
                (answered, Some(Claim::Report(member, report)))
            }
            Question::Leader => match answer.and_then(|answer| read_leader(&answer)) {
                Ok(leader) => (true, Some(Claim::Named(member, leader))),
                Err(_) => (false, None),
            },
        }
    }
}

/// Whom to ask: discovery writes it, the sources read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The members to ask, and what.
    pub targets: Vec<Target>,
    /// Base URLs of every known member, for `/cluster`.
    pub urls: Vec<BaseUrl>,
    /// New clients are held.
    pub alert: bool,
    /// The cluster that is followed: who tells another one does not tell its members.
    pub followed: Identity,
}

/// Asks members what is planned.
pub struct Prober {
    client: Client,
    plan: watch::Receiver<Plan>,
    observations: mpsc::Sender<Observation>,
}

/// What was asked, whether there was an answer, and what it claims: nothing where there is none to `/cluster`.
type Answered = (Target, bool, Option<Claim>);

impl Prober {
    /// A prober that asks nobody until the plan says so.
    pub fn new(client: Client, plan: watch::Receiver<Plan>, observations: mpsc::Sender<Observation>) -> Self {
        Self {
            client,
            plan,
            observations,
        }
    }

    /// Asks until the plan's writer or the observations' reader is gone. One request at a time is under way for each question to each
    /// member.
    pub async fn run(mut self) {
        let mut pacer = Pacer::default();
        let mut requests: JoinSet<Answered> = JoinSet::new();
        loop {
            let next = self.ask_the_due(&mut pacer, &mut requests);
            tokio::select! {
                changed = self.plan.changed() => if changed.is_err() { return },
                Some(answer) = requests.join_next() => {
                    // A request that panicked is a fault of ours: the end of this task ends the process, loudly.
                    let Ok((target, answered, claim)) = answer else { return };
                    // An answer from where the member no longer is says nothing about it.
                    if !pacer.ended(&target.key(), answered, Instant::now()) {
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

    /// Starts the requests that are due; returns when the next one will be.
    fn ask_the_due(&mut self, pacer: &mut Pacer, requests: &mut JoinSet<Answered>) -> Option<Instant> {
        let targets = self.plan.borrow_and_update().targets.clone();
        let keys: Vec<_> = targets.iter().map(Target::key).collect();
        let plan = keys
            .iter()
            .zip(&targets)
            .map(|(key, target)| (key.as_str(), target.urgency));
        let (due, next) = pacer.due(plan, Instant::now(), random);
        for place in due {
            let (client, target) = (self.client.clone(), targets[place].clone());
            requests.spawn(async move {
                let (answered, claim) = target.ask(&client).await;
                (target, answered, claim)
            });
        }
        next
    }
}

/// What came of asking for `/cluster`.
struct Told {
    /// Who answered for the cluster that is followed.
    ours: Option<LastAnswer>,
    claims: Vec<Claim>,
}

/// Who answered `/cluster` last.
struct LastAnswer {
    url: BaseUrl,
    /// The system identifier of the member there, as it told it lately.
    system: Option<String>,
}

/// Asks any member for `/cluster`, and for the lock's ttl.
pub struct ClusterPoller {
    client: Client,
    seeds: Vec<BaseUrl>,
    plan: watch::Receiver<Plan>,
    log_limiter: LogLimiter,
    observations: mpsc::Sender<Observation>,
}

impl ClusterPoller {
    /// A poller that begins with the base URLs given and goes on with what members tell.
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
        let mut answered: Option<LastAnswer> = None;
        let mut identified: Option<Instant> = None;
        let mut config_at: Option<Instant> = None;
        let (mut on_alert, mut unanswered) = (CLUSTER_ON_ALERT, CLUSTER_UNANSWERED);
        loop {
            let alert = answered.is_none() || self.plan.borrow().alert;
            let every = if alert { SEEDS_ON_ALERT } else { SEEDS_EVERY };
            let due = identified.is_none_or(|at| every <= at.elapsed());
            let with_config = config_at.is_none_or(|at| CONFIG_EVERY <= at.elapsed());
            // All of them before the first is followed: two clusters among them must be noticed first.
            let (cluster, seeds) = tokio::join!(
                Box::pin(self.ask_any(answered.as_ref(), due, with_config)),
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
            answered = cluster.ours;
            for claim in seeds.into_iter().chain(cluster.claims) {
                let at = Instant::now();
                if self.observations.send(Observation { at, claim }).await.is_err() {
                    return;
                }
            }
            if answered.is_none() {
                tokio::time::sleep(unanswered.pause()).await;
                continue;
            }
            unanswered.reset();
            if self.pause(&mut on_alert).await.is_err() {
                return;
            }
        }
    }

    /// Which cluster is at each seed: all of them at once, each before its deadline.
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

    /// The cluster that answers there, if any does.
    async fn identity(&self, url: &BaseUrl) -> Option<Identity> {
        let answer = self.client.get(url, "/patroni").await.ok()?;
        read_identity(&answer).ok()
    }

    /// Waits until `/cluster` is to be asked again; an alert that begins meanwhile shortens the wait.
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

    /// The one that answered last time first, then the others, one after the other, until one tells of the cluster that is followed.
    async fn ask_any(&self, last: Option<&LastAnswer>, due: bool, with_config: bool) -> Told {
        let mut known = self.plan.borrow().urls.clone();
        // So that not every pgnorth asks the same member.
        let begin = (known.len() as f64 * random()) as usize;
        known.rotate_left(begin);
        let nobody_is_known = known.is_empty();
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
                    for Row { member, problem } in problems {
                        // It comes with every answer.
                        if self
                            .log_limiter
                            .should_log(&format!("the row of {member} in /cluster is of no use"))
                        {
                            warn!(%url, %member, "a row of /cluster is of no use: {problem}");
                        }
                    }
                    // An SQL query more, so not each time.
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
                    // The view names it.
                    claims.push(Claim::Cluster(cluster));
                    if !followed.contradicts(&identity) {
                        return Told {
                            ours: Some(LastAnswer { url, system }),
                            claims,
                        };
                    }
                    why.push(format!("{url}: another cluster answers there, {identity}"));
                }
                Err(silence) => {
                    debug!(%url, %silence, "/cluster has no answer");
                    why.push(format!("{url}: {silence}"));
                }
            }
        }
        let silent = format!("no member answers /cluster ({})", why.join("; "));
        if nobody_is_known {
            claims.extend(self.failsafe_members(&urls).await);
        }
        claims.push(Claim::ClusterSilent(silent));
        Told { ours: None, claims }
    }

    /// A start while the DCS is down: members answer `/cluster` no more, but failsafe mode knows them.
    async fn failsafe_members(&self, urls: &[BaseUrl]) -> Option<Claim> {
        for url in urls {
            let answer = self.client.get(url, "/failsafe").await;
            if let Ok(members) = answer.and_then(|answer| read_failsafe(&answer)) {
                return Some(Claim::Failsafe(members));
            }
        }
        None
    }

    /// The lock's ttl, and how long a race for it may be put off. What was told last stands where they are not wanted.
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

/// Sleeps until then; for ever if there is no such time.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
