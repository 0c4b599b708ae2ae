//! A stand-in: it serves the admin pages, with no leader, until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, Facts};
use crate::config::{COMMIT, Settings, VERSION};
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::slot::LeaderSlot;

/// Runs until a signal.
///
/// # Errors
/// When a listener can't be bound.
pub fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let admin = Admin::bind(settings.admin)?;
    let metrics = Arc::new(Metrics::new());
    metrics.build_is(VERSION, COMMIT);
    let facts = Arc::new(Facts {
        slot: Arc::new(LeaderSlot::new("no source has answered yet")),
        readiness: ReadinessHandle::starting("no source has answered yet"),
        metrics,
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stop = CancellationToken::new();
        tracing::info!(address = %admin.local_addr()?, "admin listens");
        let served = tokio::spawn(admin.run(facts, stop.clone()));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
        served.await??;
        Ok(ExitCode::SUCCESS)
    })
}
