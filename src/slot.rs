//! The leader's address: an atomically swapped slot that holds the current [`Snapshot`].
//!
//! A snapshot contains its own end signals: a session reads the leader, waits for one and notices its end through the
//! same value, and no registry of sessions is needed. The leader is decided elsewhere; this file only publishes it.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::ending::Ending;
use crate::leader::{Leader, RoutingState};

/// A decision, from its publication until the next one.
#[derive(Debug)]
pub struct Snapshot {
    /// The treatment of clients and sessions.
    pub state: RoutingState,
    /// The reason, as a sentence for people.
    pub reason: String,
    /// Time since which sessions of this leader may live, or since which there is none; a hold in between does not
    /// change it.
    pub since: SystemTime,
    /// Time of this decision's publication.
    pub at: Instant,
    /// Time since which the state is this one; a new reason does not change it.
    pub state_since: Instant,
    open_to: Option<Arc<Leader>>,
    epoch: Arc<Epoch>,
    superseded: CancellationToken,
}

/// The unbroken time in which sessions to one leader may live. It spans a hold that keeps them.
#[derive(Debug)]
struct Epoch {
    end: End,
    /// Closed when the last target of this epoch is dropped.
    alive: watch::Sender<()>,
}

/// The end signal of an epoch. It is sent once, for one reason. Clones share it.
#[derive(Clone, Debug)]
pub struct End {
    ended: CancellationToken,
    why: Arc<OnceLock<Ending>>,
    epoch_ended: watch::Sender<()>,
}

/// An epoch that another one has replaced: its sessions have to end.
#[derive(Clone, Debug)]
pub struct Cut {
    /// The signal that ends them.
    pub end: End,
    alive: watch::Receiver<()>,
}

/// A leader to dial, and the signal that ends every session to it. Read together, so there is no race between them.
#[derive(Debug)]
pub struct Target {
    /// The leader to dial.
    pub leader: Arc<Leader>,
    epoch: Arc<Epoch>,
}

/// The atomically swapped slot. Reading it takes no lock.
#[derive(Debug)]
pub struct LeaderSlot {
    snapshot: ArcSwap<Snapshot>,
    /// Changes at each end of an epoch.
    epoch_ended: watch::Sender<()>,
}

impl LeaderSlot {
    /// Returns a slot without a leader, for the reason given.
    pub fn new(reason: impl Into<String>) -> Self {
        let epoch_ended = watch::Sender::new(());
        Self {
            snapshot: ArcSwap::from_pointee(Snapshot {
                state: RoutingState::Hold(None),
                reason: reason.into(),
                since: SystemTime::now(),
                at: Instant::now(),
                state_since: Instant::now(),
                open_to: None,
                epoch: Epoch::begin(&epoch_ended),
                superseded: CancellationToken::new(),
            }),
            epoch_ended,
        }
    }

    /// Returns the current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Makes `state` the current one. Afterwards new clients see it, and waiting clients are woken. If the
    /// leader is another one, the caller has to end the sessions to the former leader through the returned [`Cut`].
    ///
    /// Only discovery calls this; two callers at once would lose one decision.
    #[must_use = "sessions to the former leader live until they are told to end"]
    pub fn succeed(&self, state: RoutingState, reason: String) -> Option<Cut> {
        let old = self.snapshot();
        let same = state.leader() == old.state.leader() && state.leader().is_some();
        let none = state.leader().is_none() && old.state.leader().is_none();
        let keeps = same || none;
        let at = Instant::now();
        let same_state = state == old.state;
        self.snapshot.store(Arc::new(Snapshot {
            open_to: state.open_to().cloned().map(Arc::new),
            state,
            reason,
            since: if keeps { old.since } else { SystemTime::now() },
            at,
            state_since: if same_state { old.state_since } else { at },
            epoch: if keeps {
                old.epoch.clone()
            } else {
                Epoch::begin(&self.epoch_ended)
            },
            superseded: CancellationToken::new(),
        }));
        old.superseded.cancel();
        // Without a leader no session has got a target.
        (!keeps && old.state.leader().is_some()).then(|| old.epoch.cut())
    }

    /// Begins another epoch of the same leader, under the same decision. The returned handle ends all existing
    /// sessions; later ones are unaffected. `None` if there is no leader, and so no session.
    ///
    /// Only discovery calls this, as for [`succeed`](Self::succeed).
    #[must_use = "the sessions live until they are told to end"]
    pub fn renew(&self) -> Option<Cut> {
        let old = self.snapshot();
        old.state.leader()?;
        self.snapshot.store(Arc::new(Snapshot {
            state: old.state.clone(),
            reason: old.reason.clone(),
            since: old.since,
            at: old.at,
            state_since: old.state_since,
            open_to: old.open_to.clone(),
            epoch: Epoch::begin(&self.epoch_ended),
            superseded: CancellationToken::new(),
        }));
        old.superseded.cancel();
        Some(old.epoch.cut())
    }

    /// Calls [`succeed`](Self::succeed), and ends every session to the former leader if the leader is another one.
    pub fn publish(&self, state: RoutingState, reason: String) -> Option<Cut> {
        let why = ending(&state);
        let cut = self.succeed(state, reason)?;
        cut.end.now(why);
        Some(cut)
    }

    /// Waits until new clients may go to a leader. Cancel-safe; never returns while no leader is routed to.
    pub async fn leader(&self) -> Target {
        loop {
            let snapshot = self.snapshot();
            if let Some(target) = snapshot.target() {
                return target;
            }
            snapshot.superseded.cancelled().await;
        }
    }

    /// Waits until new clients are held. Cancel-safe.
    pub async fn held(&self) {
        loop {
            let snapshot = self.snapshot();
            if snapshot.state.open_to().is_none() {
                return;
            }
            snapshot.superseded.cancelled().await;
        }
    }

    /// Returns a channel that changes after each [`End::now`], for callers that do not await each target's end.
    pub fn endings(&self) -> watch::Receiver<()> {
        self.epoch_ended.subscribe()
    }

    /// Completes when the slot no longer holds the present snapshot. The future itself keeps no snapshot: a snapshot
    /// that is kept delays [`Cut::done`], as a session does. Cancel-safe.
    pub fn changed(&self) -> WaitForCancellationFutureOwned {
        self.snapshot().replaced()
    }

    /// Waits until the slot no longer holds `snapshot`. Cancel-safe.
    pub async fn superseded(&self, snapshot: &Snapshot) {
        snapshot.superseded.cancelled().await;
    }
}

/// Returns the ending of the sessions that a state does not keep.
pub fn ending(state: &RoutingState) -> Ending {
    match state {
        RoutingState::Fence => Ending::Fenced,
        RoutingState::Route(_) | RoutingState::Hold(_) => Ending::LeaderChanged,
    }
}

impl Snapshot {
    /// Completes when the slot no longer holds this snapshot. The future does not keep the snapshot. Cancel-safe.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.superseded.clone().cancelled_owned()
    }

    /// Returns the leader whose sessions may live now, even while new clients are held.
    pub fn kept(&self) -> Option<Target> {
        let leader = Arc::new(self.state.leader()?.clone());
        Some(Target {
            leader,
            epoch: self.epoch.clone(),
        })
    }

    /// Returns the leader to dial, if new clients may go to one now.
    pub fn target(&self) -> Option<Target> {
        self.open_to.as_ref().map(|leader| Target {
            leader: leader.clone(),
            epoch: self.epoch.clone(),
        })
    }
}

impl Target {
    /// Completes when sessions to this leader must end. Cancel-safe.
    ///
    /// Each call makes a token of its own: polling one shared token would make all sessions queue for one lock.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.epoch.end.ended.child_token().cancelled_owned()
    }

    /// Returns why sessions must end; `None` while they may live.
    pub fn ending(&self) -> Option<Ending> {
        self.epoch.end.why.get().copied()
    }
}

impl Cut {
    /// Completes when no session of the epoch is left.
    pub async fn done(mut self) {
        while self.alive.changed().await.is_ok() {}
    }
}

impl End {
    /// Ends every session of the epoch. If this is called again, the first reason stays.
    pub fn now(&self, why: Ending) {
        let _already_ended = self.why.set(why);
        self.ended.cancel();
        self.epoch_ended.send_replace(());
    }
}

impl Epoch {
    fn begin(epoch_ended: &watch::Sender<()>) -> Arc<Self> {
        Arc::new(Self {
            end: End {
                ended: CancellationToken::new(),
                why: Arc::default(),
                epoch_ended: epoch_ended.clone(),
            },
            alive: watch::Sender::new(()),
        })
    }

    fn cut(&self) -> Cut {
        Cut {
            end: self.end.clone(),
            alive: self.alive.subscribe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Address;

    fn leader(member: &str) -> Leader {
        Leader {
            member: member.into(),
            address: Address::new("10.0.0.7", 5432).unwrap(),
            timeline: None,
        }
    }

    #[tokio::test]
    async fn a_hold_keeps_the_sessions_of_its_leader() {
        let slot = LeaderSlot::new("starting");
        slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        let target = slot.leader().await;
        slot.publish(RoutingState::Hold(Some(leader("a"))), "switchover".into());
        assert_eq!(target.ending(), None);
        assert!(slot.snapshot().target().is_none(), "a hold admits no client");
        slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        assert_eq!(target.ending(), None);
        slot.publish(RoutingState::Route(leader("b")), "b leads".into());
        target.ended().await;
        assert_eq!(target.ending(), Some(Ending::LeaderChanged));
    }

    #[tokio::test]
    async fn a_fence_ends_sessions_and_a_waiting_client_sees_the_next_leader() {
        let slot = Arc::new(LeaderSlot::new("starting"));
        slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        let target = slot.leader().await;
        slot.publish(RoutingState::Fence, "the lock has expired".into());
        target.ended().await;
        assert_eq!(target.ending(), Some(Ending::Fenced));
        let waiting = tokio::spawn({
            let slot = slot.clone();
            async move { slot.leader().await.leader.member.clone() }
        });
        slot.publish(RoutingState::Route(leader("b")), "b leads".into());
        assert_eq!(waiting.await.unwrap(), "b");
    }

    #[test]
    fn without_a_former_leader_there_is_nothing_to_cut() {
        let slot = LeaderSlot::new("starting");
        let cut = slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        assert!(cut.is_none(), "{cut:?}");
        assert!(
            slot.publish(RoutingState::Fence, "the lock has expired".into())
                .is_some()
        );
        let cut = slot.publish(RoutingState::Route(leader("b")), "b leads".into());
        assert!(cut.is_none(), "{cut:?}");
    }

    #[test]
    fn a_new_epoch_of_the_same_leader_ends_earlier_sessions_alone() {
        let slot = LeaderSlot::new("starting");
        assert!(slot.renew().is_none(), "there is no leader");
        slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        let (before, then) = (slot.snapshot().target().unwrap(), slot.snapshot());
        let cut = slot.renew().unwrap();
        let after = slot.snapshot().target().unwrap();
        cut.end.now(Ending::CutByOperator);
        assert_eq!(before.ending(), Some(Ending::CutByOperator));
        assert_eq!((after.ending(), &*after.leader), (None, &leader("a")));
        let snapshot = slot.snapshot();
        assert_eq!(
            (&snapshot.state, &snapshot.reason, snapshot.since, snapshot.state_since),
            (&then.state, &then.reason, then.since, then.state_since)
        );
    }

    #[test]
    fn a_leader_that_returns_after_a_fence_begins_a_new_epoch() {
        let slot = LeaderSlot::new("starting");
        slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        let before = slot.snapshot().target().unwrap();
        slot.publish(RoutingState::Fence, "the lock has expired".into());
        slot.publish(RoutingState::Route(leader("a")), "a leads".into());
        let after = slot.snapshot().target().unwrap();
        assert_eq!(before.ending(), Some(Ending::Fenced));
        assert_eq!(after.ending(), None);
    }
}
