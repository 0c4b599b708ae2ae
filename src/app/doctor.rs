//! `pgnorth doctor`: examines the environment once and prints the report. Exit status: 0 if no check failed, else 1.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use super::discovery::{etcd_endpoints, patroni_client};
use super::{files, workers};
use crate::config::{self, Format};
use crate::doctor;
use crate::metrics::Metrics;

/// Examines the environment, prints the report and returns the exit status.
pub(super) async fn run(settings: &config::Doctor) -> Result<ExitCode> {
    let capacity = files::capacity(workers(&settings.proxy), &settings.proxy.sources);
    let client = patroni_client(&settings.proxy.discovery.patroni_tls, Arc::new(Metrics::new()));
    let etcd = settings.proxy.discovery.etcd.as_ref();
    let etcd = etcd.map(|etcd| etcd_endpoints(etcd).map_err(|error| format!("{error:#}")));
    let report = doctor::examine(settings, client, etcd, capacity).await;
    let text = match settings.format {
        Format::Text => report.to_string(),
        Format::Json => report.json(),
    };
    // A closed stdout is not a failure of a check; the exit status reports the result.
    let _unread = writeln!(io::stdout(), "{text}");
    Ok(if report.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
