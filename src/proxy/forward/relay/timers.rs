//! The timers of a worker's pairs: one queue for each delay, so that arming a timer usually costs only a push, and one
//! timerfd for all queues.
//!
//! An entry is not removed when its session ends; it is dropped when it is due. This code makes no system calls: the
//! time is an argument, and the worker owns the timerfd.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The kinds of timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The client's FIN has been held back long enough for the leader's FIN to come first.
    Fin,
    /// The leader has closed, and the client has had time to close, too.
    Linger,
    /// Bytes that were sent may be stuck: see [`super::stall`].
    Check,
    /// Pipes were used, and idle ones are to be closed. This timer belongs to no session.
    Pipes,
}

/// The time from arming each kind of timer until it is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delays {
    pub(crate) fin: Duration,
    pub(crate) linger: Duration,
    pub(crate) check: Duration,
    pub(crate) pipes: Duration,
}

/// Minimum time between two expiries of the timerfd. Timers that become due in between are handled together.
const TICK: Duration = Duration::from_millis(5);
/// Maximum number of checks in a batch, which takes about 200 µs; or a fiftieth of all checks, if that is more.
/// Thousands in a row would delay every message of their worker. After their first checks, sessions that began together
/// are checked at different times, because each check is armed when its session next moves bytes. The other kinds of
/// timers are not limited: most of their sessions are over when they are due.
const SLICE: usize = 32;

/// The armed timers, the earliest first in each queue.
#[derive(Debug)]
pub(crate) struct Timers {
    queues: [Queue; 4],
    fires_at: Option<Instant>,
}

#[derive(Debug)]
struct Queue {
    timer: Timer,
    delay: Duration,
    due: VecDeque<(Instant, u64)>,
}

impl Timers {
    pub(crate) fn new(delays: Delays) -> Self {
        let queue = |timer, delay| Queue {
            timer,
            delay,
            due: VecDeque::new(),
        };
        Self {
            queues: [
                queue(Timer::Fin, delays.fin),
                queue(Timer::Linger, delays.linger),
                queue(Timer::Check, delays.check),
                queue(Timer::Pipes, delays.pipes),
            ],
            fires_at: None,
        }
    }

    /// Arms a timer. Returns the time to which the timerfd has to be set, if it has to be set.
    pub(crate) fn add(&mut self, timer: Timer, session: u64, now: Instant) -> Option<Duration> {
        let queue = self.queues.iter_mut().find(|queue| queue.timer == timer)?;
        let at = now + queue.delay;
        queue.due.push_back((at, session));
        match self.fires_at {
            Some(fires_at) if fires_at <= at => None,
            _ => self.fire_at(at, now),
        }
    }

    /// Removes and returns the due timers, but at most a batch of `Check` timers at a time. Must be called when the
    /// timerfd has expired.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<(Timer, u64)> {
        self.fires_at = None;
        let mut taken = Vec::new();
        for queue in &mut self.queues {
            let slice = match queue.timer {
                Timer::Check => SLICE.max(queue.due.len() / 50),
                Timer::Fin | Timer::Linger | Timer::Pipes => queue.due.len(),
            };
            let due = queue.due.iter().take(slice).take_while(|(at, _)| *at <= now).count();
            taken.extend(queue.due.drain(..due).map(|(_, session)| (queue.timer, session)));
        }
        taken
    }

    /// Returns the time to which the timerfd has to be set next, if a timer is armed and the timerfd is not set early
    /// enough. Must be called after the due timers were handled.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Duration> {
        let fronts = self.queues.iter().filter_map(|queue| queue.due.front());
        let at = fronts.map(|(at, _)| *at).min()?.max(now + TICK);
        match self.fires_at {
            Some(fires_at) if fires_at <= at => None,
            _ => self.fire_at(at, now),
        }
    }

    fn fire_at(&mut self, at: Instant, now: Instant) -> Option<Duration> {
        self.fires_at = Some(at);
        // Zero would disarm the timerfd.
        Some(at.saturating_duration_since(now).max(Duration::from_nanos(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHECK: Duration = Duration::from_millis(2500);

    fn timers() -> Timers {
        Timers::new(Delays {
            fin: Duration::from_millis(10),
            linger: Duration::from_secs(1),
            check: CHECK,
            pipes: Duration::from_secs(5),
        })
    }

    #[test]
    fn the_timerfd_expires_for_the_earliest_timer() {
        let (mut timers, now) = (timers(), Instant::now());
        assert_eq!(timers.add(Timer::Check, 1, now), Some(CHECK));
        assert_eq!(timers.next(now), None, "it is set already");
        assert_eq!(timers.add(Timer::Check, 2, now), None, "it is set already");
        let fin = Duration::from_millis(10);
        assert_eq!(timers.add(Timer::Fin, 3, now), Some(fin));
        assert_eq!(timers.take_due(now + fin), [(Timer::Fin, 3)]);
        assert_eq!(timers.next(now + fin), Some(CHECK - fin));
        assert_eq!(timers.take_due(now + CHECK), [(Timer::Check, 1), (Timer::Check, 2)]);
        assert_eq!(timers.next(now + CHECK), None);
    }

    #[test]
    fn an_earlier_timer_than_the_one_just_armed_sets_the_timerfd() {
        let (mut timers, begun) = (timers(), Instant::now());
        let tick = Duration::from_millis(5);
        timers.add(Timer::Fin, 1, begun);
        timers.add(Timer::Fin, 2, begun + tick);
        let now = begun + 2 * tick;
        assert_eq!(timers.take_due(now), [(Timer::Fin, 1)]);
        assert_eq!(timers.add(Timer::Check, 1, now), Some(CHECK), "the timerfd is not set");
        assert_eq!(timers.next(now), Some(tick), "the second FIN is due before the check");
    }

    #[test]
    fn thousands_of_checks_that_are_due_together_come_in_slices() {
        const SESSIONS: u64 = 20_000;
        let (mut timers, begun) = (timers(), Instant::now());
        for session in 0..SESSIONS {
            timers.add(Timer::Check, session, begun);
        }
        let (mut now, mut seen) = (begun + CHECK, Vec::new());
        loop {
            let due = timers.take_due(now);
            assert!(due.len() as u64 <= SESSIONS / 50, "{} at once", due.len());
            seen.extend(due.into_iter().map(|(_, session)| session));
            match timers.next(now) {
                Some(pause) => now += pause,
                None => break,
            }
        }
        assert_eq!(seen, (0..SESSIONS).collect::<Vec<_>>());
        // No session's check is so late that TCP_USER_TIMEOUT could be over before it.
        assert!(now - begun < 2 * CHECK, "{:?}", now - begun);
    }

    #[test]
    fn many_timers_in_a_row_expire_once_a_tick() {
        let (mut timers, mut now) = (timers(), Instant::now());
        for session in 0..100 {
            timers.add(Timer::Fin, session, now);
            now += Duration::from_micros(100);
        }
        let due = timers.take_due(now);
        assert_eq!(due.len(), 1, "the others are not due yet");
        assert_eq!(timers.next(now), Some(TICK));
    }
}
