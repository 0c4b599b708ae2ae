//! One session from accept to [`Ending`]: the client waits for a leader, the leader is dialled, bytes go both ways, both sockets are closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Shared;
use super::connect::{DialError, connect};
use super::forward::{Finish, Relay, Side};
use super::hold::{self, Turn};
use super::record::Record;
use super::refuse::{SqlState, refuse};
use super::socket;
use crate::ending::Ending;
use crate::leader::{Complaint, Leader};
use crate::slot::Lease;

/// Between two dials of a leader that cannot be reached, unless discovery publishes something first; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A client that says nothing gets no answer: after this it no longer keeps others from dialling.
const ANSWER_PATIENCE: Duration = Duration::from_millis(250);

/// A client, accepted and admitted.
#[derive(Debug)]
pub(super) struct Session {
    client: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
}

/// A leader that answered the dial.
struct Reached {
    leader: TcpStream,
    lease: Lease,
    turn: Turn,
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
    pub(super) fn new(client: TcpStream, peer: SocketAddr, shared: Arc<Shared>) -> Self {
        Self { client, peer, shared }
    }

    /// The whole session. Afterwards both sockets are closed and the ending is recorded.
    pub(super) async fn run(self) {
        let context = &self.shared.context;
        let mut record = Record::open(context.metrics.clone(), context.recorder.clone(), self.peer);
        let forced = context.drain.forced();
        let reached = tokio::select! {
            biased;
            () = forced.cancelled() => Err(GivenUp { ending: Ending::Shutdown, last_failure: None }),
            reached = self.reach(&mut record) => reached,
        };
        let ending = match reached {
            Ok(reached) => self.forward(reached, &forced, &mut record).await,
            Err(given_up) => {
                record.gave_up();
                let ending = given_up.ending;
                self.refuse(given_up).await;
                ending
            }
        };
        record.end(ending);
    }

    /// Waits for a leader and dials it, until one answers or the hold deadline passes. Cancel-safe.
    async fn reach(&self, record: &mut Record) -> Result<Reached, GivenUp> {
        let context = &self.shared.context;
        let (slot, settings) = (&context.slot, &context.settings);
        let deadline = Instant::now() + settings.hold;
        let mut kept_turn = None;
        let mut last_failure = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let waited = hold::wait(&self.client, slot, &self.shared.queue, kept_turn.take(), deadline).await;
            let (lease, turn) = match waited {
                Ok(admitted) => admitted,
                Err(ending) => return Err(GivenUp { ending, last_failure }),
            };
            let term = slot.term();
            record.dialling();
            let address = &lease.leader.address;
            let dial = connect(
                address,
                settings.connect_timeout,
                settings.tcp_user_timeout,
                &context.metrics,
            );
            let dialled = tokio::select! {
                biased;
                () = lease.ended() => None,
                dialled = dial => Some(dialled),
            };
            match dialled {
                Some(Ok(leader)) => {
                    record.forwarding(&lease.leader, &leader);
                    return Ok(Reached { leader, lease, turn });
                }
                // The dial was in vain, and nobody's fault: on to the next leader, with the same turn.
                None => record.held(),
                Some(Err(error)) => {
                    record.held();
                    debug!(peer = %self.peer, leader = %lease.leader, %error, "dial failed");
                    last_failure = Some(self.dial_failed(&lease.leader, &error));
                    let paused = hold::pause(&self.client, slot, &term, pause, deadline).await;
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
            kept_turn = Some(turn);
        }
    }

    /// Tells discovery, where it concerns it; returns what the client may be told.
    fn dial_failed(&self, leader: &Leader, error: &DialError) -> String {
        if error.is_leaders() {
            self.complain(leader, error.to_string());
        }
        format!("{leader} could not be reached: {error}")
    }

    fn complain(&self, leader: &Leader, what: String) {
        let complaint = Complaint {
            member: leader.member.clone(),
            what,
        };
        // When the channel is full, discovery has plenty of the same to go by.
        let _full_is_fine = self.shared.context.complaints.try_send(complaint);
    }

    /// Forwards until both sides are done, a side broke, the leader's time is over, or shutdown forces it; then closes both sockets.
    async fn forward(self, reached: Reached, forced: &CancellationToken, record: &mut Record) -> Ending {
        let Reached { leader, lease, turn } = reached;
        let mut relay = Relay::new(&self.client, &leader, &self.shared.traffic);
        let relayed = async {
            // The turn goes to the next client once the leader has answered this one.
            let _in_time = timeout(ANSWER_PATIENCE, relay.answered()).await;
            drop(turn);
            relay.finished().await
        };
        // Biased: a change of leader must win over a late byte.
        let stopped = tokio::select! {
            biased;
            () = lease.ended() => Err(lease.ending().unwrap_or(Ending::LeaderChanged)),
            () = forced.cancelled() => Err(Ending::Shutdown),
            finish = relayed => Ok(finish),
        };
        record.moved(relay.moved());
        let (ending, client_close, leader_close) = match &stopped {
            Ok(finish) => verdict(finish, &relay),
            // The old leader's side is reset, so that no backend lingers over an answer. The client reads an end at once, after what was delivered
            // to it before: a reset would make it lose, say, the confirmation of a commit that the old leader did give. But an end in the middle
            // of what is still in hand would look whole, so then it is a reset too. (Where the client was still sending, Linux makes it one.)
            Err(ending) if relay.owes(Side::Client) => (*ending, Close::Reset, Close::Reset),
            Err(ending) => (*ending, Close::Fin, Close::Reset),
        };
        drop(relay);
        match &stopped {
            Ok(Finish::Lost(Side::Leader, error)) if ending == Ending::LeaderLost => {
                self.complain(&lease.leader, format!("a session broke: {error}"));
            }
            Ok(Finish::Failed(error)) => debug!(peer = %self.peer, %error, "forwarding failed"),
            _ => {}
        }
        close(leader, leader_close);
        close(self.client, client_close);
        ending
    }

    /// A client that is still there is told why it got no leader.
    async fn refuse(self, given_up: GivenUp) {
        let context = &self.shared.context;
        let why = match given_up.ending {
            Ending::HoldExpired => {
                let hold = humantime::format_duration(context.settings.hold);
                let reason = given_up
                    .last_failure
                    .unwrap_or_else(|| context.slot.term().reason.clone());
                format!("no primary could be reached within {hold}: {reason}")
            }
            Ending::Shutdown => "pgnorth is shutting down".to_owned(),
            _ => return,
        };
        // Every held client reaches its deadline after the same time; those beyond the bound are closed without a word.
        let Ok(_permit) = self.shared.refusals.try_acquire() else {
            return;
        };
        refuse(self.client, SqlState::CannotConnectNow, &why).await;
    }
}

/// What a finish means for the session: its ending, and how the client's and the leader's sockets are closed.
fn verdict(finish: &Finish, relay: &Relay<'_>) -> (Ending, Close, Close) {
    match finish {
        Finish::Closed(side) => (closed_by(*side), Close::Fin, Close::Fin),
        // The session was over when the first side closed: PostgreSQL ends every TLS session with a reset, since it never reads the client's last
        // record, and a client that closed early resets what comes after. The other side gets the reset that it would have got.
        Finish::Lost(..) if let Some(side) = relay.closed_first() => (closed_by(side), Close::Reset, Close::Reset),
        Finish::Lost(Side::Client, _) => (Ending::ClientLost, Close::Reset, Close::Reset),
        Finish::Lost(Side::Leader, _) => (Ending::LeaderLost, Close::Reset, Close::Reset),
        Finish::Failed(_) => (Ending::Failed, Close::Reset, Close::Reset),
    }
}

fn closed_by(side: Side) -> Ending {
    match side {
        Side::Client => Ending::ClientClosed,
        Side::Leader => Ending::LeaderClosed,
    }
}

fn close(stream: TcpStream, how: Close) {
    if how == Close::Reset {
        socket::reset_on_close(&stream);
    }
    drop(stream);
}
