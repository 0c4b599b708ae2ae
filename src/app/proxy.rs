//! The proxy as a process: its listeners, its threads, and a shutdown that lets sessions finish.

use std::convert::Infallible;
use std::future::pending;
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
use super::inherited::{Inherited, Listeners};
use super::reload::{self, Attempt, ReloadError, Replies, Request, Requests, RouteSlots, Start, Successor};
use super::service::Service;
use super::successor::{self, Predecessor};
use super::{AppState, Shutdown, Started, Tasks, admin_thread, ended_early, files, no_error, workers};
use crate::admin::{Admin, BoundRoute, Operators};
use crate::command_queue::CommandQueue;
use crate::config;
use crate::discovery::routes::FollowedRoute;
use crate::drain::Drain;
use crate::kubernetes::Access;
use crate::metrics::{Metrics, SessionState};
use crate::proxy::{self, Context, Proxy, RefusalTls, STARTUP, Sessions, Settings};

/// The name of the admin port's task.
const ADMIN: &str = "the admin port";

/// The result of a request for a reload.
enum Reload {
    Failed,
    /// A shutdown was requested meanwhile.
    Aborted,
    Done(Successor, Replies),
}

/// A running proxy. Only [`Bound::run`] ends it in order: dropped without a shutdown, it leaves threads that serve open
/// sessions and the admin port.
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
    traffic: Traffic,
    listeners: Listeners,
    slots: RouteSlots,
    sessions: Sessions,
    /// Cancelled when clients are accepted: at once, or when a process that is replaced says so.
    accept: CancellationToken,
    service: Service,
    reloads: Requests,
    start: Start,
}

/// The runtime that keeps time for sessions and resolves names for them. Sessions themselves run on workers.
struct Traffic(Option<Runtime>);

/// Binds the ports and starts the proxy, as `main` does. The calling runtime does the control work and should do
/// nothing else.
///
/// # Errors
/// Returns a text that names the setting that cannot be used, or the resource that is missing.
pub async fn serve(settings: &config::Proxy, metrics: Arc<Metrics>, shutdown: Shutdown) -> Result<Bound> {
    serve_from(Started::default(), Requests::new(), settings, metrics, shutdown).await
}

/// Does the same for a process that systemd, or a pgnorth that it replaces, has started.
pub(super) async fn serve_from(
    started: Started,
    reloads: Requests,
    settings: &config::Proxy,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> Result<Bound> {
    let state = AppState::new(metrics);
    let traffic = Traffic::start()?;
    let mut inherited = match &started.predecessor {
        Some(predecessor) => predecessor.listeners()?,
        None => Inherited::from_systemd(started.activated),
    };
    let mut listeners = Listeners::default();
    let drain = Drain::default();
    let session_settings = session_settings(settings, &state.metrics);
    let admin = admin(settings.admin, &mut inherited, &mut listeners)?;
    let followed: Vec<_> = settings.routes.iter().map(|route| state.follow(route)).collect();
    let (mut proxy, mut routes, mut slots) = (Proxy::default(), Vec::new(), RouteSlots::new());
    for (route, followed) in settings.routes.iter().zip(&followed) {
        let slot = followed.as_ref().map_or(&state.slot, |followed| &followed.slot).clone();
        slots.push((route.conditions.kind, slot.clone()));
        let to = proxy::Route {
            kind: route.conditions.kind,
            slot,
            hold: route.hold.unwrap_or(settings.hold),
        };
        let mut bound = listen(
            route.listen,
            to,
            &mut proxy,
            &session_settings,
            &mut inherited,
            &mut listeners,
            &drain,
        )?;
        bound.fitness = followed.as_ref().map(|followed| followed.fitness.subscribe());
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
        traffic,
        listeners,
        slots,
        sessions: proxy.sessions(),
        accept: CancellationToken::new(),
        reloads,
        start: Start {
            arguments: started.arguments,
            is_successor: started.predecessor.is_some(),
        },
    };
    bound.start(settings, session_settings, admin, proxy, followed).await?;
    bound.begin(started.predecessor)?;
    Ok(bound)
}

impl Bound {
    /// Starts discovery, the admin port and the proxy.
    async fn start(
        &mut self,
        settings: &config::Proxy,
        sessions: Settings,
        admin: Admin,
        proxy: Proxy,
        followed: Vec<Option<FollowedRoute>>,
    ) -> Result<()> {
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
        let followed: Vec<_> = followed.into_iter().flatten().collect();
        let (state, tasks) = (&self.state, &mut self.tasks);
        let facts = state.admin_facts(operators, &settings.admin_hosts, self.routes.clone());
        let leader_failures = discovery::start(&settings.discovery, access, grace, followed, commands, state, tasks)?;
        let context = Arc::new(Context {
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
        let serving = admin_thread::start(admin, facts, self.accept.clone(), self.stop_admin.clone())?;
        tasks.spawn(async { (ADMIN, serving.await) });
        let accept = self.accept.clone();
        let proxying = self.traffic.handle().spawn(async move {
            accept.cancelled().await;
            proxy.run(context).await
        });
        tasks.spawn(async { ("the proxy", proxied(proxying).await) });
        Ok(())
    }

    /// Accepts clients, at once or when the replaced process says so, and reports to the service manager.
    fn begin(&mut self, predecessor: Option<Predecessor>) -> Result<()> {
        match predecessor {
            None => {
                self.accept.cancel();
                self.service.main.cancel();
            }
            Some(predecessor) => {
                let following = predecessor.follow(successor::Facts {
                    slot: self.state.slot.clone(),
                    slots: self.slots.clone(),
                    readiness: self.state.readiness.clone(),
                    sessions: self.sessions.clone(),
                    accept: self.accept.clone(),
                    main: self.service.main.clone(),
                })?;
                self.tasks.spawn(async { ("the hand-over", following.await) });
            }
        }
        let reporting = self.service.clone().report();
        self.tasks
            .spawn(async { ("the service's status", no_error(reporting).await) });
        let (accept, routes, admin) = (self.accept.clone(), self.routes.clone(), self.admin);
        self.tasks.spawn(async move {
            accept.cancelled().await;
            for (place, BoundRoute { kind, address, .. }) in routes.iter().enumerate() {
                match place {
                    0 => info!(postgres = %address, %admin, "listening"),
                    _ => info!(route = %kind, %address, "listening for clients of a further route"),
                }
            }
            pending().await
        });
        Ok(())
    }

    /// Serves until a shutdown is requested or a successor has taken over, then lets sessions finish.
    ///
    /// # Errors
    /// Returns the cause if a long-lived task ends before that.
    pub async fn run(mut self) -> Result<()> {
        let main = self.service.main.clone();
        let mut listening = Box::pin(self.reloads.listen());
        let successor = loop {
            tokio::select! {
                by = self.shutdown.requested() => {
                    info!(by, "shutdown requested");
                    break None;
                }
                Some(task) = self.tasks.join_next() => return Err(ended_early(task)),
                request = next_after(&main, &mut self.reloads) => match self.reload(request).await? {
                    Reload::Failed => {}
                    Reload::Aborted => break None,
                    Reload::Done(successor, replies) => break Some((successor, replies)),
                },
                () = &mut listening => {}
            }
        };
        drop(listening);
        self.service.over.cancel();
        match successor {
            Some((successor, replies)) => self.retire(&successor, replies).await,
            None => self.shut_down().await,
        }
    }

    /// Tries to be replaced.
    ///
    /// # Errors
    /// Returns the cause if a long-lived task ends meanwhile.
    async fn reload(&mut self, request: Request) -> Result<Reload> {
        let Request { by, change, replies } = request;
        info!(by, "reload requested");
        if let Some(why) = reload::unsupported(self.start.is_successor) {
            return Ok(self.not_reloaded(replies, &ReloadError::Unsupported(why)).await);
        }
        self.service.notifier.reloading();
        let aborted = CancellationToken::new();
        let attempt = Attempt {
            start: self.start.clone(),
            change,
            listeners: self
                .listeners
                .copies()
                .context("cannot copy the listeners for a reload")?,
            slot: self.state.slot.clone(),
            slots: self.slots.clone(),
            drain: self.drain.clone(),
            sessions: self.sessions.clone(),
            aborted: aborted.clone(),
        };
        // It ends soon after it is aborted, so that no successor outlives this process unseen.
        let _abort = aborted.clone().drop_guard();
        let mut attempt = tokio::task::spawn_blocking(|| attempt.run());
        let outcome = tokio::select! {
            outcome = &mut attempt => outcome?,
            Some(task) = self.tasks.join_next() => return Err(ended_early(task)),
            by = self.shutdown.requested() => {
                info!(by, "shutdown requested during a reload");
                aborted.cancel();
                attempt.await?
            }
        };
        match outcome {
            Ok(successor) => Ok(Reload::Done(successor, replies)),
            Err(error) => {
                let failed = self.not_reloaded(replies, &error).await;
                Ok(if aborted.is_cancelled() {
                    Reload::Aborted
                } else {
                    failed
                })
            }
        }
    }

    async fn not_reloaded(&self, replies: Replies, error: &ReloadError) -> Reload {
        warn!(%error, "not reloaded; this process goes on as before");
        self.service.ready();
        let text = format!("not reloaded: {error}; the running process goes on as before");
        replies.send(false, text).await;
        Reload::Failed
    }

    /// Stops accepting, because a successor does, and lets sessions finish while discovery follows the leader. A request
    /// to shut down gives them `--drain`.
    async fn retire(mut self, successor: &Successor, replies: Replies) -> Result<()> {
        self.drain.pause_accepting(true);
        self.drain.stop_accepting();
        self.listeners = Listeners::default();
        self.stop_admin.cancel();
        self.service.notifier.main_process(successor.pid());
        successor.done();
        let pid = successor.pid();
        replies
            .send(true, format!("reloaded: process {pid} has taken over"))
            .await;
        let open = self.state.metrics.sessions(SessionState::Forwarding).get();
        info!(
            successor = pid,
            sessions = open,
            "reloaded: the new process accepts clients; the sessions of this one may finish here"
        );
        let drain = self.drain.clone();
        let mut finishing = self
            .traffic
            .handle()
            .spawn(async move { drain.finish(Duration::MAX).await });
        loop {
            tokio::select! {
                _ = &mut finishing => {
                    info!("every session finished");
                    return Ok(());
                }
                Some(task) = self.tasks.join_next() => if !matches!(task, Ok((ADMIN, Ok(())))) {
                    return Err(ended_early(task));
                },
                by = self.shutdown.requested() => {
                    info!(by, "shutdown requested");
                    break;
                }
            }
        }
        self.lame_duck = Duration::ZERO;
        self.shut_down().await
    }

    async fn shut_down(mut self) -> Result<()> {
        self.service.notifier.stopping();
        let finishing = finish(
            &self.state,
            &self.drain,
            self.traffic.handle(),
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

/// Takes the listener of the admin port from another process, or binds one.
fn admin(asked: SocketAddr, inherited: &mut Inherited, listeners: &mut Listeners) -> Result<Admin> {
    let taken = inherited.take("admin", asked)?;
    let activated = matches!(taken, Some((_, true)));
    let admin = match taken {
        Some((listener, _)) => Admin::adopt(listener),
        None => Admin::bind(asked),
    };
    let admin = admin.context("cannot serve the admin port (--admin)")?;
    listeners.keep("admin", asked, activated, admin.listener())?;
    Ok(admin)
}

/// Takes the listener of a route from another process, or binds one. A listener of systemd outlives this process, and so
/// do the clients in its backlog.
fn listen(
    asked: SocketAddr,
    route: proxy::Route,
    proxy: &mut Proxy,
    settings: &Settings,
    inherited: &mut Inherited,
    listeners: &mut Listeners,
    drain: &Drain,
) -> Result<BoundRoute> {
    let (kind, slot) = (route.kind, route.slot.clone());
    let cannot = || format!("cannot listen for clients of the route {kind} (--listen, --route)");
    let taken = inherited.take("listen", asked)?;
    let activated = matches!(taken, Some((_, true)));
    let listener = match taken {
        Some((listener, _)) => proxy.adopt(listener, route, settings).with_context(cannot)?,
        None => proxy.bind(asked, route, settings).with_context(cannot)?,
    };
    if activated {
        drain.leave_backlog();
    }
    listeners.keep("listen", asked, activated, listener)?;
    Ok(BoundRoute {
        kind,
        address: listener.local_addr()?,
        slot,
        fitness: None,
    })
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
    listeners: &mut Listeners,
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
    *listeners = Listeners::default();
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

/// Waits for a request for a reload; a process that is to replace another one takes none before it has.
async fn next_after(main: &CancellationToken, reloads: &mut Requests) -> Request {
    main.cancelled().await;
    reloads.next().await
}

async fn proxied(proxying: JoinHandle<io::Result<Infallible>>) -> Result<()> {
    proxying
        .await?
        .context("cannot start the threads that serve sessions (--workers)")?;
    Ok(())
}
