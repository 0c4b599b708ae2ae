//! The doctor as a process: it looks once, and its report goes to standard output. 0: nothing failed. 1: something did.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::{files, patroni_client, workers};
use crate::config::{self, Format};
use crate::doctor;
use crate::metrics::Metrics;

pub(super) async fn run(settings: &config::Doctor) -> Result<ExitCode> {
    let room = files::room(workers(&settings.proxy), &settings.proxy.sources);
    let client = patroni_client(&settings.proxy.finding.patroni_tls, Arc::new(Metrics::new()));
    let report = doctor::examine(settings, client, room).await;
    let text = match settings.format {
        Format::Text => report.to_string(),
        Format::Json => report.json(),
    };
    // Nobody is left to tell when the stream is closed; the exit code says the same.
    let _unheard = writeln!(io::stdout(), "{text}");
    Ok(if report.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
