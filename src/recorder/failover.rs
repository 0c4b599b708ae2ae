//! The records of changes of leader that `/failovers` and `/status` serve.

use serde::{Deserialize, Serialize};

use crate::leader::MemberName;

/// A change of leader. Times are in seconds. The field names are a public interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failover {
    /// The member that led before.
    pub from: MemberName,
    /// The member that became the leader.
    pub to: MemberName,
    /// The new leader's timeline.
    pub timeline: Option<u32>,
    /// Time of the first sign, RFC 3339.
    pub began: Option<String>,
    /// The first sign of the change.
    pub first_sign: String,
    /// Time from the first sign until the lock named the new leader; none if pgnorth did not see that, as without a
    /// watched lock.
    pub lock_moved_after_seconds: Option<f64>,
    /// Time from the first sign until the new leader was verified to accept writes.
    pub writable_after_seconds: f64,
    /// Time for which new clients had no leader until then (`held_ms` in the log).
    #[serde(default)]
    pub held_seconds: f64,
    /// Time from the verification until the first session of a client that had waited; none until that session, or if
    /// no client waited.
    pub first_session_after_seconds: Option<f64>,
    /// Number of sessions to the former leader that pgnorth ended; none if this process forwards no sessions, as with
    /// `pgnorth watch`.
    pub sessions_cut: Option<u64>,
    /// Time from the decision, or from the end of `--failover-drain`, until the last of these sessions was closed; none
    /// while some are open, or if there were none.
    pub sessions_cut_in_seconds: Option<f64>,
    /// Number of clients that waited for the new leader; none if this process forwards no sessions.
    pub clients_held: Option<u64>,
    /// Longest wait of these clients; none if this process forwards no sessions.
    pub longest_hold_seconds: Option<f64>,
    /// HAProxy's behaviour in this change, with `pgnorth watch --haproxy`; none until HAProxy agrees with pgnorth
    /// again, but for at most a minute after the change.
    #[serde(default)]
    pub haproxy: Option<HaproxyReport>,
}

/// HAProxy's behaviour in a change of leader, compared with pgnorth. Times are in seconds. The field names are a public
/// interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HaproxyReport {
    /// The report as one sentence.
    pub summary: String,
    /// Time during which HAProxy had a member up that was not the primary.
    pub wrong_seconds: f64,
    /// Time during which HAProxy had no member up, and refused clients.
    pub refused_seconds: f64,
    /// Time during which HAProxy's statistics could not be read, or did not show the backend.
    pub unseen_seconds: f64,
    /// Largest number of sessions that were open at one time to former leaders.
    pub stale_sessions: u64,
    /// Time during which at least one such session was open.
    pub stale_sessions_seconds: f64,
    /// True if, at the end of the report, HAProxy agreed with pgnorth and no session was open to a former leader.
    pub settled: bool,
}

/// A change of leader that may be under way. Times are in seconds. The field names are a public interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OngoingChange {
    /// Time since the first sign.
    pub for_seconds: f64,
    /// The first sign of the change.
    pub first_sign: String,
    /// True if clients are held for this change.
    pub holding: bool,
    /// The member that the lock names now, if the lock has moved.
    pub lock_moved_to: Option<MemberName>,
    /// Time from the first sign until the lock moved.
    pub lock_moved_after_seconds: Option<f64>,
    /// Number of sessions that pgnorth has ended for this change so far.
    pub sessions_cut: u64,
}
