//! The messages of a hand-over, as JSON. A field that a version does not know is ignored, so that old and new versions
//! understand each other: the first messages of each side, and those about listeners, stay as they are.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::leader::observation::OperatorHold;
use crate::leader::view::View;
use crate::leader::{RoutingState, Server};

/// A listener that is passed, beside its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedListener {
    /// The flag of the setting that names its address.
    pub flag: String,
    /// The address that the settings name, which may have port 0.
    pub asked: SocketAddr,
    /// systemd opened it, and keeps it open.
    pub activated: bool,
}

/// Counters with their labels.
pub type Counters = Vec<(String, u64)>;

/// Series of histograms, with their values.
pub type Histograms = Vec<(String, f64)>;

/// An operator's hold of new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedHold {
    since: SystemTime,
    /// Time at which it ends by itself.
    pub until: SystemTime,
    left: Duration,
}

/// The messages of the old process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromPredecessor {
    /// The first message. Its files are the listeners.
    Hello {
        /// The version of the old process.
        version: String,
        /// The listeners, in the order of the files.
        listeners: Vec<PassedListener>,
        /// The format in which it passes sessions; zero if it passes none.
        #[serde(default)]
        session_format: u32,
    },
    /// Asks for a [`HandoverState`].
    Ask {
        /// The operator's hold that is in force, which the successor applies.
        #[serde(default)]
        hold: Option<PassedHold>,
    },
    /// Changes of leader that the old process has recorded, the newest first, as `/failovers` serves them; more may
    /// follow. There is no answer.
    Failovers {
        /// Their records.
        failovers: Vec<Value>,
    },
    /// The successor is to accept clients from now on.
    Take {
        /// The counters so far, each with its labels.
        #[serde(default)]
        counters: Counters,
        /// The histograms so far, each series with its value.
        #[serde(default)]
        histograms: Histograms,
    },
    /// Sessions, whose bytes and files come with the message. The old process does not touch them until they are refused.
    Sessions {
        /// Their descriptions, in the session format.
        sessions: Vec<Value>,
    },
    /// The old process accepts no longer, and has told systemd which process is the main one.
    Done {
        /// The counters at last; those of clients that it still has are not counted on.
        #[serde(default)]
        counters: Counters,
        /// The histograms at last, likewise.
        #[serde(default)]
        histograms: Histograms,
        /// The operator's hold, which may have changed meanwhile.
        #[serde(default)]
        hold: Option<PassedHold>,
    },
}

/// The messages of the successor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub enum FromSuccessor {
    /// The first message, once the settings are read.
    Hello {
        /// The version of the successor.
        version: String,
        /// The format in which it takes sessions; zero if it takes none.
        #[serde(default)]
        session_format: u32,
    },
    /// It cannot start. It ends.
    Refused {
        /// The reason, for people.
        why: String,
    },
    /// The answer to [`FromPredecessor::Ask`].
    State(HandoverState),
    /// It accepts clients: the answer to [`FromPredecessor::Take`].
    Taken,
    /// It goes on with the sessions: an answer to [`FromPredecessor::Sessions`], sent before it touches the first one.
    SessionsTaken {
        /// The numbers of those that it leaves where they are, because it does not follow their member.
        left: Vec<usize>,
    },
    /// It cannot go on with the sessions, and has not touched them: another answer.
    SessionsRefused {
        /// The reason, for people.
        why: String,
    },
}

/// The decision of a process, with all that a hand-over depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverState {
    /// A source has answered.
    pub ready: bool,
    /// New clients are sent to a leader.
    pub routes: bool,
    /// Member and address of the leader whose sessions may live.
    pub leader: Option<(String, String)>,
    /// The server of the leader that has this address (`--target`); none from a version that does not say so.
    #[serde(default)]
    pub target: Option<String>,
    /// The reason of the decision.
    pub reason: String,
    /// Every member whose sessions may live, with its route.
    #[serde(default)]
    pub members: Vec<String>,
    /// End of the operator's hold that is in force.
    #[serde(default)]
    pub held_until: Option<SystemTime>,
}

impl PassedHold {
    /// Describes a hold for another process.
    pub fn new(hold: &OperatorHold, now: Instant) -> Self {
        Self {
            since: hold.since,
            until: hold.until,
            left: hold.ends.saturating_duration_since(now),
        }
    }

    /// Returns the hold by this process's clock.
    pub fn resume(self, now: Instant) -> OperatorHold {
        OperatorHold {
            since: self.since,
            until: self.until,
            ends: now + self.left,
        }
    }
}

impl HandoverState {
    /// Returns the state of a process that has decided like this.
    pub fn new(state: &RoutingState, reason: &str, ready: bool, members: Vec<String>, view: &View) -> Self {
        let named = |leader: &Server| (leader.member.to_string(), leader.address.to_string());
        Self {
            ready,
            routes: state.open_to().is_some(),
            leader: state.leader().map(named),
            target: Some(view.upstream().to_string()),
            reason: reason.to_owned(),
            members,
            held_until: view.operator_hold().map(|hold| hold.until),
        }
    }

    /// Returns true if such a process can go on with every session of a process in the state `old`, or never
    /// will: sessions to another target stay in the old process.
    pub fn keeps_all(&self, old: &Self) -> bool {
        self.has_other_target(old) || old.members.iter().all(|member| self.members.contains(member))
    }

    fn has_other_target(&self, old: &Self) -> bool {
        let both = self.target.as_ref().zip(old.target.as_ref());
        both.is_some_and(|(own, former)| own != former)
    }

    /// Returns true if a successor in this state may take over from a process in the state `old`: no client
    /// waits longer and no session ends for it, and an operator's hold is in force in both or in none.
    pub fn may_follow(&self, old: &Self) -> bool {
        let keeps_sessions = match (&old.leader, &self.leader) {
            (None, _) => true,
            (Some((member, _)), Some((same, _))) if self.has_other_target(old) => member == same,
            (leader, same) => leader == same,
        };
        self.ready && keeps_sessions && (self.routes || !old.routes) && self.held_until == old.held_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Address;

    fn state_of(state: &RoutingState) -> HandoverState {
        HandoverState::new(state, "because", true, Vec::new(), &View::default())
    }

    fn leader(member: &str) -> Server {
        Server {
            member: member.into(),
            address: Address::new("10.0.0.7", 5432).unwrap(),
            timeline: None,
        }
    }

    #[test]
    fn sums_of_histograms_are_passed_exactly() {
        let sum = |nth: u32| ("sum".to_owned(), f64::from(nth).sqrt() * 1e-7);
        let histograms: Histograms = (1..10_000).map(sum).collect();
        let text = serde_json::to_string(&histograms).unwrap();
        assert_eq!(serde_json::from_str::<Histograms>(&text).unwrap(), histograms);
    }

    #[test]
    fn a_successor_takes_over_when_nobody_is_worse_off() {
        use RoutingState::{Fence, Hold, Route};
        let a = || leader("a");
        for (old, new, may) in [
            (Route(a()), Route(a()), true),
            (Route(a()), Route(leader("b")), false),
            (Route(a()), Hold(Some(a())), false),
            (Route(a()), Hold(None), false),
            (Route(a()), Fence, false),
            (Hold(Some(a())), Hold(Some(a())), true),
            (Hold(Some(a())), Route(a()), true),
            // It does not know the leader whose sessions live, and would end them.
            (Hold(Some(a())), Hold(None), false),
            (Hold(None), Hold(None), true),
            (Hold(None), Route(a()), true),
            (Fence, Hold(None), true),
            (Fence, Route(leader("b")), true),
        ] {
            assert_eq!(state_of(&new).may_follow(&state_of(&old)), may, "{old:?} → {new:?}");
        }
    }

    #[test]
    fn a_successor_with_another_target_has_to_follow_the_same_member() {
        let at = |target: Option<&str>, member: &str, port: u16| {
            let address = Address::new("10.0.0.7", port).unwrap();
            let leader = Server {
                address,
                ..leader(member)
            };
            HandoverState {
                target: target.map(str::to_owned),
                members: vec![format!("primary {leader}")],
                ..state_of(&RoutingState::Route(leader))
            }
        };
        let old = at(Some("postgres"), "a", 5432);
        for (new, may) in [
            (at(Some("6432"), "a", 6432), true),
            (at(Some("6432"), "b", 6432), false),
            // The leader has another address: one of them does not know it yet.
            (at(Some("postgres"), "a", 5433), false),
            // A version that does not name its target.
            (at(None, "a", 6432), false),
        ] {
            assert_eq!(new.may_follow(&old), may, "{new:?}");
            assert_eq!(new.keeps_all(&old), new.target.as_deref() == Some("6432"), "{new:?}");
        }
    }

    #[test]
    fn a_successor_without_an_answer_from_any_source_takes_nothing() {
        let hold = RoutingState::Hold(None);
        let starting = HandoverState::new(&hold, "starting", false, Vec::new(), &View::default());
        assert!(!starting.may_follow(&state_of(&hold)));
    }

    #[test]
    fn a_successor_that_does_not_know_an_operators_hold_takes_nothing() {
        let held = |until| HandoverState {
            held_until: until,
            ..state_of(&RoutingState::Hold(Some(leader("a"))))
        };
        let routes = state_of(&RoutingState::Route(leader("a")));
        let until = SystemTime::now();
        assert!(
            !routes.may_follow(&held(Some(until))),
            "it would let the clients through"
        );
        assert!(held(Some(until)).may_follow(&held(Some(until))));
        assert!(
            !held(Some(until)).may_follow(&held(None)),
            "the operator has released the clients"
        );
    }
}
