//! The publisher as a process: discovery and the admin port.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Patience, Shared, Signals, Tasks, ended_early, start_discovery};
use crate::admin::Admin;
use crate::config;

pub(super) async fn run(settings: &config::Publish) -> Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let shared = Shared::new();
    let mut tasks = Tasks::new();

    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let address = admin.local_addr()?;
    // It has no clients to hold and no sessions to spare: an announced switchover changes nothing until the leader stops.
    let _complaints = start_discovery(&settings.finding, Patience::default(), &shared, &mut tasks).await?;
    let serving = admin.run(Arc::new(shared.admin_facts()), CancellationToken::new());
    tasks.spawn(async { ("the admin port", serving.await.map_err(Error::from)) });
    info!(admin = %address, service = %settings.service, "following");

    tokio::select! {
        signal = signals.next() => info!(signal, "asked to end"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    shared.readiness.shutting_down();
    Ok(ExitCode::SUCCESS)
}
