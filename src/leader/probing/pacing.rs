//! Computes the time of each request to a member, from the urgency in the plan and from the member's answers so far.
//! Pure: time and random numbers are arguments.
//!
//! A pgnorth process does not know how many others there are. It can infer this only from the answers: if 200 processes
//! ask a candidate every 25 ms, the candidate's few threads cannot keep up, and an answer takes many times as long as
//! usual. A process that measures this asks less and less often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Suspicion, Urgency};

/// Interval for the leader while the lock is watched and nothing is suspicious, and for members that are asked only for
/// a route to replicas. It is the longest of all intervals. 200 pgnorths with this interval send 105 requests per
/// second.
pub const STEADY: Duration = Duration::from_secs(2);
/// Longest interval while sessions depend on members' answers to `/primary`, which count for 3 s. If a request gets no
/// answer within its deadline of 1 s, a quick next answer still arrives in time. 200 pgnorths with this interval send
/// 162 requests per second, and 20 more for membership and settings; with 1 s they would send more than 200.
pub const ROUND: Duration = Duration::from_millis(1_300);
/// Interval for `/cluster` while the sessions of an unresponsive leader depend on it. An answer counts for 1.5 s, and
/// for at most 2 s from its request on, because members wait for 2 s before they promote another member
/// (`view::naming`). With this interval, the next answer arrives in time even if it takes its whole deadline of 1 s. A
/// quick answer also arrives in time after one request without an answer.
const NAMING: Duration = Duration::from_millis(400);
/// Longest interval for `/cluster` if answers are slow. The next answer still arrives in time if it takes its whole
/// deadline.
const NAMING_SLOW: Duration = Duration::from_millis(900);
/// Shortest interval for the candidate.
const BURST: Duration = Duration::from_millis(25);
/// Longest time with the interval `BURST`.
const BURST_FOR: Duration = Duration::from_secs(5);
/// Time for which any other suspicious member is asked at intervals of `BURST`. Answers that are slow in this time are
/// a sign that many pgnorths are asking.
const MUSTER: Duration = Duration::from_millis(500);
/// Interval after `MUSTER`; for the candidate, after `BURST_FOR`.
const ALERT: Duration = Duration::from_millis(100);
/// Time from the start of a burst until the interval `ALERT` ends. A queued request is remembered for the same time.
const ALERT_FOR: Duration = Duration::from_secs(60);
/// Interval after `ALERT_FOR`, unless an answer had to queue since the burst began: then it is `STEADY`. If a leader is
/// writable again after a long outage, clients wait for it for less than a second.
const PATIENT: Duration = Duration::from_millis(900);
/// Divisor of the interval while slow answers suggest that many pgnorths are asking. The interval is the square of the
/// time since the suspicion began, divided by this number: 250 ms after 1 s, and 1 s after 2 s.
const CROWD: f64 = 4.0;
/// Shortest time between the starts of two bursts. A suspicion that begins sooner does not start a burst.
const NEXT_BURST: Duration = Duration::from_secs(15);
/// Shortest interval, as a multiple of the time that the last request took, but at most `PAUSE` longer than that time.
/// The longest interval still applies.
const BREATHER: u32 = 2;
/// Longest pause after a slow request. With a deadline of 1 s, a member that was cut off is found 1.2 s after it is
/// connected again, and 200 pgnorths make 167 requests per second.
const PAUSE: Duration = Duration::from_millis(200);
/// Thresholds above which a request counts as queued: a multiple of the quickest answer's time, and an absolute time. A
/// request must exceed both.
const QUEUED: (u32, Duration) = (4, Duration::from_millis(20));
/// Number of slow answers in a row that show that requests queue. A member that is being promoted may answer slowly
/// once or twice although nobody else asks.
const SLOW_ANSWERS: u32 = 3;
/// Factor by which the quickest time grows with each later answer, so that an old value is forgotten.
const FORGET: f64 = 1.01;
/// Time for which the pace of a member outside the plan is remembered.
const KEPT: Duration = Duration::from_secs(60);
/// Largest fraction by which intervals are shortened at random, so that pgnorths that notice a change at the same time
/// do not ask at the same time. Intervals are never lengthened.
const JITTER: f64 = 0.1;

/// The schedule of the requests to all members. A member at another address has another key.
#[derive(Debug, Default)]
pub struct Pacer {
    members: BTreeMap<String, Pace>,
    /// Time of the quickest recent answer of any member.
    quickest: Option<Duration>,
}

/// The requests to one member.
#[derive(Clone, Copy, Debug)]
struct Pace {
    planned: bool,
    asked: Option<Instant>,
    under_way: bool,
    /// Shortest interval after the newest request.
    shortest: Duration,
    /// Number of answers that were slow, since the last one that was not.
    slow_answers: u32,
    /// Random number from 0 to 1, for the interval after the newest request.
    random: f64,
    /// Start of the newest burst.
    burst: Option<Instant>,
    /// End of the newest request that had to queue, answered or not.
    queued: Option<Instant>,
    /// Time at which the member first entered the plan.
    since: Instant,
    /// Time at which the member was last in the plan.
    wanted: Instant,
}

impl Pacer {
    /// Returns the positions in the plan of the members to ask now, and the time at which the next other member is due.
    /// Records the returned members as asked. `random` returns a number from 0 to 1.
    pub fn due<'plan>(
        &mut self,
        plan: impl IntoIterator<Item = (&'plan str, Urgency)>,
        now: Instant,
        mut random: impl FnMut() -> f64,
    ) -> (Vec<usize>, Option<Instant>) {
        self.members.retain(|_, pace| {
            pace.planned = false;
            now < pace.wanted + KEPT
        });
        let (mut due, mut next) = (Vec::new(), None);
        for (place, (key, urgency)) in plan.into_iter().enumerate() {
            let pace = self
                .members
                .entry(key.to_owned())
                .or_insert_with(|| Pace::new(now, random()));
            (pace.planned, pace.wanted) = (true, now);
            if pace.under_way {
                continue;
            }
            let at = pace.due(urgency, now);
            if now < at {
                next = Some(next.map_or(at, |next: Instant| next.min(at)));
                continue;
            }
            (pace.asked, pace.under_way, pace.random) = (Some(now), true, random());
            due.push(place);
        }
        (due, next)
    }

    /// Records the end of a request, with or without an answer. Returns false if its member is no longer in the plan.
    pub fn ended(&mut self, key: &str, answered: bool, now: Instant) -> bool {
        let Some(pace) = self.members.get_mut(key) else {
            return false;
        };
        pace.under_way = false;
        let took = pace
            .asked
            .map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        pace.shortest = (BREATHER * took).min(took + PAUSE);
        // A member that does not answer is more likely cut off than busy.
        if answered {
            let usual = self.quickest.map_or(Duration::ZERO, |quickest| quickest * QUEUED.0);
            pace.slow_answers = if usual.max(QUEUED.1) < took {
                pace.slow_answers + 1
            } else {
                0
            };
            if SLOW_ANSWERS <= pace.slow_answers {
                pace.queued = Some(now);
            }
            let quickest = self.quickest.map_or(took, |quickest| quickest.mul_f64(FORGET));
            self.quickest = Some(quickest.min(took));
        }
        pace.planned
    }
}

impl Pace {
    const fn new(now: Instant, random: f64) -> Self {
        Self {
            planned: true,
            asked: None,
            under_way: false,
            shortest: Duration::ZERO,
            slow_answers: 0,
            random,
            burst: None,
            queued: None,
            since: now,
            wanted: now,
        }
    }

    fn due(&mut self, urgency: Urgency, now: Instant) -> Instant {
        if let Urgency::Alert(Suspicion { since, .. }) | Urgency::Candidate(Suspicion { since, .. }) = urgency
            && self.burst.is_none_or(|last| last + NEXT_BURST <= since)
        {
            self.burst = Some(since);
        }
        match self.asked {
            Some(asked) => asked + self.interval(urgency, asked),
            // All pgnorths notice a candidate within a few milliseconds, and simultaneous requests would overflow its
            // listen queue. The promotion takes longer than this random delay.
            None if matches!(urgency, Urgency::Candidate(_)) => self.since + BURST.mul_f64(self.random),
            None => now,
        }
    }

    fn interval(&self, urgency: Urgency, asked: Instant) -> Duration {
        let (wanted, longest) = match urgency {
            Urgency::Steady => (STEADY, STEADY),
            Urgency::Round => (ROUND, ROUND),
            Urgency::Naming => (NAMING, NAMING_SLOW),
            Urgency::Alert(suspicion) => (self.hurry(ALERT, asked), suspicion.longest),
            Urgency::Candidate(suspicion) => (self.hurry(BURST, asked), suspicion.longest),
        };
        let interval = wanted.max(self.shortest).min(longest);
        interval.mul_f64(1.0 - JITTER * self.random)
    }

    fn hurry(&self, shortest: Duration, asked: Instant) -> Duration {
        let since = self
            .burst
            .map_or(Duration::MAX, |burst| asked.saturating_duration_since(burst));
        let in_a_crowd = self.queued.is_some_and(|queued| asked < queued + ALERT_FOR);
        match since {
            since if in_a_crowd => {
                let seconds = since.min(BURST_FOR).as_secs_f64();
                Duration::from_secs_f64(seconds * seconds / CROWD).max(shortest)
            }
            since if since < MUSTER => BURST,
            since if since < BURST_FOR => shortest,
            since if since < ALERT_FOR => ALERT,
            _ if self.queued >= self.burst => STEADY,
            _ => PATIENT,
        }
    }
}

#[cfg(test)]
mod tests;
