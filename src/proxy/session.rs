//! One session from its client's first packet to its [`Ending`]: it waits for a leader, dials it, has the bytes
//! forwarded, and closes both sockets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::buffers::Share;
use super::connect::{DialError, connect};
use super::forward::{Executor, Socket};
use super::forwarded::{Admission, Forwarded, report_failure};
use super::hold::{self, CROWD_TIMEOUT, DialPermit};
use super::opening::{Opening, OpeningError};
use super::record::Record;
use super::refuse::{SqlState, refuse};
use super::{Settings, Shared};
use crate::ending::Ending;
use crate::leader::Server;
use crate::slot::Target;

/// First pause between two dials of a leader that cannot be reached, and the longest: it doubles each time. It ends
/// when discovery publishes something.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Time that a client waits for its refusal while many others are being refused: most take milliseconds.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

const REFUSED: &str = "refused a client: no leader took it within --hold";

const QUEUED: &str = "refused a client: it waited too long in the queue, because the leader accepts clients too slowly";
const NO_CONNECTION: &str = "the leader has no connection free";

/// Connections of a client that a leader may break before it has answered. A failover does it once; afterwards the
/// leader cannot be reached, or says why it takes no clients. If it happens again, this client's first packet may be
/// what kills its backend, and PostgreSQL then ends every other session, too.
const MAX_BREAKS: u32 = 2;

/// A client whose first packet asks for a session, admitted below --max-sessions.
pub(super) struct Session {
    pub(super) client: Socket,
    pub(super) peer: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) executor: Executor<Forwarded>,
}

/// A leader that took the client.
struct Reached {
    leader: Socket,
    target: Target,
    share: Share,
}

/// Reasons why a leader did not take the client. The text ends a sentence that begins with the leader's name.
#[derive(Debug, Error)]
enum Failure {
    #[error("could not be reached: {0}")]
    Dial(#[from] DialError),
    #[error("did not take the client: {0}")]
    Opening(#[from] OpeningError),
}

/// The attempts of a client so far.
#[derive(Default)]
struct Attempts {
    last_failure: Option<String>,
    pause: Option<Duration>,
    /// The members that did not take the client. If there are others, they are asked first.
    tried: Vec<Arc<Server>>,
    /// The members that broke the connection, and how often each did.
    broke: Vec<(Arc<Server>, u32)>,
    retry: Option<hold::RetryPermit>,
    /// Time until which a leader without a free connection is asked again.
    crowd_until: Option<Instant>,
    crowd_is_over: bool,
}

/// A client that reaches no leader, and the reason.
struct NoLeader {
    ending: Ending,
    last_failure: Option<String>,
}

impl Session {
    /// Runs the session until its client has a leader, and hands both over to be forwarded; or refuses the client.
    pub(super) async fn run(self, mut opening: Opening, admission: Admission, session_permit: OwnedSemaphorePermit) {
        let context = &self.shared.context;
        let mut record = Record::open(context.clone(), self.shared.route.kind, self.peer);
        let forced = context.drain.forced();
        let reached = tokio::select! {
            biased;
            () = forced.cancelled() => Err(NoLeader { ending: Ending::Shutdown, last_failure: None }),
            reached = self.reach(&mut opening, &mut record) => reached,
        };
        match reached {
            Ok(reached) => self.forward(reached, &opening, record, (admission, session_permit)),
            Err(no_leader) => {
                record.gave_up();
                let ending = no_leader.ending;
                // Recorded before the client is told, so that a client that reads the error finds its ending in the
                // metrics.
                record.end(ending, opening.transferred());
                self.refuse(no_leader, opening.into_received()).await;
            }
        }
    }

    /// Hands the session over to the worker; [`Forwarded`] closes and records it.
    fn forward(
        self,
        reached: Reached,
        opening: &Opening,
        record: Record,
        (admission, session_permit): (Admission, OwnedSemaphorePermit),
    ) {
        let Self {
            client,
            shared,
            executor,
            ..
        } = self;
        let opening = opening.transferred();
        shared.traffic.to_leader.inc_by(opening.to_leader);
        shared.traffic.to_client.inc_by(opening.to_client);
        let forwarded = Forwarded {
            _tracked: shared.context.drain.token(),
            record,
            opening,
            target: reached.target,
            stays: false,
            _share: reached.share,
            _session_permit: Some(session_permit),
            _admission: admission,
        };
        executor.forward(client, reached.leader, forwarded);
    }

    /// Waits for a leader, dials it and opens the session there, until one takes the client or the hold deadline
    /// passes. Cancel-safe.
    async fn reach(&self, opening: &mut Opening, record: &mut Record) -> Result<Reached, NoLeader> {
        let (slot, queue) = (&*self.shared.route.slot, &self.shared.queue);
        let deadline = Instant::now() + self.shared.route.hold;
        let mut attempts = Attempts::default();
        let mut permit = None;
        loop {
            let waited = hold::wait(
                &self.client,
                slot,
                queue,
                permit.take(),
                &attempts.tried,
                record.begun,
                deadline,
            )
            .await;
            let admitted = match waited {
                Ok(admitted) => admitted,
                Err(ending) => return Err(attempts.give_up(ending)),
            };
            opening.waited |= admitted.waited;
            let target = admitted.target;
            permit = Some(admitted.permit);
            let snapshot = slot.snapshot();
            let is_last = !snapshot.has_others(&attempts.tried, &target.server);
            opening.insists = !is_last || opening.waited && !attempts.crowd_is_over;
            record.dialling();
            let tried = tokio::select! {
                biased;
                () = target.ended() => None,
                // An announced switchover: a client without an answer waits, rather than be cut off in the middle of
                // its login.
                () = slot.closed(&target.server) => None,
                tried = self.dial_and_open(&target.server, opening, &mut permit) => Some(tried),
            };
            match tried {
                Some(Ok((leader, share))) => {
                    if permit.is_some() {
                        tokio::select! {
                            biased;
                            // The worker asks the owner for it next.
                            () = target.ended() => {}
                            () = opening.log_in(&self.client, &leader) => {}
                        }
                    }
                    record.forwarding(&target.server, &leader);
                    return Ok(Reached { leader, target, share });
                }
                // The leader's epoch ended in the middle of its answer: the client cannot start over.
                None if !opening.can_start_over() => {
                    return Err(attempts.give_up(target.ending().unwrap_or(Ending::LeaderChanged)));
                }
                // The attempt failed through no fault of the leader: the client goes on to the next one.
                None => record.held(),
                Some(Err(failure)) => {
                    record.held();
                    self.log_failure(&target.server, &failure);
                    attempts.last_failure = Some(self.failed(&target.server, &failure));
                    attempts.tried.push(target.server.clone());
                    let paused = match failure {
                        Failure::Opening(OpeningError::TooManyConnections(_)) if is_last => {
                            permit = None;
                            attempts.pause_in_crowd(self, record.begun, deadline).await
                        }
                        failure if attempts.breaks_too_often(&target.server, &failure) => Err(Ending::LeaderLost),
                        _ if slot.snapshot().has_untried(&attempts.tried) => Ok(()),
                        _ => {
                            attempts.tried.clear();
                            let pause = attempts.next_pause();
                            hold::pause(&self.client, slot, queue, &snapshot, record.begun, pause, deadline).await
                        }
                    };
                    if let Err(ending) = paused {
                        return Err(attempts.give_up(ending));
                    }
                }
            }
        }
    }

    /// Makes one attempt. The permit goes to the next client once the leader has answered, or when that takes too
    /// long.
    async fn dial_and_open(
        &self,
        leader: &Server,
        opening: &mut Opening,
        permit: &mut Option<DialPermit>,
    ) -> Result<(Socket, Share), Failure> {
        let share = self.shared.buffers.share();
        let socket = self.shared.dial(&self.client, leader, share.limit()).await?;
        self.client.set_max_unsent(share.limit());
        opening.exchange(&self.client, &socket, permit).await?;
        Ok((socket, share))
    }

    /// Logs the failure. A leader that cannot be reached is a warning; one that starts or stops is no fault.
    fn log_failure(&self, leader: &Server, failure: &Failure) {
        let fault = || format!("{leader} cannot be reached");
        let log_limiter = &self.shared.context.log_limiter;
        let server = self.shared.route.kind.server();
        match failure {
            Failure::Dial(_) if self.goes_to_pooler() && log_limiter.should_log(&fault()) => warn!(
                peer = %self.peer, %leader,
                "the leader's pooler {failure}; PostgreSQL is not concerned; the client waits, and pgnorth tries again"
            ),
            Failure::Dial(_) if log_limiter.should_log(&fault()) => {
                warn!(peer = %self.peer, %leader, "{server} {failure}; the client waits, and pgnorth tries again");
            }
            Failure::Opening(OpeningError::TooManyConnections(said)) if log_limiter.should_log(NO_CONNECTION) => {
                let timeout = humantime::format_duration(CROWD_TIMEOUT);
                warn!(
                    peer = %self.peer, %leader, %said,
                    "{NO_CONNECTION} (53300); clients that were held try again for {timeout}"
                );
            }
            _ => debug!(peer = %self.peer, %leader, %failure, "{server} did not take the client"),
        }
    }

    /// Reports the failure to discovery, if it concerns it. Returns the text for the client.
    fn failed(&self, leader: &Server, failure: &Failure) -> String {
        let is_leaders = match failure {
            Failure::Dial(error) => error.is_leaders(),
            // A primary without a free connection is one.
            Failure::Opening(OpeningError::TooManyConnections(_)) => false,
            Failure::Opening(_) => true,
        };
        if is_leaders {
            report_failure(&self.shared.context, leader, failure.to_string());
        }
        match self.goes_to_pooler() {
            true => format!("the pooler of {leader} {failure}"),
            false => format!("{leader} {failure}"),
        }
    }

    fn goes_to_pooler(&self) -> bool {
        self.shared.context.settings.upstream.is_pooler()
    }

    /// Tells a client that is still there why it got no leader.
    async fn refuse(self, no_leader: NoLeader, received: Vec<u8>) {
        let context = &self.shared.context;
        let why = match no_leader.ending {
            Ending::HoldExpired => {
                let hold = humantime::format_duration(self.shared.route.hold);
                let reason = no_leader
                    .last_failure
                    .unwrap_or_else(|| self.shared.route.slot.snapshot().reason.clone());
                if context.log_limiter.should_log(REFUSED) {
                    warn!(peer = %self.peer, hold = %hold, %reason, "{REFUSED}");
                }
                let unreached = self.shared.route.kind.unreached();
                format!("{unreached} could be reached within {hold}: {reason}")
            }
            Ending::QueueExpired => {
                let queue = humantime::format_duration(hold::QUEUE);
                let reason = no_leader
                    .last_failure
                    .map_or_else(String::new, |failure| format!("; {failure}"));
                if context.log_limiter.should_log(QUEUED) {
                    warn!(peer = %self.peer, queue = %queue, "{QUEUED}");
                }
                format!(
                    "this client was not connected within {queue}: other clients are before it in the queue, and \
                     pgnorth connects {} at a time{reason}",
                    hold::DIALS
                )
            }
            Ending::Shutdown => "pgnorth is shutting down".to_owned(),
            _ => return,
        };
        // All held clients reach their deadline after the same time, so they are refused a few at a time.
        let Ok(_permit) = timeout(REFUSAL_TIMEOUT, self.shared.refusals.acquire()).await else {
            return;
        };
        refuse(
            self.client,
            received,
            &context.refusal_tls,
            SqlState::CannotConnectNow,
            &why,
        )
        .await;
    }
}

impl Attempts {
    fn give_up(self, ending: Ending) -> NoLeader {
        NoLeader {
            ending,
            last_failure: self.last_failure,
        }
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause.map_or(FIRST_PAUSE, |last| (2 * last).min(LONGEST_PAUSE));
        self.pause = Some(pause);
        pause
    }

    /// Counts this failure, if the leader broke the connection before it had answered. Returns true if that happened
    /// too often.
    fn breaks_too_often(&mut self, leader: &Arc<Server>, failure: &Failure) -> bool {
        if !matches!(failure, Failure::Opening(OpeningError::Disconnected(_))) {
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
    async fn pause_in_crowd(&mut self, session: &Session, since: Instant, deadline: Instant) -> Result<(), Ending> {
        let latest = || (Instant::now() + CROWD_TIMEOUT).min(deadline);
        let until = *self.crowd_until.get_or_insert_with(latest);
        let queue = &session.shared.queue;
        let goes_on = hold::pause_in_crowd(&session.client, queue, &mut self.retry, since, until).await?;
        self.crowd_is_over = !goes_on;
        Ok(())
    }
}

impl Shared {
    /// Connects to the leader for this client; `queued` bounds the buffers, in bytes.
    pub(super) async fn dial(
        &self,
        client: &Socket,
        leader: &Server,
        queued: Option<u32>,
    ) -> Result<Socket, DialError> {
        let Settings { connect_timeout, .. } = self.context.settings;
        let dial = async |target| self.dialler.dial(client, target, queued).await;
        connect(
            &leader.address,
            connect_timeout,
            &self.resolver,
            &self.context.metrics,
            dial,
        )
        .await
    }
}
