//! Binds the ports, starts every long-lived task, and orders the shutdown. `app/proxy.rs` does this for the proxy,
//! `app/publish.rs` for the publisher, `app/watcher.rs` for the watcher.
//!
//! Control work (discovery, admin) has separate runtimes, so that traffic cannot delay a change of leader. A
//! long-lived task that ends before a shutdown was requested ends the process.

mod admin_thread;
mod control;
mod discovery;
mod doctor;
mod files;
mod import;
mod inherited;
mod proxy;
mod publish;
mod reload;
mod routes;
mod send_command;
mod service;
mod shutdown;
mod status;
mod successor;
mod watcher;

use std::ffi::OsString;
use std::net::TcpListener;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Error, Result, anyhow};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

pub use self::proxy::{Bound, serve};
use self::reload::Requests;
pub use self::shutdown::{Shutdown, ShutdownTrigger};
pub use self::successor::Predecessor;
use crate::admin::{BoundRoute, Facts, Hosts, Operators};
use crate::config::{self, COMMIT, Job, Settings, VERSION};
use crate::leader::view::View;
use crate::liveness::Liveness;
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::slot::RouteSlot;
use crate::systemd::Notifier;
use crate::wait_queue::WaitQueue;

const STARTING: &str = "no source (the Kubernetes API, etcd, or a member's REST API) has answered yet";

/// The long-lived tasks. Each returns its name, and the error that ended it.
type Tasks = JoinSet<(&'static str, Result<()>)>;

/// The arguments of this process, and the resources that other processes passed to it.
#[derive(Debug, Default)]
pub struct Started {
    /// The arguments, beginning with the program. A successor is started with them too.
    pub arguments: Vec<OsString>,
    /// The listeners that systemd opened for this process.
    pub activated: Vec<TcpListener>,
    /// The process that this one replaces.
    pub predecessor: Option<Predecessor>,
    /// Sender of notifications to systemd.
    pub notifier: Notifier,
}

/// The values that the tasks of one process share.
struct AppState {
    slot: Arc<RouteSlot>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    readiness: ReadinessHandle,
    liveness: Liveness,
    wait_queue: Arc<WaitQueue>,
    log_limiter: LogLimiter,
    /// Discovery's newest view, for the status, a reload and the comparison with HAProxy.
    view: watch::Sender<Arc<View>>,
}

/// Runs the command that the settings name. The proxy, the publisher and the watcher run until a signal requests a
/// shutdown; the proxy also ends after a successor has replaced it.
///
/// # Errors
/// Returns the cause of a failed start, or of a long-lived task that ended too early.
pub fn run(settings: Settings, metrics: Arc<Metrics>, started: Started) -> Result<ExitCode> {
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let signals = |reload: Option<_>| Shutdown::on_signals(reload).context("cannot install signal handlers");
    let outcome = control.block_on(async {
        match &settings.job {
            Job::Proxy(settings) => {
                let (reloads, predecessor) = (Requests::new(), started.predecessor.clone());
                let shutdown = signals(Some(Box::new(reloads.on_signal())))?;
                match proxy::serve_from(started, reloads, settings, metrics, shutdown).await {
                    Ok(bound) => bound.run().await,
                    Err(error) => {
                        predecessor.inspect(|predecessor| predecessor.refuse(&format!("{error:#}")));
                        Err(error)
                    }
                }
            }
            Job::Publish(settings) => publish::run(settings, metrics, started.notifier, signals(None)?).await,
            Job::Watch(settings) => watcher::run(settings, metrics, started.notifier, signals(None)?).await,
            Job::Status(settings) => return Ok(status::run(settings).await),
            Job::SendCommand(settings) => return Ok(send_command::run(settings).await),
            Job::Reload(settings) => return Ok(reload::run_command(settings)),
            Job::Doctor(settings) => return doctor::run(settings).await,
            Job::Import(files) => return Ok(import::run(files)),
        }
        .map(|()| ExitCode::SUCCESS)
    });
    // A name look-up that hangs must not keep the process alive.
    control.shutdown_background();
    outcome
}

impl AppState {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.set_build(VERSION, COMMIT);
        Self {
            recorder: Arc::new(Recorder::new(metrics.clone())),
            slot: Arc::new(RouteSlot::new(STARTING)),
            metrics,
            readiness: ReadinessHandle::starting(STARTING),
            liveness: Liveness::default(),
            wait_queue: Arc::default(),
            log_limiter: LogLimiter::default(),
            view: watch::Sender::default(),
        }
    }

    /// Returns the state of a process that forwards no sessions.
    fn without_sessions(metrics: Arc<Metrics>) -> Self {
        Self {
            recorder: Arc::new(Recorder::without_sessions(metrics.clone())),
            ..Self::new(metrics)
        }
    }

    /// Returns the values that the admin port shows. Commands reach discovery through `operators`.
    fn admin_facts(&self, operators: Option<Operators>, hosts: &[String], routes: Vec<BoundRoute>) -> Facts {
        Facts {
            liveness: self.liveness.clone(),
            hosts: Hosts::new(hosts, hostname().as_deref()),
            slot: self.slot.clone(),
            routes,
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            recorder: self.recorder.clone(),
            wait_queue: self.wait_queue.clone(),
            log_limiter: self.log_limiter.clone(),
            view: self.view.subscribe(),
            operators,
        }
    }
}

/// Returns the number of threads that serve sessions.
fn workers(settings: &config::Proxy) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    settings.workers.unwrap_or_else(cores)
}

/// Returns the name of this machine, which in Kubernetes is the pod's.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

/// Adapts a task that has no error to return.
async fn no_error(task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Ok(())
}

/// Returns the error for a long-lived task that ended before a shutdown.
fn ended_early(task: Result<(&'static str, Result<()>), JoinError>) -> Error {
    match task {
        Ok((name, Ok(()))) => {
            anyhow!("{name} ended without an error before a shutdown was requested; this is a defect in pgnorth")
        }
        Ok((name, Err(error))) => error.context(format!("{name} failed")),
        Err(error) => anyhow!("a long-lived task panicked; this is a defect in pgnorth: {error}"),
    }
}
