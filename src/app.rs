//! Binds everything, starts every long-lived task, and orders shutdown.
//!
//! Control work (discovery, admin) has a runtime of its own, so that traffic cannot delay a change of leader. A long-lived task that ends before it was
//! asked to ends the process.

mod files;

use std::convert::Infallible;
use std::io;
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::config::{COMMIT, Settings, VERSION};
use crate::discovery::Discovery;
use crate::discovery::kubernetes::Kubernetes;
use crate::discovery::patroni::{Client, ClusterPoller, Plan, Prober, TlsFiles};
use crate::drain::Drain;
use crate::leader::decide::Policy;
use crate::leader::{Complaint, base_url};
use crate::metrics::Metrics;
use crate::proxy::{self, Proxy};
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::slot::LeaderSlot;

/// Observations that may wait; a full channel only slows its sources.
const OBSERVATIONS: usize = 1024;
/// Complaints that may wait; what does not fit is dropped, as one is as good as many.
const COMPLAINTS: usize = 16;
/// Without the lock to go by, members are asked each second with a deadline of one: what is older than this went unconfirmed twice.
const REPORT_LIFE: Duration = Duration::from_secs(3);
const STARTING: &str = "neither the Kubernetes API nor a member's REST API has answered yet";

/// Long-lived tasks: each yields its name and what went wrong, if it ends.
type Tasks = JoinSet<(&'static str, Result<()>)>;

/// What every part of the app shares.
struct Shared {
    slot: Arc<LeaderSlot>,
    metrics: Arc<Metrics>,
    recorder: Arc<Recorder>,
    readiness: ReadinessHandle,
    drain: Drain,
}

/// Runs until a signal asks for the end. The exit code is 0 after an orderly shutdown.
pub fn run(settings: Settings) -> Result<ExitCode> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let workers = settings.workers.unwrap_or(cores);
    // It accepts, holds and dials; bytes are moved by workers of their own.
    let traffic = Builder::new_multi_thread()
        .worker_threads(workers)
        .thread_name("traffic")
        .enable_all()
        .build()
        .context("cannot start the traffic threads")?;
    let control = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let outcome = control.block_on(serve(&settings, workers, traffic.handle()));
    // Sessions have ended or were forced; a name look-up that hangs must not keep the process.
    traffic.shutdown_background();
    control.shutdown_background();
    outcome
}

async fn serve(settings: &Settings, workers: usize, traffic: &Handle) -> Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let shared = Shared::new();
    let mut tasks = Tasks::new();
    let stop_admin = CancellationToken::new();

    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let proxy = {
        // Its socket belongs to the traffic runtime's poller.
        let _on_traffic = traffic.enter();
        Proxy::bind(&[settings.listen], kernel_timeout(settings)).context("cannot listen for clients (--listen)")?
    };
    let (postgres, admin_address) = (proxy.local_addrs()[0], admin.local_addr()?);
    let complaints = start_discovery(settings, &shared, &mut tasks).await?;
    let context = Arc::new(shared.proxy_context(settings, workers, complaints));
    let facts = Arc::new(shared.admin_facts());
    let serving = admin.run(facts, stop_admin.clone());
    tasks.spawn(async { ("the admin port", serving.await.map_err(Error::from)) });
    let proxying = traffic.spawn(proxy.run(context));
    tasks.spawn(async { ("the proxy", proxied(proxying).await) });
    info!(%postgres, admin = %admin_address, "listening");

    tokio::select! {
        signal = signals.next() => info!(signal, "asked to end"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    tokio::select! {
        () = shut_down(settings, &shared, traffic, &mut signals) => {}
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    stop_admin.cancel();
    Ok(ExitCode::SUCCESS)
}

impl Shared {
    fn new() -> Self {
        let metrics = Metrics::new();
        metrics.build_is(VERSION, COMMIT);
        let metrics = Arc::new(metrics);
        Self {
            recorder: Arc::new(Recorder::new(metrics.clone())),
            slot: Arc::new(LeaderSlot::new(STARTING)),
            metrics,
            readiness: ReadinessHandle::starting(STARTING),
            drain: Drain::default(),
        }
    }

    fn proxy_context(
        &self,
        settings: &Settings,
        workers: usize,
        complaints: mpsc::Sender<Complaint>,
    ) -> proxy::Context {
        let max_sessions = files::make_room(settings.max_sessions, workers);
        proxy::Context {
            slot: self.slot.clone(),
            drain: self.drain.clone(),
            metrics: self.metrics.clone(),
            recorder: self.recorder.clone(),
            complaints,
            settings: proxy::Settings {
                hold: settings.hold,
                connect_timeout: settings.connect_timeout,
                tcp_user_timeout: kernel_timeout(settings),
                max_sessions,
                workers,
            },
        }
    }

    fn admin_facts(&self) -> admin::Facts {
        admin::Facts {
            slot: self.slot.clone(),
            readiness: self.readiness.clone(),
            metrics: self.metrics.clone(),
            recorder: self.recorder.clone(),
        }
    }
}

/// The kernel acts on its timeout only at the retransmission after it (measured: 10.4 s for 10 s). It gets less, so that the setting is a bound.
fn kernel_timeout(settings: &Settings) -> Duration {
    settings.tcp_user_timeout * 9 / 10
}

/// Starts the sources and the loop that they feed; returns where the proxy may complain.
async fn start_discovery(settings: &Settings, shared: &Shared, tasks: &mut Tasks) -> Result<mpsc::Sender<Complaint>> {
    let (claim, observations) = mpsc::channel(OBSERVATIONS);
    let (complain, complaints) = mpsc::channel(COMPLAINTS);
    let (plan, planned) = watch::channel(Plan::default());
    let tls = TlsFiles {
        ca: settings.patroni_tls.ca.clone(),
        identity: settings
            .patroni_tls
            .identity
            .as_ref()
            .map(|identity| (identity.cert.clone(), identity.key.clone())),
    };
    let client = Client::new(tls, shared.metrics.clone())
        .context("cannot use the TLS files for Patroni's REST API (--patroni-ca, --patroni-cert, --patroni-key)")?;
    if let Some(kubernetes) = &settings.kubernetes {
        let source = Kubernetes::new(&kubernetes.scope, kubernetes.namespace.as_deref(), &kubernetes.selector).await?;
        let watching = source.run(claim.clone());
        tasks.spawn(async { ("the Kubernetes watches", done(watching).await) });
    }
    if !settings.patroni.is_empty() {
        let seeds: Result<Vec<_>, _> = settings.patroni.iter().map(|url| base_url(url.as_str())).collect();
        let seeds = seeds.map_err(|why| anyhow!("a URL of --patroni {why}"))?;
        let poller = ClusterPoller::new(client.clone(), seeds, planned.clone(), claim.clone());
        tasks.spawn(async { ("the poller of /cluster", done(poller.run()).await) });
    }
    let prober = Prober::new(client, planned, claim);
    tasks.spawn(async { ("the prober", done(prober.run()).await) });
    let discovery = Discovery {
        slot: shared.slot.clone(),
        metrics: shared.metrics.clone(),
        recorder: shared.recorder.clone(),
        readiness: shared.readiness.clone(),
        policy: Policy {
            switchover_hold: settings.switchover_hold,
            report_life: REPORT_LIFE,
        },
        failover_drain: settings.failover_drain,
        observations,
        complaints,
        plan,
    };
    tasks.spawn(async { ("discovery", done(discovery.run()).await) });
    Ok(complain)
}

/// Not ready; accept on while endpoints catch up; then let sessions finish, while the leader is still followed. A second signal cuts each wait short.
async fn shut_down(settings: &Settings, shared: &Shared, traffic: &Handle, signals: &mut Signals) {
    shared.readiness.shutting_down();
    info!(lame_duck = ?settings.lame_duck, "no longer ready; still accepting, while load balancers take notice");
    let second = tokio::select! {
        () = tokio::time::sleep(settings.lame_duck) => false,
        _ = signals.next() => true,
    };
    shared.drain.stop_accepting();
    let patience = if second { Duration::ZERO } else { settings.drain };
    info!(drain = ?patience, "no longer accepting; open sessions may finish");
    let drain = shared.drain.clone();
    let mut finishing = traffic.spawn(async move { drain.finish(patience).await });
    let forced = tokio::select! {
        forced = &mut finishing => forced,
        _ = signals.next() => {
            info!("asked to end again: ending at once");
            shared.drain.force();
            finishing.await
        }
    };
    match forced {
        Ok(0) => info!("every session finished"),
        Ok(sessions) => warn!(
            sessions,
            "the drain is over: sessions that were still open have been ended"
        ),
        Err(error) => warn!(%error, "the drain failed"),
    }
}

async fn proxied(proxying: JoinHandle<io::Result<Infallible>>) -> Result<()> {
    proxying
        .await?
        .context("cannot start the threads that move bytes (--workers)")?;
    Ok(())
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

/// SIGTERM (Kubernetes, systemd) and SIGINT (Ctrl-C).
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal's name. Cancel-safe.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
