//! The pairs of one worker: it runs those that have an event, a timer, or bytes left after their quantum.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::pair::{Owner, Pair};
use crate::proxy::forward::reactor::{Reactor, Side, Syscalls, Timerfd};
use crate::proxy::forward::relay::{Delays, Finish, IDLE_PIPES, IoContext, Next, Timer, Timers, Traffic};

/// Time until a pair that moved bytes is checked, unless a quarter of either side's TCP_USER_TIMEOUT is shorter.
const MAX_CHECK_DELAY: Duration = Duration::from_millis(2500);
/// Time that a client has to close after its leader did. Then its session ends, unless the leader still accepts bytes.
const LINGER: Duration = Duration::from_secs(1);

pub(crate) struct Pairs<O, S> {
    by_number: HashMap<u64, Box<Pair<O>>>,
    /// Pairs that used up their quantum and can continue.
    queued: Vec<u64>,
    /// The timers of all pairs, which share one timerfd. An idle pair has no timer, so it costs no time.
    timers: Timers,
    timerfd: Timerfd,
    pipe_timer_armed: bool,
    io: IoContext<S>,
    reactor: Reactor,
}

impl<O: Owner, S: Syscalls> Pairs<O, S> {
    pub(crate) fn new(io: IoContext<S>, timerfd: Timerfd, reactor: Reactor) -> Self {
        Self {
            by_number: HashMap::new(),
            queued: Vec::new(),
            timers: Timers::new(delays(&io.traffic)),
            timerfd,
            pipe_timer_armed: false,
            io,
            reactor,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_number.is_empty()
    }

    /// Returns true if a pair can continue without an event.
    pub(crate) fn has_queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Begins or resumes the forwarding of `pair`. If its owner reports that it is already over, or if epoll did not
    /// accept its sockets, finishes it instead.
    pub(crate) fn adopt(&mut self, mut pair: Pair<O>) {
        let (number, is_over, unwatched) = (pair.number, pair.owner.is_over(), pair.unwatched.take());
        self.by_number.insert(number, Box::new(pair));
        match unwatched {
            _ if is_over => self.finish(number, Finish::Stopped),
            Some(error) => self.finish(number, Finish::Failed(error)),
            // Bytes may have come already.
            None => self.run(number),
        }
    }

    /// Removes and returns up to `most` pairs that need not stay (see [`Owner::stays`]). A parked pair does not run
    /// until it is put back here or resumed in another process.
    pub(crate) fn park(&mut self, most: usize) -> Vec<Box<Pair<O>>> {
        let may_leave = self.by_number.iter().filter(|(_, pair)| !pair.owner.stays());
        let numbers: Vec<u64> = may_leave.map(|(number, _)| *number).take(most).collect();
        let mut parked: Vec<_> = numbers
            .iter()
            .filter_map(|number| self.by_number.remove(number))
            .collect();
        for pair in &mut parked {
            pair.park(self.reactor.epoll());
        }
        parked
    }

    /// Records an event of a session's socket and runs its pair. Returns false if the session is not a pair.
    pub(crate) fn on_event(&mut self, number: u64, side: Side, flags: EventFlags) -> bool {
        let Some(pair) = self.by_number.get_mut(&number) else {
            return false;
        };
        pair.relay.stream(side).on_event(flags);
        self.run(number);
        true
    }

    /// Runs the pairs that can continue without an event, once each.
    pub(crate) fn run_queued(&mut self) {
        for number in std::mem::take(&mut self.queued) {
            if let Some(pair) = self.by_number.get_mut(&number) {
                pair.is_queued = false;
                self.run(number);
            }
        }
    }

    /// Stops the pairs whose owner reports that the session is over.
    pub(crate) fn check_owners(&mut self) {
        let over = self.by_number.iter().filter(|(_, pair)| pair.owner.is_over());
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        for number in over {
            self.finish(number, Finish::Stopped);
        }
    }

    /// Handles the timers that are due.
    pub(crate) fn on_timer(&mut self) {
        for (timer, number) in self.timers.take_due(Instant::now()) {
            if timer == Timer::Pipes {
                self.pipe_timer_armed = self.io.traffic.pipes.close_idle();
                if self.pipe_timer_armed {
                    arm(&mut self.timers, &self.timerfd, timer, number);
                }
                continue;
            }
            let Some(pair) = self.by_number.get_mut(&number) else {
                continue;
            };
            pair.disarm(timer);
            match pair.relay.on_timer(timer, &mut self.io) {
                Some(finish) => self.finish(number, finish),
                None => self.run(number),
            }
        }
        if let Some(after) = self.timers.next(Instant::now()) {
            self.timerfd.set(after);
        }
    }

    fn run(&mut self, number: u64) {
        let Some(pair) = self.by_number.get_mut(&number) else {
            return;
        };
        match pair.relay.run(&mut self.io, self.reactor.epoll()) {
            Next::Finish(finish) => return self.finish(number, finish),
            Next::GoOn if !pair.is_queued => {
                pair.is_queued = true;
                self.queued.push(number);
            }
            Next::GoOn | Next::Wait => {}
        }
        pair.arm_timers(|timer| arm(&mut self.timers, &self.timerfd, timer, number));
        if std::mem::take(&mut self.io.lent_pipe) && !self.pipe_timer_armed {
            self.pipe_timer_armed = true;
            arm(&mut self.timers, &self.timerfd, Timer::Pipes, 0);
        }
    }

    fn finish(&mut self, number: u64, finish: Finish) {
        if let Some(pair) = self.by_number.remove(&number) {
            let Pair { relay, owner, .. } = *pair;
            owner.finished(relay.finish(finish, &mut self.io));
        }
    }
}

fn arm(timers: &mut Timers, timerfd: &Timerfd, timer: Timer, number: u64) {
    if let Some(after) = timers.add(timer, number, Instant::now()) {
        timerfd.set(after);
    }
}

fn delays(traffic: &Traffic) -> Delays {
    Delays {
        fin: traffic.fin_delay,
        linger: LINGER,
        check: [traffic.client_timeout, traffic.leader_timeout]
            .iter()
            .filter(|timeout| !timeout.is_zero())
            .map(|timeout| *timeout / 4)
            .fold(MAX_CHECK_DELAY, Duration::min),
        pipes: IDLE_PIPES,
    }
}
