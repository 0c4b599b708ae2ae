//! The publisher: the slot's decisions become the addresses behind a Service without a selector.
//!
//! An address is there only while the decision is *route*: it is a promise that a verified primary takes writes there. A hold takes it away as a fence does, since
//! nobody can be held here: who dials is better refused at once than led to a server that is stopping. Sessions that are open are not touched: kube-proxy leaves
//! established TCP flows alone when an endpoint goes.

mod lease;
mod objects;
mod questions;
mod target;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backoff::Backoff;
use crate::kubernetes::Access;
use crate::leader::{Host, Leader};
use crate::log_limiter::LogLimiter;
use crate::metrics::{Metrics, Published};
use crate::readiness::{Readiness, ReadinessHandle};
use crate::resolver::Resolver;
use crate::slot::{LeaderSlot, Snapshot};
use lease::Lease;
use objects::{Primary, Wanted};
use questions::Questions;
pub use target::Refused;
pub(crate) use target::{PATRONIS, PATRONIS_ANNOTATIONS};
use target::{Target, Trouble};

/// How often the objects are read anew, to put right what others have changed; how often a leader's name is resolved anew, too.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_BY_NAME: Duration = Duration::from_secs(3);
/// A publisher that has just started knows less than the one before it: it takes no address away before it had time to find a leader.
const SETTLE: Duration = Duration::from_secs(2);
/// The pauses before a write is tried again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
/// How long a leader's name may take to resolve.
const RESOLVE: Duration = Duration::from_secs(1);

/// What to keep.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Service without a selector.
    pub service: String,
    /// Its namespace; `None`: the one that the credentials name.
    pub namespace: Option<String>,
    /// Patroni's scope, where it is known: no Service of this name is written.
    pub scope: Option<String>,
    /// Whether its Endpoints are kept too.
    pub endpoints: bool,
    /// The Lease that its one writer holds.
    pub lease: Option<String>,
    /// This process, unlike any other.
    pub identity: String,
}

/// The publisher.
pub struct Publisher {
    /// Who leads.
    pub slot: Arc<LeaderSlot>,
    /// Whether any source has answered.
    pub readiness: ReadinessHandle,
    /// Counts writes.
    pub metrics: Arc<Metrics>,
    /// Asked whether a fault is to be told.
    pub log_limiter: LogLimiter,
    /// What to keep.
    pub settings: Settings,
}

/// What is remembered from one round to the next.
#[derive(Default)]
struct Memory {
    resolver: Resolver,
    /// Since when a source answers.
    settling: Option<Instant>,
    /// The newest leader that was routed to, and where its name led.
    last: Option<(Leader, Vec<IpAddr>)>,
    /// The last round led to a leader.
    routing: bool,
    /// The decision that the objects agree with.
    done: Option<Instant>,
    looked: Option<Instant>,
    /// Tries that failed in a row, and the pause after the next one.
    failures: u32,
    backoff: Option<Backoff>,
    /// What was told of last, so that it is told once.
    told: Option<String>,
}

/// The EndpointSlice that it keeps for a Service, with IPv4 addresses.
pub(crate) fn slice_name(service: &str) -> String {
    objects::Kind::Slice4.name(service)
}

/// Whether a publisher would keep this Service; if not, why.
pub(crate) async fn check(client: Client, namespace: &str, settings: &Settings) -> Result<(), String> {
    let mut target = Target {
        client,
        namespace: namespace.to_owned(),
        service: settings.service.clone(),
        scope: settings.scope.clone(),
        endpoints: settings.endpoints,
        identity: settings.identity.clone(),
        alone: settings.lease.is_some(),
        questions: Questions::default(),
        seen: None,
    };
    target.look().await.map_err(|trouble| trouble.to_string())
}

impl Publisher {
    /// Keeps the Service until `stop`, at which it stays as it is.
    ///
    /// # Errors
    /// When the Service is not one to be written.
    pub async fn run(self, access: Arc<Access>, stop: CancellationToken) -> Result<(), Refused> {
        let connection = tokio::select! {
            connection = access.connection() => connection.clone(),
            () = stop.cancelled() => return Ok(()),
        };
        let mut target = Target {
            namespace: self.settings.namespace.clone().unwrap_or(connection.namespace),
            client: connection.client,
            service: self.settings.service.clone(),
            scope: self.settings.scope.clone(),
            endpoints: self.settings.endpoints,
            identity: self.settings.identity.clone(),
            alone: self.settings.lease.is_some(),
            questions: Questions::default(),
            seen: None,
        };
        let (holds, mut writes) = watch::channel(self.settings.lease.is_none());
        let lease = self.settings.lease.clone().map(|name| Lease {
            api: Api::namespaced(target.client.clone(), &target.namespace),
            name,
            identity: self.settings.identity.clone(),
        });
        let electing = async {
            match lease {
                Some(lease) => lease.run(holds, stop.clone()).await,
                None => stop.cancelled().await,
            }
        };
        let keeping = async {
            let mut memory = Memory::default();
            loop {
                let snapshot = self.slot.snapshot();
                let ours = *writes.borrow_and_update();
                let next = match ours {
                    true => self.keep(&snapshot, &mut target, &mut memory).await?,
                    false => self.stand_by(&mut target, &mut memory).await?,
                };
                tokio::select! {
                    () = self.slot.superseded(&snapshot) => memory.backoff = None,
                    Ok(()) = writes.changed() => {}
                    () = tokio::time::sleep(next) => {}
                }
            }
        };
        tokio::select! {
            result = keeping => result,
            () = electing => Ok(()),
        }
    }

    /// Another publisher writes; the Service is looked at all the same, so that a mistake shows before this one is needed.
    async fn stand_by(&self, target: &mut Target, memory: &mut Memory) -> Result<Duration, Refused> {
        (memory.done, memory.last, memory.looked, memory.routing) = (None, None, None, false);
        self.metrics.publisher_is_behind(false);
        match target.look().await {
            Err(Trouble::Refused(refused)) => Err(refused),
            Err(trouble) => Ok(self.failed(target, memory, &trouble)),
            Ok(()) => Ok(LOOK),
        }
    }

    /// One round: reads where that is due, and writes what differs. Returns when the next is due, unless there is news before.
    async fn keep(&self, snapshot: &Snapshot, target: &mut Target, memory: &mut Memory) -> Result<Duration, Refused> {
        let by_name = matches!(snapshot.state.open_to(), Some(leader) if matches!(leader.address.host, Host::Name(_)));
        let every = if by_name { LOOK_BY_NAME } else { LOOK };
        // A fresh decision is written first, upon what was read before.
        let should_log = memory.done != Some(snapshot.at);
        let due = memory.looked.is_none_or(|looked| looked.elapsed() >= every);
        if target.seen.is_none() || due && !should_log {
            match target.look().await {
                Err(Trouble::Refused(refused)) => return Err(refused),
                Err(trouble) => return Ok(self.failed(target, memory, &trouble)),
                Ok(()) => memory.looked = Some(Instant::now()),
            }
        }
        let wanted = match self.wanted(snapshot, memory).await {
            Ok(wanted) => wanted,
            Err(wait) => return Ok(wait),
        };
        let before = target.leads_to();
        match target.write(&wanted).await {
            Err(Trouble::Refused(refused)) => Err(refused),
            Err(trouble) => Ok(self.failed(target, memory, &trouble)),
            Ok(written) => {
                self.metrics.publisher_is_behind(written.yielded.is_some());
                match written.yielded {
                    Some(why) => self.yielded(target, memory, why),
                    None => self.told(target, snapshot, &wanted, &before, written.changed, should_log, memory),
                }
                memory.done = Some(snapshot.at);
                memory.routing = wanted.leader.is_some();
                // What others may have done in the meantime is seen by the next look, not at once.
                Ok(every)
            }
        }
    }

    /// What the Service shall lead to; or how long there is nothing to say about it.
    async fn wanted(&self, snapshot: &Snapshot, memory: &mut Memory) -> Result<Wanted, Duration> {
        if self.readiness.now() != Readiness::Ready {
            return Err(LOOK);
        }
        let since = *memory.settling.get_or_insert_with(Instant::now);
        let Some(leader) = snapshot.state.open_to() else {
            let left = SETTLE.saturating_sub(since.elapsed());
            let timeline = match &memory.last {
                None if !left.is_zero() => return Err(left),
                last => last.as_ref().and_then(|(leader, _)| leader.timeline),
            };
            return Ok(Wanted {
                leader: None,
                timeline,
                just_ended: memory.routing,
            });
        };
        let addresses = self.addresses(leader, memory).await;
        memory.last = Some((leader.clone(), addresses.clone()));
        let primary = Primary {
            member: leader.member.to_string(),
            port: leader.address.port,
            addresses,
        };
        Ok(Wanted {
            leader: (!primary.addresses.is_empty()).then_some(primary),
            timeline: leader.timeline,
            just_ended: false,
        })
    }

    /// A name is resolved anew; where that fails, it leads where it led before, if it is still the same leader.
    async fn addresses(&self, leader: &Leader, memory: &Memory) -> Vec<IpAddr> {
        let name = match &leader.address.host {
            Host::Ip(ip) => return vec![*ip],
            Host::Name(name) => name,
        };
        match memory.resolver.resolve(name, RESOLVE).await {
            Ok(addresses) => addresses.to_vec(),
            Err(error) => {
                if self.log_limiter.should_log(&format!("{name} cannot be resolved")) {
                    warn!(leader = %leader, "{error}");
                }
                let known = memory.last.as_ref().filter(|(last, _)| last == leader);
                known.map(|(_, addresses)| addresses.clone()).unwrap_or_default()
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what happened, in full")]
    fn told(
        &self,
        target: &Target,
        snapshot: &Snapshot,
        wanted: &Wanted,
        before: &[String],
        changed: bool,
        should_log: bool,
        memory: &mut Memory,
    ) {
        let service = target.title();
        if memory.told.take().is_some() {
            info!(%service, "the Service is up to date again");
        }
        (memory.failures, memory.backoff) = (0, None);
        if !changed {
            if should_log {
                self.metrics.published(Published::Unchanged);
                debug!(%service, leads_to = ?before, "the Service says so already");
            }
            return;
        }
        let took = snapshot.at.elapsed();
        self.metrics.published(Published::Written);
        if !should_log {
            match &wanted.leader {
                Some(primary) if primary.addresses.iter().all(|ip| before.contains(&ip.to_string())) => {}
                _ => {
                    warn!(%service, led_to = ?before, leads_to = ?target.leads_to(), "the Service did not say who leads, and does again")
                }
            }
            return;
        }
        self.metrics.publish_seconds.record(took);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let reason = &snapshot.reason;
        match &wanted.leader {
            Some(primary) => {
                info!(%service, leader = %primary.member, leads_to = ?target.leads_to(), took_ms, %reason, "the Service leads to the primary")
            }
            None => {
                info!(%service, led_to = ?before, took_ms, %reason, "the Service leads nowhere: new connections are refused")
            }
        }
    }

    /// A conflict is no fault: the objects are read again, and decided upon again.
    fn failed(&self, target: &mut Target, memory: &mut Memory, trouble: &Trouble) -> Duration {
        let service = target.title();
        let pause = memory.backoff.get_or_insert(RETRY).pause();
        memory.failures += 1;
        target.seen = None;
        if let Trouble::Conflict(_) = trouble {
            self.metrics.published(Published::Conflict);
            debug!(%service, "{trouble}; reading it again");
            return pause;
        }
        self.metrics.published(Published::Failed);
        self.metrics.publisher_is_behind(true);
        let why = trouble.to_string();
        let leader = self.slot.snapshot().state.open_to().map(ToString::to_string);
        if memory.told.as_ref() != Some(&why) {
            let leader = leader.as_deref().unwrap_or("nobody");
            warn!(%service, %leader, "the Service cannot be brought up to date, and may lead to a former primary: {why}");
            memory.told = Some(why);
        } else {
            debug!(%service, failures = memory.failures, "still: {why}");
        }
        pause
    }

    fn yielded(&self, target: &Target, memory: &mut Memory, why: String) {
        self.metrics.published(Published::Yielded);
        if memory.told.as_ref() != Some(&why) {
            warn!(service = %target.title(), "left as it is for now, since another publisher says otherwise: {why}");
            memory.told = Some(why);
        }
    }
}
