//! Bytes both ways between two connected sockets, until both directions ended or one side broke.
//!
//! It knows nothing of leaders or terms: who owns the pair decides when to stop, by dropping the [`Relay`]. A later version may hand the pair to an
//! epoll worker at this seam.

mod copy;
mod flow;
mod pipes;
mod splice;
mod stall;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use flow::{Broken, Culprit, Flow};
pub(crate) use pipes::{MAX_PIPES, Pipes};
use stall::Stall;

/// A session that moved bytes is checked after a quarter of TCP_USER_TIMEOUT, but not later than this.
const LONGEST_CHECK: Duration = Duration::from_millis(2500);

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connected to pgnorth.
    Client,
    /// Whom pgnorth connected to.
    Leader,
}

/// How forwarding came to its end.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Both sides sent a FIN and got every byte; this one closed first.
    Closed(Side),
    /// This side was reset, or vanished.
    Lost(Side, io::Error),
    /// pgnorth could not go on (out of memory).
    Failed(io::Error),
}

/// What every relay shares: the pool of pipes, the counters, and the patience with a silent peer.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Where streaming directions get their pipes from.
    pub(crate) pipes: Pipes,
    /// Bytes delivered to the leader.
    pub(crate) to_leader: IntCounter,
    /// Bytes delivered to the client.
    pub(crate) to_client: IntCounter,
    /// TCP_USER_TIMEOUT of both sockets, as it was set on them.
    pub(crate) user_timeout: Duration,
}

/// Two connected sockets, and what is on its way between them.
///
/// It borrows the sockets: closing them, with FIN or reset, stays with the owner. Dropping it frees pipes and buffers at once.
#[derive(Debug)]
pub(crate) struct Relay<'pair> {
    client: &'pair TcpStream,
    leader: &'pair TcpStream,
    traffic: &'pair Traffic,
    up: Flow,
    down: Flow,
    stall: Stall,
    closed_first: Option<Side>,
    finish: Option<Finish>,
}

impl<'pair> Relay<'pair> {
    pub(crate) fn new(client: &'pair TcpStream, leader: &'pair TcpStream, traffic: &'pair Traffic) -> Self {
        Self {
            client,
            leader,
            traffic,
            up: Flow::default(),
            down: Flow::default(),
            stall: Stall::default(),
            closed_first: None,
            finish: None,
        }
    }

    /// Bytes delivered so far: to the leader, and to the client.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.up.moved(), self.down.moved())
    }

    /// Whether bytes for this side are still in hand: closing it with a FIN now would pass a cut stream off as a whole one.
    pub(crate) fn owes(&self, side: Side) -> bool {
        match side {
            Side::Client => self.down.holds_bytes(),
            Side::Leader => self.up.holds_bytes(),
        }
    }

    /// Forwards to the end. Cancel-safe: what is on its way stays in `self`.
    pub(crate) async fn finished(&mut self) -> Finish {
        let check_every = match self.traffic.user_timeout {
            Duration::ZERO => LONGEST_CHECK,
            timeout => (timeout / 4).min(LONGEST_CHECK),
        };
        let mut check = pin!(sleep(check_every));
        let mut armed = false;
        poll_fn(|cx| {
            loop {
                if self.finish.is_some() || self.poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                // A timer runs only while something was sent and may be stuck: an idle session is never woken.
                if !armed && self.sent_or_stuck() {
                    armed = true;
                    check.as_mut().reset(Instant::now() + check_every);
                }
                if !armed || check.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                armed = false;
                self.check_for_stalls();
            }
        })
        .await;
        self.finish.take().unwrap_or_else(|| {
            // Ready only ever follows a finish; a session that somehow lost it is ended, not spun.
            Finish::Failed(io::Error::other("finished without a finish"))
        })
    }

    /// Moves what can be moved. Ready once `finish` is set.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let up = self.poll_up(cx);
        let down = self.poll_down(cx);
        if self.closed_first.is_none() {
            self.closed_first = match (self.up.source_closed(), self.down.source_closed()) {
                (true, _) => Some(Side::Client),
                (false, true) => Some(Side::Leader),
                (false, false) => None,
            };
        }
        self.finish = Some(match (up, down) {
            (Poll::Ready(Err(broken)), _) => {
                self.deliver_last_words(|relay| (relay.poll_down(cx).is_pending(), relay.down.moved()));
                lost(broken, Side::Client)
            }
            (_, Poll::Ready(Err(broken))) => {
                self.deliver_last_words(|relay| (relay.poll_up(cx).is_pending(), relay.up.moved()));
                lost(broken, Side::Leader)
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Finish::Closed(self.closed_first.unwrap_or(Side::Client)),
            _ => return Poll::Pending,
        });
        Poll::Ready(())
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let traffic = self.traffic;
        let last = self.down.ended();
        self.up
            .poll(cx, self.client, self.leader, &traffic.pipes, &traffic.to_leader, last)
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let traffic = self.traffic;
        let last = self.up.ended();
        self.down
            .poll(cx, self.leader, self.client, &traffic.pipes, &traffic.to_client, last)
    }

    /// A side that broke cannot be sent to, but what it had sent before is still in its socket: the error message that PostgreSQL leaves behind when
    /// it resets a connection must reach the client. Goes on while that makes progress; a broken socket's buffer is finite.
    fn deliver_last_words(&mut self, mut go_on: impl FnMut(&mut Self) -> (bool, u64)) {
        let mut before = u64::MAX;
        loop {
            let (pending, moved) = go_on(self);
            if !pending || moved == before {
                return;
            }
            before = moved;
        }
    }

    /// Whose FIN came first, if any has come.
    pub(crate) fn closed_first(&self) -> Option<Side> {
        self.closed_first
    }

    fn sent_or_stuck(&self) -> bool {
        self.up.has_moved_since_check() || self.down.has_moved_since_check() || self.stall.seen()
    }

    /// See [`stall`]. Also notices the reset of a side that is not being read, because the other does not take what was read before.
    fn check_for_stalls(&mut self) {
        self.up.checked();
        self.down.checked();
        let timeout = self.traffic.user_timeout;
        if !timeout.is_zero() {
            self.stall.check(self.client, self.leader, timeout);
        }
        for (flow, socket, side) in [
            (&self.up, self.client, Side::Client),
            (&self.down, self.leader, Side::Leader),
        ] {
            if flow.holds_bytes()
                && let Ok(Some(error)) = socket.take_error()
            {
                self.finish = Some(Finish::Lost(side, error));
            }
        }
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Leader,
            Self::Leader => Self::Client,
        }
    }
}

fn lost(broken: Broken, source: Side) -> Finish {
    match broken.culprit {
        Culprit::Source => Finish::Lost(source, broken.error),
        Culprit::Sink => Finish::Lost(source.other(), broken.error),
        Culprit::Own => Finish::Failed(broken.error),
    }
}
