//! The publisher: the slot's decisions become the addresses behind a Service without a selector.
//!
//! An address is there only while the decision is *route*: it is a promise that a verified primary takes writes there. A hold takes it away as a fence does, since
//! nobody can be held here: who dials is better refused at once than led to a server that is stopping. Sessions that are open are not touched: kube-proxy leaves
//! established TCP flows alone when an endpoint goes.

mod destination;
mod lease;
mod objects;
mod questions;

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
use crate::metrics::{Metrics, PublishResult};
use crate::readiness::{Readiness, ReadinessHandle};
use crate::resolver::Resolver;
use crate::slot::{LeaderSlot, Snapshot};
pub use destination::InvalidService;
use destination::{Destination, PublishError};
pub(crate) use destination::{PATRONIS, PATRONIS_ANNOTATIONS};
use lease::Lease;
use objects::{Desired, Primary};
use questions::Questions;

/// How often the objects are read anew, to put right what others have changed; how often a leader's name is resolved anew, too.
const READ_INTERVAL: Duration = Duration::from_secs(10);
const RESOLVE_INTERVAL: Duration = Duration::from_secs(3);
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
struct State {
    resolver: Resolver,
    /// Since when a source answers.
    settling: Option<Instant>,
    /// The newest leader that was routed to, and where its name led.
    last: Option<(Leader, Vec<IpAddr>)>,
    /// The last round led to a leader.
    routing: bool,
    /// The decision that the objects agree with.
    done: Option<Instant>,
    read_at: Option<Instant>,
    /// Tries that failed in a row, and the pause after the next one.
    failures: u32,
    backoff: Option<Backoff>,
    /// What was told of last, so that it is told once.
    last_problem: Option<String>,
}

/// The EndpointSlice that it keeps for a Service, with IPv4 addresses.
pub(crate) fn slice_name(service: &str) -> String {
    objects::Kind::Slice4.name(service)
}

/// Whether a publisher would keep this Service; if not, why.
pub(crate) async fn check(client: Client, namespace: &str, settings: &Settings) -> Result<(), String> {
    let mut destination = Destination {
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
    destination.read().await.map_err(|error| error.to_string())
}

impl Publisher {
    /// Keeps the Service until `stop`, at which it stays as it is.
    ///
    /// # Errors
    /// When the Service is not one to be written.
    pub async fn run(self, access: Arc<Access>, stop: CancellationToken) -> Result<(), InvalidService> {
        let connection = tokio::select! {
            connection = access.connection() => connection.clone(),
            () = stop.cancelled() => return Ok(()),
        };
        let mut destination = Destination {
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
            api: Api::namespaced(destination.client.clone(), &destination.namespace),
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
            let mut state = State::default();
            loop {
                let snapshot = self.slot.snapshot();
                let ours = *writes.borrow_and_update();
                let next = match ours {
                    true => self.keep(&snapshot, &mut destination, &mut state).await?,
                    false => self.stand_by(&mut destination, &mut state).await?,
                };
                tokio::select! {
                    () = self.slot.superseded(&snapshot) => state.backoff = None,
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

    /// Another publisher writes; the Service is still read, so that a mistake shows before this one is needed.
    async fn stand_by(&self, destination: &mut Destination, state: &mut State) -> Result<Duration, InvalidService> {
        (state.done, state.last, state.read_at, state.routing) = (None, None, None, false);
        self.metrics.set_publish_behind(false);
        match destination.read().await {
            Err(PublishError::InvalidService(refused)) => Err(refused),
            Err(error) => Ok(self.on_error(destination, state, &error)),
            Ok(()) => Ok(READ_INTERVAL),
        }
    }

    /// One round: reads where that is due, and writes what differs. Returns when the next is due, unless there is news before.
    async fn keep(
        &self,
        snapshot: &Snapshot,
        destination: &mut Destination,
        state: &mut State,
    ) -> Result<Duration, InvalidService> {
        let by_name = matches!(snapshot.state.open_to(), Some(leader) if matches!(leader.address.host, Host::Name(_)));
        let every = if by_name { RESOLVE_INTERVAL } else { READ_INTERVAL };
        // A fresh decision is written first, upon what was read before.
        let should_log = state.done != Some(snapshot.at);
        let due = state.read_at.is_none_or(|read_at| read_at.elapsed() >= every);
        if destination.seen.is_none() || due && !should_log {
            match destination.read().await {
                Err(PublishError::InvalidService(refused)) => return Err(refused),
                Err(error) => return Ok(self.on_error(destination, state, &error)),
                Ok(()) => state.read_at = Some(Instant::now()),
            }
        }
        let desired = match self.desired(snapshot, state).await {
            Ok(desired) => desired,
            Err(wait) => return Ok(wait),
        };
        let before = destination.leads_to();
        match destination.write(&desired).await {
            Err(PublishError::InvalidService(refused)) => Err(refused),
            Err(error) => Ok(self.on_error(destination, state, &error)),
            Ok(written) => {
                self.metrics.set_publish_behind(written.yielded.is_some());
                match written.yielded {
                    Some(why) => self.on_dispute(destination, state, why),
                    None => self.log_written(
                        destination,
                        snapshot,
                        &desired,
                        &before,
                        written.changed,
                        should_log,
                        state,
                    ),
                }
                state.done = Some(snapshot.at);
                state.routing = desired.leader.is_some();
                // What others may have done in the meantime is seen by the next look, not at once.
                Ok(every)
            }
        }
    }

    /// What the Service shall lead to; or how long there is nothing to say about it.
    async fn desired(&self, snapshot: &Snapshot, state: &mut State) -> Result<Desired, Duration> {
        if self.readiness.now() != Readiness::Ready {
            return Err(READ_INTERVAL);
        }
        let since = *state.settling.get_or_insert_with(Instant::now);
        let Some(leader) = snapshot.state.open_to() else {
            let left = SETTLE.saturating_sub(since.elapsed());
            let timeline = match &state.last {
                None if !left.is_zero() => return Err(left),
                last => last.as_ref().and_then(|(leader, _)| leader.timeline),
            };
            return Ok(Desired {
                leader: None,
                timeline,
                just_ended: state.routing,
            });
        };
        let addresses = self.addresses(leader, state).await;
        state.last = Some((leader.clone(), addresses.clone()));
        let primary = Primary {
            member: leader.member.to_string(),
            port: leader.address.port,
            addresses,
        };
        Ok(Desired {
            leader: (!primary.addresses.is_empty()).then_some(primary),
            timeline: leader.timeline,
            just_ended: false,
        })
    }

    /// A name is resolved anew; where that fails, it leads where it led before, if it is still the same leader.
    async fn addresses(&self, leader: &Leader, state: &State) -> Vec<IpAddr> {
        let name = match &leader.address.host {
            Host::Ip(ip) => return vec![*ip],
            Host::Name(name) => name,
        };
        match state.resolver.resolve(name, RESOLVE).await {
            Ok(addresses) => addresses.to_vec(),
            Err(error) => {
                if self.log_limiter.should_log(&format!("{name} cannot be resolved")) {
                    warn!(leader = %leader, "{error}");
                }
                let known = state.last.as_ref().filter(|(last, _)| last == leader);
                known.map(|(_, addresses)| addresses.clone()).unwrap_or_default()
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what happened, in full")]
    fn log_written(
        &self,
        destination: &Destination,
        snapshot: &Snapshot,
        desired: &Desired,
        before: &[String],
        changed: bool,
        should_log: bool,
        state: &mut State,
    ) {
        let service = destination.title();
        if state.last_problem.take().is_some() {
            info!(%service, "the Service is up to date again");
        }
        (state.failures, state.backoff) = (0, None);
        if !changed {
            if should_log {
                self.metrics.count_publish(PublishResult::Unchanged);
                debug!(%service, leads_to = ?before, "the Service says so already");
            }
            return;
        }
        let took = snapshot.at.elapsed();
        self.metrics.count_publish(PublishResult::Written);
        if !should_log {
            match &desired.leader {
                Some(primary) if primary.addresses.iter().all(|ip| before.contains(&ip.to_string())) => {}
                _ => {
                    warn!(%service, led_to = ?before, leads_to = ?destination.leads_to(), "the Service did not say who leads, and does again")
                }
            }
            return;
        }
        self.metrics.publish_seconds.record(took);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let reason = &snapshot.reason;
        match &desired.leader {
            Some(primary) => {
                info!(%service, leader = %primary.member, leads_to = ?destination.leads_to(), took_ms, %reason, "the Service leads to the primary")
            }
            None => {
                info!(%service, led_to = ?before, took_ms, %reason, "the Service leads nowhere: new connections are refused")
            }
        }
    }

    /// A conflict is no fault: the objects are read again, and decided upon again.
    fn on_error(&self, destination: &mut Destination, state: &mut State, error: &PublishError) -> Duration {
        let service = destination.title();
        let pause = state.backoff.get_or_insert(RETRY).pause();
        state.failures += 1;
        destination.seen = None;
        if let PublishError::Conflict(_) = error {
            self.metrics.count_publish(PublishResult::Conflict);
            debug!(%service, "{error}; reading it again");
            return pause;
        }
        self.metrics.count_publish(PublishResult::Failed);
        self.metrics.set_publish_behind(true);
        let why = error.to_string();
        let leader = self.slot.snapshot().state.open_to().map(ToString::to_string);
        if state.last_problem.as_ref() != Some(&why) {
            let leader = leader.as_deref().unwrap_or("nobody");
            warn!(%service, %leader, "the Service cannot be brought up to date, and may lead to a former primary: {why}");
            state.last_problem = Some(why);
        } else {
            debug!(%service, failures = state.failures, "still: {why}");
        }
        pause
    }

    fn on_dispute(&self, destination: &Destination, state: &mut State, why: String) {
        self.metrics.count_publish(PublishResult::Yielded);
        if state.last_problem.as_ref() != Some(&why) {
            warn!(service = %destination.title(), "left as it is for now, since another publisher says otherwise: {why}");
            state.last_problem = Some(why);
        }
    }
}
