//! Endings: the closed set of reasons why a connection ended. Each is a log field's value and a metric's label.

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
    ClientClosed = "client_closed", "the client closed its connection first";
    LeaderClosed = "leader_closed", "the leader closed its connection first";
    ClientLost = "client_lost", "the client's connection was reset, or timed out (keepalive or TCP_USER_TIMEOUT)";
    LeaderLost = "leader_lost", "the leader's connection was reset or timed out, or the leader twice disconnected from this client before its first answer";
    ClientLeft = "client_left", "the client disconnected while it waited for a leader";
    NoStartup = "no_startup", "the client disconnected before its first packet was complete, like a TCP health check or a port scan, or sent no valid PROXY protocol header although --proxy-protocol-from requires one; pgnorth did not connect to the leader";
    StartupExpired = "startup_expired", "the client sent no complete first packet within 60 s, or pgnorth needed its connection for another client; the client gets 08P01";
    LeaderChanged = "leader_changed", "the session's server is no longer the leader or has another address, or it was closed to new clients during the login";
    Fenced = "fenced", "another member may have been promoted: the leader's lock may have expired, or several members say that they are primary";
    MemberUnfit = "member_unfit", "the session's server may no longer be used on this route: it was promoted or demoted, is not running, has another address, has left the cluster, or no longer meets the route's conditions";
    CutByOperator = "cut_by_operator", "an operator ended the session through POST /sessions/cut";
    HoldExpired = "hold_expired", "no leader accepted the client within --hold, or the hold of the route";
    QueueExpired = "queue_expired", "there was a leader, but the client's turn to connect did not come within --hold or the hold of the route (10 s if it is shorter): pgnorth connects 64 clients of a listener at a time";
    CancelSent = "cancel_sent", "a cancel request, which is not a session; it was sent to at least one server";
    CancelDropped = "cancel_dropped", "a cancel request, which is not a session; the route had no server, or no server could be reached";
    Full = "full", "the limit of sessions was reached (--max-sessions, or fewer if open files or local ports are short)";
    Shutdown = "shutdown", "pgnorth shut down: the drain expired, a second signal came, or the client had not sent its first packet";
    Failed = "failed", "pgnorth could not continue this connection, for example because it ran out of memory or epoll watches";
}

impl fmt::Display for Ending {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}
