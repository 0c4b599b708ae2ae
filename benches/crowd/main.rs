//! Prints the load of 1, 10 and 200 pgnorths on a cluster's members and on the Kubernetes API, and the time until they
//! find a new leader, from the simulation in `simulation.rs`. Run it with `cargo bench --bench crowd`.
#![allow(clippy::print_stdout)]

mod simulation;

use std::time::Duration;

use simulation::figures::{Figures, Load};
use simulation::{Run, Scenario, simulate};

const SEEDS: u64 = 5;

fn main() {
    println!(
        "requests per second to the busiest member: mean / in the worst 5 s / seconds above 200; to the API: mean / worst 5 s; added: mean / longest"
    );
    println!("| state | source | pgnorths | member | API | added |\n|--|--|--|--|--|--|");
    for (name, scenario, max_lag, lasts) in [
        ("quiet", Scenario::Quiet, false, 300),
        ("quiet, a route with max-lag", Scenario::Quiet, true, 300),
        ("switchover", Scenario::Switchover, false, 60),
        ("20 s failover", Scenario::Failover, false, 60),
        ("20 s failover, a route with max-lag", Scenario::Failover, true, 60),
        ("the next leader is never promoted", Scenario::NeverPromoted, false, 300),
        ("an hour without a leader", Scenario::NoLeader, false, 3_600),
        ("API outage, failsafe mode", Scenario::ApiOutage, false, 300),
        ("the leader's REST API hangs", Scenario::RestHangs, false, 300),
    ] {
        for kubernetes in [true, false] {
            if scenario == Scenario::ApiOutage && !kubernetes {
                continue;
            }
            for pgnorths in [1, 10, 200] {
                let run = |seed| {
                    simulate(Run {
                        pgnorths,
                        scenario,
                        kubernetes,
                        max_lag,
                        lasts: Duration::from_secs(lasts),
                        seed,
                    })
                };
                let seeds = if lasts > 600 { 1 } else { SEEDS };
                let runs: Vec<_> = (0..seeds).map(run).collect();
                let source = if kubernetes { "lock" } else { "REST" };
                println!(
                    "| {name} | {source} | {pgnorths} | {} | {} | {} |",
                    member(&runs),
                    api(&runs),
                    added(&runs)
                );
            }
        }
    }
}

fn member(runs: &[Figures]) -> String {
    let loads = runs.iter().flat_map(|run| &run.members);
    let most = |of: fn(&Load) -> f64| loads.clone().map(of).fold(0.0, f64::max);
    let (mean, worst) = (most(|load| load.mean), most(|load| load.worst));
    format!("{mean:.1} / {worst:.0} / {:.0}", most(|load| load.above.as_secs_f64()))
}

fn api(runs: &[Figures]) -> String {
    let most = |of: fn(&Load) -> f64| runs.iter().map(|run| of(&run.api)).fold(0.0, f64::max);
    format!("{:.1} / {:.0}", most(|load| load.mean), most(|load| load.worst))
}

fn added(runs: &[Figures]) -> String {
    let all = Figures {
        added: runs.iter().flat_map(|run| run.added.clone()).collect(),
        ..Figures::default()
    };
    all.added().map_or_else(String::new, |(mean, longest)| {
        format!("{} / {} ms", mean.as_millis(), longest.as_millis())
    })
}
