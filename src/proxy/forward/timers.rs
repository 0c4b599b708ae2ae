//! What a worker does later: one queue for each delay, so that an entry costs no more than a push, and one timer for all of them.
//!
//! Pure: the time is an argument, and the worker owns the timer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is due for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timer {
    /// The client's FIN has waited long enough for the leader's own.
    Fin,
    /// The leader closed, and the client was given time to do the same.
    Linger,
    /// Bytes were sent: see [`super::stall`].
    Check,
    /// Pipes were used: idle ones go back to the system. Not about one session.
    Pipes,
}

/// How long each of them waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delays {
    pub(super) fin: Duration,
    pub(super) linger: Duration,
    pub(super) check: Duration,
    pub(super) pipes: Duration,
}

/// The timer rings at most once in this time: what is due a little later is done with it.
const TICK: Duration = Duration::from_millis(5);
/// At most so many checks are made at once, some 200 µs of work, or a fiftieth of them if that is more: the messages of other sessions come in between.
/// Sessions that began together stay apart from then on, because each entry is made when its session next sends. The others cost next to nothing: most
/// of their sessions are over by then.
const SLICE: usize = 32;

/// The entries, the earliest first.
#[derive(Debug)]
pub(super) struct Timers {
    queues: [Queue; 4],
    fires_at: Option<Instant>,
}

#[derive(Debug)]
struct Queue {
    what: Timer,
    delay: Duration,
    due: VecDeque<(Instant, u64)>,
}

impl Timers {
    pub(super) fn new(delays: Delays) -> Self {
        let queue = |what, delay| Queue {
            what,
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

    /// Adds an entry. Returns when the timer is to ring, if it has to be set for this.
    pub(super) fn add(&mut self, what: Timer, session: u64, now: Instant) -> Option<Duration> {
        let queue = self.queues.iter_mut().find(|queue| queue.what == what)?;
        let at = now + queue.delay;
        queue.due.push_back((at, session));
        match self.fires_at {
            Some(fires_at) if fires_at <= at => None,
            _ => self.fire_at(at, now),
        }
    }

    /// To be called when the timer has rung: takes what is due, of checks a slice.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<(Timer, u64)> {
        self.fires_at = None;
        let mut taken = Vec::new();
        for queue in &mut self.queues {
            let slice = match queue.what {
                Timer::Check => SLICE.max(queue.due.len() / 50),
                Timer::Fin | Timer::Linger | Timer::Pipes => queue.due.len(),
            };
            let due = queue.due.iter().take(slice).take_while(|(at, _)| *at <= now).count();
            taken.extend(queue.due.drain(..due).map(|(_, session)| (queue.what, session)));
        }
        taken
    }

    /// To be called after the work that was due: when the timer is to ring next, if there is anything left and it was not set meanwhile.
    pub(super) fn next(&mut self, now: Instant) -> Option<Duration> {
        let fronts = self.queues.iter().filter_map(|queue| queue.due.front());
        let at = fronts.map(|(at, _)| *at).min()?.max(now + TICK);
        match self.fires_at {
            Some(fires_at) if fires_at <= at => None,
            _ => self.fire_at(at, now),
        }
    }

    fn fire_at(&mut self, at: Instant, now: Instant) -> Option<Duration> {
        self.fires_at = Some(at);
        // A timer of zero would be switched off.
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
    fn the_timer_rings_for_the_earliest_entry() {
        let (mut timers, now) = (timers(), Instant::now());
        assert_eq!(timers.add(Timer::Check, 1, now), Some(CHECK));
        assert_eq!(timers.add(Timer::Check, 2, now), None, "it is set already");
        let fin = Duration::from_millis(10);
        assert_eq!(timers.add(Timer::Fin, 3, now), Some(fin));
        assert_eq!(timers.take_due(now + fin), [(Timer::Fin, 3)]);
        assert_eq!(timers.next(now + fin), Some(CHECK - fin));
        assert_eq!(timers.take_due(now + CHECK), [(Timer::Check, 1), (Timer::Check, 2)]);
        assert_eq!(timers.next(now + CHECK), None);
    }

    #[test]
    fn five_thousand_checks_that_are_due_together_come_in_slices() {
        let (mut timers, begun) = (timers(), Instant::now());
        for session in 0..5000 {
            timers.add(Timer::Check, session, begun);
        }
        let (mut now, mut seen) = (begun + CHECK, Vec::new());
        loop {
            let due = timers.take_due(now);
            assert!(due.len() <= 100, "{} at once", due.len());
            seen.extend(due.into_iter().map(|(_, session)| session));
            match timers.next(now) {
                Some(pause) => now += pause,
                None => break,
            }
        }
        assert_eq!(seen, (0..5000).collect::<Vec<_>>());
        // No session's check is so late that TCP_USER_TIMEOUT could be over before it.
        assert!(now - begun < 2 * CHECK, "{:?}", now - begun);
    }

    #[test]
    fn many_entries_in_a_row_ring_once_a_tick() {
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
