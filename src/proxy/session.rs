//! One session from accept to [`Ending`]: the client waits for a leader, the leader is dialled, bytes go both ways, both sockets are closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, warn};

use super::connect::{DialError, connect};
use super::forward::{Finish, Finished, Owner, Pair, Seat, Side, Socket};
use super::hold::{self, Turn};
use super::opening::{NotYet, Opening};
use super::record::Record;
use super::refuse::{SqlState, refuse};
use super::socket;
use super::{Context, Settings, Shared};
use crate::ending::Ending;
use crate::leader::{Complaint, Leader};
use crate::slot::Lease;

/// Between two dials of a leader that cannot be reached, unless discovery publishes something first; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

const REFUSED: &str = "a client was refused, after it had waited for a leader";

/// A client, accepted and admitted.
#[derive(Debug)]
pub(super) struct Session {
    client: Socket,
    peer: SocketAddr,
    shared: Arc<Shared>,
}

/// A leader that took the client.
struct Reached {
    leader: Socket,
    lease: Lease,
}

/// A session whose bytes a worker moves: all that is left of it meanwhile. The fields are dropped in this order: whoever waits for the last lease or
/// token reads the counters then.
#[derive(Debug)]
pub(super) struct Forwarded {
    record: Record,
    /// Bytes of the opening.
    first: (u64, u64),
    lease: Lease,
    _admission: Admission,
    _tracked: TaskTrackerToken,
}

/// What a session occupies as long as it lives.
#[derive(Debug)]
pub(super) struct Admission {
    /// One of --max-sessions.
    pub(super) _place: OwnedSemaphorePermit,
    /// One of its worker's.
    pub(super) _seat: Seat,
}

/// Why a leader did not take the client. Its text ends a sentence that begins with the leader's name.
#[derive(Debug, Error)]
enum Failure {
    #[error("could not be reached: {0}")]
    Dial(#[from] DialError),
    #[error("did not take the client: {0}")]
    Opening(#[from] NotYet),
}

/// A client that reaches no leader, and what it is to be told.
struct GivenUp {
    ending: Ending,
    last_failure: Option<String>,
}

/// How a socket is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    /// What was sent is delivered, then the peer reads an end.
    Fin,
    /// At once; the peer gets an error.
    Reset,
}

impl Session {
    pub(super) fn new(client: Socket, peer: SocketAddr, shared: Arc<Shared>) -> Self {
        Self { client, peer, shared }
    }

    /// The session until its client has a leader, which makes it a pair, or has none to hope for.
    pub(super) async fn run(self, admission: Admission) -> Option<Pair<Forwarded>> {
        let context = &self.shared.context;
        let mut record = Record::open(context.clone(), self.peer);
        let mut opening = Opening::default();
        let forced = context.drain.forced();
        let reached = tokio::select! {
            biased;
            () = forced.cancelled() => Err(GivenUp { ending: Ending::Shutdown, last_failure: None }),
            reached = self.reach(&mut opening, &mut record) => reached,
        };
        match reached {
            Ok(reached) => Some(self.pair(reached, &opening, record, admission)),
            Err(given_up) => {
                record.gave_up();
                let ending = given_up.ending;
                self.refuse(given_up, opening.into_heard()).await;
                record.end(ending, (0, 0));
                None
            }
        }
    }

    /// From now on the worker moves its bytes; closing and recording is [`Forwarded`]'s business.
    fn pair(self, reached: Reached, opening: &Opening, record: Record, admission: Admission) -> Pair<Forwarded> {
        let Self { client, shared, .. } = self;
        let first = opening.moved();
        shared.traffic.to_leader.inc_by(first.0);
        shared.traffic.to_client.inc_by(first.1);
        let forwarded = Forwarded {
            _tracked: shared.context.drain.token(),
            record,
            first,
            lease: reached.lease,
            _admission: admission,
        };
        Pair::new(client, reached.leader, forwarded)
    }

    /// Waits for a leader, dials it and opens the session there, until one takes the client or the hold deadline passes. Cancel-safe.
    async fn reach(&self, opening: &mut Opening, record: &mut Record) -> Result<Reached, GivenUp> {
        let context = &self.shared.context;
        let (slot, settings) = (&context.slot, &context.settings);
        let queue = &self.shared.queue;
        let deadline = Instant::now() + settings.hold;
        let mut turn = None;
        let mut last_failure = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let waited = hold::wait(&self.client, slot, queue, turn.take(), record.begun, deadline).await;
            let (lease, taken) = match waited {
                Ok(admitted) => admitted,
                Err(ending) => return Err(GivenUp { ending, last_failure }),
            };
            turn = Some(taken);
            let term = slot.term();
            record.dialling();
            let tried = tokio::select! {
                biased;
                () = lease.ended() => None,
                // An announced switchover: who has no answer yet waits rather than be cut off in the middle of logging in.
                () = slot.held() => None,
                tried = self.dial_and_open(&lease.leader, opening, &mut turn) => Some(tried),
            };
            match tried {
                Some(Ok(leader)) => {
                    record.forwarding(&lease.leader, &leader);
                    return Ok(Reached { leader, lease });
                }
                // The leader's time ended in the middle of its answer: there is no way back for the client.
                None if !opening.can_start_over() => {
                    let ending = lease.ending().unwrap_or(Ending::LeaderChanged);
                    return Err(GivenUp { ending, last_failure });
                }
                // It was in vain, and nobody's fault: on to the next leader.
                None => record.held(),
                Some(Err(failure)) => {
                    record.held();
                    self.tell(&lease.leader, &failure);
                    last_failure = Some(self.failed(&lease.leader, &failure));
                    let paused = hold::pause(&self.client, slot, queue, &term, record.begun, pause, deadline).await;
                    if let Err(ending) = paused {
                        return Err(GivenUp { ending, last_failure });
                    }
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
            if Instant::now() >= deadline {
                let ending = Ending::HoldExpired;
                return Err(GivenUp { ending, last_failure });
            }
        }
    }

    /// One try. The turn goes to the next client once the leader has answered, or when that takes too long.
    async fn dial_and_open(
        &self,
        leader: &Leader,
        opening: &mut Opening,
        turn: &mut Option<Turn>,
    ) -> Result<Socket, Failure> {
        let context = &self.shared.context;
        let Settings {
            connect_timeout,
            tcp_user_timeout,
            ..
        } = context.settings;
        let (resolver, metrics) = (&self.shared.resolver, &context.metrics);
        let dial = async |target| {
            let own = socket::dialler(target, tcp_user_timeout).map_err(DialError::Own)?;
            self.client.dial(own, target).await.map_err(DialError::from)
        };
        let socket = connect(&leader.address, connect_timeout, resolver, metrics, dial).await?;
        opening.exchange(&self.client, &socket, turn).await?;
        turn.take();
        Ok(socket)
    }

    /// A leader that cannot be reached is told of; that one which starts or stops says "not yet" is no fault.
    fn tell(&self, leader: &Leader, failure: &Failure) {
        let fault = || format!("{leader} cannot be reached");
        if matches!(failure, Failure::Dial(_)) && self.shared.context.repeats.is_news(&fault()) {
            warn!(peer = %self.peer, %leader, "the leader {failure}; the client waits, and it is tried again");
        } else {
            debug!(peer = %self.peer, %leader, %failure, "the leader did not take the client");
        }
    }

    /// Tells discovery, where it concerns it; returns what the client may be told.
    fn failed(&self, leader: &Leader, failure: &Failure) -> String {
        let is_leaders = match failure {
            Failure::Dial(error) => error.is_leaders(),
            Failure::Opening(_) => true,
        };
        if is_leaders {
            complain(&self.shared.context, leader, failure.to_string());
        }
        format!("{leader} {failure}")
    }

    /// A client that is still there is told why it got no leader.
    async fn refuse(self, given_up: GivenUp, heard: Vec<u8>) {
        let context = &self.shared.context;
        let why = match given_up.ending {
            Ending::HoldExpired => {
                let hold = humantime::format_duration(context.settings.hold);
                let reason = given_up
                    .last_failure
                    .unwrap_or_else(|| context.slot.term().reason.clone());
                if context.repeats.is_news(REFUSED) {
                    warn!(peer = %self.peer, hold = %hold, %reason, "{REFUSED}");
                }
                format!("no primary could be reached within {hold}: {reason}")
            }
            Ending::Shutdown => "pgnorth is shutting down".to_owned(),
            _ => return,
        };
        // Every held client reaches its deadline after the same time; those beyond the bound are closed without a word.
        let Ok(_permit) = self.shared.refusals.try_acquire() else {
            return;
        };
        refuse(
            self.client,
            heard,
            &context.refusal_tls,
            SqlState::CannotConnectNow,
            &why,
        )
        .await;
    }
}

impl Owner for Forwarded {
    fn is_over(&self) -> bool {
        self.lease.ending().is_some() || self.record.context.drain.is_forced()
    }

    fn finished(self, pair: Finished) {
        let (ending, client_close, leader_close) = self.verdict(&pair);
        match &pair.finish {
            Finish::Lost(Side::Leader, error) if ending == Ending::LeaderLost => {
                let broke = format!("a session broke: {error}");
                complain(&self.record.context, &self.lease.leader, broke);
            }
            Finish::Failed(error) => debug!(peer = %self.record.peer, %error, "forwarding failed"),
            _ => {}
        }
        close(pair.leader, leader_close);
        close(pair.client, client_close);
        let moved = (self.first.0 + pair.moved.0, self.first.1 + pair.moved.1);
        self.record.end(ending, moved);
    }
}

impl Forwarded {
    /// What the finish means for the session: its ending, and how the client's and the leader's sockets are closed.
    fn verdict(&self, pair: &Finished) -> (Ending, Close, Close) {
        match pair.finish {
            // The old leader's side is reset, so that no backend lingers over an answer. The client reads an end at once, after what was delivered
            // to it before: a reset would make it lose, say, the confirmation of a commit that the old leader did give. But an end in the middle
            // of what is still in hand would look whole, so then it is a reset too. (Where the client was still sending, Linux makes it one.)
            Finish::Stopped => {
                let ending = self.lease.ending().unwrap_or(Ending::Shutdown);
                let client_close = if pair.owes_client { Close::Reset } else { Close::Fin };
                (ending, client_close, Close::Reset)
            }
            Finish::Closed(side) => (closed_by(side), Close::Fin, Close::Fin),
            // The session was over when the first side closed: PostgreSQL ends every TLS session with a reset, since it never reads the client's last
            // record, and a client that closed early resets what comes after. The other side gets the reset that it would have got.
            Finish::Lost(..) if let Some(side) = pair.closed_first => (closed_by(side), Close::Reset, Close::Reset),
            Finish::Lost(Side::Client, _) => (Ending::ClientLost, Close::Reset, Close::Reset),
            Finish::Lost(Side::Leader, _) => (Ending::LeaderLost, Close::Reset, Close::Reset),
            Finish::Failed(_) => (Ending::Failed, Close::Reset, Close::Reset),
        }
    }
}

/// Tells discovery what was seen of a leader.
fn complain(context: &Context, leader: &Leader, what: String) {
    let complaint = Complaint {
        member: leader.member.clone(),
        what,
    };
    // When the channel is full, discovery has plenty of the same to go by.
    let _full_is_fine = context.complaints.try_send(complaint);
}

fn closed_by(side: Side) -> Ending {
    match side {
        Side::Client => Ending::ClientClosed,
        Side::Leader => Ending::LeaderClosed,
    }
}

fn close(stream: std::net::TcpStream, how: Close) {
    if how == Close::Reset {
        socket::reset_on_close(&stream);
    }
    drop(stream);
}
