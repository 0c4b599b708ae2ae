//! The reasons why a member is not fit for a route: a closed set. Each prints as the rest of a sentence that begins
//! with the member's name.

use std::fmt;

use crate::leader::MemberName;

/// The reason why a member gets no new clients on a route.
#[allow(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its address is not known, for this cause.
    NoAddress { cause: String },
    /// Another cluster answers at its address.
    AnotherCluster,
    /// It is the primary, and the route leads to replicas.
    Primary,
    /// It is the primary, and its new clients are held.
    PrimaryHeld,
    /// It says that it is a primary, and is not the one that clients are sent to.
    SaysPrimary,
    /// It holds the lock, so it is being promoted.
    Promoting,
    /// No source has reported its role and state.
    Unreported,
    /// Its state in Patroni's words.
    NotRunning { state: String },
    /// Its role in Patroni's words.
    NotReplica { role: String },
    /// Its timeline is another one than the leader's, and has been for a whole ttl.
    OtherTimeline { its: u32, leaders: u32 },
    /// It has the tag `noloadbalance`.
    NoLoadBalance,
}

impl Unfit {
    /// Returns the reason's kind, in JSON.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoAddress { .. } => "no_address",
            Self::AnotherCluster => "another_cluster",
            Self::Primary => "primary",
            Self::PrimaryHeld => "primary_held",
            Self::SaysPrimary => "says_primary",
            Self::Promoting => "promoting",
            Self::Unreported => "unreported",
            Self::NotRunning { .. } => "not_running",
            Self::NotReplica { .. } => "not_replica",
            Self::OtherTimeline { .. } => "other_timeline",
            Self::NoLoadBalance => "noloadbalance",
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAddress { cause } => write!(out, "has no known address: {cause}"),
            Self::AnotherCluster => out.write_str("is at an address where another cluster answers"),
            Self::Primary => out.write_str("is the primary"),
            Self::PrimaryHeld => out.write_str("is the primary, whose new clients are held"),
            Self::SaysPrimary => {
                out.write_str("says that it is a primary, and is not the one that clients are sent to")
            }
            Self::Promoting => out.write_str("holds the leader lock: it is being promoted"),
            Self::Unreported => out.write_str("has not reported its role and state"),
            Self::NotRunning { state } => write!(out, "is not running (state {state})"),
            Self::NotReplica { role } => write!(out, "is no replica (role {role})"),
            Self::OtherTimeline { its, leaders } => {
                write!(
                    out,
                    "is on timeline {its}, and the leader has been on timeline {leaders} for a whole ttl"
                )
            }
            Self::NoLoadBalance => out.write_str("has the tag noloadbalance"),
        }
    }
}

/// A member with its reason, as a sentence.
impl Unfit {
    /// Returns the sentence about this member.
    pub fn of(&self, member: &MemberName) -> String {
        format!("{member} {self}")
    }
}
