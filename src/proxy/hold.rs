//! A client waits for a leader, first come first served; one that leaves is forgotten at once, and nothing it sent is read.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, sleep_until};

use super::forward::Socket;
use crate::ending::Ending;
use crate::slot::{LeaderSlot, Lease, Term};
use crate::waits::Waits;

/// Sessions that may be between "wants a leader" and the leader's first byte.
///
/// A new primary forks a backend for each, while it has other things to do. 64 at once keep its cores busy, and leave its backlog and max_connections
/// alone. Measured with PostgreSQL 15 on two shared cores: 2,000 clients released together had all logged in after 5.7 s, without an error.
const DIALS: usize = 64;

/// The queue for dials. tokio's semaphore is fair: permits go to who waits longest.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    turns: Arc<Semaphore>,
    waits: Arc<Waits>,
}

/// The right to dial. It is taken before the wait for a leader, so that the order of arrival is the order of service, and dropped when the leader
/// answers.
pub(super) type Turn = OwnedSemaphorePermit;

impl Queue {
    pub(super) fn new(waits: Arc<Waits>) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(DIALS)),
            waits,
        }
    }

    /// A turn, if nobody waits for one.
    fn try_turn(&self) -> Option<Turn> {
        self.turns.clone().try_acquire_owned().ok()
    }

    async fn turn(&self) -> Turn {
        match self.turns.clone().acquire_owned().await {
            Ok(turn) => turn,
            // The semaphore is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Waits until `client`, which came at `since`, may dial, and whom; `turn` is what it already has from a dial that failed. Gives up when the client leaves or at `deadline`.
///
/// With a leader and a free turn it returns without a look at the client: a CancelRequest whose sender has closed already must be delivered.
/// Cancel-safe: a turn is given back.
pub(super) async fn wait(
    client: &Socket,
    slot: &LeaderSlot,
    queue: &Queue,
    turn: Option<Turn>,
    since: Instant,
    deadline: Instant,
) -> Result<(Lease, Turn), Ending> {
    let turn = match (turn.or_else(|| queue.try_turn()), slot.term().lease()) {
        (Some(turn), Some(lease)) => return Ok((lease, turn)),
        (turn, _) => turn,
    };
    let _waits = queue.waits.begin(since.into_std());
    let admitted = async {
        let turn = match turn {
            Some(turn) => turn,
            None => queue.turn().await,
        };
        (slot.leader().await, turn)
    };
    tokio::select! {
        biased;
        () = client.left() => Err(Ending::ClientLeft),
        admitted = admitted => Ok(admitted),
        () = sleep_until(deadline) => Err(Ending::HoldExpired),
    }
}

/// A pause after a failed dial: until something changed since `term`, or `pause` is over. Gives up as [`wait`] does.
pub(super) async fn pause(
    client: &Socket,
    slot: &LeaderSlot,
    queue: &Queue,
    term: &Term,
    since: Instant,
    pause: Duration,
    deadline: Instant,
) -> Result<(), Ending> {
    let _waits = queue.waits.begin(since.into_std());
    let until = (Instant::now() + pause).min(deadline);
    tokio::select! {
        biased;
        () = client.left() => Err(Ending::ClientLeft),
        () = slot.superseded(term) => Ok(()),
        () = sleep_until(until) => if until < deadline { Ok(()) } else { Err(Ending::HoldExpired) },
    }
}
