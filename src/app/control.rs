//! The control tasks that `pgnorth publish` and `pgnorth watch` share: discovery and the admin port.

use std::sync::Arc;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::discovery::{self, GracePeriods};
use super::routes::Routes;
use super::{AppState, Tasks, admin_thread};
use crate::admin::Admin;
use crate::command_queue::CommandQueue;
use crate::config::DiscoverySettings;
use crate::kubernetes::Access;

/// Starts discovery, and serves the admin port until the process ends.
pub(super) fn start(
    admin: Admin,
    hosts: &[String],
    settings: &DiscoverySettings,
    access: Option<Arc<Access>>,
    grace: GracePeriods,
    state: &AppState,
    tasks: &mut Tasks,
) -> Result<()> {
    let address = admin.local_addr()?;
    // A process without clients accepts no operator commands, and reports no leader failures.
    let (_, commands) = CommandQueue::new();
    let _reports = discovery::start(settings, access, grace, Routes::default(), commands, state, tasks)?;
    let facts = state.admin_facts(None, hosts, Vec::new());
    let (at_once, never) = (CancellationToken::new(), CancellationToken::new());
    at_once.cancel();
    let serving = admin_thread::start(admin, facts, at_once, never)?;
    tasks.spawn(async { ("the admin port", serving.await) });
    info!(admin = %address, "listening");
    Ok(())
}
