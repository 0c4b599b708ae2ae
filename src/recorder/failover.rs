//! A change of leader as `/failovers` and `/status` serve it.

use serde::{Deserialize, Serialize};

use crate::leader::MemberName;

/// A change of leader. Times are in seconds. Field names are an interface that scripts read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failover {
    /// The member that led before.
    pub from: MemberName,
    /// The member that leads since.
    pub to: MemberName,
    /// The new leader's timeline.
    pub timeline: Option<u32>,
    /// Time of the first sign, RFC 3339.
    pub began: Option<String>,
    /// The first sign of the change.
    pub first_sign: String,
    /// From the first sign until the lock named the new leader; none if no lock is watched.
    pub lock_moved_after_seconds: Option<f64>,
    /// From the first sign until the new leader was verified to accept writes, and got the waiting clients.
    pub writable_after_seconds: f64,
    /// Time for which new clients had no leader until then: held by the proxy, `held_ms` of the log.
    #[serde(default)]
    pub held_seconds: f64,
    /// From the verification to the first session of a client that waited for it; none until there is one, or if
    /// no client waited.
    pub first_session_after_seconds: Option<f64>,
    /// Sessions to the former leader that pgnorth ended; none if this process forwards no sessions, as `pgnorth watch`.
    pub sessions_cut: Option<u64>,
    /// From the decision until the last of them was closed; none while some are open, or if there was none.
    pub sessions_cut_in_seconds: Option<f64>,
    /// Clients that waited for the new leader; none if this process forwards no sessions.
    pub clients_held: Option<u64>,
    /// The longest of their waits; none if this process forwards no sessions.
    pub longest_hold_seconds: Option<f64>,
    /// HAProxy in this change, with `pgnorth watch --haproxy`; none until it agrees again, for a minute at most.
    #[serde(default)]
    pub haproxy: Option<HaproxyReport>,
}

/// HAProxy in a change of leader, compared with pgnorth. Times are in seconds; field names are an interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HaproxyReport {
    /// The report as one sentence.
    pub summary: String,
    /// Time in which HAProxy had a member up that was not the primary.
    pub wrong_seconds: f64,
    /// Time in which it had no member up, and refused clients.
    pub refused_seconds: f64,
    /// Time in which its statistics could not be read.
    pub unseen_seconds: f64,
    /// The most sessions that were open at one time to members that had ceased to lead.
    pub stale_sessions: u64,
    /// Time in which there was at least one of them.
    pub stale_sessions_seconds: f64,
    /// True if HAProxy agreed with pgnorth at the end of the report.
    pub settled: bool,
}

/// A change of leader that may be under way. Times are in seconds; field names are an interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OngoingChange {
    /// Time since the first sign.
    pub for_seconds: f64,
    /// The first sign of the change.
    pub first_sign: String,
    /// True if clients are held for it.
    pub holding: bool,
    /// The member that the lock names now, if it has moved.
    pub lock_moved_to: Option<MemberName>,
    /// From the first sign until the lock moved.
    pub lock_moved_after_seconds: Option<f64>,
    /// Sessions that pgnorth ended for it so far.
    pub sessions_cut: u64,
}
