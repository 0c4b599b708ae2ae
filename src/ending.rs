//! Endings: the reason why a session ended, as a closed set that is a log field and a metric's label.

use std::fmt;

/// Declares each ending once: its variant, its label and its meaning.
macro_rules! endings {
    ($($variant:ident = $label:literal, $meaning:literal;)+) => {
        /// The reason why a client's connection ended. Each accepted connection has exactly one, whether it became a
        /// session or not.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Ending {
            $(#[doc = $meaning] $variant),+
        }

        impl Ending {
            /// Every ending, in the order of the reference.
            pub const ALL: [Self; [$($label),+].len()] = [$(Self::$variant),+];

            /// Returns the metric's label and the log field's value.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $label),+
                }
            }

            /// Returns the meaning, for the reference.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$variant => $meaning),+
                }
            }
        }
    };
}

endings! {
    ClientClosed = "client_closed", "both sides finished; the client's side closed first";
    LeaderClosed = "leader_closed", "both sides finished; the leader's side closed first";
    ClientLost = "client_lost", "the client's side was reset, or vanished (keepalive or TCP_USER_TIMEOUT ran out)";
    LeaderLost = "leader_lost", "the leader's side was reset, or vanished";
    ClientLeft = "client_left", "the client left while it waited for a leader";
    NoStartup = "no_startup", "the client closed before its first packet was complete: a TCP health check, a port scan; no session, and no connection to the leader";
    StartupExpired = "startup_expired", "the client sent no complete first packet within 60 s, or pgnorth needed its connection for another client; the client gets 08P01";
    LeaderChanged = "leader_changed", "the session's server is no longer the primary";
    Fenced = "fenced", "the leader's lock may have expired: another member may be promoted by now";
    MemberUnfit = "member_unfit", "the session's server may no longer be used on this route: it was promoted or demoted, has left the cluster, or is not what the route requires";
    CutByOperator = "cut_by_operator", "an operator ended it through POST /sessions/cut";
    HoldExpired = "hold_expired", "no leader could be reached within --hold";
    QueueExpired = "queue_expired", "there was a leader, but the client did not get its turn within 10 s: pgnorth connects 64 clients at a time";
    CancelSent = "cancel_sent", "no session: a cancel request that was sent to the leader";
    CancelDropped = "cancel_dropped", "no session: a cancel request without a leader whose sessions stay, or one that could not be reached";
    Full = "full", "--max-sessions were open already";
    Shutdown = "shutdown", "the drain expired, or a second signal came";
    Failed = "failed", "pgnorth itself could not go on: out of files or memory";
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
