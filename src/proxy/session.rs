//! One session from its client's first packet until it is forwarded or refused: it waits for a leader, dials it, opens
//! the session there, and gives both sockets to the worker.

mod attempts;
mod reporting;

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use self::attempts::Attempts;
pub(super) use self::attempts::PassedAttempts;
use super::buffers::Share;
use super::connect::{DialError, connect};
use super::departure::Leaves;
use super::forward::{Executor, Socket};
use super::forwarded::{Admission, Forwarded};
use super::hold::{self, DialPermit, Place};
use super::opening::{Opening, OpeningError};
use super::record::Record;
use super::transfer::{ParkedClient, WaitingClient};
use super::{Settings, Shared};
use crate::ending::Ending;
use crate::leader::Server;
use crate::slot::Target;

/// Time that a dial has left once the client is to continue in another process. If the dial is given up, the server has
/// received nothing from the client.
const LAST_DIAL: Duration = Duration::from_secs(1);

/// A client whose first packet requests a session, and that was admitted within --max-sessions.
pub(super) struct Session {
    pub(super) client: Socket,
    pub(super) peer: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) executor: Executor<Forwarded>,
    /// True if the client is not handed over to another process before it is forwarded.
    pub(super) stays: bool,
}

/// A client's wait for a leader, with all attempts.
#[derive(Debug)]
pub(super) struct Hold {
    record: Record,
    /// `None` for a client of another process that was resumed when no permit was free.
    session_permit: Option<OwnedSemaphorePermit>,
    deadline: Instant,
    attempts: Attempts,
    /// The client's place in the queue, if it has one already.
    pub(super) place: Option<Place>,
}

/// A leader that accepted the client.
struct Reached {
    leader: Socket,
    target: Target,
    share: Share,
}

/// Reasons why a leader did not accept the client. The text ends a sentence that begins with the leader's name.
#[derive(Debug, Error)]
enum AttemptError {
    #[error("could not be reached: {0}")]
    Dial(#[from] DialError),
    #[error("did not accept the client: {0}")]
    Opening(#[from] OpeningError),
}

/// Reasons why a client does not reach a leader in this process.
enum Unreached {
    Ended(Ending),
    /// The client continues in another process.
    Leaves(Leaves),
}

impl From<Ending> for Unreached {
    fn from(ending: Ending) -> Self {
        Self::Ended(ending)
    }
}

impl From<Leaves> for Unreached {
    fn from(leaves: Leaves) -> Self {
        Self::Leaves(leaves)
    }
}

impl Session {
    /// Runs the session until a leader accepts its client, and then begins to forward it. Otherwise refuses the client,
    /// or parks it for another process.
    pub(super) async fn run(self, mut opening: Opening, admission: Admission, mut hold: Hold) {
        let forced = self.shared.dependencies.drain.forced();
        let reached = tokio::select! {
            biased;
            () = forced.cancelled() => Err(Unreached::Ended(Ending::Shutdown)),
            reached = self.reach(&mut opening, &mut hold) => reached,
        };
        match reached {
            Ok(reached) => self.forward(reached, &opening, hold, admission),
            Err(Unreached::Leaves(leaves)) => {
                let departure = self.shared.departure.clone();
                departure.park(self.parked(opening, hold, admission), leaves);
            }
            Err(Unreached::Ended(ending)) => {
                let Hold {
                    record,
                    attempts,
                    session_permit: _until_refused,
                    ..
                } = hold;
                record.gave_up();
                let waited = record.begun.elapsed();
                // Recorded before the error is sent, so that a client that reads the error finds its ending in the
                // metrics.
                record.end(ending, opening.transferred());
                self.refuse(ending, attempts.last_failure, waited, opening.into_received())
                    .await;
            }
        }
    }

    fn parked(self, opening: Opening, hold: Hold, admission: Admission) -> ParkedClient {
        ParkedClient {
            client: WaitingClient {
                stream: self.client.into_stream(),
                peer: self.peer,
                opening,
                connection: admission.connection,
                since: hold.record.begun,
                deadline: hold.deadline,
                hold: Some(hold),
                stays: false,
                tracked: self.shared.dependencies.drain.token(),
                shared: self.shared,
            },
            worker: self.executor.number(),
            count: admission.count,
        }
    }

    /// Gives the session to the worker; [`Forwarded`] closes and records it.
    fn forward(self, reached: Reached, opening: &Opening, hold: Hold, admission: Admission) {
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
            _tracked: shared.dependencies.drain.token(),
            record: hold.record,
            opening,
            target: reached.target,
            stays: false,
            _share: reached.share,
            _session_permit: hold.session_permit,
            _admission: admission,
        };
        executor.forward(client, reached.leader, forwarded);
    }

    /// Waits for a leader, dials it and opens the session there, until a leader accepts the client. Gives up when the
    /// client disconnects, has waited too long, or is to continue in another process, and if the leader breaks the
    /// opening. After a cancellation, the client can only be refused.
    async fn reach(&self, opening: &mut Opening, hold: &mut Hold) -> Result<Reached, Unreached> {
        let (slot, queue) = (&*self.shared.route.slot, &self.shared.queue);
        let Hold { record, attempts, .. } = hold;
        let deadline = hold.deadline;
        let mut place = hold.place.take();
        loop {
            let waiting = hold::wait(
                &self.client,
                slot,
                queue,
                place.take(),
                &attempts.tried,
                record.begun,
                deadline,
            );
            let admitted = self.unless_leaves(waiting).await??;
            opening.waited |= admitted.waited;
            let target = admitted.target;
            let mut permit = Some(admitted.permit);
            let snapshot = slot.snapshot();
            let is_last = !snapshot.has_others(&attempts.tried, &target.server);
            opening.insists = !is_last || opening.waited && !attempts.crowd_is_over;
            record.dialling();
            let tried = tokio::select! {
                biased;
                () = target.ended() => None,
                // New clients may no longer go there, for example because a switchover was announced: a client without
                // an answer waits, because its login would be cut off.
                () = slot.closed(&target.server) => None,
                tried = self.dial_and_open(&target.server, opening, &mut permit) => tried.transpose(),
            };
            match tried {
                Some(Ok((leader, share))) => {
                    if permit.is_some() {
                        tokio::select! {
                            biased;
                            // The worker checks for the end of the epoch next.
                            () = target.ended() => {}
                            () = opening.log_in(&self.client, &leader, self.asked_to_leave()) => {}
                        }
                    }
                    record.forwarding(&target.server, &leader);
                    return Ok(Reached { leader, target, share });
                }
                // The epoch ended, or the member was closed, in the middle of its answer: the client cannot start over.
                None if !opening.can_start_over() => {
                    return Err(target.ending().unwrap_or(Ending::LeaderChanged).into());
                }
                // The attempt failed through no fault of the leader: the client tries the next leader, or leaves.
                None => record.held(),
                Some(Err(failure)) => {
                    record.held();
                    self.log_failure(&target.server, &failure);
                    attempts.last_failure = Some(self.failed(&target.server, &failure));
                    attempts.tried.push(target.server.clone());
                    match failure {
                        AttemptError::Opening(OpeningError::TooManyConnections(_)) if is_last => {
                            permit = None;
                            let pausing = attempts.pause_in_crowd(self, record.begun, deadline);
                            self.unless_leaves(pausing).await??;
                        }
                        failure if attempts.breaks_too_often(&target.server, &failure) => {
                            return Err(Ending::LeaderLost.into());
                        }
                        _ if slot.snapshot().has_untried(&attempts.tried) => {}
                        _ => {
                            attempts.tried.clear();
                            let pause = attempts.next_pause();
                            let pausing =
                                hold::pause(&self.client, slot, queue, &snapshot, record.begun, pause, deadline);
                            self.unless_leaves(pausing).await??;
                        }
                    }
                }
            }
            place = permit.map(Place::Permit);
        }
    }

    /// Awaits `wait`, unless the client is to continue in another process before `wait` completes.
    async fn unless_leaves<T>(&self, wait: impl Future<Output = T>) -> Result<T, Leaves> {
        self.shared.departure.unless_requested(self.stays, wait).await
    }

    /// Completes when the client is to continue in another process. Cancel-safe.
    async fn asked_to_leave(&self) {
        if self.stays {
            return pending().await;
        }
        self.shared.departure.requested().await;
    }

    /// Completes when an unfinished dial is to be given up, because the client is to continue in another process.
    async fn leaves_unconnected(&self) {
        self.asked_to_leave().await;
        sleep(LAST_DIAL).await;
    }

    /// Makes one attempt. Gives `permit` to the next client if the opening takes too long. Returns `None` if the client
    /// is to continue in another process and has not reached the leader.
    async fn dial_and_open(
        &self,
        leader: &Server,
        opening: &mut Opening,
        permit: &mut Option<DialPermit>,
    ) -> Result<Option<(Socket, Share)>, AttemptError> {
        let share = self.shared.buffers.share();
        let socket = tokio::select! {
            biased;
            dialled = self.shared.dial(&self.client, leader, share.limit()) => dialled?,
            () = self.leaves_unconnected() => return Ok(None),
        };
        self.client.set_max_unsent(share.limit());
        opening.exchange(&self.client, &socket, permit).await?;
        Ok(Some((socket, share)))
    }
}

impl Hold {
    /// Begins the hold of a client whose first packet has come.
    pub(super) fn begin(shared: &Shared, peer: SocketAddr, session_permit: OwnedSemaphorePermit) -> Self {
        let now = Instant::now();
        Self {
            record: Record::open(shared.dependencies.clone(), &shared.route, peer, now),
            session_permit: Some(session_permit),
            deadline: now + shared.route.hold,
            attempts: Attempts::default(),
            place: None,
        }
    }

    /// Returns the hold of a client that has made these attempts in another process.
    pub(super) fn resume(
        passed: PassedAttempts,
        shared: &Shared,
        peer: SocketAddr,
        begun: Instant,
        deadline: Instant,
    ) -> Self {
        Self {
            record: Record::open(shared.dependencies.clone(), &shared.route, peer, begun),
            session_permit: shared.session_permits.clone().try_acquire_owned().ok(),
            deadline,
            attempts: passed.resume(),
            place: None,
        }
    }

    /// Returns the description of the attempts for another process.
    pub(super) fn passed(&self) -> PassedAttempts {
        self.attempts.passed()
    }

    /// Returns the length of the text about the last failure.
    pub(super) fn failure_len(&self) -> usize {
        self.attempts.last_failure.as_ref().map_or(0, String::len)
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
        let Settings { connect_timeout, .. } = self.dependencies.settings;
        let dial = async |target| self.dialler.dial(client, target, queued).await;
        connect(
            &leader.address,
            connect_timeout,
            &self.resolver,
            &self.dependencies.metrics,
            dial,
        )
        .await
    }
}
