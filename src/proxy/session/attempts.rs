//! The attempts of a client to reach a leader: its pauses, the members that did not accept it, and the part that is
//! handed over to another process.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{AttemptError, Session};
use crate::ending::Ending;
use crate::leader::Server;
use crate::proxy::hold::{self, CROWD_TIMEOUT};
use crate::proxy::opening::OpeningError;
use crate::proxy::transfer::PassedServer;

/// First pause between two dials of a leader that cannot be reached. The pause doubles each time, and ends early when
/// discovery publishes a decision.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest of these pauses.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Number of disconnections of one leader before its first answer after which the client's session ends. A failover
/// causes one; afterwards the leader cannot be reached, or answers with an error. If the leader disconnects again, this
/// client's first packet may be crashing its backend, and PostgreSQL then ends every other session, too.
const MAX_BREAKS: u32 = 2;

/// The attempts of a client so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    pub(super) last_failure: Option<String>,
    pause: Option<Duration>,
    /// The members that did not accept the client. Other members are tried first.
    pub(super) tried: Vec<Arc<Server>>,
    /// The members that disconnected before their first answer, and the number of times.
    broke: Vec<(Arc<Server>, u32)>,
    retry: Option<hold::RetryPermit>,
    /// Time until which the client retries if the leader has no free connection.
    crowd_until: Option<Instant>,
    pub(super) crowd_is_over: bool,
}

/// The attempts as they are handed over to another process.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::proxy) struct PassedAttempts {
    last_failure: Option<String>,
    pause: Option<Duration>,
    broke: Vec<(PassedServer, u32)>,
    crowd_left: Option<Duration>,
    crowd_is_over: bool,
}

impl Attempts {
    pub(super) fn next_pause(&mut self) -> Duration {
        let pause = self.pause.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        pause
    }

    /// Counts this failure if the leader disconnected before its first answer. Returns true if that has happened too
    /// often.
    pub(super) fn breaks_too_often(&mut self, leader: &Arc<Server>, failure: &AttemptError) -> bool {
        if !matches!(failure, AttemptError::Opening(OpeningError::Disconnected(_))) {
            return false;
        }
        if let Some((_, breaks)) = self.broke.iter_mut().find(|(known, _)| known == leader) {
            *breaks += 1;
            return *breaks >= MAX_BREAKS;
        }
        self.broke.push((leader.clone(), 1));
        false
    }

    /// Waits before another attempt at a leader without a free connection. After the last attempt, the client gets
    /// the leader's error.
    pub(super) async fn pause_in_crowd(
        &mut self,
        session: &Session,
        since: Instant,
        deadline: Instant,
    ) -> Result<(), Ending> {
        let latest = || (Instant::now() + CROWD_TIMEOUT).min(deadline);
        let until = *self.crowd_until.get_or_insert_with(latest);
        let queue = &session.shared.queue;
        let goes_on = hold::pause_in_crowd(&session.client, queue, &mut self.retry, since, until).await?;
        self.crowd_is_over = !goes_on;
        Ok(())
    }

    /// Returns the description of the attempts for another process.
    pub(super) fn passed(&self) -> PassedAttempts {
        let Attempts {
            last_failure,
            pause,
            broke,
            crowd_until,
            crowd_is_over,
            tried: _,
            retry: _,
        } = self;
        let left = |until: &Instant| until.saturating_duration_since(Instant::now());
        PassedAttempts {
            last_failure: last_failure.clone(),
            pause: *pause,
            broke: (broke.iter())
                .map(|(server, breaks)| (PassedServer::new(server), *breaks))
                .collect(),
            crowd_left: crowd_until.as_ref().map(left),
            crowd_is_over: *crowd_is_over,
        }
    }
}

impl PassedAttempts {
    /// Returns the attempts of a client of another process.
    pub(super) fn resume(self) -> Attempts {
        let broke = self.broke.into_iter();
        Attempts {
            last_failure: self.last_failure,
            pause: self.pause,
            broke: broke
                .filter_map(|(leader, breaks)| Some((Arc::new(leader.resume()?), breaks)))
                .collect(),
            crowd_until: self.crowd_left.map(|left| Instant::now() + left),
            crowd_is_over: self.crowd_is_over,
            ..Attempts::default()
        }
    }
}
