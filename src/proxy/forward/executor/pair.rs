//! A session that is being forwarded: a relay, and the owner that may stop it and receives its sockets at the end.

use std::io;

use crate::proxy::forward::reactor::{Epoll, Side, Socket};
use crate::proxy::forward::relay::{Finished, Relay, Timer};

/// The owner of a pair.
pub(crate) trait Owner: Send + 'static {
    /// Returns true if forwarding must stop. The worker calls this when forwarding begins or is resumed, and after each
    /// [`Workers::check_owners`](super::Workers::check_owners).
    fn is_over(&self) -> bool;

    /// Returns true if the pair must not be parked.
    fn stays(&self) -> bool {
        false
    }

    /// Receives the sockets when forwarding has finished. Runs on the worker, so it must not block.
    fn finished(self, pair: Finished);
}

#[derive(Debug)]
pub(crate) struct Pair<O> {
    /// The number in its sockets' tokens.
    pub(crate) number: u64,
    pub(crate) relay: Relay,
    pub(crate) owner: O,
    /// True if the pair is in the queue of pairs that can continue without an event.
    pub(crate) is_queued: bool,
    /// The error if epoll did not accept a socket, whose events the worker would therefore never get.
    pub(crate) unwatched: Option<io::Error>,
    armed: [bool; TIMERS.len()],
}

/// The kinds of timers that a pair may have, at most one of each.
const TIMERS: [Timer; 3] = [Timer::Fin, Timer::Linger, Timer::Check];

impl<O> Pair<O> {
    /// Makes a pair of two sockets of one worker; the leader's was dialled for this client.
    pub(crate) fn new(client: Socket, leader: Socket, owner: O) -> Self {
        let ((number, client), (_, leader)) = (client.into_polled(), leader.into_polled());
        Self {
            number,
            relay: Relay::new(client, leader),
            owner,
            is_queued: false,
            unwatched: None,
            armed: [false; TIMERS.len()],
        }
    }

    /// Makes a pair that another process forwarded before.
    pub(crate) fn resumed(number: u64, relay: Relay, owner: O) -> Self {
        Self {
            number,
            relay,
            owner,
            is_queued: false,
            unwatched: None,
            armed: [false; TIMERS.len()],
        }
    }

    /// Removes the pair's sockets from epoll. The pair still owns them, and must not be run until it is unparked.
    pub(crate) fn park(&mut self, epoll: &Epoll) {
        for side in [Side::Client, Side::Leader] {
            // This fails only for sockets that are not in this epoll.
            let _was_there = self.relay.stream(side).unwatch(epoll);
        }
        // Its timers may expire meanwhile.
        self.armed = [false; TIMERS.len()];
        self.is_queued = false;
    }

    /// Adds the pair's sockets to epoll, which also reports the events that are already pending. This fails only for
    /// lack of memory or of epoll watches; the pair must then be finished.
    pub(crate) fn unpark(&mut self, epoll: &Epoll) {
        let watched = [Side::Client, Side::Leader].map(|side| self.relay.stream(side).watch(epoll));
        self.unwatched = watched.into_iter().find_map(Result::err);
    }

    /// Calls `arm` for each timer that the pair needs and that is not armed.
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
