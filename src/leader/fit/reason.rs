//! The reasons why a member is not fit for a route: a closed set. Each is displayed as the rest of a sentence that
//! begins with the member's name.

use std::fmt;

use crate::leader::MemberName;
use crate::route::{RouteKind, size};

/// The reason why a member gets no new clients on a route.
#[allow(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Its address is unknown.
    NoAddress { cause: String },
    /// Another cluster answers at its address.
    AnotherCluster,
    /// It is the primary, and the route does not lead to the primary.
    Primary,
    /// It is the primary, and its new clients are held.
    PrimaryHeld,
    /// It says that it is a primary, but pgnorth does not use it as the leader.
    SaysPrimary,
    /// It holds the lock, and is not known to be a running primary yet.
    Promoting,
    /// No source has reported its role and state.
    Unreported,
    /// It is not running; `state` is its state as Patroni writes it.
    NotRunning { state: String },
    /// It is not a replica; `role` is its role as Patroni writes it, or `unknown`.
    NotReplica { role: String },
    /// It is on another timeline than the leader, which has been on its timeline for a whole ttl.
    OtherTimeline { its: u32, leaders: u32 },
    /// It has the tag `noloadbalance`.
    NoLoadBalance,
    /// It is not a running leader, and the route leads to a leader.
    NoLeader,
    /// It lacks this tag, or has it with another value.
    OtherTag { tag: String, value: String },
    /// It is not a standby of the kind that the route requires.
    OtherStandby { wanted: RouteKind },
    /// It is unknown whether it is a synchronous standby.
    StandbyUnknown,
    /// It does not stream from another member.
    NotStreaming,
    /// Its lag is unknown.
    LagUnknown,
    /// Its replay is more than `limit` bytes of WAL behind the leader.
    Lagging { limit: u64 },
}

impl Unfit {
    /// Returns the reason's kind, in JSON and as a metric's label.
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
            Self::NoLeader => "no_leader",
            Self::OtherTag { .. } => "other_tag",
            Self::OtherStandby { .. } => "other_standby",
            Self::StandbyUnknown => "standby_unknown",
            Self::NotStreaming => "not_streaming",
            Self::LagUnknown => "lag_unknown",
            Self::Lagging { .. } => "lagging",
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
            Self::SaysPrimary => out.write_str("says that it is a primary, but pgnorth does not use it as the leader"),
            Self::Promoting => out.write_str("holds the leader lock, but is not yet known to be a running primary"),
            Self::Unreported => out.write_str("has not reported its role and state"),
            Self::NotRunning { state } => write!(out, "is not running (state {state})"),
            Self::NotReplica { role } => write!(out, "is not a replica (role {role})"),
            Self::OtherTimeline { its, leaders } => {
                write!(
                    out,
                    "is on timeline {its}, and the leader has been on timeline {leaders} for a whole ttl"
                )
            }
            Self::NoLoadBalance => out.write_str("has the tag noloadbalance"),
            Self::NoLeader => out.write_str("is not a running leader"),
            Self::OtherTag { tag, value } => write!(out, "does not have the tag {tag}={value}"),
            Self::OtherStandby {
                wanted: RouteKind::Async,
            } => out.write_str("is a synchronous standby"),
            Self::OtherStandby {
                wanted: RouteKind::Quorum,
            } => out.write_str("is not a synchronous standby in quorum mode"),
            Self::OtherStandby { .. } => out.write_str("is not a synchronous standby"),
            Self::StandbyUnknown => out.write_str(
                "may or may not be a synchronous standby: neither the DCS nor the member has reported it recently",
            ),
            Self::NotStreaming => out.write_str("does not stream from another member"),
            Self::LagUnknown => {
                out.write_str("has an unknown lag: its WAL position, or the leader's, is missing or too old")
            }
            Self::Lagging { limit } => write!(out, "is more than {} behind the leader", size(*limit)),
        }
    }
}

impl Unfit {
    /// Returns the reason as a sentence about this member.
    pub fn of(&self, member: &MemberName) -> String {
        format!("{member} {self}")
    }
}
