//! The messages of a hand-over, as JSON. Unknown fields are ignored, so that old and new versions understand each
//! other. A change must keep the first message of each side, and the description of listeners, readable for every
//! version.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::leader::observation::OperatorHold;
use crate::leader::view::View;
use crate::leader::{RoutingState, Server};

/// The description of a passed listener. Its file comes with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedListener {
    /// `admin` for the admin port; `listen` for the listener of any route.
    pub flag: String,
    /// The address that the settings name, which may have port 0.
    pub asked: SocketAddr,
    /// True if systemd opened the listener, and keeps it open.
    pub activated: bool,
}

/// The series of all counters, each with its labels and its value.
pub type Counters = Vec<(String, u64)>;

/// The series of all histograms, each with its labels and its value.
pub type Histograms = Vec<(String, f64)>;

/// An operator's hold of new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedHold {
    since: SystemTime,
    /// Time at which the hold ends unless it is released earlier.
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
        /// The format in which the old process passes sessions; zero if it passes none.
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
        /// The records.
        failovers: Vec<Value>,
    },
    /// Asks the successor to accept clients from now on.
    Take {
        /// The counters so far, each with its labels.
        #[serde(default)]
        counters: Counters,
        /// The histograms so far, each series with its value.
        #[serde(default)]
        histograms: Histograms,
    },
    /// Sessions and waiting clients, whose bytes and files come with the message. The old process does not run them
    /// unless the successor leaves or refuses them, or ends without an answer.
    Sessions {
        /// Their descriptions, in the session format.
        sessions: Vec<Value>,
    },
    /// The old process no longer accepts clients, and has reported the new main PID to systemd, if systemd runs it.
    Done {
        /// The final counters. Later changes, by clients that stay in the old process, are not passed on.
        #[serde(default)]
        counters: Counters,
        /// The final histograms, likewise.
        #[serde(default)]
        histograms: Histograms,
        /// The operator's hold, which may have changed since the last [`Ask`](Self::Ask).
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
        /// The format in which the successor accepts sessions; zero if it accepts none.
        #[serde(default)]
        session_format: u32,
    },
    /// The successor cannot start, and exits.
    Refused {
        /// The reason, human-readable.
        why: String,
    },
    /// The answer to [`FromPredecessor::Ask`].
    State(HandoverState),
    /// The successor accepts clients from now on. Answers [`FromPredecessor::Take`].
    Taken,
    /// The successor takes over the sessions. Answers [`FromPredecessor::Sessions`], before the successor touches the
    /// first session.
    SessionsTaken {
        /// Positions of the sessions and clients that stay in the old process, because no listener of the successor
        /// fits them.
        left: Vec<usize>,
    },
    /// The successor cannot take over the sessions, and has not touched them. Answers [`FromPredecessor::Sessions`].
    SessionsRefused {
        /// The reason, human-readable.
        why: String,
    },
}

/// The decision of a process, and the other parts of its state that a hand-over depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverState {
    /// True if a source has answered.
    pub ready: bool,
    /// True if new clients are sent to a leader.
    pub routes: bool,
    /// Member and address of the leader whose sessions are kept.
    pub leader: Option<(String, String)>,
    /// The leader's server that sessions go to (`--target`); `None` if the other version does not report it.
    #[serde(default)]
    pub target: Option<String>,
    /// The reason for the decision.
    pub reason: String,
    /// Every member whose sessions are kept, with its route.
    #[serde(default)]
    pub members: Vec<String>,
    /// End of the operator's hold; `None` if none is in force.
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

    /// Converts the hold to this process's clock.
    pub fn resume(self, now: Instant) -> OperatorHold {
        OperatorHold {
            since: self.since,
            until: self.until,
            ends: now + self.left,
        }
    }
}

impl HandoverState {
    /// Returns the state of a process with this decision.
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

    /// Returns true if a successor in this state can take over every session of a process in the state `old`, or if
    /// waiting does not help: sessions to another target stay in the old process.
    pub fn keeps_all(&self, old: &Self) -> bool {
        self.has_other_target(old) || old.members.iter().all(|member| self.members.contains(member))
    }

    fn has_other_target(&self, old: &Self) -> bool {
        let both = self.target.as_ref().zip(old.target.as_ref());
        both.is_some_and(|(own, former)| own != former)
    }

    /// Returns true if a successor in this state may take over from a process in the state `old`: no client waits
    /// longer, no session ends because of it, and both processes have the same operator's hold, or none.
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
            // The successor does not know the leader whose sessions are kept, and would end them.
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
            // The leader has another address, which one of the processes does not know yet.
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
