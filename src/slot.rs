//! The one address: an atomically swapped slot that holds the current [`Term`].
//!
//! A term carries its own end signals, so reading who leads, waiting for a leader and noticing a leader's end are one thing, and no registry of
//! sessions is needed. Who leads is decided elsewhere; this file only publishes it.

use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::ending::Ending;
use crate::leader::{Course, Leader};

/// One unbroken stretch under one verdict.
#[derive(Debug)]
pub struct Term {
    /// What is done with clients and sessions.
    pub course: Course,
    /// Why, as a sentence for people.
    pub reason: String,
    /// When the leader whose sessions may live (or its absence) began; a hold in between does not move it.
    pub since: SystemTime,
    /// When this verdict was published.
    pub at: Instant,
    /// Since when the course is this one, whatever the reasons for it were.
    pub course_since: Instant,
    open_to: Option<Arc<Leader>>,
    reign: Arc<Reign>,
    superseded: CancellationToken,
}

/// The unbroken time in which sessions to one leader may live. It spans a hold that keeps them.
#[derive(Debug)]
struct Reign {
    end: End,
    /// Dropped with the last lease of this reign.
    alive: watch::Sender<()>,
}

/// How a reign ends: once, for one reason. Clones are handles on the same end.
#[derive(Clone, Debug)]
pub struct End {
    ended: CancellationToken,
    why: Arc<OnceLock<Ending>>,
    bell: watch::Sender<()>,
}

/// A reign that was succeeded by another: its sessions are to end.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Ends them.
    pub end: End,
    alive: watch::Receiver<()>,
}

/// A leader to dial, and the signal that ends every session to it. Read together, so there is no race between them.
#[derive(Debug)]
pub struct Lease {
    /// Whom to dial.
    pub leader: Arc<Leader>,
    reign: Arc<Reign>,
}

/// The atomically swapped slot. Reading it takes no lock.
#[derive(Debug)]
pub struct LeaderSlot {
    term: ArcSwap<Term>,
    /// Rung by every end of a reign.
    bell: watch::Sender<()>,
}

impl LeaderSlot {
    /// A slot with no leader, for the reason given.
    pub fn new(reason: impl Into<String>) -> Self {
        let bell = watch::Sender::new(());
        Self {
            term: ArcSwap::from_pointee(Term {
                course: Course::Hold(None),
                reason: reason.into(),
                since: SystemTime::now(),
                at: Instant::now(),
                course_since: Instant::now(),
                open_to: None,
                reign: Reign::begin(&bell),
                superseded: CancellationToken::new(),
            }),
            bell,
        }
    }

    /// The current term.
    pub fn term(&self) -> Arc<Term> {
        self.term.load_full()
    }

    /// Makes `course` the current one. Afterwards new clients see it, and waiting clients are woken. Where the leader is another one, the sessions to the old are
    /// still to be ended, through what is returned.
    ///
    /// Only discovery calls this; two callers at once would lose one verdict.
    #[must_use = "sessions to the former leader live until they are told to end"]
    pub fn succeed(&self, course: Course, reason: String) -> Option<Cut> {
        let old = self.term();
        let same = course.leader() == old.course.leader() && course.leader().is_some();
        let none = course.leader().is_none() && old.course.leader().is_none();
        let keeps = same || none;
        let at = Instant::now();
        let same_course = course == old.course;
        self.term.store(Arc::new(Term {
            open_to: course.open_to().cloned().map(Arc::new),
            course,
            reason,
            since: if keeps { old.since } else { SystemTime::now() },
            at,
            course_since: if same_course { old.course_since } else { at },
            reign: if keeps {
                old.reign.clone()
            } else {
                Reign::begin(&self.bell)
            },
            superseded: CancellationToken::new(),
        }));
        old.superseded.cancel();
        // Nobody got a lease where there was no leader.
        (!keeps && old.course.leader().is_some()).then(|| old.reign.cut())
    }

    /// Begins another reign of the same leader, under the same verdict: what is returned ends the sessions there were, and newcomers are none of them. `None`
    /// where nobody leads, and so nobody has a session.
    ///
    /// Like [`succeed`](Self::succeed), for discovery alone.
    #[must_use = "the sessions live until they are told to end"]
    pub fn renew(&self) -> Option<Cut> {
        let old = self.term();
        old.course.leader()?;
        self.term.store(Arc::new(Term {
            course: old.course.clone(),
            reason: old.reason.clone(),
            since: old.since,
            at: old.at,
            course_since: old.course_since,
            open_to: old.open_to.clone(),
            reign: Reign::begin(&self.bell),
            superseded: CancellationToken::new(),
        }));
        old.superseded.cancel();
        Some(old.reign.cut())
    }

    /// [`succeed`](Self::succeed), and every session to the former leader, if it is another one, has been told to end.
    pub fn publish(&self, course: Course, reason: String) -> Option<Cut> {
        let why = ending(&course);
        let cut = self.succeed(course, reason)?;
        cut.end.now(why);
        Some(cut)
    }

    /// Waits until new clients may go to a leader. Cancel-safe; never returns while no leader is routed to.
    pub async fn leader(&self) -> Lease {
        loop {
            let term = self.term();
            if let Some(lease) = term.lease() {
                return lease;
            }
            term.superseded.cancelled().await;
        }
    }

    /// Waits until new clients are held. Cancel-safe.
    pub async fn held(&self) {
        loop {
            let term = self.term();
            if term.course.open_to().is_none() {
                return;
            }
            term.superseded.cancelled().await;
        }
    }

    /// Changes after each [`End::now`]: leases may have ended that nobody awaits one by one.
    pub fn endings(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }

    /// Completes when the slot no longer holds the present term. Meanwhile it holds on to none: who keeps a term keeps its reign from ending for those who
    /// wait for the last of its sessions. Cancel-safe.
    pub fn changed(&self) -> WaitForCancellationFutureOwned {
        self.term().replaced()
    }

    /// Waits until the slot no longer holds `term`. Cancel-safe.
    pub async fn superseded(&self, term: &Term) {
        term.superseded.cancelled().await;
    }
}

/// Why sessions end that a course does not keep.
pub fn ending(course: &Course) -> Ending {
    match course {
        Course::Fence => Ending::Fenced,
        Course::Route(_) | Course::Hold(_) => Ending::LeaderChanged,
    }
}

impl Term {
    /// Completes when the slot no longer holds this term, and meanwhile does not hold on to it. Cancel-safe.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.superseded.clone().cancelled_owned()
    }

    /// The leader whose sessions may live now, new clients held or not.
    pub fn kept(&self) -> Option<Lease> {
        let leader = Arc::new(self.course.leader()?.clone());
        Some(Lease {
            leader,
            reign: self.reign.clone(),
        })
    }

    /// The leader to dial, if new clients may go to one now.
    pub fn lease(&self) -> Option<Lease> {
        self.open_to.as_ref().map(|leader| Lease {
            leader: leader.clone(),
            reign: self.reign.clone(),
        })
    }
}

impl Lease {
    /// Completes when sessions to this leader must end. Cancel-safe.
    ///
    /// Each call makes a token of its own: polling one shared token would make all sessions queue for one lock.
    pub fn ended(&self) -> WaitForCancellationFutureOwned {
        self.reign.end.ended.child_token().cancelled_owned()
    }

    /// Why sessions must end; `None` while they need not.
    pub fn ending(&self) -> Option<Ending> {
        self.reign.end.why.get().copied()
    }
}

impl Cut {
    /// Completes when no session of the reign is left.
    pub async fn done(mut self) {
        while self.alive.changed().await.is_ok() {}
    }
}

impl End {
    /// Tells every session of the reign to end. The first reason stands.
    pub fn now(&self, why: Ending) {
        let _already_ended = self.why.set(why);
        self.ended.cancel();
        self.bell.send_replace(());
    }
}

impl Reign {
    fn begin(bell: &watch::Sender<()>) -> Arc<Self> {
        Arc::new(Self {
            end: End {
                ended: CancellationToken::new(),
                why: Arc::default(),
                bell: bell.clone(),
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
        slot.publish(Course::Route(leader("a")), "a leads".into());
        let lease = slot.leader().await;
        slot.publish(Course::Hold(Some(leader("a"))), "switchover".into());
        assert_eq!(lease.ending(), None);
        assert!(slot.term().lease().is_none(), "a hold admits nobody");
        slot.publish(Course::Route(leader("a")), "a leads".into());
        assert_eq!(lease.ending(), None);
        slot.publish(Course::Route(leader("b")), "b leads".into());
        lease.ended().await;
        assert_eq!(lease.ending(), Some(Ending::LeaderChanged));
    }

    #[tokio::test]
    async fn a_fence_ends_sessions_and_a_waiting_client_sees_the_next_leader() {
        let slot = Arc::new(LeaderSlot::new("starting"));
        slot.publish(Course::Route(leader("a")), "a leads".into());
        let lease = slot.leader().await;
        slot.publish(Course::Fence, "the lease ran out".into());
        lease.ended().await;
        assert_eq!(lease.ending(), Some(Ending::Fenced));
        let waiting = tokio::spawn({
            let slot = slot.clone();
            async move { slot.leader().await.leader.member.clone() }
        });
        slot.publish(Course::Route(leader("b")), "b leads".into());
        assert_eq!(waiting.await.unwrap(), "b");
    }

    #[test]
    fn nothing_is_to_be_cut_where_nobody_led() {
        let slot = LeaderSlot::new("starting");
        let cut = slot.publish(Course::Route(leader("a")), "a leads".into());
        assert!(cut.is_none(), "{cut:?}");
        assert!(slot.publish(Course::Fence, "the lease ran out".into()).is_some());
        let cut = slot.publish(Course::Route(leader("b")), "b leads".into());
        assert!(cut.is_none(), "{cut:?}");
    }

    #[test]
    fn a_reign_that_is_renewed_ends_who_was_there_and_takes_newcomers() {
        let slot = LeaderSlot::new("starting");
        assert!(slot.renew().is_none(), "nobody leads");
        slot.publish(Course::Route(leader("a")), "a leads".into());
        let (before, then) = (slot.term().lease().unwrap(), slot.term());
        let cut = slot.renew().unwrap();
        let after = slot.term().lease().unwrap();
        cut.end.now(Ending::CutByOperator);
        assert_eq!(before.ending(), Some(Ending::CutByOperator));
        assert_eq!((after.ending(), &*after.leader), (None, &leader("a")));
        let term = slot.term();
        assert_eq!(
            (&term.course, &term.reason, term.since, term.course_since),
            (&then.course, &then.reason, then.since, then.course_since)
        );
    }

    #[test]
    fn a_leader_that_returns_after_a_fence_rules_anew() {
        let slot = LeaderSlot::new("starting");
        slot.publish(Course::Route(leader("a")), "a leads".into());
        let before = slot.term().lease().unwrap();
        slot.publish(Course::Fence, "the lease ran out".into());
        slot.publish(Course::Route(leader("a")), "a leads".into());
        let after = slot.term().lease().unwrap();
        assert_eq!(before.ending(), Some(Ending::Fenced));
        assert_eq!(after.ending(), None);
    }
}
