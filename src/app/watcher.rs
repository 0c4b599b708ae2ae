//! The watcher as a process: discovery and the admin port, without clients. It decides and records as the proxy does.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tracing::info;

use super::discovery::GracePeriods;
use super::service::Service;
use super::{AppState, Shutdown, Tasks, control, ended_early, no_error};
use crate::admin::Admin;
use crate::config;
use crate::haproxy::Comparer;
use crate::kubernetes::Access;
use crate::metrics::Metrics;
use crate::systemd::Notifier;

/// Runs the watcher until a shutdown is requested.
pub(super) async fn run(
    settings: &config::Watch,
    metrics: Arc<Metrics>,
    notifier: Notifier,
    mut shutdown: Shutdown,
) -> Result<()> {
    let state = AppState::without_sessions(metrics);
    let mut tasks = Tasks::new();
    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let access = match &settings.discovery.kubernetes {
        Some(_) => Some(Access::new().await?),
        None => None,
    };
    let grace = GracePeriods {
        switchover_hold: settings.switchover_hold,
        ..GracePeriods::default()
    };
    control::start(
        admin,
        &settings.admin_hosts,
        &settings.discovery,
        access,
        grace,
        &state,
        &mut tasks,
    )?;
    if let Some(haproxy) = &settings.haproxy {
        let comparer = Comparer::new(
            haproxy,
            settings.hold,
            state.slot.clone(),
            state.view.subscribe(),
            state.recorder.clone(),
            state.metrics.clone(),
        )
        .context("cannot use the system's CA certificates for --haproxy")?;
        tasks.spawn(async { ("the comparison with HAProxy", no_error(comparer.run()).await) });
    }
    let service = Service::without_sessions(notifier, &state);
    let reports = service.clone().report();
    tasks.spawn(async { ("the reports to systemd", no_error(reports).await) });
    tokio::select! {
        by = shutdown.requested() => info!(by, "shutdown requested"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    service.stopping();
    Ok(())
}
