//! Reports a failure to reach a leader to the log, to discovery and to the client.

use std::time::Duration;

use tokio::time::timeout;
use tracing::{debug, warn};

use super::{AttemptError, Session};
use crate::ending::Ending;
use crate::leader::Server;
use crate::proxy::connect::DialError;
use crate::proxy::forwarded::report_failure;
use crate::proxy::hold::{self, CROWD_TIMEOUT};
use crate::proxy::opening::OpeningError;
use crate::proxy::refuse::{SqlState, refuse};

/// Target of these log lines, which documents and filters use.
const TARGET: &str = "pgnorth::proxy::session";

/// Maximum time that a client waits for its refusal while many others are being refused. Most refusals take
/// milliseconds.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

const REFUSED: &str = "refused a client: no server accepted it within the hold time";
const QUEUED: &str =
    "refused a client: it waited too long in the queue, because the server accepts clients too slowly or not at all";
const NO_CONNECTION: &str = "the server accepts no more clients for now";

impl Session {
    /// Logs the failure: as a warning if the leader cannot be reached or has no free connection; at debug if the leader
    /// is starting or stopping or has disconnected, or if the same warning was logged recently.
    pub(super) fn log_failure(&self, leader: &Server, failure: &AttemptError) {
        let fault = |error: &DialError| match error.is_leaders() {
            true => format!("{leader} cannot be reached"),
            false => format!("pgnorth cannot open a connection to {leader}"),
        };
        let log_limiter = &self.shared.dependencies.log_limiter;
        let server = self.shared.route.kind.server();
        match failure {
            AttemptError::Dial(error) if log_limiter.should_log(&fault(error)) => {
                if self.goes_to_pooler() {
                    warn!(target: TARGET, peer = %self.peer, %leader,
                        "{server}'s pooler {failure}; this says nothing about PostgreSQL; the client waits, and \
                         pgnorth tries again"
                    );
                } else {
                    warn!(target: TARGET, peer = %self.peer, %leader,
                        "{server} {failure}; the client waits, and pgnorth tries again"
                    );
                }
            }
            AttemptError::Opening(OpeningError::TooManyConnections(said)) if log_limiter.should_log(NO_CONNECTION) => {
                let timeout = humantime::format_duration(CROWD_TIMEOUT);
                warn!(target: TARGET, peer = %self.peer, %leader, %said,
                    "{NO_CONNECTION}; held clients try again for {timeout}; if connections stay short, raise \
                     max_connections or the pooler's limit, or pool connections"
                );
            }
            _ => debug!(target: TARGET, peer = %self.peer, %leader, %failure, "{server} did not accept the client"),
        }
    }

    /// Reports the failure to discovery if it says something about the leader. Returns the text for the client.
    pub(super) fn failed(&self, leader: &Server, failure: &AttemptError) -> String {
        let is_leaders = match failure {
            AttemptError::Dial(error) => error.is_leaders(),
            // A primary without a free connection is still the primary.
            AttemptError::Opening(OpeningError::TooManyConnections(_)) => false,
            AttemptError::Opening(_) => true,
        };
        if is_leaders {
            let route = &self.shared.route;
            report_failure(
                &self.shared.dependencies,
                route.kind,
                route.upstream,
                leader,
                failure.to_string(),
            );
        }
        match self.goes_to_pooler() {
            true => format!("the pooler of {leader} {failure}"),
            false => format!("{leader} {failure}"),
        }
    }

    fn goes_to_pooler(&self) -> bool {
        self.shared.route.upstream.is_pooler()
    }

    /// Sends the reason of `ending` to a client that is still connected and has waited for this long.
    pub(super) async fn refuse(
        self,
        ending: Ending,
        last_failure: Option<String>,
        waited: Duration,
        received: Vec<u8>,
    ) {
        let dependencies = &self.shared.dependencies;
        let why = match ending {
            Ending::HoldExpired => {
                let hold = humantime::format_duration(self.shared.route.hold);
                let reason = last_failure.unwrap_or_else(|| self.shared.route.slot.snapshot().reason.clone());
                if dependencies.log_limiter.should_log(REFUSED) {
                    warn!(target: TARGET, peer = %self.peer, hold = %hold, %reason, "{REFUSED}");
                }
                let unreached = self.shared.route.kind.unreached();
                format!("{unreached} could be reached within {hold}: {reason}")
            }
            Ending::QueueExpired => {
                let queue = humantime::format_duration(hold::QUEUE);
                let reason = last_failure.map_or_else(String::new, |failure| format!("; {failure}"));
                if dependencies.log_limiter.should_log(QUEUED) {
                    warn!(target: TARGET, peer = %self.peer, ?waited, "{QUEUED}");
                }
                format!(
                    "this client was not connected within its hold (or {queue}, if the hold is shorter): other clients \
                     are ahead of it in the queue, and pgnorth connects {} clients of a listener at a time{reason}",
                    hold::DIALS
                )
            }
            Ending::Shutdown => "pgnorth is shutting down".to_owned(),
            _ => return,
        };
        // Many held clients reach their deadlines at about the same time, so the number of simultaneous refusals is
        // limited.
        let Ok(_permit) = timeout(REFUSAL_TIMEOUT, self.shared.refusals.acquire()).await else {
            return;
        };
        refuse(
            self.client,
            received,
            &dependencies.refusal_tls,
            SqlState::CannotConnectNow,
            &why,
        )
        .await;
    }
}
