//! Runs `decide` against faults: pgnorth follows a small executable model of Patroni through random faults and random
//! delays, in simulated time.
//!
//! `patroni` is the cluster. `watch` and `world` are the network between the cluster and pgnorth. `observer` drives
//! view, decide, slot and plan as discovery does. `properties` defines the properties that must hold, with their
//! bounds.

mod dice;
mod observer;
mod patroni;
mod properties;
mod watch;
mod world;

use proptest::prelude::*;

use patroni::{Ms, Rules};
use properties::{run, state_of};
use watch::PathFailure;
use world::{Conditions, DEADLINE, Fault, Kind, Target, World};

const TTL: Ms = 20_000;
const LOOP_WAIT: Ms = 3_000;
/// Time by which the leader has been found, even with the longest delays.
const FOUND: Ms = 5_000;

fn rules(failsafe: impl Strategy<Value = bool>) -> impl Strategy<Value = Rules> {
    let times = prop_oneof![
        2 => Just((TTL, LOOP_WAIT, 3_000)),
        1 => Just((30_000, 10_000, 10_000)),
        1 => Just((20_000, 10_000, 5_000)),
    ];
    (times, failsafe).prop_map(|((ttl, loop_wait, retry_timeout), failsafe)| Rules {
        ttl,
        loop_wait,
        retry_timeout,
        failsafe,
    })
}

fn conditions(
    kubernetes: impl Strategy<Value = bool>,
    rules: impl Strategy<Value = Rules>,
) -> impl Strategy<Value = Conditions> {
    let losses = prop_oneof![2 => Just(0), 1 => 3..50_u64];
    (rules, kubernetes, 0..900_u64, 0..=1_000_u64, losses, any::<u64>()).prop_map(
        |(rules, kubernetes, watch_delay, rest_delay, losses, seed)| Conditions {
            rules,
            kubernetes,
            watch_delay,
            rest_delay,
            losses,
            seed,
        },
    )
}

/// Returns conditions without Kubernetes, in which every answer arrives within the deadline of its request.
fn rest_only() -> impl Strategy<Value = Conditions> {
    let rules = Rules {
        ttl: TTL,
        loop_wait: LOOP_WAIT,
        retry_timeout: 3_000,
        failsafe: false,
    };
    conditions(Just(false), Just(rules)).prop_map(|conditions| Conditions {
        losses: 0,
        ..conditions
    })
}

fn target() -> impl Strategy<Value = Target> {
    prop_oneof![3 => Just(0), 1 => Just(1), 1 => Just(2)].prop_map(Target)
}

fn path_failure() -> impl Strategy<Value = PathFailure> {
    prop_oneof![
        Just(PathFailure::Reset),
        Just(PathFailure::Dead),
        Just(PathFailure::Stalled)
    ]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        2 => target().prop_map(Kind::Kill),
        3 => target().prop_map(Kind::Freeze),
        1 => target().prop_map(Kind::RestFreeze),
        2 => target().prop_map(Kind::RestCut),
        1 => Just(Kind::Crash),
        2 => path_failure().prop_map(Kind::ApiDown),
        3 => path_failure().prop_map(Kind::CutOff),
        3 => (prop::option::of(target()), prop::bool::weighted(0.2)).prop_map(|(to, aborted)| Kind::Switchover(to, aborted)),
        1 => Just(Kind::Pause),
        2 => (target(), -4_000..4_000_i64).prop_map(|(target, by)| Kind::ClockSet(target, by)),
    ]
}

fn faults(kind: impl Strategy<Value = Kind>, lasts: impl Strategy<Value = Ms>) -> impl Strategy<Value = Vec<Fault>> {
    let after = prop_oneof![3 => 0..3_000_u64, 3 => 3_000..25_000_u64];
    let fault = (after, lasts, kind).prop_map(|(after, lasts, kind)| Fault { after, lasts, kind });
    prop::collection::vec(fault, 1..6)
}

fn lasts() -> impl Strategy<Value = Ms> {
    prop_oneof![2 => 100..5_000_u64, 4 => 5_000..60_000_u64]
}

/// Returns runs in which pgnorth can reach only the leader for a long time, so the ttl is the only other evidence.
fn alone_with_the_leader(faults: impl Strategy<Value = Vec<Fault>>) -> impl Strategy<Value = Vec<Fault>> {
    (path_failure(), faults).prop_map(|(path_failure, faults)| {
        let long = |after: Ms, kind: Kind| Fault {
            after,
            lasts: 150_000,
            kind,
        };
        let mut all = vec![long(FOUND, Kind::RestCut(Target(1))), long(0, Kind::RestCut(Target(2)))];
        all.extend(faults);
        all.insert(3, long(0, Kind::CutOff(path_failure)));
        all
    })
}

/// Delays the first fault until the leader has been found.
fn once_found(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults[0].after += FOUND;
    faults
}

/// Returns a configuration with `times` as many cases as PROPTEST_CASES (or proptest's default) sets.
fn cases(times: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases * times,
        failure_persistence: None,
        ..usual
    }
}

proptest! {
    #![proptest_config(cases(2))]

    #[test]
    fn whatever_fails_one_primary_gets_the_clients(
        conditions in conditions(prop::bool::weighted(0.8), rules(any::<bool>())),
        faults in prop_oneof![3 => faults(any_kind(), lasts()), 1 => alone_with_the_leader(faults(any_kind(), lasts()))],
    ) {
        run(World::new(conditions, &faults), |_| Ok(()))?;
    }
}

proptest! {
    #![proptest_config(cases(1))]

    #[test]
    fn a_short_fault_of_the_rest_api_alone_changes_nothing(
        conditions in conditions(Just(true), Just(Rules { ttl: TTL, loop_wait: LOOP_WAIT, retry_timeout: 3_000, failsafe: false })),
        faults in faults(target().prop_map(Kind::RestFreeze), 100..TTL - LOOP_WAIT),
    ) {
        run(World::new(conditions, &once_found(faults)), |world| {
            prop_assert!(world.now < FOUND || world.observer.open_to() == Some(0), "6: {}", state_of(world));
            Ok(())
        })?;
    }

    #[test]
    fn a_hang_of_the_leaders_rest_api_alone_changes_nothing_without_a_lock_either(
        conditions in rest_only(),
        lasts in 30_000..200_000_u64,
    ) {
        let hang = Fault { after: FOUND, lasts, kind: Kind::RestFreeze(Target(0)) };
        run(World::new(conditions, &[hang]), |world| {
            prop_assert!(world.now < FOUND || world.observer.open_to() == Some(0), "6: {}", state_of(world));
            Ok(())
        })?;
    }

    #[test]
    fn a_silent_leader_that_the_others_name_again_gets_its_clients_back(
        conditions in rest_only(),
        after in TTL..2 * TTL,
        lasts in 500..10_000_u64,
    ) {
        const HANG: Ms = 150_000;
        let hang = Fault { after: FOUND, lasts: HANG, kind: Kind::RestFreeze(Target(0)) };
        let cut = Fault { after, lasts, kind: Kind::RestCut(Target(1)) };
        // A whole ttl, and time for the first answers.
        let back = FOUND + after + lasts + TTL + 4 * DEADLINE;
        run(World::new(conditions, &[hang, cut]), |world| {
            let must_be_back = (back..FOUND + HANG).contains(&world.now);
            prop_assert!(!must_be_back || world.observer.open_to() == Some(0), "8: {}", state_of(world));
            Ok(())
        })?;
    }

    #[test]
    fn an_outage_shorter_than_the_lock_ends_no_session_although_the_leader_cannot_be_reached(
        conditions in conditions(Just(true), Just(Rules { ttl: 30_000, loop_wait: 10_000, retry_timeout: 10_000, failsafe: true })),
        after in FOUND..30_000,
        // If the outage begins a whole loop after the last renewal and pgnorth notices its end 2.5 s late, the time
        // since the renewal is still below the ttl minus a second for the clocks.
        lasts in 1_000..16_500_u64,
    ) {
        let cut = Fault { after: FOUND, lasts: 90_000, kind: Kind::RestCut(Target(0)) };
        let outage = Fault { after, lasts, kind: Kind::ApiDown(PathFailure::Reset) };
        run(World::new(conditions, &[cut, outage]), |world| {
            prop_assert!(world.now < FOUND || world.observer.leader() == Some(0), "7: {}", state_of(world));
            Ok(())
        })?;
    }

    #[test]
    fn an_outage_of_the_api_in_failsafe_mode_ends_no_session(
        conditions in conditions(Just(true), rules(Just(true))),
        faults in faults(
            prop_oneof![2 => path_failure().prop_map(Kind::ApiDown), 1 => path_failure().prop_map(Kind::CutOff)],
            lasts(),
        ),
    ) {
        run(World::new(conditions, &once_found(faults)), |world| {
            prop_assert!(world.now < FOUND || world.observer.leader() == Some(0), "7: {}", state_of(world));
            Ok(())
        })?;
    }
}
