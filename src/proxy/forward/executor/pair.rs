//! A session that is being forwarded: a relay, and the owner that decides when it is over.

use std::io;

use crate::proxy::forward::reactor::{Epoll, Side, Socket};
use crate::proxy::forward::relay::{Finished, Relay, Timer};

/// The owner of a pair.
pub(crate) trait Owner: Send + 'static {
    /// Returns true if forwarding must stop. The worker calls it when forwarding begins, and after each
    /// [`Workers::check_owners`](super::Workers::check_owners).
    fn is_over(&self) -> bool;

    /// Returns true if the pair is not to be taken out.
    fn stays(&self) -> bool {
        false
    }

    /// Takes the sockets back when forwarding has finished. Runs on the worker, so it must not block.
    fn finished(self, pair: Finished);
}

#[derive(Debug)]
pub(crate) struct Pair<O> {
    /// The number of its sockets' tokens.
    pub(crate) number: u64,
    pub(crate) relay: Relay,
    pub(crate) owner: O,
    /// It is among the pairs that go on without an event.
    pub(crate) is_queued: bool,
    armed: [bool; TIMERS.len()],
}

/// The timers that a pair may have, each once.
const TIMERS: [Timer; 3] = [Timer::Fin, Timer::Linger, Timer::Check];

impl<O> Pair<O> {
    /// Takes two sockets of one worker; the leader's was dialled for this client.
    pub(crate) fn new(client: Socket, leader: Socket, owner: O) -> Self {
        let ((number, client), (_, leader)) = (client.into_polled(), leader.into_polled());
        Self {
            number,
            relay: Relay::new(client, leader),
            owner,
            is_queued: false,
            armed: [false; TIMERS.len()],
        }
    }

    /// Makes a pair that another process has begun to forward.
    pub(crate) fn resumed(number: u64, relay: Relay, owner: O) -> Self {
        Self {
            number,
            relay,
            owner,
            is_queued: false,
            armed: [false; TIMERS.len()],
        }
    }

    /// Ends epoll's reports about its sockets. It owns them still, and is not run any more.
    pub(crate) fn park(&mut self, epoll: &Epoll) {
        for side in [Side::Client, Side::Leader] {
            // They are in this epoll, which is what the call could complain of.
            let _was_there = self.relay.stream(side).unwatch(epoll);
        }
        // Its timers may be due meanwhile.
        self.armed = [false; TIMERS.len()];
        self.is_queued = false;
    }

    /// Makes epoll report about its sockets again, beginning with what is pending.
    pub(crate) fn unpark(&mut self, epoll: &Epoll) -> io::Result<()> {
        for side in [Side::Client, Side::Leader] {
            self.relay.stream(side).watch(epoll)?;
        }
        Ok(())
    }

    /// Arms the timers that it needs and does not have; calls `arm` for each.
    pub(crate) fn arm_timers(&mut self, mut arm: impl FnMut(Timer)) {
        for (armed, timer) in self.armed.iter_mut().zip(TIMERS) {
            if !*armed && self.relay.needs(timer) {
                *armed = true;
                arm(timer);
            }
        }
    }

    pub(crate) fn disarm(&mut self, fired: Timer) {
        for (armed, timer) in self.armed.iter_mut().zip(TIMERS) {
            *armed &= timer != fired;
        }
    }
}
