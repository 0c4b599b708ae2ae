//! `cargo bench --bench failover`: the cost of a change of primary, and of faults that should cause none, for the
//! clients of pgnorth and of HAProxy, side by side in one run. It needs the rig: `make bench-failover`. It reports and
//! asserts nothing: the table marks a bound that is missed.
//!
//! ```text
//! faults      what goes wrong, and how it is made good
//! contenders  pgnorth, and HAProxy in two configurations
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
mod contenders;
mod faults;
mod figures;
mod report;
mod round;
mod session;
mod tls;
mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::task::LocalSet;

use contenders::{Contender, Contenders};
use faults::Fault;
use report::Outcome;
use support::{Dcs, Rig};

const OUTAGE: Duration = Duration::from_secs(60);
const SHORT_OUTAGE: Duration = Duration::from_secs(25);

/// Faults of a Patroni cluster, and what they cost the clients of pgnorth and of HAProxy.
#[derive(Clone, Parser)]
#[command(name = "cargo bench --bench failover --")]
struct Arguments {
    /// One round of each fault, and a shorter outage of the API
    #[arg(long)]
    quick: bool,
    /// Rounds of each fault; else 3 of a switchover and 1 of every other
    #[arg(long, value_name = "COUNT")]
    rounds: Option<u32>,
    /// This fault and no other; may be given again
    #[arg(long, value_name = "FAULT", value_enum)]
    only: Vec<Fault>,
    /// Write every figure to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Keep the contenders' logs in this folder
    #[arg(long, value_name = "FOLDER")]
    logs: Option<PathBuf>,
    /// Cargo's own
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut outcomes = Vec::new();
    let mut code = ExitCode::SUCCESS;
    for fault in Fault::value_variants() {
        if arguments.only.is_empty() || arguments.only.contains(fault) {
            // A task of its own: a failure of the rig costs the rows of one fault, not the whole table.
            let tasks = LocalSet::new();
            let measured = tasks.spawn_local(Box::pin(run(*fault, arguments.clone())));
            match tasks.run_until(measured).await {
                Ok(outcome) => outcomes.push(outcome),
                Err(error) => {
                    eprintln!("{}: not measured: {error}", fault.title());
                    code = ExitCode::FAILURE;
                }
            }
        }
    }
    if let Some(file) = &arguments.json {
        let json = serde_json::to_string_pretty(&report::json(&outcomes)).expect("figures are JSON");
        fs::write(file, json + "\n").unwrap_or_else(|error| panic!("write {}: {error}", file.display()));
    }
    println!("{}\n\n{}", report::setting(), report::table(&outcomes));
    code
}

/// Runs all rounds of a fault, on a cluster of its own.
async fn run(fault: Fault, arguments: Arguments) -> Outcome {
    let rounds = match arguments.quick {
        true => 1,
        false => arguments.rounds.unwrap_or(fault.rounds()),
    };
    let outage = if arguments.quick { SHORT_OUTAGE } else { OUTAGE };
    let rig = Rig::start_with(Dcs::Endpoints, fault.settings()).await;
    let contenders = Contenders::start(&rig).await;
    let mut outcome = Outcome {
        fault,
        rounds: Vec::new(),
    };
    for round in 1..=rounds {
        eprintln!("{}: round {round} of {rounds}", fault.title());
        outcome.rounds.push(round::run(&rig, &contenders, fault, outage).await);
        if let Some(folder) = &arguments.logs {
            keep_logs(folder, fault, &rig, &contenders);
        }
    }
    outcome
}

fn keep_logs(folder: &Path, fault: Fault, rig: &Rig, contenders: &Contenders) {
    fs::create_dir_all(folder).expect("create the folder for logs");
    for contender in Contender::ALL {
        let file = folder.join(format!("{fault:?}-{}.log", contender.key()));
        fs::write(file, contenders.log(rig, contender)).expect("write a log");
    }
}
