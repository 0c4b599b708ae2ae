//! `cargo bench --bench forward`: the cost of going through pgnorth and through others, side by side in one run: bytes,
//! round trips, connections, memory. It needs a world of its own: `make bench-forward`. It reports and asserts nothing:
//! the table marks a bound that is missed.
//!
//! ```text
//! workloads   what is done, and the figures that it yields
//! contenders  who is compared, and how each is set up
//! stage       the target, and all contenders in front of it
//! backend     stands for PostgreSQL
//! postgres    a real one, and pgbench
//! patroni     a fake, for pgnorth to ask
//! session     what client and backend agree on
//! load        the clients, and the window in which they count
//! measure     one workload, once, through one contender
//! come_back   thousands of sessions that connect at the same instant
//! delay_line  delays packets if the kernel cannot
//! usage       CPU time, memory and files of a contender's processes
//! world       CPUs, limits and the network's settings
//! outcomes    medians, spreads and ratios
//! bars        what pgnorth must reach
//! report      the tables and their JSON
//! ```
#![allow(clippy::print_stdout, reason = "the report is its output")]

#[path = "../../tests/support/process.rs"]
#[allow(dead_code, reason = "the test rig uses the rest")]
mod process;

mod backend;
mod bars;
mod come_back;
mod contenders;
mod delay_line;
mod load;
mod measure;
mod outcomes;
mod patroni;
mod postgres;
mod report;
mod session;
mod stage;
mod usage;
mod workloads;
mod world;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use contenders::{Kind, Running};
use load::Window;
use measure::{Values, measure};
use outcomes::Outcome;
use stage::Stage;
use workloads::Workload;
use world::World;

const ROUNDS: usize = 5;
const QUICK_ROUNDS: usize = 2;
const WINDOW: Window = Window {
    warm: Duration::from_millis(200),
    counted: Duration::from_secs(1),
};
const QUICK_WINDOW: Window = Window {
    warm: Duration::from_millis(100),
    counted: Duration::from_millis(300),
};
/// Deadline for the sessions of one measurement to end at the backend, before the next measurement begins.
const QUIET: Duration = Duration::from_secs(5);

/// Measures the cost of a connection through pgnorth and other proxies: bytes, round trips, connections, memory.
#[derive(Parser)]
#[command(name = "cargo bench --bench forward --")]
struct Arguments {
    /// Measure for a shorter time, in 2 rounds: less than 3 minutes
    #[arg(long)]
    quick: bool,
    /// Rounds of each workload [default: 5]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// Run only this workload; may be repeated
    #[arg(long, value_name = "WORKLOAD", value_enum)]
    only: Vec<Workload>,
    /// Run only these contenders
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    contenders: Vec<Kind>,
    /// Additional argument for pgnorth, such as --pgnorth=--workers=2; may be repeated
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    pgnorth: Vec<String>,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the workloads and the contenders
    #[arg(long)]
    list: bool,
    /// Act as a delay line: forward packets between standard input and output, each after this many microseconds
    #[arg(long, hide = true, value_name = "MICROSECONDS")]
    delay_line: Option<u64>,
    /// Ignored; cargo bench passes it
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list::<Workload>("workloads");
        list::<Kind>("contenders");
        return ExitCode::SUCCESS;
    }
    if let Some(delay) = arguments.delay_line {
        let ended = delay_line::carry(Duration::from_micros(delay));
        eprintln!("the delay line ended: {ended:?}");
        return ExitCode::FAILURE;
    }
    match run(&arguments) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("nothing was measured: {why}");
            ExitCode::FAILURE
        }
    }
}

fn list<T: ValueEnum>(what: &str) {
    println!("{what}:");
    for value in T::value_variants().iter().filter_map(T::to_possible_value) {
        let help = value.get_help().map(ToString::to_string).unwrap_or_default();
        println!("  {:<20} {help}", value.get_name());
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, String> {
    let chosen = |kind: &Kind| arguments.contenders.is_empty() || arguments.contenders.contains(kind);
    let kinds: Vec<Kind> = Kind::value_variants().iter().copied().filter(chosen).collect();
    let chosen = |workload: &Workload| arguments.only.is_empty() || arguments.only.contains(workload);
    let workloads = Workload::value_variants().iter().copied().filter(chosen);
    let (rounds, window) = match arguments.quick {
        true => (arguments.rounds.unwrap_or(QUICK_ROUNDS), QUICK_WINDOW),
        false => (arguments.rounds.unwrap_or(ROUNDS), WINDOW),
    };
    let mut stage = Stage::set(World::enter()?, &kinds, arguments.pgnorth.clone())?;
    let mut outcomes = Vec::new();
    let (far, workloads): (Vec<_>, Vec<_>) = workloads.partition(|workload| workload.is_far());
    let (with_postgres, without): (Vec<_>, Vec<_>) =
        workloads.into_iter().partition(|workload| workload.needs_postgres());
    for workload in without {
        outcomes.push(all_rounds(workload, &stage, rounds, window));
    }
    if !with_postgres.is_empty() {
        stage.set_postgres(&kinds)?;
    }
    for workload in with_postgres {
        outcomes.push(all_rounds(workload, &stage, rounds, window));
    }
    if !far.is_empty() {
        stage.set_far(&kinds)?;
    }
    for workload in far {
        stage.delay(workload.delay())?;
        outcomes.push(all_rounds(workload, &stage, rounds, window));
    }
    let present = |kind: &Kind| !stage.left_out.iter().any(|(left_out, _)| left_out == kind);
    let shown: Vec<Kind> = kinds.iter().copied().filter(present).collect();
    if let Some(file) = &arguments.json {
        let json = report::json(&stage, &kinds, rounds, &outcomes);
        let json = serde_json::to_string_pretty(&json).expect("figures are JSON");
        fs::write(file, json + "\n").map_err(|error| format!("write {}: {error}", file.display()))?;
    }
    println!("{}\n", report::setting(&stage, &kinds, rounds));
    println!("{}\n{}", report::table(&outcomes, &shown), report::bars(&outcomes));
    // A measurement that did not end is not a figure, and must not be overlooked.
    let failed = outcomes.iter().any(|outcome| outcome.failures().next().is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs all rounds. Each measures every contender once; the first one changes from round to round.
fn all_rounds(workload: Workload, stage: &Stage, rounds: usize, window: Window) -> Outcome {
    let start = Instant::now();
    let contenders: Vec<&Running> = stage
        .contenders
        .iter()
        .filter(|contender| workload.is_for(contender.kind))
        .collect();
    let mut outcome = Outcome {
        workload,
        of: contenders
            .iter()
            .map(|contender| (contender.kind, Vec::new()))
            .collect(),
    };
    for round in 0..workload.rounds(rounds) {
        for turn in 0..contenders.len() {
            let place = (round + turn) % contenders.len();
            let measured = one(workload, contenders[place], stage, window);
            if let Err(why) = &measured {
                eprintln!("{}: {}: {why}", workload.title(), contenders[place].kind.name());
            }
            outcome.of[place].1.push(measured);
        }
    }
    eprintln!("{}: {:.1} s", workload.title(), start.elapsed().as_secs_f64());
    outcome
}

fn one(workload: Workload, contender: &Running, stage: &Stage, window: Window) -> Result<Values, String> {
    let engaged = contender.engage();
    let values = measure(workload, contender, stage, window);
    drop(engaged);
    let quiet = stage.backend.wait_until_quiet(QUIET);
    let values = values.map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => format!("a session hangs: nothing came for {:?}", session::PATIENCE),
        _ => error.to_string(),
    })?;
    quiet.map(|()| values)
}
