//! Computes the time of each request to a member, from the urgency in the plan and from the member's answers so far.
//! Pure: time and random numbers are arguments.
//!
//! A pgnorth does not know how many others there are. Their number shows only in the answers: if 200 of them ask a
//! candidate every 25 ms, its few threads cannot keep up, and an answer takes many times as long as usual. A pgnorth
//! that measures this asks less and less often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Suspicion, Urgency};
use crate::leader::view::NAMING_LIFE;

/// Interval for the leader while all is well and the lock is watched, and the longest of all intervals. 200 pgnorths
/// with this interval send 105 requests a second.
pub const STEADY: Duration = Duration::from_secs(2);
/// Time that a request and its answer take at most in a healthy network.
const ROUND_TRIP: Duration = Duration::from_millis(200);
/// Longest interval while sessions depend on members' answers, for `/primary` and for `/cluster` alike: the next
/// answer arrives before the last one expires. A member's answer about a silent leader expires first. It must expire
/// within the 2 s for which members wait before they promote another (see `NAMING_LIFE`). 200 pgnorths with this
/// interval send 162 requests a second, and 20 more for membership and settings; with 1 s they would send more than
/// 200.
pub const ROUND: Duration = NAMING_LIFE.saturating_sub(ROUND_TRIP);
/// Shortest interval for the candidate.
const BURST: Duration = Duration::from_millis(25);
/// Longest time with the interval `BURST`.
const BURST_FOR: Duration = Duration::from_secs(5);
/// Time for which any other suspicious member is asked at intervals of `BURST`. In this time slow answers show whether
/// many pgnorths ask.
const MUSTER: Duration = Duration::from_millis(500);
/// Interval after `MUSTER`.
const ALERT: Duration = Duration::from_millis(100);
/// Longest time with the interval `ALERT`.
const ALERT_FOR: Duration = Duration::from_secs(60);
/// Divisor for many pgnorths: the interval is the square of the time since the suspicion began, divided by this.
/// 250 ms after 1 s, and 1 s after 2 s.
const CROWD: f64 = 4.0;
/// A suspicion that begins sooner than this after another one does not begin another burst.
const NEXT_BURST: Duration = Duration::from_secs(15);
/// Shortest interval, as a multiple of the time that the last request took.
const BREATHER: u32 = 2;
/// A request had to queue if it took longer than this multiple of the quickest one and longer than this time.
const QUEUED: (u32, Duration) = (4, Duration::from_millis(20));
/// Factor by which the quickest time grows with each later answer, so that an old one is forgotten.
const FORGET: f64 = 1.01;
/// Time for which the pace of a member outside the plan is remembered.
const KEPT: Duration = Duration::from_secs(60);
/// Intervals are shortened by up to this part, at random: pgnorths that noticed a change together do not ask together.
/// They are never lengthened.
const JITTER: f64 = 0.1;

/// Computes when each member is asked. Each has a key; a member at another address has another key.
#[derive(Debug, Default)]
pub struct Pacer {
    members: BTreeMap<String, Pace>,
    /// Time that the quickest recent answer of any member took.
    quickest: Option<Duration>,
}

/// The requests to one member.
#[derive(Clone, Copy, Debug)]
struct Pace {
    planned: bool,
    asked: Option<Instant>,
    under_way: bool,
    took: Duration,
    /// Random number from 0 to 1, for the interval after the newest request.
    random: f64,
    /// Start of the newest burst.
    burst: Option<Instant>,
    /// Time of the newest answer that had to queue.
    queued: Option<Instant>,
    /// Time at which the member first entered the plan.
    since: Instant,
    /// Time at which the member was last in the plan.
    wanted: Instant,
}

impl Pacer {
    /// Returns the places in the plan of the members to ask now, which count as asked, and the time of the next
    /// request. `random` returns a number from 0 to 1.
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
        pace.took = pace
            .asked
            .map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        let usual = self.quickest.map_or(Duration::ZERO, |quickest| quickest * QUEUED.0);
        if usual.max(QUEUED.1) < pace.took {
            pace.queued = Some(now);
        }
        if answered {
            let quickest = self.quickest.map_or(pace.took, |quickest| quickest.mul_f64(FORGET));
            self.quickest = Some(quickest.min(pace.took));
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
            took: Duration::ZERO,
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
            // All pgnorths learn of a candidate within some milliseconds. Their requests would exceed its listen
            // queue, and its promotion takes longer than this.
            None if matches!(urgency, Urgency::Candidate(_)) => self.since + BURST.mul_f64(self.random),
            None => now,
        }
    }

    fn interval(&self, urgency: Urgency, asked: Instant) -> Duration {
        let (wanted, longest) = match urgency {
            Urgency::Steady => (STEADY, STEADY),
            Urgency::Round => (ROUND, ROUND),
            Urgency::Alert(suspicion) => (self.hurry(ALERT, asked), suspicion.longest),
            Urgency::Candidate(suspicion) => (self.hurry(BURST, asked), suspicion.longest),
        };
        let interval = wanted.max(BREATHER * self.took).min(longest);
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
            _ => STEADY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::observation::{
        Claim, Cluster, ClusterMember, Condition, Observation, Replication, Report, Role,
    };
    use crate::leader::view::View;
    use crate::leader::{Address, BaseUrl};

    fn candidate(since: Instant) -> Urgency {
        Urgency::Candidate(Suspicion { since, longest: STEADY })
    }

    /// Asks one member, whose answers take `takes`; returns when it was asked, in milliseconds.
    fn asked(pacer: &mut Pacer, begin: Instant, urgency: Urgency, takes: Duration, until: Duration) -> Vec<u128> {
        let (mut at, mut all) = (begin, Vec::new());
        while at < begin + until {
            let (due, next) = pacer.due([("a", urgency)], at, || 0.0);
            if due.is_empty() {
                at = next.expect("a next time");
            } else {
                all.push(at.duration_since(begin).as_millis());
                at += takes;
                pacer.ended("a", takes < Duration::from_secs(1), at);
            }
        }
        all
    }

    const QUICK: Duration = Duration::from_millis(3);

    #[test]
    fn a_candidate_that_answers_quickly_is_asked_often_for_a_bounded_time() {
        let begin = Instant::now();
        let all = asked(
            &mut Pacer::default(),
            begin,
            candidate(begin),
            QUICK,
            Duration::from_secs(3_600),
        );
        let within = |from, to| all.iter().filter(|at| (from..to).contains(*at)).count();
        assert_eq!((within(0, 5_000), within(5_000, 6_000)), (200, 10));
        let later = within(120_000, 3_600_000);
        assert!(later < 3_480, "{later} in an hour");
    }

    #[test]
    fn a_slow_member_is_asked_less_often_and_a_crowd_backs_off() {
        let begin = Instant::now();
        let mut pacer = Pacer::default();
        let before = begin - Duration::from_secs(10);
        asked(&mut pacer, before, Urgency::Steady, QUICK, Duration::from_secs(9));
        let all = asked(&mut pacer, begin, candidate(begin), 20 * QUICK, Duration::from_secs(20));
        let intervals: Vec<_> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(intervals[0] >= 120, "twice what it took: {intervals:?}");
        assert!(
            intervals.is_sorted() && *intervals.last().unwrap() >= 1_000,
            "{intervals:?}"
        );
    }

    #[test]
    fn repeated_failures_do_not_prolong_the_burst() {
        let begin = Instant::now();
        let (mut pacer, mut at, mut times) = (Pacer::default(), begin, Vec::new());
        while at < begin + Duration::from_secs(600) {
            // The proxy reports a failure every 300 ms.
            let failed = begin + Duration::from_millis(at.duration_since(begin).as_millis() as u64 / 300 * 300);
            let (due, next) = pacer.due([("a", candidate(failed))], at, || 0.0);
            match next {
                Some(next) => at = next,
                None => {
                    assert_eq!(due, [0]);
                    times.push(at);
                    at += QUICK;
                    pacer.ended("a", true, at);
                }
            }
        }
        let mean = times.len() as f64 / 600.0;
        assert!(mean < 25.0, "{mean} a second");
    }

    #[test]
    fn a_timeout_of_one_member_changes_nothing_for_the_others() {
        let begin = Instant::now();
        let mut pacer = Pacer::default();
        let plan = [("a", Urgency::Round), ("b", Urgency::Round)];
        let (due, _) = pacer.due(plan, begin, || 0.0);
        assert_eq!(due, [0, 1]);
        pacer.ended("b", true, begin + QUICK);
        let (_, before) = pacer.due(plan, begin + QUICK, || 0.0);
        pacer.ended("a", false, begin + Duration::from_secs(1));
        let (due, after) = pacer.due(plan, begin + Duration::from_secs(1), || 0.0);
        assert!(due.is_empty());
        assert_eq!(before, after, "b is due when it was");
    }

    #[test]
    fn no_interval_exceeds_the_longest_that_the_plan_allows() {
        let begin = Instant::now();
        let suspicion = Suspicion {
            since: begin,
            longest: ROUND,
        };
        for urgency in [Urgency::Round, Urgency::Alert(suspicion), Urgency::Candidate(suspicion)] {
            for takes in [QUICK, 50 * QUICK, Duration::from_secs(1)] {
                let all = asked(&mut Pacer::default(), begin, urgency, takes, Duration::from_secs(600));
                let longest = all.windows(2).map(|pair| pair[1] - pair[0]).max();
                assert!(
                    longest <= Some(ROUND.as_millis()),
                    "{urgency:?}, {takes:?}: {longest:?}"
                );
            }
        }
    }

    #[test]
    fn members_answers_about_a_silent_leader_never_expire_while_they_answer() {
        let (begin, mut random) = (Instant::now(), 0.0);
        let (mut pacer, mut view, mut now) = (Pacer::default(), View::default(), begin);
        // Many pgnorths ask: after quick answers at first, each one has to queue.
        let takes = |now: Instant| if now < begin + STEADY { QUICK } else { ROUND_TRIP };
        view.record(Observation {
            at: begin,
            claim: Claim::Cluster(cluster_of_three()),
        });
        let (mut answers, mut heard) = (BTreeMap::new(), 0);
        while now < begin + Duration::from_secs(300) {
            let plan = ["b", "c", "b /cluster", "c /cluster"];
            let (due, next) = pacer.due(plan.map(|key| (key, Urgency::Round)), now, || {
                random = (random + 0.618) % 1.0;
                random
            });
            answers.extend(due.into_iter().map(|place| ((now + takes(now), place), plan[place])));
            let answer = answers
                .first_entry()
                .filter(|answer| next.is_none_or(|next| answer.key().0 <= next));
            let Some(answer) = answer else {
                now = next.expect("a request, where no answer is awaited");
                continue;
            };
            let ((at, _), key) = answer.remove_entry();
            now = at;
            let stands = view.named_until(&"a".into(), now, Duration::from_secs(3)).is_some();
            assert!(heard < plan.len() || stands, "expired after {:?}", now - begin);
            pacer.ended(key, true, now);
            let claim = match key.split_once(' ') {
                Some((member, _)) => Claim::NamedLeader(member.into(), Some("a".into())),
                None => Claim::Report(key.into(), Ok(a_replica())),
            };
            view.record(Observation { at: now, claim });
            heard += 1;
        }
    }

    fn cluster_of_three() -> Cluster {
        let member = |name: &str| ClusterMember {
            name: name.into(),
            address: Address::new(name, 5432).ok(),
            api_url: BaseUrl::parse(&format!("http://{name}:8008")).ok(),
            condition: Condition::default(),
        };
        Cluster {
            members: ["a", "b", "c"].map(member).to_vec(),
            from: BaseUrl::parse("http://b:8008").unwrap(),
            system: None,
            scope: None,
            leader: None,
            paused: false,
            switchover: None,
            ttl: None,
            race_backoff: None,
        }
    }

    fn a_replica() -> Report {
        Report {
            holds_lock: false,
            role: Role::Other,
            state: "running".into(),
            timeline: Some(1),
            system: None,
            scope: None,
            names_member: true,
            paused: false,
            failsafe_active: false,
            replication: Replication::default(),
        }
    }
}
