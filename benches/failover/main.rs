//! `cargo bench --bench failover`: the cost of a change of primary, and of faults that should cause none, for the
//! clients of pgnorth, of HAProxy and of libpq alone, side by side in one run. It needs the rig: `make bench-failover`. It reports and
//! asserts nothing: the table marks a bound that is missed.
//!
//! ```text
//! faults      what goes wrong, and how it is made good
//! contenders  pgnorth, HAProxy in several configurations, libpq without a proxy
//! connector   one client's way to the primary
//! libpq       libpq itself, in processes
//! clients     three kinds of them, and what they saw
//! session     one session, in plain text or TLS
//! truth       when a direct client could write, and where
//! round       one round of one fault
//! figures     what the clients saw, counted; and the bounds
//! report      the table and its JSON
//! tls         TLS for clients
//! ```
#![allow(clippy::print_stdout, reason = "the report is its output")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod clients;
mod connector;
mod contenders;
mod faults;
mod figures;
mod libpq;
mod report;
mod round;
mod session;
mod tls;
mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use contenders::{Contender, Contenders};
use faults::{Fault, Source, Times};
use report::{Outcome, Report};
use support::Rig;

/// Measures what faults of a Patroni cluster cost the clients of pgnorth, of HAProxy, and of libpq without a proxy.
#[derive(Clone, Parser)]
#[command(name = "cargo bench --bench failover --")]
struct Arguments {
    /// Run one round of each fault, unless --rounds is given, with a shorter outage of the DCS
    #[arg(long)]
    quick: bool,
    /// Rounds of each fault; by default 3 of a switchover and 1 of every other fault
    #[arg(long, value_name = "COUNT")]
    rounds: Option<u32>,
    /// Run only this fault; may be repeated
    #[arg(long, value_name = "FAULT", value_enum)]
    only: Vec<Fault>,
    /// Use only this source of pgnorth; may be repeated
    #[arg(long, value_name = "SOURCE", value_enum)]
    source: Vec<Source>,
    /// Run only these contenders
    #[arg(long, value_name = "NAMES", value_enum, value_delimiter = ',')]
    contenders: Vec<Contender>,
    /// Use Patroni's default ttl, loop_wait and retry_timeout (30, 10 and 10 s) instead of the shortest (20, 3 and 5 s)
    #[arg(long)]
    patroni_defaults: bool,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the contenders' logs in this folder
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Ignored; cargo bench passes it
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let contenders = Contender::choose(&arguments.contenders);
    let mut outcomes = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for (fault, source) in arguments.chosen() {
        // A task of its own: a failure of the rig costs the rows of one fault, not the whole table.
        let tasks = LocalSet::new();
        let measured = tasks.spawn_local(Box::pin(run(fault, source, contenders.clone(), arguments.clone())));
        match tasks.run_until(measured).await {
            Ok(outcome) => outcomes.push(outcome),
            Err(error) => {
                eprintln!("{}, {}: not measured: {error}", fault.title(), source.title());
                code = ExitCode::FAILURE;
            }
        }
    }
    let report = Report {
        patroni: arguments.times().patroni,
        contenders,
        outcomes,
    };
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&report::json(&report)).expect("figures are JSON");
        fs::write(file, json + "\n").unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
    println!("{}\n\n{}", report::setting(&report), report::table(&report));
    code
}

impl Arguments {
    fn times(&self) -> Times {
        match self.patroni_defaults {
            true => Times::defaults(self.quick),
            false => Times::fast(self.quick),
        }
    }

    /// Returns each fault with each source that it is measured with.
    fn chosen(&self) -> impl Iterator<Item = (Fault, Source)> {
        let faults = Fault::value_variants().iter();
        let faults = faults.filter(|fault| self.only.is_empty() || self.only.contains(fault));
        faults.flat_map(|fault| {
            let sources = fault.sources().iter();
            let chosen = sources.filter(|source| self.source.is_empty() || self.source.contains(source));
            chosen.map(|source| (*fault, *source))
        })
    }
}

/// Runs all rounds of a fault, on a cluster of its own.
async fn run(fault: Fault, source: Source, contenders: Vec<Contender>, arguments: Arguments) -> Outcome {
    let rounds = match arguments.quick {
        true => arguments.rounds.unwrap_or(1),
        false => arguments.rounds.unwrap_or(fault.rounds()),
    };
    let times = arguments.times();
    let rig = Rig::start_with(source.dcs(), fault.settings(&times)).await;
    let contenders = Contenders::start(&rig, source, &contenders).await;
    let mut outcome = Outcome {
        fault,
        source,
        rounds: Vec::new(),
    };
    for round in 1..=rounds {
        eprintln!("{}, {}: round {round} of {rounds}", fault.title(), source.title());
        outcome.rounds.push(round::run(&rig, &contenders, fault, &times).await);
        if let Some(folder) = &arguments.logs {
            keep_logs(folder, (fault, source), &rig, &contenders);
        }
    }
    outcome
}

fn keep_logs(folder: &Path, (fault, source): (Fault, Source), rig: &Rig, contenders: &Contenders) {
    fs::create_dir_all(folder).expect("create the folder for logs");
    for contender in contenders.all() {
        let file = folder.join(format!("{fault:?}-{source:?}-{}.log", contender.key()));
        fs::write(file, contenders.log(rig, *contender)).expect("write a log");
    }
}
