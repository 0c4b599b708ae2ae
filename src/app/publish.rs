//! The publisher as a process: discovery, the admin port, and the task that keeps the Service.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::discovery::{self, GracePeriods};
use super::{AppState, Shutdown, Tasks, admin_thread, ended_early, hostname};
use crate::admin::Admin;
use crate::command_queue::CommandQueue;
use crate::config;
use crate::kubernetes::Access;
use crate::metrics::Metrics;
use crate::publish::{Publisher, Settings};

/// Runs the publisher until a shutdown is requested. The Service then stays as it is.
pub(super) async fn run(settings: &config::Publish, metrics: Arc<Metrics>, mut shutdown: Shutdown) -> Result<()> {
    let state = AppState::new(metrics);
    let mut tasks = Tasks::new();
    let stop = CancellationToken::new();

    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let address = admin.local_addr()?;
    let access = Access::new().await?;
    // A publisher has neither clients to hold nor sessions to spare: it takes no commands and sees no failures of a
    // leader.
    let (_, commands) = CommandQueue::new();
    let grace = GracePeriods::default();
    let _leader_failures = discovery::start(
        &settings.discovery,
        Some(access.clone()),
        grace,
        Vec::new(),
        commands,
        &state,
        &mut tasks,
    )?;
    let facts = state.admin_facts(None, &settings.admin_hosts, Vec::new());
    let (at_once, never) = (CancellationToken::new(), CancellationToken::new());
    at_once.cancel();
    let serving = admin_thread::start(admin, facts, at_once, never)?;
    tasks.spawn(async { ("the admin port", serving.await) });
    let publishing = Box::pin(publisher(settings, &state).run(access, stop.clone()));
    tasks.spawn(async { ("the publisher", publishing.await.map_err(Error::from)) });
    info!(admin = %address, "listening");

    tokio::select! {
        by = shutdown.requested() => info!(by, "shutdown requested; the Service stays as it is"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
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
