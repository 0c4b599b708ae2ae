//! The closed sets that label metrics: what may stand in a label, and how it is written.

/// What a session is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The client waits for a leader.
    Held,
    /// The leader is being dialled, or has not yet answered the client's first packet.
    Dialling,
    /// Bytes go both ways.
    Forwarding,
}

/// How a request to a member's REST API, or a dial, came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer came.
    Ok,
    /// Refused, reset, or an answer that makes no sense.
    Failed,
    /// Nothing came before the deadline.
    TimedOut,
}

/// What became of bringing a Service up to date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// It was changed.
    Written,
    /// It said so already.
    Unchanged,
    /// Another publisher wrote in between.
    Conflict,
    /// Another publisher knows a newer leader.
    Yielded,
    /// The API did not do it.
    Failed,
}

impl PublishResult {
    pub(super) const ALL: [Self; 5] = [
        Self::Written,
        Self::Unchanged,
        Self::Conflict,
        Self::Yielded,
        Self::Failed,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Unchanged => "unchanged",
            Self::Conflict => "conflict",
            Self::Yielded => "yielded",
            Self::Failed => "failed",
        }
    }
}

/// A stretch of a change of leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverPhase {
    /// From the first sign until the lock named the new leader.
    Lock,
    /// From there until the new leader was verified to accept writes.
    Promotion,
    /// From the decision until the last session to the former leader was closed.
    Cut,
    /// From the verification to the first session on the new leader.
    FirstSession,
    /// From the first sign to the verification.
    Total,
}

impl FailoverPhase {
    pub(super) const ALL: [Self; 5] = [Self::Lock, Self::Promotion, Self::Cut, Self::FirstSession, Self::Total];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Promotion => "promotion",
            Self::Cut => "cut",
            Self::FirstSession => "first_session",
            Self::Total => "total",
        }
    }
}

impl SessionState {
    pub(super) const ALL: [Self; 3] = [Self::Held, Self::Dialling, Self::Forwarding];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Dialling => "dialling",
            Self::Forwarding => "forwarding",
        }
    }
}

impl Outcome {
    pub(super) const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::TimedOut];

    /// The metric's label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}
