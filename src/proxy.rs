//! The session layer: listens, admits clients, and serves each client from accept to its
//! [`Ending`](crate::ending::Ending).
//!
//! The proxy reads the members to dial from the [`RouteSlot`] of each route. It does not choose those members; it only
//! reports the failures that it sees.

mod accept;
mod buffers;
mod cancel;
mod connect;
mod departure;
mod dialler;
mod forward;
mod forwarded;
mod header;
mod hold;
mod login;
mod opening;
mod packets;
mod pending;
mod record;
mod refuse;
mod session;
mod socket;
mod transfer;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Network;
use crate::drain::Drain;
use crate::leader::LeaderFailure;
use crate::liveness::{self, Heartbeat, Liveness};
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::resolver::Resolver;
use crate::route::{RouteKind, Upstream};
use crate::slot::RouteSlot;
use crate::wait_queue::WaitQueue;
use buffers::Buffers;
pub(crate) use connect::{DialError, connect as dial};
use departure::Departure;
use dialler::Dialler;
use forward::{Pipes, Traffic, Workers};
use forwarded::Forwarded;
pub(crate) use packets::SSL_REQUEST;
use pending::Connections;
pub use refuse::RefusalTls;
pub use socket::{BindError, keep_port};
pub use transfer::{IncompleteTransferError, Parked, Passed, Resumed, SESSION_FORMAT, Sessions};

/// Maximum number of clients that are refused at the same time after a wait for a leader. Inside TLS, each refusal
/// costs a handshake.
const REFUSALS: usize = 256;

/// Time for which a client's FIN is held back, so that the leader's FIN can come first. PostgreSQL closes within 2 ms
/// after a client's Terminate message.
const FIN_DELAY: Duration = Duration::from_millis(20);

/// Default deadline for a client's first packet. It equals PostgreSQL's default authentication_timeout.
pub const STARTUP: Duration = Duration::from_secs(60);

/// Limits and deadlines of sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time that a client has to send its whole first packet.
    pub startup: Duration,
    /// Deadline of one dial, name resolution included.
    pub connect_timeout: Duration,
    /// TCP_USER_TIMEOUT of connections to the leader: a host that does not answer for this long counts as gone. Zero
    /// keeps the system's default.
    pub tcp_user_timeout: Duration,
    /// TCP_USER_TIMEOUT of clients' connections, likewise.
    pub client_tcp_user_timeout: Duration,
    /// Budget in bytes for data that the kernel queues for slow clients; zero leaves the buffer sizes to the system.
    pub socket_buffers: usize,
    /// Addresses of this host to dial from; if there are none, the system chooses the address.
    pub sources: Vec<IpAddr>,
    /// Networks of load balancers that send a PROXY protocol header.
    pub proxy_protocol: Vec<Network>,
    /// Maximum number of open sessions, held ones included.
    pub max_sessions: usize,
    /// Number of threads that serve sessions.
    pub workers: usize,
}

/// The proxy's handles on the rest of the process, and its settings.
#[derive(Debug)]
pub struct Dependencies {
    /// Tracks the sessions, and ends them at shutdown.
    pub drain: Drain,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Records the waits of clients, and the first session on a new leader.
    pub recorder: Arc<Recorder>,
    /// The clients that are waiting now.
    pub wait_queue: Arc<WaitQueue>,
    /// Decides whether a repeated fault is logged again.
    pub log_limiter: LogLimiter,
    /// Receives the heartbeats of every worker.
    pub liveness: Liveness,
    /// Reports to discovery failed dials, leaders that did not accept a client, and sessions that lost the leader's
    /// connection. A report is dropped if the channel is full, because it would only repeat the queued reports.
    pub leader_failures: mpsc::Sender<LeaderFailure>,
    /// Certificate for TLS clients that are refused.
    pub refusal_tls: RefusalTls,
    /// Limits and deadlines.
    pub settings: Settings,
}

/// The route of a listener's clients.
#[derive(Clone, Debug)]
pub struct Route {
    /// The kind of members that it leads to.
    pub kind: RouteKind,
    /// The members to dial, and the end signals of their sessions.
    pub slot: Arc<RouteSlot>,
    /// The choice of the server on a member that sessions go to: PostgreSQL, or its pooler, whose failures are not the
    /// member's.
    pub upstream: Upstream,
    /// Time that a client waits for a member, failed dials included, before it is refused.
    pub hold: Duration,
}

/// The bound listeners, before they accept clients.
#[derive(Debug, Default)]
pub struct Proxy {
    listeners: Vec<Listener>,
    sessions: Sessions,
}

/// A bound listener and the route of its clients.
#[derive(Debug)]
struct Listener {
    socket: Arc<TcpListener>,
    /// True for a listener of systemd, which stays open after this process has closed it.
    activated: bool,
    route: Route,
    /// The replaced process's listeners at other addresses with the same port.
    former: Vec<Arc<TcpListener>>,
}

/// The signals that tell a new process when to accept clients.
#[derive(Clone, Debug, Default)]
pub struct Accepting {
    /// Cancelled when accepting is to begin.
    pub begin: CancellationToken,
    /// Cancelled when this process becomes the main process: the replaced process, if any, has closed its listeners, or
    /// contact with it was lost.
    pub alone: CancellationToken,
}

/// State that all sessions of one listener share. All listeners share every field but the first three.
#[derive(Clone, Debug)]
struct Shared {
    port: u16,
    route: Route,
    queue: hold::DialQueue,
    dependencies: Arc<Dependencies>,
    traffic: Arc<Traffic>,
    workers: Arc<Workers<Forwarded>>,
    connections: Arc<Connections>,
    session_permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    cancels: Arc<Semaphore>,
    resolver: Resolver,
    dialler: Arc<Dialler>,
    buffers: Arc<Buffers>,
    departure: Arc<Departure>,
}

/// Returns the number of files that the proxy may have open at `max_sessions`: two sockets per session, three files
/// per worker, pipes, clients without a session, cancel requests, and listeners.
pub const fn files_needed(max_sessions: usize, workers: usize) -> usize {
    2 * max_sessions + 3 * workers + 2 * forward::MAX_PIPES + pending::RESERVE + cancel::CANCELS + 16
}

impl Proxy {
    /// Binds an address for this route. Afterwards clients can connect, and wait in the backlog for
    /// [`run`](Self::run). Returns the listener.
    ///
    /// Sets the options of clients' sockets on the listener, from which those sockets inherit them.
    pub fn bind(&mut self, listen: SocketAddr, route: Route, settings: &Settings) -> Result<&TcpListener, BindError> {
        let socket = socket::listen(listen, settings.client_tcp_user_timeout)?;
        Ok(self.add(socket, false, route))
    }

    /// Adds a listener that another process has opened, and sets the same options of clients' sockets as
    /// [`bind`](Self::bind). `activated` is true for a listener of systemd.
    pub fn adopt(
        &mut self,
        socket: TcpListener,
        activated: bool,
        route: Route,
        settings: &Settings,
    ) -> io::Result<&TcpListener> {
        socket::adopt(&socket, settings.client_tcp_user_timeout)?;
        Ok(self.add(socket, activated, route))
    }

    /// Binds an address while the replaced process listens on the same port at other addresses (`former`). Clients of
    /// the former listeners are accepted, too, until that process has closed them.
    pub fn bind_beside(
        &mut self,
        listen: SocketAddr,
        former: Vec<TcpListener>,
        route: Route,
        settings: &Settings,
    ) -> Result<&TcpListener, BindError> {
        let socket = socket::bind_beside(listen, &former, settings.client_tcp_user_timeout)?;
        self.add(socket, false, route);
        let last = self.listeners.len() - 1;
        let own = &mut self.listeners[last];
        own.former = former.into_iter().map(Arc::new).collect();
        Ok(&own.socket)
    }

    /// Returns a handle on its sessions, which another process may take over.
    pub fn sessions(&self) -> Sessions {
        self.sessions.clone()
    }

    fn add(&mut self, socket: TcpListener, activated: bool, route: Route) -> &TcpListener {
        self.listeners.push(Listener {
            socket: Arc::new(socket),
            activated,
            route,
            former: Vec::new(),
        });
        &self.listeners[self.listeners.len() - 1].socket
    }

    /// Accepts clients from [`Accepting::begin`] until the drain stops accepting; then accepts the clients in the
    /// backlog, unless they are left to systemd, and closes the listeners. Clients of another process may be resumed
    /// before [`Accepting::begin`]. Must be called on a tokio runtime, because sessions use its timers. Returns only on
    /// an error, for example if the worker threads cannot be started: after the listeners are closed, open sessions
    /// continue, and their workers must still be notified when an epoch ends.
    pub async fn run(self, dependencies: Arc<Dependencies>, accepting: Accepting) -> io::Result<Infallible> {
        let traffic = Arc::new(Traffic::new(&dependencies));
        let (workers, ends) = Workers::start(dependencies.settings.workers, &traffic)?;
        let workers = Arc::new(workers);
        let mut tasks = JoinSet::new();
        let first = self.listeners.first().expect("a proxy has a listener");
        let endings = first.route.slot.endings();
        let shared = Shared::new(first.route.clone(), dependencies.clone(), traffic, workers.clone());
        let (mut listeners, mut former) = (Vec::new(), Vec::new());
        for listener in self.listeners {
            let port = listener.socket.local_addr()?.port();
            let shared = Arc::new(shared.on(port, listener.route));
            former.extend(listener.former.into_iter().map(|socket| (socket, shared.clone())));
            listeners.push((listener.socket, listener.activated, shared));
        }
        // A proxy runs once.
        let _was_unset = self
            .sessions
            .set(listeners.iter().map(|(_, _, shared)| shared.clone()).collect());
        for (socket, activated, shared) in listeners {
            // The drain must not be over before the backlog is empty.
            let (tracked, begin) = (dependencies.drain.accept_loop(), accepting.begin.clone());
            let stop = dependencies.drain.accepting_stopped();
            workers.on_each(move |executor| {
                let turns = accept::Turns {
                    begin: begin.clone(),
                    stop: stop.clone(),
                    leaves_backlog: activated,
                };
                let accepting = accept::run(socket.clone(), executor.clone(), shared.clone(), turns);
                let tracked = tracked.clone();
                executor.spawn(async move {
                    accepting.await;
                    drop(tracked);
                });
            });
        }
        for (socket, shared) in former {
            tasks.spawn(accept::from_former(socket, workers.clone(), shared, accepting.clone()));
        }
        for end in ends {
            tasks.spawn(async { end.await.expect("a worker thread panicked") });
        }
        tasks.spawn(watch_workers(dependencies.liveness.clone(), workers.clone()));
        tasks.spawn(notify_workers(endings, dependencies, workers));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                resume_unwind(panic);
            }
        }
        // `notify_workers` never ends.
        std::future::pending().await
    }
}

/// Notifies the workers of the end of each epoch, and of the forced end of all sessions.
async fn notify_workers(
    mut endings: watch::Receiver<()>,
    dependencies: Arc<Dependencies>,
    workers: Arc<Workers<Forwarded>>,
) {
    let forced = dependencies.drain.forced();
    loop {
        tokio::select! {
            // This cannot fail: the slot lives as long as the sessions' shared state.
            _ = endings.changed() => {}
            () = forced.cancelled(), if !forced.is_cancelled() => {}
        }
        workers.check_owners();
    }
}

/// Records heartbeats of the runtime that runs the workers' timers, and requests one from each worker.
async fn watch_workers(liveness: Liveness, workers: Arc<Workers<Forwarded>>) {
    let traffic = liveness.watch("traffic");
    let heartbeats: Vec<Heartbeat> = (0..workers.count())
        .map(|number| liveness.watch(format!("worker-{number}")))
        .collect();
    loop {
        traffic.record();
        workers.request_heartbeats(&heartbeats);
        tokio::time::sleep(liveness::EVERY).await;
    }
}

impl Traffic {
    fn new(dependencies: &Dependencies) -> Self {
        Self {
            pipes: Pipes::default(),
            to_leader: dependencies.metrics.bytes_to_leader.clone(),
            to_client: dependencies.metrics.bytes_to_client.clone(),
            client_timeout: dependencies.settings.client_tcp_user_timeout,
            leader_timeout: dependencies.settings.tcp_user_timeout,
            fin_delay: FIN_DELAY,
        }
    }
}

impl Shared {
    fn new(
        route: Route,
        dependencies: Arc<Dependencies>,
        traffic: Arc<Traffic>,
        workers: Arc<Workers<Forwarded>>,
    ) -> Self {
        let max_sessions = dependencies.settings.max_sessions;
        let sessions_max = &dependencies.metrics.sessions_max;
        sessions_max.set(i64::try_from(max_sessions).unwrap_or(i64::MAX));
        Self {
            port: 0,
            route,
            queue: hold::DialQueue::new(dependencies.wait_queue.clone()),
            traffic,
            workers,
            connections: Connections::new(max_sessions.saturating_add(pending::RESERVE)),
            session_permits: Arc::new(Semaphore::new(max_sessions.min(Semaphore::MAX_PERMITS))),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            cancels: Arc::new(Semaphore::new(cancel::CANCELS)),
            resolver: Resolver::default(),
            buffers: Buffers::new(dependencies.settings.socket_buffers),
            departure: Departure::new(),
            dialler: Arc::new(Dialler::new(
                dependencies.settings.sources.clone(),
                dependencies.settings.tcp_user_timeout,
                dependencies.metrics.clone(),
            )),
            dependencies,
        }
    }

    /// Returns the state for another listener's sessions. Each listener has a separate queue: clients that wait for a
    /// replica must not use up the permits of clients of the primary.
    fn on(&self, port: u16, route: Route) -> Self {
        Self {
            port,
            route,
            queue: hold::DialQueue::new(self.dependencies.wait_queue.clone()),
            ..self.clone()
        }
    }
}
