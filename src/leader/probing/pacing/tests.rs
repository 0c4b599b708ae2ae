//! Tests of the request times that `Pacer` computes.

use std::collections::BTreeSet;

use super::*;
use crate::leader::observation::{
    Claim, Cluster, ClusterMember, Condition, NamedLeader, Observation, Replication, Report, Role,
};
use crate::leader::view::View;
use crate::leader::{Address, BaseUrl};

fn candidate(since: Instant) -> Urgency {
    Urgency::Candidate(Suspicion { since, longest: STEADY })
}

/// Asks one member, whose answers take `takes`. Returns the times of the requests, in milliseconds.
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

/// Returns a pacer whose member has answered quickly before `begin`.
fn used_to_quick_answers(begin: Instant) -> Pacer {
    let mut pacer = Pacer::default();
    let before = begin - Duration::from_secs(10);
    asked(&mut pacer, before, Urgency::Steady, QUICK, Duration::from_secs(9));
    pacer
}

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
    assert!(later < 4_000, "{later} in an hour");
}

#[test]
fn a_leader_is_found_within_a_second_after_an_outage_of_any_length() {
    let begin = Instant::now();
    let hours = Duration::from_secs(3 * 3_600);
    let all = asked(&mut Pacer::default(), begin, candidate(begin), QUICK, hours);
    let longest = all.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest < Some(1_000), "{longest:?} ms");
}

#[test]
fn many_pgnorths_ask_at_the_steady_interval_during_a_long_outage() {
    let begin = Instant::now();
    let mut pacer = used_to_quick_answers(begin);
    // The answers to the burst are slow, and quick again once everybody asks less often.
    asked(&mut pacer, begin, candidate(begin), 20 * QUICK, Duration::from_secs(20));
    let later = begin + Duration::from_secs(20);
    let mut all = asked(&mut pacer, later, candidate(begin), QUICK, Duration::from_secs(600));
    all.retain(|at| *at > ALERT_FOR.as_millis());
    let shortest = all.windows(2).map(|pair| pair[1] - pair[0]).min();
    assert!(shortest >= Some(STEADY.as_millis()), "{shortest:?} ms");
}

#[test]
fn a_slow_member_is_asked_less_often_and_a_crowd_backs_off() {
    let begin = Instant::now();
    let mut pacer = used_to_quick_answers(begin);
    let all = asked(&mut pacer, begin, candidate(begin), 20 * QUICK, Duration::from_secs(20));
    let intervals: Vec<_> = all.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(intervals[0] >= 120, "twice what it took: {intervals:?}");
    assert!(
        intervals.is_sorted() && *intervals.last().unwrap() >= 1_000,
        "{intervals:?}"
    );
}

#[test]
fn a_member_that_was_cut_off_is_asked_as_often_as_any_other_once_it_answers() {
    let begin = Instant::now();
    let mut pacer = used_to_quick_answers(begin);
    let cut_off = Duration::from_secs(20);
    let in_vain = asked(&mut pacer, begin, candidate(begin), DEADLINE, cut_off);
    let longest = in_vain.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert_eq!(longest, Some(1_200), "{in_vain:?}");
    let again = begin + cut_off;
    let all = asked(&mut pacer, again, candidate(begin), QUICK, Duration::from_secs(10));
    assert!(all.len() > 90, "{all:?}");
}

#[test]
fn one_slow_answer_during_a_promotion_changes_nothing() {
    let begin = Instant::now();
    let mut pacer = used_to_quick_answers(begin);
    let slow = Duration::from_millis(900);
    asked(&mut pacer, begin, candidate(begin), slow, slow);
    let all = asked(
        &mut pacer,
        begin + slow,
        candidate(begin),
        QUICK,
        Duration::from_secs(3),
    );
    assert!(all[0] <= 200, "{all:?}");
    assert!(all.windows(2).all(|pair| pair[1] - pair[0] <= 28), "{all:?}");
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

/// Asks b and c about the unresponsive leader a for five minutes. `takes` returns the time of each answer, or `None`
/// for a request without an answer. The pacer shortens no interval. Returns the first instant at which the answers had
/// expired.
fn naming_expires(mut takes: impl FnMut() -> Option<Duration>) -> Option<Duration> {
    let begin = Instant::now();
    let (mut pacer, mut view, mut now) = (Pacer::default(), View::default(), begin);
    view.record(Observation {
        at: begin,
        claim: Claim::Cluster(cluster_of_three()),
    });
    let plan = [
        ("b", Urgency::Round),
        ("c", Urgency::Round),
        ("b /cluster", Urgency::Naming),
        ("c /cluster", Urgency::Naming),
    ];
    let (mut answers, mut sent, mut answered_once) = (BTreeMap::new(), 0, BTreeSet::new());
    while now < begin + Duration::from_secs(300) {
        let (due, next) = pacer.due(plan, now, || 0.0);
        for place in due {
            let took = takes();
            sent += 1;
            answers.insert((now + took.unwrap_or(DEADLINE), sent), (place, now, took.is_some()));
        }
        let answer = answers
            .first_entry()
            .filter(|answer| next.is_none_or(|next| answer.key().0 <= next));
        let Some(answer) = answer else {
            now = next.expect("a request, where no answer is awaited");
            continue;
        };
        let ((at, _), (place, asked, answered)) = answer.remove_entry();
        now = at;
        let just_before = now - Duration::from_millis(1);
        let stands = view
            .named_until(&"a".into(), just_before, Duration::from_secs(3))
            .is_some();
        if plan.len() == answered_once.len() && !stands {
            return Some(now - begin);
        }
        let key = plan[place].0;
        pacer.ended(key, answered, now);
        if !answered {
            continue;
        }
        let claim = match key.split_once(' ') {
            Some((member, _)) => Claim::NamedLeader {
                by: member.into(),
                asked,
                leader: Some(NamedLeader {
                    member: "a".into(),
                    running_on: Some(1),
                }),
            },
            None => Claim::Report(key.into(), Ok(a_replica())),
        };
        view.record(Observation { at: now, claim });
        answered_once.insert(place);
    }
    None
}

/// Deadline of a request.
const DEADLINE: Duration = Duration::from_secs(1);

#[test]
fn no_answer_about_a_silent_leader_comes_too_late_if_it_comes_at_all() {
    let mut random = 0.0;
    let any = || {
        random = (random + 0.618) % 1.0;
        Some(DEADLINE.mul_f64(random))
    };
    assert_eq!(naming_expires(any), None, "any time up to the deadline");
    for usual in [5, 50, 200, 300, 450, 500, 700, 1_000].map(Duration::from_millis) {
        let mut sent = 0;
        let one_late = || {
            sent += 1;
            Some(if sent % 23 == 0 { DEADLINE } else { usual })
        };
        assert_eq!(
            naming_expires(one_late),
            None,
            "{usual:?}, and one in 23 at the deadline"
        );
    }
}

#[test]
fn one_lost_answer_about_a_silent_leader_changes_nothing() {
    let mut sent = 0;
    let one_lost = || {
        sent += 1;
        (sent % 23 != 0).then_some(QUICK)
    };
    assert_eq!(naming_expires(one_lost), None);
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
