//! The proxy as a process: its listeners, its threads, and a shutdown that lets sessions finish.

mod listening;
mod replacing;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::listening::{admin, listen};
use self::replacing::{Reload, next_after};
use super::discovery::{self, GracePeriods};
use super::inherited::{Inherited, Listeners};
use super::reload::{Requests, RouteSlots, StartParameters};
use super::routes::Routes;
use super::service::Service;
use super::{AppState, Shutdown, Started, Tasks, admin_thread, ended_early, files, workers};
use crate::admin::{Admin, BoundRoute, Operators};
use crate::command_queue::CommandQueue;
use crate::config;
use crate::drain::Drain;
use crate::kubernetes::Access;
use crate::leader::observation::Observation;
use crate::metrics::Metrics;
use crate::proxy::{self, Accepting, Dependencies, Proxy, RefusalTls, STARTUP, Sessions, Settings};

/// The name of the admin port's task.
const ADMIN: &str = "the admin port";
/// The reason why sessions end before the time of --drain is over.
const REQUESTED_AGAIN: &str = "shutdown was requested again";

/// A running proxy. Only [`Bound::run`] shuts it down in order. If it is dropped instead, the threads that serve open
/// sessions and the admin port remain.
#[must_use = "await `run`, which orders the shutdown"]
pub struct Bound {
    /// The listeners for PostgreSQL clients, with the ports that were bound. The first is that of `--listen`, if it
    /// applies.
    pub routes: Vec<BoundRoute>,
    /// The address of the admin port, with the port that was bound.
    pub admin: SocketAddr,
    state: AppState,
    drain: Drain,
    drain_time: Duration,
    lame_duck: Duration,
    shutdown: Shutdown,
    stop_admin: CancellationToken,
    tasks: Tasks,
    runtime: SessionRuntime,
    listeners: Listeners,
    slots: RouteSlots,
    sessions: Sessions,
    /// Cancelled when this process accepts clients: immediately, or when the process that it replaces tells it to.
    accept: CancellationToken,
    service: Service,
    reloads: Requests,
    start: StartParameters,
}

/// The runtime of the sessions' timers and name look-ups. Sessions themselves run on workers.
struct SessionRuntime(Option<Runtime>);

/// Binds the ports and starts the proxy, as `main` does. The calling runtime does the control work and should do
/// nothing else.
///
/// # Errors
/// Returns a text that names the setting that cannot be used, or the resource that is missing.
pub async fn serve(settings: &config::Proxy, metrics: Arc<Metrics>, shutdown: Shutdown) -> Result<Bound> {
    serve_from(Started::default(), Requests::new(), settings, metrics, shutdown).await
}

/// Binds the ports and starts the proxy, like [`serve`], in a process that systemd or the replaced pgnorth has started.
pub(super) async fn serve_from(
    started: Started,
    reloads: Requests,
    settings: &config::Proxy,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<Bound> {
    let state = AppState::new(metrics);
    let runtime = SessionRuntime::start()?;
    let mut inherited = match &started.predecessor {
        Some(predecessor) => predecessor.listeners()?,
        None => Inherited::from_systemd(started.activated),
    };
    let mut listeners = Listeners::default();
    let drain = Drain::default();
    let session_settings = session_settings(settings, &state.metrics);
    let admin = admin(settings.admin, &mut inherited, &mut listeners)?;
    let (mut proxy, mut routes, mut slots) = (Proxy::default(), Vec::new(), RouteSlots::new());
    let (of_primary, mut followed) = (settings.discovery.upstream, Routes::default());
    for route in &settings.routes {
        let (kind, upstream) = (route.conditions.kind, route.upstream.unwrap_or(of_primary));
        let (slot, fitness) = followed.add(route, upstream, &state, of_primary);
        slots.push((kind, slot.clone()));
        if upstream.is_pooler() {
            // Registers the counter, so that its series begins at 0.
            let _counter = state.metrics.pooler_failures(kind, upstream);
        }
        let to = proxy::Route {
            kind,
            slot,
            upstream,
            hold: route.hold.unwrap_or(settings.hold),
        };
        let mut bound = listen(
            route.listen,
            to,
            &mut proxy,
            &session_settings,
            &mut inherited,
            &mut listeners,
        )?;
        bound.fitness = fitness;
        routes.push(bound);
    }
    inherited.check_used()?;
    check_sources(&settings.sources)?;
    let mut bound = Bound {
        routes,
        admin: admin.local_addr()?,
        drain,
        service: Service::new(started.notifier, &state),
        state,
        drain_time: settings.drain,
        lame_duck: settings.lame_duck,
        shutdown,
        stop_admin: CancellationToken::new(),
        tasks: Tasks::new(),
        runtime,
        listeners,
        slots,
        sessions: proxy.sessions(),
        accept: CancellationToken::new(),
        reloads,
        start: StartParameters {
            arguments: started.arguments,
            is_successor: started.predecessor.is_some(),
        },
    };
    let observations = bound.start(settings, session_settings, admin, proxy, followed).await?;
    bound.begin(started.predecessor, observations)?;
    Ok(bound)
}

impl Bound {
    /// Starts discovery, the admin port and the proxy. Returns the channel for the observations of a replaced process.
    async fn start(
        &mut self,
        settings: &config::Proxy,
        sessions: Settings,
        admin: Admin,
        proxy: Proxy,
        followed: Routes,
    ) -> Result<mpsc::Sender<Observation>> {
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
        let facts = state.admin_facts(operators, &settings.admin_hosts, self.routes.clone());
        let reports = discovery::start(&settings.discovery, access, grace, followed, commands, state, tasks)?;
        let dependencies = Arc::new(Dependencies {
            drain: self.drain.clone(),
            metrics: state.metrics.clone(),
            recorder: state.recorder.clone(),
            wait_queue: state.wait_queue.clone(),
            log_limiter: state.log_limiter.clone(),
            liveness: state.liveness.clone(),
            leader_failures: reports.leader_failures,
            refusal_tls,
            settings: sessions,
        });
        let serving = admin_thread::start(admin, facts, self.accept.clone(), self.stop_admin.clone())?;
        tasks.spawn(async { (ADMIN, serving.await) });
        let accepting = Accepting {
            begin: self.accept.clone(),
            alone: self.service.main.clone(),
        };
        let proxying = self.runtime.handle().spawn(proxy.run(dependencies, accepting));
        tasks.spawn(async { ("the proxy", proxied(proxying).await) });
        Ok(reports.observations)
    }

    /// Serves until a shutdown is requested or a successor has taken over, then lets sessions finish.
    ///
    /// # Errors
    /// Returns the cause if a long-lived task ends before that.
    pub async fn run(mut self) -> Result<()> {
        let main = self.service.main.clone();
        let mut listening = Box::pin(self.reloads.listen());
        let replaced = loop {
            tokio::select! {
                by = self.shutdown.requested() => {
                    info!(by, "shutdown requested");
                    break None;
                }
                Some(task) = self.tasks.join_next() => return Err(ended_early(task)),
                request = next_after(&main, &mut self.reloads) => match self.reload(request).await? {
                    Reload::Failed => {}
                    Reload::Aborted => break None,
                    Reload::Done(replaced) => break Some(replaced),
                },
                () = &mut listening => {}
            }
        };
        drop(listening);
        self.service.over.cancel();
        match replaced {
            Some(replaced) => self.retire(replaced).await,
            None => self.shut_down().await,
        }
    }

    async fn shut_down(mut self) -> Result<()> {
        self.service.notifier.stopping();
        let finishing = finish(
            &self.state,
            &self.drain,
            self.runtime.handle(),
            &mut self.shutdown,
            &mut self.listeners,
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

impl SessionRuntime {
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

impl Drop for SessionRuntime {
    /// Does not wait: a name look-up that hangs must not delay the exit.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn session_settings(settings: &config::Proxy, metrics: &Metrics) -> Settings {
    let workers = workers(settings);
    let ports = files::local_ports(&settings.sources);
    metrics
        .local_ports
        .set(ports.map_or(i64::MAX, |ports| i64::try_from(ports).unwrap_or(i64::MAX)));
    Settings {
        startup: STARTUP,
        connect_timeout: settings.connect_timeout,
        tcp_user_timeout: kernel_timeout(settings.tcp_user_timeout),
        client_tcp_user_timeout: kernel_timeout(settings.client_tcp_user_timeout),
        socket_buffers: settings.socket_buffers,
        sources: settings.sources.clone(),
        proxy_protocol: settings.proxy_protocol.clone(),
        max_sessions: files::session_limit(settings.max_sessions, workers, ports),
        workers,
    }
}

/// Returns a shorter timeout for the kernel, so that the setting is an upper bound. The kernel acts only at the first
/// retransmission after its timeout (measured: 10.4 s for 10 s).
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

/// Reports that the process is not ready, and still accepts clients for `lame_duck`, so that load balancers can notice.
/// Then lets sessions finish for up to `drain_time`, while discovery still follows the leader. A second request to shut
/// down ends the open sessions immediately.
async fn finish(
    state: &AppState,
    drain: &Drain,
    runtime: &Handle,
    shutdown: &mut Shutdown,
    listeners: &mut Listeners,
    lame_duck: Duration,
    drain_time: Duration,
) {
    state.readiness.shutting_down();
    if !lame_duck.is_zero() {
        info!(
            ?lame_duck,
            "not ready; still accepting clients until load balancers have noticed (--lame-duck)"
        );
    }
    let mut why = "the time of --drain is over";
    let again = tokio::select! {
        () = tokio::time::sleep(lame_duck) => false,
        _ = shutdown.requested() => true,
    };
    *listeners = Listeners::default();
    drain.stop_accepting();
    if again {
        why = REQUESTED_AGAIN;
        info!("no longer accepting clients; ending open sessions now: {why}");
        drain.force();
    } else {
        info!(drain = ?drain_time, "no longer accepting clients; open sessions may finish (--drain)");
    }
    let finishing = drain.clone();
    let mut finishing = runtime.spawn(async move { finishing.finish(drain_time).await });
    let forced = tokio::select! {
        forced = &mut finishing => forced,
        _ = shutdown.requested(), if !again => {
            why = REQUESTED_AGAIN;
            info!("ending open sessions now: {why}");
            drain.force();
            finishing.await
        }
    };
    match forced {
        Ok(0) => info!("every session finished"),
        Ok(sessions) => warn!(sessions, "pgnorth ended the sessions that were still open: {why}"),
        Err(error) => warn!(%error, "waiting for sessions failed; this is a defect in pgnorth"),
    }
}

async fn proxied(proxying: JoinHandle<io::Result<Infallible>>) -> Result<()> {
    proxying
        .await?
        .context("cannot start the threads that serve sessions (--workers)")?;
    Ok(())
}
