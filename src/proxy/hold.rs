//! The wait of a client for a leader, in the order of arrival. A client that disconnects gives up its place
//! immediately. Nothing is read from a client while it waits.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::forward::Socket;
use crate::ending::Ending;
use crate::leader::Server;
use crate::slot::{RouteSlot, RouteSnapshot, Target};
use crate::wait_queue::WaitQueue;

/// Maximum number of sessions of one listener that dial or open at the same time.
///
/// A new primary forks a backend for each, while it is busy with its promotion. 64 keep its cores busy, and exhaust
/// neither its backlog nor max_connections. Measured with PostgreSQL 15 on two shared cores: 2,000 clients released
/// together had all logged in after 5.7 s, without an error.
pub(super) const DIALS: usize = 64;

/// Minimum time that a client waits for its dial permit while there is a leader, even if its hold is shorter. The 64
/// clients ahead of it take a few milliseconds each, so after such a wait the leader no longer accepts clients.
pub(super) const QUEUE: Duration = Duration::from_secs(10);

/// Maximum number of clients that retry at the same time because the leader has no free connection (53300). It is low,
/// because each attempt costs the leader a process while all connections are busy.
const CROWD: usize = 8;
/// Time for which a client retries if the leader has no free connection.
pub(super) const CROWD_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause before each of these attempts.
const CROWD_PAUSE: Duration = Duration::from_millis(250);

/// The queue for dials. tokio's semaphore is fair: the client that has waited longest gets the next permit.
#[derive(Clone, Debug)]
pub(super) struct DialQueue {
    dials: Arc<Semaphore>,
    crowd: Arc<Semaphore>,
    wait_queue: Arc<WaitQueue>,
}

/// The right to dial. A client acquires it before it waits for a leader, so that clients are served in the order of
/// arrival. It releases the permit when the leader has answered or, if the client had to wait, when its login is over.
pub(super) type DialPermit = OwnedSemaphorePermit;

/// The right to retry if the leader has no free connection.
pub(super) type RetryPermit = OwnedSemaphorePermit;

/// A client's place in the queue, which it keeps while no task runs it.
pub(super) enum Place {
    /// The client kept the permit from a failed dial, or found one free.
    Permit(DialPermit),
    Queued(Pin<Box<dyn Future<Output = DialPermit> + Send>>),
}

/// The target and the permit of a client that may dial.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) target: Target,
    pub(super) permit: DialPermit,
    /// True if the client had to wait for a leader or for its permit.
    pub(super) waited: bool,
}

impl Admitted {
    fn at_once(target: Target, permit: DialPermit) -> Self {
        Self {
            target,
            permit,
            waited: false,
        }
    }
}

impl DialQueue {
    pub(super) fn new(wait_queue: Arc<WaitQueue>) -> Self {
        Self {
            dials: Arc::new(Semaphore::new(DIALS)),
            crowd: Arc::new(Semaphore::new(CROWD)),
            wait_queue,
        }
    }

    /// Returns a permit if one is free.
    fn try_dial_permit(&self) -> Option<DialPermit> {
        self.dials.clone().try_acquire_owned().ok()
    }

    fn permit(&self) -> impl Future<Output = DialPermit> + Send + use<> {
        let dials = self.dials.clone();
        async move {
            match dials.acquire_owned().await {
                Ok(permit) => permit,
                // The semaphore is never closed.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Reserves the next place in the queue, without waiting.
    pub(super) fn enqueue(&self) -> Place {
        let mut permit = Box::pin(self.permit());
        // The first poll puts the future in the semaphore's queue. If it gets a permit before the client's task polls
        // it again, the semaphore keeps that permit for it.
        match permit.as_mut().now_or_never() {
            Some(permit) => Place::Permit(permit),
            None => Place::Queued(permit),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Permit(_) => "Permit",
            Self::Queued(_) => "Queued",
        })
    }
}

/// Waits until `client`, which came at `since`, may dial. `place` is its place in the queue, if it has one already.
/// Gives up when the client disconnects, or at `deadline`. If there is a leader, but other clients have the permits,
/// `client` waits until it and the leader have both been present for [`QUEUE`], even beyond `deadline`.
///
/// If there is a leader and a free permit, returns without checking the client. Cancel-safe: a permit is given back.
pub(super) async fn wait(
    client: &Socket,
    slot: &RouteSlot,
    queue: &DialQueue,
    place: Option<Place>,
    tried: &[Arc<Server>],
    since: Instant,
    deadline: Instant,
) -> Result<Admitted, Ending> {
    let place = match (
        place.or_else(|| queue.try_dial_permit().map(Place::Permit)),
        slot.snapshot().target(tried),
    ) {
        (Some(Place::Permit(permit)), Some(target)) => return Ok(Admitted::at_once(target, permit)),
        (place, _) => place,
    };
    let _waits = queue.wait_queue.begin(since.into_std());
    let admitted = async {
        let permit = match place {
            Some(Place::Permit(permit)) => permit,
            Some(Place::Queued(permit)) => permit.await,
            None => queue.permit().await,
        };
        let target = slot.target(tried).await;
        Admitted {
            target,
            permit,
            waited: true,
        }
    };
    tokio::select! {
        biased;
        () = client.closed() => Err(Ending::ClientLeft),
        admitted = admitted => Ok(admitted),
        ending = expired(slot, since, deadline) => Err(ending),
    }
}

/// Completes when a client that came at `since` has waited too long for a leader or for its permit. Cancel-safe.
async fn expired(slot: &RouteSlot, since: Instant, deadline: Instant) -> Ending {
    loop {
        // Only values are kept during the wait: a snapshot that is kept delays `SessionsToEnd::done`.
        let (changed, open_since) = {
            let snapshot = slot.snapshot();
            let open_since = snapshot.is_open().then(|| Instant::from_std(snapshot.state_since));
            (snapshot.replaced(), open_since)
        };
        let (until, ending) = match open_since {
            Some(open_since) => (deadline.max(open_since.max(since) + QUEUE), Ending::QueueExpired),
            None => (deadline, Ending::HoldExpired),
        };
        tokio::select! {
            biased;
            () = changed => {}
            () = sleep_until(until) => return ending,
        }
    }
}

/// Waits after a failed attempt until the slot no longer holds `snapshot`, or `pause` is over. Gives up when the client
/// disconnects, or at `deadline`.
pub(super) async fn pause(
    client: &Socket,
    slot: &RouteSlot,
    queue: &DialQueue,
    snapshot: &RouteSnapshot,
    since: Instant,
    pause: Duration,
    deadline: Instant,
) -> Result<(), Ending> {
    let _waits = queue.wait_queue.begin(since.into_std());
    let until = (Instant::now() + pause).min(deadline);
    tokio::select! {
        biased;
        () = client.closed() => Err(Ending::ClientLeft),
        () = slot.superseded(snapshot) => Ok(()),
        () = sleep_until(until) => if until < deadline { Ok(()) } else { Err(Ending::HoldExpired) },
    }
}

/// Waits, without a dial permit, after the leader had no free connection: until the client has its `retry` permit and a
/// pause is over, but not beyond `until`. Gives up when the client disconnects. Returns false if `until` has come: the
/// client's next attempt is its last.
pub(super) async fn pause_in_crowd(
    client: &Socket,
    queue: &DialQueue,
    retry: &mut Option<RetryPermit>,
    since: Instant,
    until: Instant,
) -> Result<bool, Ending> {
    let _waits = queue.wait_queue.begin(since.into_std());
    let paused = async {
        if retry.is_none() {
            // The semaphore is never closed.
            *retry = queue.crowd.clone().acquire_owned().await.ok();
        }
        sleep(CROWD_PAUSE).await;
    };
    tokio::select! {
        biased;
        () = client.closed() => Err(Ending::ClientLeft),
        () = paused => Ok(true),
        () = sleep_until(until) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::{Address, RoutingState};

    fn routes() -> RoutingState {
        RoutingState::Route(Server {
            member: "a".into(),
            address: Address::new("10.0.0.7", 5432).expect("an address"),
            timeline: None,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_leader_the_hold_ends_at_its_deadline() {
        let slot = RouteSlot::new("starting");
        let now = Instant::now();
        let deadline = now + Duration::from_secs(3);
        assert_eq!(expired(&slot, now, deadline).await, Ending::HoldExpired);
        assert_eq!(Instant::now().duration_since(deadline).as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_leader_no_client_is_held_and_the_queue_has_its_own_deadline() {
        let slot = RouteSlot::new("starting");
        slot.publish(routes(), "a leads".into());
        let now = Instant::now();
        assert_eq!(expired(&slot, now, now).await, Ending::QueueExpired);
        assert_eq!(Instant::now().duration_since(now).as_secs(), QUEUE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_leader_no_client_is_refused_before_its_hold_is_over() {
        let slot = RouteSlot::new("starting");
        slot.publish(routes(), "a leads".into());
        let now = Instant::now();
        let deadline = now + 6 * QUEUE;
        assert_eq!(expired(&slot, now, deadline).await, Ending::QueueExpired);
        assert_eq!(Instant::now().duration_since(deadline).as_millis(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_lost_ends_the_wait_in_the_queue_once_the_hold_is_over() {
        let slot = RouteSlot::new("starting");
        slot.publish(routes(), "a leads".into());
        let now = Instant::now();
        let mut expires = std::pin::pin!(expired(&slot, now, now));
        tokio::select! {
            ending = &mut expires => panic!("{ending} at once"),
            () = sleep(Duration::from_secs(1)) => {}
        }
        slot.publish(RoutingState::Fence, "the lock has expired".into());
        assert_eq!(expires.await, Ending::HoldExpired);
        assert_eq!(Instant::now().duration_since(now).as_secs(), 1);
    }
}
