//! Two connected sockets, and what is on its way between them.

use std::io::ErrorKind;

use super::direction::{BUFFER, Direction, DirectionError, Eof, FailedEnd, Progress};
use super::polled_stream::PolledStream;
use super::stall::Stall;
use super::timers::Timer;
use super::worker::IoContext;
use super::{Finish, Finished, Side};

/// A client that sends faster than this can be read gets its reset.
const MOST_DISCARDED: usize = 1 << 20;

/// Both directions of a pair. Dropping it frees pipes and buffers at once.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) client: PolledStream,
    pub(super) leader: PolledStream,
    up: Direction,
    down: Direction,
    stall: Stall,
    closed_first: Option<Side>,
    fin: Fin,
    /// What had gone to the leader when it was last asked whether the client goes on sending to a leader that has closed.
    up_at_linger: Option<u64>,
}

/// The client's FIN, on its way to the leader.
///
/// A client of PostgreSQL says that it terminates and closes at once; the server reads the former and closes by itself. Whoever closes first keeps the
/// port in TIME_WAIT for a minute: if the FIN came with the message, that would be pgnorth, whose ports to one leader are few. So the leader's FIN gets
/// some milliseconds to come first. A leader that waits for the client's gets it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    NotYet,
    Kept,
    /// It has waited long enough.
    Due,
}

/// What becomes of a pair after its turn.
#[derive(Debug)]
pub(super) enum Next {
    /// It waits for an edge.
    Wait,
    /// It could go on at once.
    GoOn,
    Finish(Finish),
}

impl Relay {
    pub(super) fn new(client: PolledStream, leader: PolledStream) -> Self {
        Self {
            client,
            leader,
            up: Direction::default(),
            down: Direction::default(),
            stall: Stall::default(),
            closed_first: None,
            fin: Fin::NotYet,
            up_at_linger: None,
        }
    }

    /// Gives the sockets back, with what is to be known for closing them.
    pub(super) fn finished(self, finish: Finish) -> Finished {
        Finished {
            moved: (self.up.moved(), self.down.moved()),
            owes_client: self.down.holds_bytes(),
            closed_first: self.closed_first,
            finish,
            client: self.client.stream,
            leader: self.leader.stream,
        }
    }

    /// Moves what can be moved now.
    pub(super) fn run(&mut self, io: &mut IoContext) -> Next {
        let up = self.run_up(io);
        let down = self.run_down(io);
        if self.closed_first.is_none() {
            self.closed_first = match (self.up.source_closed(), self.down.source_closed()) {
                (true, _) => Some(Side::Client),
                (false, true) => Some(Side::Leader),
                (false, false) => None,
            };
        }
        match (up, down) {
            // A leader that closed reads nothing more, and what it sent before is still to be delivered.
            (Err(broken), down) if self.down.source_closed() && broken.failed == FailedEnd::Sink => {
                self.up.abandon();
                match down {
                    Err(broken) => Next::Finish(lost(broken, Side::Leader)),
                    Ok(down) => self.next(Progress::Ended, down),
                }
            }
            (Err(broken), _) => {
                self.deliver_last_words(|relay| (relay.run_down(io), relay.down.moved()));
                Next::Finish(lost(broken, Side::Client))
            }
            (_, Err(broken)) => {
                self.deliver_last_words(|relay| (relay.run_up(io), relay.up.moved()));
                Next::Finish(lost(broken, Side::Leader))
            }
            (Ok(up), Ok(down)) => self.next(up, down),
        }
    }

    fn next(&mut self, mut up: Progress, down: Progress) -> Next {
        if up == Progress::EofDeferred {
            self.fin = Fin::Kept;
        }
        if down == Progress::Ended {
            // With both ends closed there is nothing to keep it for; and one whose reset came after its end will never say anything again.
            if up == Progress::EofDeferred || self.leader.is_broken() {
                self.up.abandon();
                up = Progress::Ended;
            }
            self.up_at_linger.get_or_insert(self.up.moved());
        }
        match (up, down) {
            (Progress::Ended, Progress::Ended) => {
                Next::Finish(Finish::Closed(self.closed_first.unwrap_or(Side::Client)))
            }
            // Its reset came after its end: it takes nothing more.
            (Progress::Ended | Progress::EofDeferred, _) if self.client.is_broken() => {
                let error = self.client.stream.take_error().ok().flatten();
                Next::Finish(Finish::Lost(
                    Side::Client,
                    error.unwrap_or(ErrorKind::ConnectionReset.into()),
                ))
            }
            (Progress::Yielded, _) | (_, Progress::Yielded) => Next::GoOn,
            _ => Next::Wait,
        }
    }

    fn run_up(&mut self, io: &mut IoContext) -> Result<Progress, DirectionError> {
        let before = self.up.moved();
        let eof = match self.fin {
            _ if self.down.ended() => Eof::Close,
            Fin::Due => Eof::PassOn,
            Fin::NotYet | Fin::Kept if io.traffic.fin_delay.is_zero() => Eof::PassOn,
            Fin::NotYet | Fin::Kept => Eof::Keep,
        };
        let progress = self.up.run(&mut self.client, &mut self.leader, io, eof);
        io.traffic.to_leader.inc_by(self.up.moved() - before);
        progress
    }

    fn run_down(&mut self, io: &mut IoContext) -> Result<Progress, DirectionError> {
        let before = self.down.moved();
        let both_ended = self.up.ended() || self.fin == Fin::Kept;
        let eof = if both_ended { Eof::Close } else { Eof::PassOn };
        let progress = self.down.run(&mut self.leader, &mut self.client, io, eof);
        io.traffic.to_client.inc_by(self.down.moved() - before);
        progress
    }

    /// A side that broke cannot be sent to, but what it had sent before is still in its socket: the error message that PostgreSQL leaves behind when
    /// it resets a connection must reach the client. Goes on while that makes progress; a broken socket's buffer is finite.
    fn deliver_last_words(&mut self, mut go_on: impl FnMut(&mut Self) -> (Result<Progress, DirectionError>, u64)) {
        // Its last edge may not have been told of yet.
        self.client.assume_ready();
        self.leader.assume_ready();
        let mut before = u64::MAX;
        loop {
            let (progress, moved) = go_on(self);
            if !matches!(progress, Ok(Progress::Blocked | Progress::Yielded)) || moved == before {
                return;
            }
            before = moved;
        }
    }

    /// Whether it is to be looked at later, and what for.
    pub(super) fn needs(&self, what: Timer) -> bool {
        match what {
            Timer::Fin => self.fin == Fin::Kept,
            Timer::Linger => self.down.ended() && !self.up.ended(),
            // Bytes were sent since the last check that may be stuck.
            Timer::Check => {
                let moved = self.up.has_moved_since_check() || self.down.has_moved_since_check();
                moved || self.stall.seen()
            }
            Timer::Pipes => false,
        }
    }

    /// The client's FIN has waited long enough. To be followed by a turn.
    pub(super) fn fin_is_due(&mut self) {
        if self.fin == Fin::Kept {
            self.fin = Fin::Due;
        }
    }

    /// The leader closed some time ago. PostgreSQL never half-closes: unless it still takes bytes from the client, the session is over, though a client
    /// that is idle may notice only when it next uses it.
    pub(super) fn lingers_in_vain(&mut self) -> bool {
        let before = self.up_at_linger.replace(self.up.moved());
        self.needs(Timer::Linger) && before == Some(self.up.moved())
    }

    /// To be called before the client's socket is closed after a FIN was passed on to it: where the client has sent bytes that nobody read, Linux makes the
    /// close a reset, which may take away what the client has not read yet.
    pub(super) fn discard_unread(&mut self, io: &mut IoContext) {
        for _ in 0..MOST_DISCARDED / BUFFER {
            match io.syscalls.recv(&self.client.stream, &mut io.buffer) {
                Ok(read) if read > 0 => {}
                _ => return,
            }
        }
    }

    /// See [`super::stall`]. To be followed by a turn: where bytes came in since the last check, it reads once whatever the readiness says. recv(2)
    /// stops short at the mark of urgent data although more follows, and what follows would otherwise lie there until the peer sends again.
    ///
    /// Also notices the reset of a side that is not being read, because the other does not take what was read before.
    pub(super) fn check(&mut self, io: &mut IoContext) -> Option<Finish> {
        if self.up.has_moved_since_check() {
            self.client.assume_ready();
        }
        if self.down.has_moved_since_check() {
            self.leader.assume_ready();
        }
        self.up.checked();
        self.down.checked();
        // An EOF that waits for unsent bytes asks once more.
        for (flow, sink) in [(&self.up, &mut self.leader), (&self.down, &mut self.client)] {
            if flow.source_closed() && !flow.ended() {
                sink.assume_ready();
            }
        }
        let traffic = &io.traffic;
        self.stall.check(
            (&self.client.stream, traffic.client_timeout),
            (&self.leader.stream, traffic.leader_timeout),
        );
        for (flow, socket, side) in [
            (&self.up, &self.client, Side::Client),
            (&self.down, &self.leader, Side::Leader),
        ] {
            if flow.holds_bytes()
                && let Ok(Some(error)) = socket.stream.take_error()
            {
                return Some(Finish::Lost(side, error));
            }
        }
        None
    }
}

fn lost(broken: DirectionError, source: Side) -> Finish {
    match broken.failed {
        FailedEnd::Source => Finish::Lost(source, broken.error),
        FailedEnd::Sink => Finish::Lost(source.other(), broken.error),
        FailedEnd::Own => Finish::Failed(broken.error),
    }
}
