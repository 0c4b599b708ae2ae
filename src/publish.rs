//! The publisher: writes the slot's decisions as the endpoints of a Service without a selector.
//!
//! The Service has an endpoint only while the decision is *route*, because an endpoint promises a verified primary
//! that accepts writes. A hold removes it as a fence does: the publisher cannot hold clients, and a refused connection
//! is better than a server that is stopping. Open sessions are not affected, because kube-proxy keeps established TCP
//! connections when an endpoint is removed.

mod destination;
mod errors;
mod lease;
mod objects;
mod questions;
mod report;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::Api;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::backoff::Backoff;
use crate::kubernetes::Access;
use crate::leader::{Host, Server};
use crate::log_limiter::{CurrentProblems, LogLimiter};
use crate::metrics::Metrics;
use crate::readiness::{Readiness, ReadinessHandle};
use crate::resolver::Resolver;
use crate::slot::{RouteSlot, RouteSnapshot};
use destination::Destination;
pub(crate) use destination::{PATRONIS, PATRONIS_ANNOTATIONS};
pub use errors::InvalidService;
pub(crate) use errors::PublishError;
use lease::Lease;
use objects::{Desired, Primary};
use questions::Questions;

/// The interval at which the objects are read again, to correct what others have changed.
const READ_INTERVAL: Duration = Duration::from_secs(10);
/// The same interval if the leader's address is a DNS name, which is then also resolved again.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(3);
/// Time for a publisher to find a leader after a source has first answered, before the publisher removes any address:
/// at first, it knows less than its predecessor did.
const SETTLE: Duration = Duration::from_secs(2);
/// The pauses between attempts to write.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
/// Deadline for resolving a leader's name.
const RESOLVE: Duration = Duration::from_secs(1);

/// The settings of a publisher.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Service without a selector.
    pub service: String,
    /// The Service's namespace; `None` for that of the credentials.
    pub namespace: Option<String>,
    /// Patroni's scope, if it is known. The publisher refuses a Service with the name of one of Patroni's objects,
    /// because Patroni writes the Endpoints of that name.
    pub scope: Option<String>,
    /// True if Endpoints are written in addition to EndpointSlices.
    pub endpoints: bool,
    /// The Lease that elects one writer; `None` if every publisher writes.
    pub lease: Option<String>,
    /// A unique name of this process.
    pub identity: String,
}

/// A publisher of the leader's address in a Service.
pub struct Publisher {
    /// The current decision.
    pub slot: Arc<RouteSlot>,
    /// Ready once a source has answered.
    pub readiness: ReadinessHandle,
    /// Metrics of writes.
    pub metrics: Arc<Metrics>,
    /// Limiter of repeated log lines.
    pub log_limiter: LogLimiter,
    /// The Service, and how to write it.
    pub settings: Settings,
}

/// The publisher's state between rounds.
#[derive(Default)]
struct State {
    resolver: Resolver,
    /// The time of the first round after a source had answered.
    settling: Option<Instant>,
    /// The last leader that was published, with its addresses.
    last: Option<(Server, Vec<IpAddr>)>,
    /// True if the last round published a leader.
    routing: bool,
    /// The time of the decision of the last complete round.
    done: Option<Instant>,
    read_at: Option<Instant>,
    /// The number of failures in a row.
    failures: u32,
    /// The pauses after these failures.
    backoff: Option<Backoff>,
    problems: CurrentProblems,
}

/// Returns the name of the EndpointSlice for a Service's IPv4 addresses.
pub(crate) fn slice_name(service: &str) -> String {
    objects::Kind::Slice4.name(service)
}

/// Checks that a publisher may write this Service.
///
/// # Errors
/// Returns the reason if a publisher must not or cannot write it.
pub(crate) async fn check(client: Client, namespace: &str, settings: &Settings) -> Result<(), PublishError> {
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
    destination.read().await
}

impl Publisher {
    /// Keeps the Service up to date until `stop` is cancelled, and then leaves it as it is. With a Lease, writes only
    /// while this publisher holds the Lease, and releases it at the end.
    ///
    /// # Errors
    /// Returns the reason if a publisher must not write this Service.
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

    /// Checks the Service while another publisher writes it, so that a mistake shows before this publisher is needed.
    async fn stand_by(&self, destination: &mut Destination, state: &mut State) -> Result<Duration, InvalidService> {
        (state.done, state.last, state.read_at, state.routing) = (None, None, None, false);
        self.metrics.set_publish_behind(false);
        match destination.read().await {
            Err(PublishError::InvalidService(refused)) => Err(refused),
            Err(error) => Ok(self.on_error(false, destination, state, &error)),
            Ok(()) => {
                self.log_solved(destination, state, "the Service can be checked again");
                Ok(READ_INTERVAL)
            }
        }
    }

    /// Runs one round: reads the objects if that is due, and writes those that differ. Returns the time until the next
    /// round.
    async fn keep(
        &self,
        snapshot: &RouteSnapshot,
        destination: &mut Destination,
        state: &mut State,
    ) -> Result<Duration, InvalidService> {
        let by_name =
            matches!(snapshot.state().open_to(), Some(leader) if matches!(leader.address.host, Host::Name(_)));
        let every = if by_name { RESOLVE_INTERVAL } else { READ_INTERVAL };
        // A new decision is written immediately, against the versions that were read before.
        let should_log = state.done != Some(snapshot.at);
        let due = state.read_at.is_none_or(|read_at| read_at.elapsed() >= every);
        if destination.seen.is_none() || due && !should_log {
            match destination.read().await {
                Err(PublishError::InvalidService(refused)) => return Err(refused),
                Err(error) => return Ok(self.on_error(true, destination, state, &error)),
                Ok(()) => state.read_at = Some(Instant::now()),
            }
        }
        let desired = match self.desired(snapshot, state).await {
            Ok(desired) => desired,
            Err(wait) => return Ok(wait),
        };
        let before = destination.endpoints();
        match destination.write(&desired).await {
            Err(PublishError::InvalidService(refused)) => Err(refused),
            Err(error) => Ok(self.on_error(true, destination, state, &error)),
            Ok(written) => {
                self.metrics.set_publish_behind(written.yielded.is_some());
                match written.yielded {
                    Some(why) => self.on_dispute(destination, state, &why),
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
                // The next round sees what others have changed meanwhile.
                Ok(every)
            }
        }
    }

    /// Returns the endpoints that the Service should have. While this publisher does not know them, returns the time to
    /// wait as an error.
    async fn desired(&self, snapshot: &RouteSnapshot, state: &mut State) -> Result<Desired, Duration> {
        if self.readiness.now() != Readiness::Ready {
            return Err(READ_INTERVAL);
        }
        let since = *state.settling.get_or_insert_with(Instant::now);
        let routing = snapshot.state();
        let Some(leader) = routing.open_to() else {
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

    /// Returns the leader's IP address, or resolves its name. If that fails, returns the last known addresses of the
    /// same leader; none if they are unknown.
    async fn addresses(&self, leader: &Server, state: &State) -> Vec<IpAddr> {
        let name = match &leader.address.host {
            Host::Ip(ip) => return vec![*ip],
            Host::Name(name) => name,
        };
        match state.resolver.resolve(name, RESOLVE).await {
            Ok(addresses) => addresses.to_vec(),
            Err(error) => {
                if self.log_limiter.should_log(&format!("{name} cannot be resolved")) {
                    warn!(
                        leader = %leader,
                        "using the leader's last known addresses; if there are none, the Service has no endpoints: {error}"
                    );
                }
                let known = state.last.as_ref().filter(|(last, _)| last == leader);
                known.map(|(_, addresses)| addresses.clone()).unwrap_or_default()
            }
        }
    }
}
