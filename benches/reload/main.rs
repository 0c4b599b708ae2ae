//! `cargo bench --bench reload`: what reloads cost clients of pgnorth, HAProxy and PgBouncer, one after another under the
//! same load, in front of the same PostgreSQL. It needs a world of its own: `make bench-reload`. It reports and asserts
//! nothing.
//!
//! ```text
//! contenders  who is compared, and how each is reloaded
//! load        sessions that stay, new clients, and their counts
//! postgres    a real one
//! patroni     a fake, for pgnorth to ask
//! usage       processes and memory
//! ```
#![allow(clippy::print_stdout, reason = "the report is its output")]

#[path = "../forward/patroni.rs"]
#[allow(dead_code, reason = "bench-forward uses the rest")]
mod patroni;
#[path = "../../tests/support/process.rs"]
#[allow(dead_code, reason = "the test rig uses the rest")]
mod process;

mod contenders;
mod load;
mod postgres;
mod usage;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use tokio::time::sleep;

use contenders::{Kind, Running};
use load::Load;
use postgres::Postgres;
use usage::{Usage, usage};

/// Time after each reload, and of the run without one.
const SETTLE: Duration = Duration::from_secs(2);

/// Measures what reloads under load cost the clients.
#[derive(Parser)]
#[command(name = "cargo bench --bench reload --")]
struct Arguments {
    /// Reloads of each contender
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    reloads: usize,
    /// Sessions that are opened at the start and after each reload, and stay
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    sessions: usize,
    /// Run only this contender; may be repeated
    #[arg(long, value_name = "CONTENDER", value_enum)]
    only: Vec<Kind>,
    /// Ignored; cargo bench passes it
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the clients of one contender saw, and what was left of its processes.
struct Row {
    kind: Kind,
    version: String,
    clients: load::Seen,
    before: Duration,
    usage: Usage,
    started_with: Usage,
}

/// Returns the folder of configurations and logs. It is removed with the world.
fn folder() -> PathBuf {
    let world = std::env::var_os("PGNORTH_RIG");
    world.expect("this needs a world of its own: make bench-reload").into()
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let postgres = Postgres::start().await;
    let is_chosen = |kind: &&Kind| arguments.only.is_empty() || arguments.only.contains(kind);
    println!(
        "{} reloads, {} sessions at the start and after each, {} new clients a second",
        arguments.reloads,
        arguments.sessions,
        load::RATE
    );
    let mut rows = Vec::new();
    for kind in Kind::value_variants().iter().filter(is_chosen) {
        rows.push(measure(*kind, &arguments, &postgres).await);
    }
    print(&rows);
}

async fn measure(kind: Kind, arguments: &Arguments, postgres: &Postgres) -> Row {
    let mut contender = Running::start(kind, postgres.address).await;
    let mut load = Load::start(contender.address);
    load.open(arguments.sessions).await;
    sleep(SETTLE).await;
    let (before, started_with) = (load.longest_answer(), usage(kind.program()));
    for _ in 0..arguments.reloads {
        contender.reload().await;
        sleep(SETTLE).await;
        load.open(arguments.sessions).await;
    }
    let usage = usage(kind.program());
    let row = Row {
        kind,
        version: contenders::version(kind),
        clients: load.finish().await,
        before,
        usage,
        started_with,
    };
    eprintln!("{}: measured", kind.title());
    row
}

fn print(rows: &[Row]) {
    println!(
        "| | failed new clients | broken sessions | processes left | memory | longest answer (without a reload) |"
    );
    println!("|--|--|--|--|--|--|");
    for row in rows {
        let seen = &row.clients;
        println!(
            "| {} | {} of {} | {} of {} | {} | {:.1} to {:.1} MiB | {:.0?} ({:.0?}) |",
            row.kind.title(),
            seen.failed,
            seen.failed + seen.connected,
            seen.broken,
            seen.sessions,
            row.usage.processes,
            row.started_with.mebibytes,
            row.usage.mebibytes,
            seen.longest_answer,
            row.before,
        );
    }
    for row in rows {
        println!("{}; first failures: {:?}", row.version, row.clients.errors);
    }
}
