//! A session that is being forwarded: a relay, and the owner that decides when it is over.

use crate::proxy::forward::reactor::Socket;
use crate::proxy::forward::relay::{Finished, Relay, Timer};

/// The owner of a pair.
pub(crate) trait Owner: Send + 'static {
    /// Returns whether forwarding must stop. Asked when forwarding begins, and after each
    /// [`Workers::check_owners`](super::Workers::check_owners).
    fn is_over(&self) -> bool;

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
