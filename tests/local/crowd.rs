//! What many pgnorths cost a cluster's members: the bound, held over a simulation with the real decisions, plan and pacing. `cargo bench --bench crowd` prints
//! the figures.

#[path = "../../benches/crowd/simulation.rs"]
mod simulation;

use std::time::Duration;

use simulation::figures::{Figures, TOLERATED};
use simulation::{Run, Story, simulate};

const STORIES: [Story; 7] = [
    Story::Quiet,
    Story::Switchover,
    Story::Failover,
    Story::NeverPromoted,
    Story::NoLeader,
    Story::ApiOutage,
    Story::RestHangs,
];

fn run(pgnorths: usize, story: Story, kubernetes: bool, seed: u64) -> Figures {
    simulate(Run {
        pgnorths,
        story,
        kubernetes,
        lasts: Duration::from_secs(80),
        seed,
    })
}

#[test]
fn two_hundred_pgnorths_ask_no_member_more_than_200_times_a_second_for_longer_than_5_s() {
    for story in STORIES {
        for (kubernetes, seed) in [(true, 1), (false, 2)] {
            let figures = run(200, story, kubernetes, seed);
            // The one exception: without a lock, while the leader's REST API alone hangs, each other member is asked for its `/cluster` as often as for `/primary`.
            // A majority of these answers, none older than 1.5 s, keeps a healthy leader's sessions.
            let excepted = story == Story::RestHangs && !kubernetes;
            for load in &figures.members {
                let bounded = if excepted {
                    load.mean < 400.0
                } else {
                    load.above <= TOLERATED
                };
                assert!(bounded, "{story:?}, kubernetes: {kubernetes}: {load:?}");
                // What its threads can answer, by far.
                assert!(load.worst < 1_000.0, "{story:?}, kubernetes: {kubernetes}: {load:?}");
            }
            let api = figures.api;
            let bounded = api.mean < 800.0 && api.worst < 1_200.0;
            assert!(bounded, "{story:?}, kubernetes: {kubernetes}: the API: {api:?}");
        }
    }
}

#[test]
fn ten_pgnorths_find_the_new_leader_as_soon_as_one_does() {
    for story in [Story::Switchover, Story::Failover] {
        for (kubernetes, pgnorths, seed) in [(true, 1, 1), (true, 10, 2), (false, 1, 3), (false, 10, 4)] {
            let figures = run(pgnorths, story, kubernetes, seed);
            let (mean, longest) = figures.added().expect("it is found");
            assert_eq!(figures.added.len(), pgnorths, "{story:?}");
            // Of the interval of 25 ms, half on average, and the answer's time.
            let quick = mean <= Duration::from_millis(30) && longest <= Duration::from_millis(110);
            assert!(
                quick,
                "{story:?}, kubernetes: {kubernetes}, {pgnorths}: {mean:?}, {longest:?} at most"
            );
        }
    }
}
