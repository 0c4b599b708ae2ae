//! The publisher as a process: discovery, the admin port, and the task that updates the Service.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::discovery::GracePeriods;
use super::service::Service;
use super::{AppState, Shutdown, Tasks, control, ended_early, hostname, no_error};
use crate::admin::Admin;
use crate::config;
use crate::kubernetes::Access;
use crate::metrics::Metrics;
use crate::publish::{Publisher, Settings};
use crate::systemd::Notifier;

/// Runs the publisher until a shutdown is requested. The Service then stays as it is.
pub(super) async fn run(
    settings: &config::Publish,
    metrics: Arc<Metrics>,
    notifier: Notifier,
    mut shutdown: Shutdown,
) -> Result<()> {
    let state = AppState::without_sessions(metrics);
    let mut tasks = Tasks::new();
    let stop = CancellationToken::new();

    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let access = Access::new().await?;
    control::start(
        admin,
        &settings.admin_hosts,
        &settings.discovery,
        Some(access.clone()),
        GracePeriods::default(),
        &state,
        &mut tasks,
    )?;
    let publishing = Box::pin(publisher(settings, &state).run(access, stop.clone()));
    tasks.spawn(async { ("the publisher", publishing.await.map_err(Error::from)) });
    let service = Service::without_sessions(notifier, &state);
    let reports = service.clone().report();
    tasks.spawn(async { ("the reports to systemd", no_error(reports).await) });

    tokio::select! {
        by = shutdown.requested() => info!(by, "shutdown requested; the Service stays as it is"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    service.stopping();
    state.readiness.shutting_down();
    // The publisher releases its Lease; each of its requests has a deadline.
    stop.cancel();
    tokio::select! {
        _ = tasks.join_next() => {}
        _ = shutdown.requested() => {}
    }
    Ok(())
}

fn publisher(settings: &config::Publish, state: &AppState) -> Publisher {
    Publisher {
        slot: state.slot.clone(),
        readiness: state.readiness.clone(),
        metrics: state.metrics.clone(),
        log_limiter: state.log_limiter.clone(),
        settings: Settings {
            service: settings.service.clone(),
            namespace: settings.namespace.clone(),
            scope: settings.discovery.kubernetes.as_ref().map(config::Kubernetes::objects),
            endpoints: settings.endpoints,
            lease: settings.lease.clone(),
            identity: identity(),
        },
    }
}

/// Returns an identity that no earlier process of this pod had.
fn identity() -> String {
    let host = hostname().unwrap_or_default();
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{host}_{}_{}", std::process::id(), since.as_nanos())
}
