//! The label values that are closed sets.

/// The states of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The client waits for a leader or a fit replica.
    Held,
    /// pgnorth connects to a member, or waits for its answer to the client's first packet.
    Dialling,
    /// pgnorth forwards bytes in both directions.
    Forwarding,
}

/// The outcome of a request to a member's REST API, or of a dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A usable answer arrived; for a dial, the connection was established.
    Ok,
    /// The attempt failed before the deadline. For example, the connection was refused, or the answer was malformed.
    Failed,
    /// No answer arrived before the deadline.
    TimedOut,
}

/// The result of an attempt to update the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishResult {
    /// The Service was updated.
    Written,
    /// The Service was up to date.
    Unchanged,
    /// Another publisher wrote first.
    Conflict,
    /// Another publisher contradicts this one, which defers to it.
    Yielded,
    /// The API rejected the write, or did not answer.
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

/// A phase of a change of leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverPhase {
    /// From the first sign until the lock named the new leader.
    Lock,
    /// From the change of the lock until the new leader was verified to accept writes.
    Promotion,
    /// From the decision, or from the end of `--failover-drain`, until the last session to the former leader was
    /// closed.
    Cut,
    /// From the verification until the first session of a client that had waited.
    FirstSession,
    /// From the first sign until the verification.
    Total,
}

/// The kinds of time in a report about HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HaproxyTime {
    /// A member was up that was not the primary.
    Wrong,
    /// No member was up.
    Refused,
    /// Sessions were open to a former leader.
    StaleSessions,
}

impl HaproxyTime {
    pub(super) const ALL: [Self; 3] = [Self::Wrong, Self::Refused, Self::StaleSessions];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Wrong => "wrong",
            Self::Refused => "refused",
            Self::StaleSessions => "stale_sessions",
        }
    }
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

    /// Returns the value of the label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
        }
    }
}
