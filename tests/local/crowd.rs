//! The load of many pgnorths on a cluster's members stays below a bound, in a simulation with the real decisions, plan
//! and pacing. `cargo bench --bench crowd` prints the figures.

#[path = "../../benches/crowd/simulation.rs"]
mod simulation;

use std::time::Duration;

use simulation::figures::{Figures, TOLERATED};
use simulation::{Run, Scenario, simulate};

const SCENARIOS: [Scenario; 7] = [
    Scenario::Quiet,
    Scenario::Switchover,
    Scenario::Failover,
    Scenario::NeverPromoted,
    Scenario::NoLeader,
    Scenario::ApiOutage,
    Scenario::RestHangs,
];

fn run(pgnorths: usize, scenario: Scenario, kubernetes: bool, seed: u64) -> Figures {
    run_with(pgnorths, scenario, kubernetes, false, seed)
}

fn run_with(pgnorths: usize, scenario: Scenario, kubernetes: bool, max_lag: bool, seed: u64) -> Figures {
    simulate(Run {
        pgnorths,
        scenario,
        kubernetes,
        max_lag,
        lasts: Duration::from_secs(80),
        seed,
    })
}

#[test]
fn two_hundred_pgnorths_ask_no_member_more_than_200_times_a_second_for_longer_than_5_s() {
    for scenario in SCENARIOS {
        for (kubernetes, seed) in [(true, 1), (false, 2)] {
            let figures = run(200, scenario, kubernetes, seed);
            // The one exception: without a lock, while the leader's REST API alone hangs, each other member is
            // asked for its `/cluster` as well, every 0.4 s. A majority of these answers, none older than 2 s, keeps a
            // healthy leader's sessions.
            let excepted = scenario == Scenario::RestHangs && !kubernetes;
            for load in &figures.members {
                let bounded = if excepted {
                    load.mean < 800.0
                } else {
                    load.above <= TOLERATED
                };
                assert!(bounded, "{scenario:?}, kubernetes: {kubernetes}: {load:?}");
                // The member's threads can answer many more.
                assert!(load.worst < 1_000.0, "{scenario:?}, kubernetes: {kubernetes}: {load:?}");
            }
            let api = figures.api;
            let bounded = api.mean < 800.0 && api.worst < 1_200.0;
            assert!(bounded, "{scenario:?}, kubernetes: {kubernetes}: the API: {api:?}");
        }
    }
}

#[test]
fn a_route_with_a_lag_limit_asks_each_replica_as_often_as_the_leader_and_no_more() {
    for (kubernetes, seed) in [(true, 1), (false, 2)] {
        let figures = run_with(200, Scenario::Quiet, kubernetes, true, seed);
        let (first, others) = figures.members.split_first().expect("members");
        for load in others {
            assert!(
                load.mean < first.mean * 1.1 && load.above <= TOLERATED,
                "{load:?}, the leader: {first:?}"
            );
            assert!(load.mean > first.mean / 2.0, "{load:?}, the leader: {first:?}");
        }
    }
}

#[test]
fn ten_pgnorths_find_the_new_leader_as_soon_as_one_does() {
    for scenario in [Scenario::Switchover, Scenario::Failover] {
        for (kubernetes, pgnorths, seed) in [(true, 1, 1), (true, 10, 2), (false, 1, 3), (false, 10, 4)] {
            let figures = run(pgnorths, scenario, kubernetes, seed);
            let (mean, longest) = figures.added().expect("it is found");
            assert_eq!(figures.added.len(), pgnorths, "{scenario:?}");
            // On average half of the interval of 25 ms, and the time of the answer.
            let quick = mean <= Duration::from_millis(30) && longest <= Duration::from_millis(110);
            assert!(
                quick,
                "{scenario:?}, kubernetes: {kubernetes}, {pgnorths}: {mean:?}, {longest:?} at most"
            );
        }
    }
}
