//! The publisher as a process: discovery, the admin port, and what keeps the Service.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Error, Result};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Patience, Shared, Signals, Tasks, ended_early, hostname, start_discovery};
use crate::admin::Admin;
use crate::command_queue::CommandQueue;
use crate::config;
use crate::kubernetes::Access;
use crate::metrics::Metrics;
use crate::publish::{Publisher, Settings};

pub(super) async fn run(settings: &config::Publish, metrics: Arc<Metrics>) -> Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let shared = Shared::new(metrics);
    let mut tasks = Tasks::new();
    let stop = CancellationToken::new();

    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let address = admin.local_addr()?;
    let access = Access::new().await?;
    // It has no clients to hold and no sessions to spare: an announced switchover changes nothing until the leader stops.
    let patience = Patience::default();
    // A publisher has neither clients to hold nor sessions to cut: it takes no commands and sees no failures of a leader.
    let (_, commands) = CommandQueue::new();
    let _leader_failures = start_discovery(
        &settings.finding,
        Some(access.clone()),
        patience,
        commands,
        &shared,
        &mut tasks,
    )?;
    let facts = shared.admin_facts(None, &settings.admin_hosts);
    let serving = super::admin::serve(admin, facts, CancellationToken::new())?;
    tasks.spawn(async { ("the admin port", serving.await) });
    let publisher = Publisher {
        slot: shared.slot.clone(),
        readiness: shared.readiness.clone(),
        metrics: shared.metrics.clone(),
        log_limiter: shared.log_limiter.clone(),
        settings: Settings {
            service: settings.service.clone(),
            namespace: settings.namespace.clone(),
            scope: settings.finding.kubernetes.as_ref().map(config::Kubernetes::objects),
            endpoints: settings.endpoints,
            lease: settings.lease.clone(),
            identity: identity(),
        },
    };
    let publishing = Box::pin(publisher.run(access, stop.clone()));
    tasks.spawn(async { ("the publisher", publishing.await.map_err(Error::from)) });
    info!(admin = %address, "listening");

    tokio::select! {
        signal = signals.next() => info!(signal, "asked to end: the Service stays as it is"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    shared.readiness.shutting_down();
    // The publisher lets go of its Lease; each request of it has a deadline.
    stop.cancel();
    tokio::select! {
        _ = tasks.join_next() => {}
        _ = signals.next() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The pod's name, and what tells this process from the one before it.
fn identity() -> String {
    let host = hostname().unwrap_or_default();
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    format!("{host}_{}_{}", std::process::id(), since.as_nanos())
}
