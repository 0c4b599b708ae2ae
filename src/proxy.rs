//! The floor of sessions: listens, admits clients, and runs one session for each from accept to [`Ending`](crate::ending::Ending).
//!
//! Who leads is read from the [`LeaderSlot`]; this floor never decides it, and only reports what it sees of a leader.

mod accept;
mod buffers;
mod cancel;
mod connect;
mod dialler;
mod forward;
mod hold;
mod login;
mod opening;
mod pending;
mod record;
mod refuse;
mod session;
mod socket;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::drain::Drain;
use crate::leader::LeaderFailure;
use crate::liveness::{self, Beat, Liveness};
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::recorder::Recorder;
use crate::resolver::Resolver;
use crate::slot::LeaderSlot;
use crate::wait_queue::WaitQueue;
use buffers::Buffers;
pub(crate) use connect::{DialError, connect as dial};
use dialler::Dialler;
use forward::{Pipes, Traffic, Workers};
pub(crate) use opening::SSL_REQUEST;
use pending::Connections;
pub use refuse::RefusalTls;
use session::Forwarded;
pub use socket::BindError;

/// Clients that are told at once why they are refused: inside TLS each costs a handshake.
const REFUSALS: usize = 256;

/// PostgreSQL closes within a millisecond or two after a client has said that it terminates.
const FIN_DELAY: Duration = Duration::from_millis(20);

/// How long a client may take for its first packet: as long as PostgreSQL would give it (the default of authentication_timeout).
pub const STARTUP: Duration = Duration::from_secs(60);

/// How sessions are treated.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a client may take until its first packet is whole.
    pub startup: Duration,
    /// How long a client waits for a leader, failed dials included, before it is refused.
    pub hold: Duration,
    /// How long one dial may take, name resolution included.
    pub connect_timeout: Duration,
    /// After how long a silent leader counts as vanished; zero leaves that to the system.
    pub tcp_user_timeout: Duration,
    /// The same for clients.
    pub client_tcp_user_timeout: Duration,
    /// The budget in bytes for what the kernel queues for slow clients; zero leaves their buffers to the system.
    pub socket_buffers: usize,
    /// This host's addresses to dial from; if there is none, the system chooses.
    pub sources: Vec<IpAddr>,
    /// Sessions open at once, held ones included.
    pub max_sessions: usize,
    /// Threads that serve sessions.
    pub workers: usize,
}

/// What the proxy works with. Everything is shared with other floors, or belongs to the settings.
#[derive(Debug)]
pub struct Context {
    /// Where to, and until when.
    pub slot: Arc<LeaderSlot>,
    /// Sessions run through this.
    pub drain: Drain,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// Told which clients waited, and when the first of them reached a new leader.
    pub recorder: Arc<Recorder>,
    /// Told which clients wait now.
    pub wait_queue: Arc<WaitQueue>,
    /// Asked whether a fault is to be told.
    pub log_limiter: LogLimiter,
    /// Told that every worker runs.
    pub liveness: Liveness,
    /// Tells discovery of dials that failed and sessions that the leader's side broke. A full channel drops the complaint: others say the same.
    pub leader_failures: mpsc::Sender<LeaderFailure>,
    /// What TLS clients see that are refused.
    pub refusal_tls: RefusalTls,
    /// Limits and deadlines.
    pub settings: Settings,
}

/// Bound listeners, not yet accepting.
#[derive(Debug)]
pub struct Proxy {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

/// What all sessions share.
#[derive(Debug)]
struct Shared {
    context: Arc<Context>,
    queue: hold::Queue,
    traffic: Arc<Traffic>,
    workers: Arc<Workers<Forwarded>>,
    connections: Arc<Connections>,
    session_permits: Arc<Semaphore>,
    refusals: Semaphore,
    cancels: Semaphore,
    resolver: Resolver,
    dialler: Dialler,
    buffers: Arc<Buffers>,
}

/// Files that the proxy may have open at `max_sessions`: two sockets a session, three files a worker, pipes, clients that are no session, and listeners.
pub const fn files_needed(max_sessions: usize, workers: usize) -> usize {
    2 * max_sessions + 3 * workers + 2 * forward::MAX_PIPES + pending::RESERVE + cancel::CANCELS + 16
}

impl Proxy {
    /// Binds every address; afterwards clients can connect, and wait in the backlog for [`run`](Self::run).
    ///
    /// Of the settings, those for clients' sockets matter: they inherit them from the listener.
    pub fn bind(listen: &[SocketAddr], settings: &Settings) -> Result<Self, BindError> {
        let listeners = listen
            .iter()
            .map(|address| socket::listen(*address, settings.client_tcp_user_timeout))
            .collect::<Result<Vec<_>, _>>()?;
        let addresses = listeners
            .iter()
            .zip(listen)
            .map(|(listener, asked)| listener.local_addr().unwrap_or(*asked))
            .collect();
        Ok(Self { listeners, addresses })
    }

    /// The addresses that were bound, in the order asked for: with the real port where 0 was asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Accepts until the drain says stop; then takes what waits in the backlog and closes the listeners. Never returns by itself: sessions live on, and
    /// their workers have to be told of ends. Must be called on a tokio runtime, whose timers sessions use. An error means that the worker threads could not be started.
    pub async fn run(self, context: Arc<Context>) -> io::Result<Infallible> {
        let traffic = Arc::new(Traffic::new(&context));
        let (workers, ends) = Workers::start(context.settings.workers, &traffic)?;
        let workers = Arc::new(workers);
        let shared = Arc::new(Shared::new(context.clone(), traffic, workers.clone()));
        let mut tasks = JoinSet::new();
        for listener in self.listeners {
            let (listener, shared) = (Arc::new(listener), shared.clone());
            // Tracked like a session: the drain must not be over before the backlog has been taken.
            let tracked = context.drain.token();
            workers.on_each(move |executor| {
                let accepting = accept::run(listener.clone(), executor.clone(), shared.clone());
                let tracked = tracked.clone();
                executor.spawn(async move {
                    accepting.await;
                    drop(tracked);
                });
            });
        }
        drop(shared);
        for end in ends {
            tasks.spawn(async { end.await.expect("a worker thread broke down") });
        }
        tasks.spawn(watch_workers(context.liveness.clone(), workers.clone()));
        tasks.spawn(notify_workers(context, workers));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                resume_unwind(panic);
            }
        }
        // The task before this line never ends.
        std::future::pending().await
    }
}

/// Passes the ends of epochs, and the order to end every session, on to the workers.
async fn notify_workers(context: Arc<Context>, workers: Arc<Workers<Forwarded>>) {
    let mut endings = context.slot.endings();
    let forced = context.drain.forced();
    loop {
        tokio::select! {
            // The slot lives as long as the context.
            _ = endings.changed() => {}
            () = forced.cancelled(), if !forced.is_cancelled() => {}
        }
        workers.check_owners();
    }
}

/// Makes each worker show that it runs, and shows that the thread which keeps their time does.
async fn watch_workers(liveness: Liveness, workers: Arc<Workers<Forwarded>>) {
    let traffic = liveness.watch("traffic");
    let workers_beats: Vec<Beat> = (0..workers.count())
        .map(|number| liveness.watch(format!("worker-{number}")))
        .collect();
    loop {
        traffic.beat();
        workers.ask_for(&workers_beats);
        tokio::time::sleep(liveness::EVERY).await;
    }
}

impl Traffic {
    fn new(context: &Context) -> Self {
        Self {
            pipes: Pipes::default(),
            to_leader: context.metrics.bytes_to_leader.clone(),
            to_client: context.metrics.bytes_to_client.clone(),
            client_timeout: context.settings.client_tcp_user_timeout,
            leader_timeout: context.settings.tcp_user_timeout,
            fin_delay: FIN_DELAY,
        }
    }
}

impl Shared {
    fn new(context: Arc<Context>, traffic: Arc<Traffic>, workers: Arc<Workers<Forwarded>>) -> Self {
        let max_sessions = context.settings.max_sessions;
        let sessions_max = &context.metrics.sessions_max;
        sessions_max.set(i64::try_from(max_sessions).unwrap_or(i64::MAX));
        Self {
            queue: hold::Queue::new(context.wait_queue.clone()),
            traffic,
            workers,
            connections: Connections::new(max_sessions.saturating_add(pending::RESERVE)),
            session_permits: Arc::new(Semaphore::new(max_sessions.min(Semaphore::MAX_PERMITS))),
            refusals: Semaphore::new(REFUSALS),
            cancels: Semaphore::new(cancel::CANCELS),
            resolver: Resolver::default(),
            buffers: Buffers::new(context.settings.socket_buffers),
            dialler: Dialler::new(
                context.settings.sources.clone(),
                context.settings.tcp_user_timeout,
                context.metrics.clone(),
            ),
            context,
        }
    }
}
