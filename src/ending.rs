//! Why a session ended: a closed set, used as a log field and as a metric's label.

use std::fmt;

/// Why a client's connection ended. Each that was accepted has exactly one, whether it became a session or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Both sides finished; the client's side closed first.
    ClientClosed,
    /// Both sides finished; the leader's side closed first.
    LeaderClosed,
    /// The client's side was reset, or vanished (keepalive or TCP_USER_TIMEOUT ran out).
    ClientLost,
    /// The leader's side was reset, or vanished.
    LeaderLost,
    /// The client left while it waited for a leader.
    ClientLeft,
    /// The client closed before its first packet was whole: a health check by TCP connect, a port scan.
    NoStartup,
    /// The client's first packet was not whole in time, or its connection was needed for another client.
    StartupExpired,
    /// The leader changed: the session's server is no longer the primary.
    LeaderChanged,
    /// The leader's lock may have expired: another member may be promoted by now.
    Fenced,
    /// An operator asked for it, through the admin port.
    CutByOperator,
    /// No leader could be reached before the hold deadline.
    HoldExpired,
    /// There was a leader, but the client's turn to be connected did not come in time.
    QueueExpired,
    /// A cancel request was sent to the leader.
    CancelSent,
    /// A cancel request could be sent to no leader.
    CancelDropped,
    /// `--max-sessions` were open already.
    Full,
    /// The drain deadline passed, or a second signal came.
    Shutdown,
    /// pgnorth itself could not go on (out of files, out of memory).
    Failed,
}

impl Ending {
    /// Every ending, so that each has its series from the start.
    pub const ALL: [Self; 17] = [
        Self::ClientClosed,
        Self::LeaderClosed,
        Self::ClientLost,
        Self::LeaderLost,
        Self::ClientLeft,
        Self::NoStartup,
        Self::StartupExpired,
        Self::LeaderChanged,
        Self::Fenced,
        Self::CutByOperator,
        Self::HoldExpired,
        Self::QueueExpired,
        Self::CancelSent,
        Self::CancelDropped,
        Self::Full,
        Self::Shutdown,
        Self::Failed,
    ];

    /// The metric's label and the log field's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::LeaderClosed => "leader_closed",
            Self::ClientLost => "client_lost",
            Self::LeaderLost => "leader_lost",
            Self::ClientLeft => "client_left",
            Self::NoStartup => "no_startup",
            Self::StartupExpired => "startup_expired",
            Self::LeaderChanged => "leader_changed",
            Self::Fenced => "fenced",
            Self::CutByOperator => "cut_by_operator",
            Self::HoldExpired => "hold_expired",
            Self::QueueExpired => "queue_expired",
            Self::CancelSent => "cancel_sent",
            Self::CancelDropped => "cancel_dropped",
            Self::Full => "full",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
