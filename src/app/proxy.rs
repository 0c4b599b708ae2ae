//! The proxy as a process: its listeners, its threads, and a shutdown that lets sessions finish.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::discovery::{self, GracePeriods};
use super::{AppState, Shutdown, Tasks, admin_thread, ended_early, files, workers};
use crate::admin::{Admin, Operators};
use crate::command_queue::CommandQueue;
use crate::config;
use crate::drain::Drain;
use crate::kubernetes::Access;
use crate::metrics::Metrics;
use crate::proxy::{Context, Proxy, RefusalTls, STARTUP, Settings};

/// A running proxy. Only [`Bound::run`] ends it in order: dropped without a shutdown, it leaves threads that serve open
/// sessions and the admin port.
#[must_use = "await `run`, which orders the shutdown"]
pub struct Bound {
    /// The address for PostgreSQL clients, with the port that was bound.
    pub postgres: SocketAddr,
    /// The address of the admin port, with the port that was bound.
    pub admin: SocketAddr,
    state: AppState,
    drain: Drain,
    drain_time: Duration,
    lame_duck: Duration,
    shutdown: Shutdown,
    stop_admin: CancellationToken,
    tasks: Tasks,
    traffic: Traffic,
}

/// The runtime that keeps time for sessions and resolves names for them. Sessions themselves run on workers.
struct Traffic(Option<Runtime>);

/// Binds the ports and starts the proxy, as `main` does. The calling runtime does the control work and should do
/// nothing else.
///
/// # Errors
/// Returns a text that names the setting that cannot be used, or the resource that is missing.
pub async fn serve(settings: &config::Proxy, metrics: Arc<Metrics>, shutdown: Shutdown) -> Result<Bound> {
    let state = AppState::new(metrics);
    let traffic = Traffic::start()?;
    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let session_settings = session_settings(settings, &state.metrics);
    let proxy = Proxy::bind(settings.listen, &session_settings).context("cannot listen for clients (--listen)")?;
    check_sources(&settings.sources)?;
    let mut bound = Bound {
        postgres: proxy.local_addr(),
        admin: admin.local_addr()?,
        state,
        drain: Drain::default(),
        drain_time: settings.drain,
        lame_duck: settings.lame_duck,
        shutdown,
        stop_admin: CancellationToken::new(),
        tasks: Tasks::new(),
        traffic,
    };
    bound.start(settings, session_settings, admin, proxy).await?;
    info!(postgres = %bound.postgres, admin = %bound.admin, "listening");
    Ok(bound)
}

impl Bound {
    /// Starts discovery, the admin port and the proxy.
    async fn start(&mut self, settings: &config::Proxy, sessions: Settings, admin: Admin, proxy: Proxy) -> Result<()> {
        let grace = GracePeriods {
            switchover_hold: settings.switchover_hold,
            failover_drain: settings.failover_drain,
        };
        let access = match &settings.discovery.kubernetes {
            Some(_) => Some(Access::new().await?),
            None => None,
        };
        let refusal_files = settings.refusal.clone().map(|identity| (identity.cert, identity.key));
        let refusal_tls =
            RefusalTls::new(refusal_files).context("cannot use the certificate for refusals (--refusal-cert)")?;
        let (queue, commands) = CommandQueue::new();
        let operators = match &settings.admin_token_file {
            Some(file) => Some(Operators::new(file.clone(), queue).await),
            None => None,
        };
        let (state, tasks) = (&self.state, &mut self.tasks);
        let leader_failures = discovery::start(&settings.discovery, access, grace, commands, state, tasks)?;
        let context = Arc::new(Context {
            slot: state.slot.clone(),
            drain: self.drain.clone(),
            metrics: state.metrics.clone(),
            recorder: state.recorder.clone(),
            wait_queue: state.wait_queue.clone(),
            log_limiter: state.log_limiter.clone(),
            liveness: state.liveness.clone(),
            leader_failures,
            refusal_tls,
            settings: sessions,
        });
        let facts = state.admin_facts(operators, &settings.admin_hosts);
        let serving = admin_thread::start(admin, facts, self.stop_admin.clone())?;
        tasks.spawn(async { ("the admin port", serving.await) });
        let proxying = self.traffic.handle().spawn(proxy.run(context));
        tasks.spawn(async { ("the proxy", proxied(proxying).await) });
        Ok(())
    }

    /// Serves until a shutdown is requested, then lets sessions finish.
    ///
    /// # Errors
    /// Returns the cause if a long-lived task ends before that.
    pub async fn run(mut self) -> Result<()> {
        tokio::select! {
            by = self.shutdown.requested() => info!(by, "shutdown requested"),
            Some(task) = self.tasks.join_next() => return Err(ended_early(task)),
        }
        let finishing = finish(
            &self.state,
            &self.drain,
            self.traffic.handle(),
            &mut self.shutdown,
            self.lame_duck,
            self.drain_time,
        );
        tokio::select! {
            () = finishing => {}
            Some(task) = self.tasks.join_next() => return Err(ended_early(task)),
        }
        self.stop_admin.cancel();
        Ok(())
    }
}

impl Traffic {
    fn start() -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traffic")
            .enable_all()
            .build()
            .context("cannot start the traffic thread")?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> &Handle {
        self.0.as_ref().expect("the runtime is taken on drop only").handle()
    }
}

impl Drop for Traffic {
    /// Does not wait: sessions have ended or were forced, and a name look-up that hangs must not keep the process.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn session_settings(settings: &config::Proxy, metrics: &Metrics) -> Settings {
    let workers = workers(settings);
    let ports = files::local_ports(&settings.sources);
    metrics.local_ports.set(i64::try_from(ports).unwrap_or(i64::MAX));
    Settings {
        startup: STARTUP,
        hold: settings.hold,
        connect_timeout: settings.connect_timeout,
        tcp_user_timeout: kernel_timeout(settings.tcp_user_timeout),
        client_tcp_user_timeout: kernel_timeout(settings.client_tcp_user_timeout),
        socket_buffers: settings.socket_buffers,
        sources: settings.sources.clone(),
        max_sessions: files::session_limit(settings.max_sessions, workers, ports),
        workers,
    }
}

/// Returns a shorter timeout for the kernel, which acts only at the retransmission after it (measured: 10.4 s for 10
/// s), so that the setting is a bound.
fn kernel_timeout(timeout: Duration) -> Duration {
    timeout * 9 / 10
}

/// Checks that this host has each source address. Otherwise every dial from it would fail, and clients would wait for
/// a healthy leader.
fn check_sources(sources: &[IpAddr]) -> Result<()> {
    for source in sources {
        TcpListener::bind((*source, 0)).with_context(|| {
            format!(
                "cannot dial leaders from {source}: this host has no such address; correct --source (PGNORTH_SOURCE)"
            )
        })?;
    }
    Ok(())
}

/// Reports not ready and still accepts while load balancers catch up; then lets sessions finish, while discovery still
/// follows the leader. Each further request cuts the present phase short.
async fn finish(
    state: &AppState,
    drain: &Drain,
    traffic: &Handle,
    shutdown: &mut Shutdown,
    lame_duck: Duration,
    drain_time: Duration,
) {
    state.readiness.shutting_down();
    info!(
        ?lame_duck,
        "not ready; still accepting clients while load balancers take notice (--lame-duck)"
    );
    let second = tokio::select! {
        () = tokio::time::sleep(lame_duck) => false,
        _ = shutdown.requested() => true,
    };
    drain.stop_accepting();
    let patience = if second { Duration::ZERO } else { drain_time };
    info!(drain = ?patience, "no longer accepting clients; open sessions may finish (--drain)");
    let finishing = drain.clone();
    let mut finishing = traffic.spawn(async move { finishing.finish(patience).await });
    let forced = tokio::select! {
        forced = &mut finishing => forced,
        _ = shutdown.requested() => {
            info!("shutdown requested again: ending open sessions now");
            drain.force();
            finishing.await
        }
    };
    match forced {
        Ok(0) => info!("every session finished"),
        Ok(sessions) => warn!(
            sessions,
            "the drain time is over (--drain): pgnorth ended the sessions that were still open"
        ),
        Err(error) => warn!(%error, "waiting for sessions failed; this is a defect in pgnorth"),
    }
}

async fn proxied(proxying: JoinHandle<io::Result<Infallible>>) -> Result<()> {
    proxying
        .await?
        .context("cannot start the threads that serve sessions (--workers)")?;
    Ok(())
}
