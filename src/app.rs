//! Binds everything, starts every long-lived task, and orders shutdown: of the proxy in `app/proxy.rs`, of the publisher in `app/publish.rs`; what both need
//! stands here. `app/doctor.rs` only looks, and ends by itself.
//!
//! Control work (discovery, admin) has a runtime of its own, so that traffic cannot delay a change of leader. A long-lived task that ends before it was
//! asked to ends the process.

mod admin;
mod doctor;
mod files;
mod proxy;
mod publish;
mod send_command;
mod status;

use std::io;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::info;

use crate::admin::{Facts, Hosts, Operators};
use crate::command_queue::PendingCommand;
use crate::config::{self, COMMIT, Finding, Job, PatroniTls, Settings, VERSION};
use crate::discovery::Discovery;
use crate::discovery::kubernetes::Kubernetes;
use crate::discovery::patroni::{Client, ClusterPoller, Plan, Prober, TlsError, TlsFiles};
use crate::events::Events;
use crate::kubernetes::Access;
use crate::leader::decide::Policy;
use crate::leader::view::View;
use crate::leader::{LeaderFailure, base_url};
use crate::liveness::Liveness;
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::slot::LeaderSlot;
use crate::wait_queue::WaitQueue;

/// Observations that may wait; a full channel only slows its sources.
const OBSERVATIONS: usize = 1024;
/// Complaints that may wait; what does not fit is dropped, as one is as good as many.
const LEADER_FAILURES: usize = 16;
/// Without the lock to go by, members are asked each second with a deadline of one: what is older than this went unconfirmed twice.
const REPORT_LIFE: Duration = Duration::from_secs(3);
/// Observations of histograms wait in memory for as long.
const UPKEEP: Duration = Duration::from_secs(5);
const STARTING: &str = "neither the Kubernetes API nor a member's REST API has answered yet";

/// Long-lived tasks: each yields its name and what went wrong, if it ends.
type Tasks = JoinSet<(&'static str, Result<()>)>;

/// What discovery does for the sake of sessions.
#[derive(Default)]
struct Patience {
    /// How long an announced switchover may hold new clients.
    switchover_hold: Duration,
    /// How long sessions may go on to a leader that gave the lock up cleanly.
    failover_drain: Duration,
}

/// What every part of the app shares.
struct Shared {
    slot: Arc<LeaderSlot>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    readiness: ReadinessHandle,
    liveness: Liveness,
    wait_queue: Arc<WaitQueue>,
    log_limiter: LogLimiter,
    /// What discovery knows, for the status.
    seen: watch::Sender<Arc<View>>,
}

/// Runs until a signal asks for the end. The exit code is 0 after an orderly shutdown.
pub fn run(settings: Settings, metrics: Arc<Metrics>) -> Result<ExitCode> {
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let outcome = match &settings.job {
        Job::Proxy(settings) => proxy::run(settings, metrics, &control),
        Job::Publish(settings) => control.block_on(publish::run(settings, metrics)),
        Job::Status(settings) => Ok(control.block_on(status::run(settings))),
        Job::SendCommand(settings) => Ok(control.block_on(send_command::run(settings))),
        Job::Doctor(settings) => control.block_on(doctor::run(settings)),
    };
    // A name look-up that hangs must not keep the process.
    control.shutdown_background();
    outcome
}

impl Shared {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.build_is(VERSION, COMMIT);
        Self {
            recorder: Arc::new(Recorder::new(metrics.clone())),
            slot: Arc::new(LeaderSlot::new(STARTING)),
            metrics,
            readiness: ReadinessHandle::starting(STARTING),
            liveness: Liveness::default(),
            wait_queue: Arc::default(),
            log_limiter: LogLimiter::default(),
            seen: watch::Sender::default(),
        }
    }

    /// Returns what the admin port serves. Commands reach discovery through `operators`.
    fn admin_facts(&self, operators: Option<Operators>, hosts: &[String]) -> Facts {
        Facts {
            liveness: self.liveness.clone(),
            hosts: Hosts::new(hosts, hostname().as_deref()),
            slot: self.slot.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            recorder: self.recorder.clone(),
            wait_queue: self.wait_queue.clone(),
            log_limiter: self.log_limiter.clone(),
            view: self.seen.subscribe(),
            operators,
        }
    }
}

/// Threads that serve sessions.
fn workers(settings: &config::Proxy) -> usize {
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    settings.workers.unwrap_or_else(cores)
}

/// Starts the sources and the loop that they feed; returns where the proxy may complain.
fn start_discovery(
    finding: &Finding,
    access: Option<Arc<Access>>,
    patience: Patience,
    commands: mpsc::Receiver<PendingCommand>,
    shared: &Shared,
    tasks: &mut Tasks,
) -> Result<mpsc::Sender<LeaderFailure>> {
    let (claim, observations) = mpsc::channel(OBSERVATIONS);
    let (complain, leader_failures) = mpsc::channel(LEADER_FAILURES);
    let (plan, planned) = watch::channel(Plan::default());
    let client = patroni_client(&finding.patroni_tls, shared.metrics.clone())
        .context("cannot use the TLS files for Patroni's REST API (--patroni-ca, --patroni-cert, --patroni-key)")?;
    let mut events = Events::default();
    let objects = finding.kubernetes.as_ref().map(config::Kubernetes::objects);
    if let Some(name) = objects.as_ref().or(finding.scope.as_ref()) {
        shared.metrics.cluster_is(name);
    }
    if let Some((kubernetes, access)) = finding.kubernetes.as_ref().zip(access) {
        if let Some(pod) = &kubernetes.pod {
            let (handle, writer) = Events::of(pod.clone());
            events = handle;
            let writing = writer.run(access.clone());
            tasks.spawn(async { ("the writer of Kubernetes Events", done(writing).await) });
        }
        let source = Kubernetes::new(
            access,
            &kubernetes.objects(),
            kubernetes.namespace.as_deref(),
            &kubernetes.selector,
            shared.log_limiter.clone(),
        );
        let watching = source.run(claim.clone());
        tasks.spawn(async { ("the Kubernetes watches", done(watching).await) });
    }
    if !finding.patroni.is_empty() {
        let seeds: Result<Vec<_>, _> = finding.patroni.iter().map(|url| base_url(url.as_str())).collect();
        let seeds = seeds.map_err(|why| anyhow!("a URL of --patroni {why}"))?;
        let poller = ClusterPoller::new(
            client.clone(),
            seeds,
            planned.clone(),
            shared.log_limiter.clone(),
            claim.clone(),
        );
        tasks.spawn(async { ("the poller of /cluster", done(poller.run()).await) });
    }
    let prober = Prober::new(client, planned, claim);
    tasks.spawn(async { ("the prober", done(prober.run()).await) });
    let metrics = shared.metrics.clone();
    tasks.spawn(async { ("the upkeep of metrics", done(upkeep(metrics)).await) });
    let discovery = Discovery {
        slot: shared.slot.clone(),
        metrics: shared.metrics.clone(),
        recorder: shared.recorder.clone(),
        events,
        log_limiter: shared.log_limiter.clone(),
        readiness: shared.readiness.clone(),
        policy: Policy {
            switchover_hold: patience.switchover_hold,
            report_life: REPORT_LIFE,
        },
        failover_drain: patience.failover_drain,
        scope: finding.scope.clone(),
        citus_group: finding
            .kubernetes
            .as_ref()
            .and_then(|kubernetes| kubernetes.citus_group),
        observations,
        leader_failures,
        commands,
        plan,
        seen: shared.seen.clone(),
    };
    tasks.spawn(async { ("discovery", done(discovery.run()).await) });
    let beat = shared.liveness.watch("control");
    tasks.spawn(async { ("the control thread's beat", done(beat.keep_beating()).await) });
    Ok(complain)
}

/// Keeps the histograms' memory flat while nobody scrapes.
async fn upkeep(metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.upkeep();
    }
}

fn patroni_client(tls: &PatroniTls, metrics: Arc<Metrics>) -> Result<Client, TlsError> {
    let identity = tls.identity.as_ref();
    let files = TlsFiles {
        ca: tls.ca.clone(),
        identity: identity.map(|identity| (identity.cert.clone(), identity.key.clone())),
    };
    Client::new(files, metrics)
}

/// This machine's, or this pod's.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
}

/// For tasks that have no error to tell of.
async fn done(task: impl Future<Output = ()>) -> Result<()> {
    task.await;
    Ok(())
}

fn ended_early(task: Result<(&'static str, Result<()>), JoinError>) -> Error {
    match task {
        Ok((name, Ok(()))) => anyhow!("{name} ended by itself; it never should"),
        Ok((name, Err(error))) => error.context(format!("{name} failed")),
        Err(error) => anyhow!("a long-lived task broke down: {error}"),
    }
}

/// SIGTERM (Kubernetes, systemd) and SIGINT (Ctrl-C) ask for the end. Those that elsewhere mean "reload", or "open the log again", would end the process
/// at once if nobody took them.
struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
            ],
        })
    }

    /// The next signal that asks for the end. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        loop {
            let [user_1, user_2] = &mut self.user;
            let signal = tokio::select! {
                _ = self.term.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => "SIGHUP",
                _ = user_1.recv() => "SIGUSR1",
                _ = user_2.recv() => "SIGUSR2",
            };
            info!(
                signal,
                "ignored: settings are read when pgnorth starts, and its log is no file"
            );
        }
    }
}
