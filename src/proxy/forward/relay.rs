//! The middle layer of forwarding: two connected sockets, and the bytes on their way between them.

mod closing;
mod context;
mod direction;
mod error;
mod outcome;
mod pipes;
mod stall;
mod state;
mod timers;
mod undelivered;

use std::io::ErrorKind;

use crate::proxy::forward::reactor::{Epoll, PolledStream, Side, Syscalls};
use closing::{Closing, discard_unread};
pub(crate) use context::{IoContext, Traffic};
use direction::{Direction, Progress};
use error::{DirectionError, FailedEnd};
pub(crate) use outcome::{Finish, Finished, Next, Transferred};
#[cfg(test)]
pub(crate) use pipes::make as make_pipe;
pub(crate) use pipes::{IDLE as IDLE_PIPES, MAX_PIPES, Pipes};
use stall::Stall;
pub(crate) use state::{AtRest, OnTheWay, RelayState};
pub(crate) use timers::{Delays, Timer, Timers};

/// Both directions of a pair. Dropping it frees pipes and buffers immediately.
#[derive(Debug)]
pub(crate) struct Relay {
    client: PolledStream,
    leader: PolledStream,
    to_leader: Direction,
    to_client: Direction,
    stall: Stall,
    closing: Closing,
}

impl Relay {
    pub(crate) fn new(client: PolledStream, leader: PolledStream) -> Self {
        Self {
            client,
            leader,
            to_leader: Direction::default(),
            to_client: Direction::default(),
            stall: Stall::default(),
            closing: Closing::default(),
        }
    }

    /// Returns the relay of a pair that another process forwarded before.
    pub(crate) fn resumed([client, leader]: [PolledStream; 2], parts: (Direction, Direction, Closing, Stall)) -> Self {
        let mut relay = Self::new(client, leader);
        (relay.to_leader, relay.to_client, relay.closing, relay.stall) = parts;
        relay
    }

    /// Returns the state that another process needs to continue.
    pub(crate) fn at_rest(&self) -> AtRest<'_> {
        let directions = [&self.to_leader, &self.to_client];
        AtRest::new([&self.client, &self.leader], directions, &self.closing, &self.stall)
    }

    pub(crate) fn stream(&mut self, side: Side) -> &mut PolledStream {
        match side {
            Side::Client => &mut self.client,
            Side::Leader => &mut self.leader,
        }
    }

    /// Returns the sockets, with the facts that decide how they are closed.
    pub(crate) fn finish<S: Syscalls>(self, finish: Finish, io: &mut IoContext<S>) -> Finished {
        if matches!(finish, Finish::Closed(Side::Leader)) {
            discard_unread(&self.client, io);
        }
        Finished {
            transferred: Transferred {
                to_leader: self.to_leader.delivered(),
                to_client: self.to_client.delivered(),
            },
            owes_client: self.to_client.has_undelivered(),
            closed_first: self.closing.first(),
            finish,
            client: self.client.stream,
            leader: self.leader.stream,
        }
    }

    /// Moves the bytes that can be moved now, and makes epoll report the events that the pair waits for.
    pub(crate) fn run<S: Syscalls>(&mut self, io: &mut IoContext<S>, epoll: &Epoll) -> Next {
        let mut next = self.move_bytes(io);
        if io.syscalls.faked_readiness() {
            self.assume_ready();
            if matches!(next, Next::Wait) {
                next = Next::GoOn;
            }
        }
        let client = self.client.update_write_interest(epoll);
        match client.and_then(|()| self.leader.update_write_interest(epoll)) {
            Ok(()) => next,
            Err(error) => Next::Finish(Finish::Failed(error)),
        }
    }

    fn move_bytes<S: Syscalls>(&mut self, io: &mut IoContext<S>) -> Next {
        let to_leader = self.run_to_leader(io);
        let to_client = self.run_to_client(io);
        self.closing
            .observe(self.to_leader.source_closed(), self.to_client.source_closed());
        match (to_leader, to_client) {
            // A leader that closed reads nothing more; the bytes that it sent before are still to be delivered.
            (Err(error), to_client) if self.to_client.source_closed() && error.failed == FailedEnd::Sink => {
                self.to_leader.abandon();
                match to_client {
                    Err(error) => Next::Finish(Finish::of(error, Side::Leader)),
                    Ok(to_client) => self.next(Progress::Ended, to_client),
                }
            }
            (Err(error), _) => {
                self.deliver_remainder(|relay| (relay.run_to_client(io), relay.to_client.delivered()));
                Next::Finish(Finish::of(error, Side::Client))
            }
            (_, Err(error)) => {
                self.deliver_remainder(|relay| (relay.run_to_leader(io), relay.to_leader.delivered()));
                Next::Finish(Finish::of(error, Side::Leader))
            }
            (Ok(to_leader), Ok(to_client)) => self.next(to_leader, to_client),
        }
    }

    fn next(&mut self, mut to_leader: Progress, to_client: Progress) -> Next {
        if to_leader == Progress::EofDeferred {
            self.closing.defer_fin();
        }
        if to_client == Progress::Ended {
            // Both sides have closed, so the FIN need not be deferred. If the leader's reset came after its FIN, no
            // further event will come.
            if to_leader == Progress::EofDeferred || self.leader.is_broken() {
                self.to_leader.abandon();
                to_leader = Progress::Ended;
            }
            self.closing.begin_linger(self.to_leader.delivered());
        }
        match (to_leader, to_client) {
            (Progress::Ended, Progress::Ended) => {
                Next::Finish(Finish::Closed(self.closing.first().unwrap_or(Side::Client)))
            }
            // The client's reset came after its FIN, so it accepts no more bytes.
            (Progress::Ended | Progress::EofDeferred, _) if self.client.is_broken() => {
                let error = self.client.stream.take_error().ok().flatten();
                let error = error.unwrap_or(ErrorKind::ConnectionReset.into());
                Next::Finish(Finish::Lost(Side::Client, error))
            }
            (Progress::Yielded, _) | (_, Progress::Yielded) => Next::GoOn,
            _ => Next::Wait,
        }
    }

    fn run_to_leader<S: Syscalls>(&mut self, io: &mut IoContext<S>) -> Result<Progress, DirectionError> {
        let before = self.to_leader.delivered();
        let eof = self.closing.eof_to_leader(self.to_client.ended(), io.traffic.fin_delay);
        let progress = self.to_leader.run(&mut self.client, &mut self.leader, io, eof);
        io.traffic.to_leader.inc_by(self.to_leader.delivered() - before);
        progress
    }

    fn run_to_client<S: Syscalls>(&mut self, io: &mut IoContext<S>) -> Result<Progress, DirectionError> {
        let before = self.to_client.delivered();
        let eof = self.closing.eof_to_client(self.to_leader.ended());
        let progress = self.to_client.run(&mut self.leader, &mut self.client, io, eof);
        io.traffic.to_client.inc_by(self.to_client.delivered() - before);
        progress
    }

    /// Runs the other direction after one direction has failed, to deliver the bytes that a side sent before its
    /// connection broke: the error message that PostgreSQL sends before it resets a connection must reach the client.
    /// Continues while bytes are delivered, for at most 32 quanta (64 MiB, a few milliseconds): if pgnorth itself
    /// failed, both sockets are alive, and a fast stream would hold the worker.
    fn deliver_remainder(&mut self, mut go_on: impl FnMut(&mut Self) -> (Result<Progress, DirectionError>, u64)) {
        // The socket's last event may not have been reported yet.
        self.assume_ready();
        let mut before = u64::MAX;
        for _ in 0..32 {
            let (progress, delivered) = go_on(self);
            if !matches!(progress, Ok(Progress::Blocked | Progress::Yielded)) || delivered == before {
                return;
            }
            before = delivered;
        }
    }

    fn assume_ready(&mut self) {
        self.client.assume_ready();
        self.leader.assume_ready();
    }

    /// Returns true if the pair needs this timer.
    pub(crate) fn needs(&self, timer: Timer) -> bool {
        match timer {
            Timer::Fin => self.closing.is_fin_deferred(),
            Timer::Linger => self.to_client.ended() && !self.to_leader.ended(),
            // Bytes that were sent since the last check may be stuck.
            Timer::Check => {
                let moved = self.to_leader.moved_since_check() || self.to_client.moved_since_check();
                moved || self.stall.is_active()
            }
            Timer::Pipes => false,
        }
    }

    /// Handles a timer that is due. Returns how the pair finished; if it has not finished, it must be run next.
    pub(crate) fn on_timer<S: Syscalls>(&mut self, timer: Timer, io: &mut IoContext<S>) -> Option<Finish> {
        match timer {
            Timer::Fin => {
                self.closing.stop_deferring();
                None
            }
            Timer::Linger => {
                let gone = self.closing.leader_is_gone(self.to_leader.delivered());
                (gone && self.needs(Timer::Linger)).then_some(Finish::Closed(Side::Leader))
            }
            Timer::Check => self.check(io),
            Timer::Pipes => None,
        }
    }

    /// Checks for stalled peers (see [`stall`]), and for the reset of a side that is not being read because the other
    /// side does not accept the bytes that were read before.
    fn check<S: Syscalls>(&mut self, io: &IoContext<S>) -> Option<Finish> {
        self.to_leader.on_check(&mut self.client, &mut self.leader);
        self.to_client.on_check(&mut self.leader, &mut self.client);
        self.stall.check(
            (&self.client.stream, io.traffic.client_timeout),
            (&self.leader.stream, io.traffic.leader_timeout),
        );
        for (direction, source, side) in [
            (&self.to_leader, &self.client, Side::Client),
            (&self.to_client, &self.leader, Side::Leader),
        ] {
            if direction.has_undelivered()
                && let Ok(Some(error)) = source.stream.take_error()
            {
                return Some(Finish::Lost(side, error));
            }
        }
        None
    }
}
