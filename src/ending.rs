//! Why a session ended: a closed set, used as a log field and as a metric's label.

use std::fmt;

/// Why a session ended. Each session has exactly one.
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
    /// The leader changed: the session's server is no longer the primary.
    LeaderChanged,
    /// The leader's lease may have run out: another member may be promoted by now.
    Fenced,
    /// An operator asked for it, through the admin port.
    CutByOperator,
    /// No leader could be reached before the hold deadline.
    HoldExpired,
    /// `--max-sessions` were open already.
    Full,
    /// The drain deadline passed, or a second signal came.
    Shutdown,
    /// pgnorth itself could not go on (out of files, out of memory).
    Failed,
}

impl Ending {
    /// Every ending, so that each has its series from the start.
    pub const ALL: [Self; 12] = [
        Self::ClientClosed,
        Self::LeaderClosed,
        Self::ClientLost,
        Self::LeaderLost,
        Self::ClientLeft,
        Self::LeaderChanged,
        Self::Fenced,
        Self::CutByOperator,
        Self::HoldExpired,
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
            Self::LeaderChanged => "leader_changed",
            Self::Fenced => "fenced",
            Self::CutByOperator => "cut_by_operator",
            Self::HoldExpired => "hold_expired",
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
