//! The admin listener: HTTP for probes, metrics and people. What each path answers stands in `admin/pages.rs`.
//!
//! It runs on a thread of its own, where nothing blocks; every connection is bounded in time and size.

mod collect;
mod history;
mod host;
mod live;
mod operators;
mod pages;
pub mod status;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Unregistered};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

pub use self::host::Hosts;
use self::live::{Activity, Live};
pub use self::operators::Operators;
pub use self::operators::token::read as read_token;
use crate::leader::view::View;
use crate::liveness::Liveness;
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::slot::LeaderSlot;
use crate::wait_queue::WaitQueue;

const CANNOT_ACCEPT: &str = "the admin listener can't accept";

/// What the pages tell of.
#[derive(Debug)]
pub struct Facts {
    /// Who leads.
    pub slot: Arc<LeaderSlot>,
    /// Whether every thread runs.
    pub liveness: Liveness,
    /// Whether clients should be sent here.
    pub readiness: ReadinessHandle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The last changes of leader.
    pub recorder: Arc<Recorder>,
    /// Which clients wait.
    pub wait_queue: Arc<WaitQueue>,
    /// What discovery knows.
    pub view: watch::Receiver<Arc<View>>,
    /// Asked whether a fault is to be told.
    pub log_limiter: LogLimiter,
    /// Names that requests may be for.
    pub hosts: Hosts,
    /// Who may give orders, and where; `None`: nobody.
    pub operators: Option<Operators>,
}

/// What one client, or many, may take at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a request's head to arrive; also for the next request on an idle connection.
    pub head_time: Duration,
    /// The size of a request's head, in bytes.
    pub head_size: usize,
    /// From accept on, whatever the connection does; but not for a stream of events.
    pub lifetime: Duration,
    /// For an answer under way, once the lifetime is over or the process stops.
    pub farewell: Duration,
    /// Open connections. One more ends the oldest, so that clients that only sit there can't keep a probe out.
    pub connections: usize,
    /// Streams of events at once. One more is refused, and may poll.
    pub viewers: usize,
    /// The shortest time between two events.
    pub pace: Duration,
    /// How long a stream's client may leave an event unread before it is closed. The kernel takes some of them in first.
    pub stall: Duration,
}

/// A bound listener that nobody serves yet. Clients that connect before [`Admin::run`] wait in the kernel's queue.
#[derive(Debug)]
pub struct Admin {
    listener: Unregistered,
    limits: Limits,
}

/// The connections being served, the oldest first.
struct Connections {
    tasks: JoinSet<()>,
    by_age: VecDeque<AbortHandle>,
    most: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_time: Duration::from_secs(5),
            head_size: 16 * 1024,
            lifetime: Duration::from_secs(30),
            farewell: Duration::from_secs(1),
            connections: 64,
            viewers: 16,
            pace: Duration::from_millis(250),
            stall: Duration::from_secs(10),
        }
    }
}

impl Admin {
    /// Binds. `[::]` takes IPv4 too, unless the host's `net.ipv6.bindv6only` says otherwise; on a host without IPv6 it is `0.0.0.0`.
    ///
    /// # Errors
    /// A sentence that names the address and what to do about it.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::with_limits(address, Limits::default())
    }

    /// Like [`Admin::bind`], with other limits.
    ///
    /// # Errors
    /// As [`Admin::bind`].
    pub fn with_limits(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let bind = |address: SocketAddr| {
            let listener = Unregistered::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind_or_fall_back(address, bind)?;
        Ok(Self { listener, limits })
    }

    /// The address with the port that was bound.
    ///
    /// # Errors
    /// When the socket can't be asked, which is not known to happen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`, then closes the listener, lets answers under way finish for a moment, and ends. Not cancel-safe: dropped, it cuts its clients.
    ///
    /// # Errors
    /// When the runtime can't take the listener; never because of what a client does, or because an accept failed.
    pub async fn run(self, facts: Arc<Facts>, stop: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let log_limiter = facts.log_limiter.clone();
        let live = Arc::new(Live::new(facts, &self.limits));
        let serving = async {
            let mut connections = Connections::new(self.limits.connections);
            while let Some((stream, peer)) = next(&listener, &mut connections, &log_limiter, &stop).await {
                connections.make_room().await;
                connections.add(serve(stream, peer, live.clone(), self.limits, stop.child_token()));
            }
            drop(listener);
            connections.finish().await;
        };
        tokio::select! {
            () = serving => {}
            () = live.run() => {}
        }
        Ok(())
    }
}

impl Connections {
    fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            by_age: VecDeque::new(),
            most,
        }
    }

    /// Ends the oldest, as long as there are too many for one more. It waits only for tasks that were told to end.
    async fn make_room(&mut self) {
        while self.tasks.len() >= self.most {
            let Some(oldest) = self.by_age.pop_front() else { return };
            if !oldest.is_finished() {
                debug!("admin: too many connections; the oldest is closed");
                oldest.abort();
            }
            self.reap().await;
        }
    }

    fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.by_age.retain(|connection| !connection.is_finished());
        self.by_age.push_back(self.tasks.spawn(connection));
    }

    /// Waits for one connection to end; for ever, if there is none. Cancel-safe.
    async fn reap(&mut self) {
        match self.tasks.join_next().await {
            Some(result) => log_panic(result),
            None => std::future::pending().await,
        }
    }

    /// Each has been told to stop, and bounds its own end.
    async fn finish(mut self) {
        while let Some(result) = self.tasks.join_next().await {
            log_panic(result);
        }
    }
}

/// The next client, or `None` at `stop`. Meanwhile finished connections are let go.
async fn next(
    listener: &TcpListener,
    connections: &mut Connections,
    log_limiter: &LogLimiter,
    stop: &CancellationToken,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            () = connections.reap() => {}
            accepted = listener.accept() => match accepted {
                Ok(client) => return Some(client),
                Err(error) => rest_after(&error, log_limiter, stop).await,
            },
        }
    }
}

/// A client that left before it was accepted is no reason to wait. A want of files or memory is: accept would fail again at once, in a busy loop.
async fn rest_after(error: &io::Error, log_limiter: &LogLimiter, stop: &CancellationToken) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    if log_limiter.should_log(CANNOT_ACCEPT) {
        warn!(%error, "{CANNOT_ACCEPT}; it tries again each second");
    }
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(Duration::from_secs(1)) => {}
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, live: Arc<Live>, limits: Limits, stop: CancellationToken) {
    let activity = watch::Sender::new(Activity::Answering);
    let service = service_fn(|request| {
        let (live, activity, stop) = (&live, &activity, &stop);
        async move { Ok::<_, Infallible>(pages::answer(&request, peer, live, activity, stop).await) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_header_size(limits.head_size)
            // Room for a head that is too long by a little, so that its sender is told.
            .max_buf_size(2 * limits.head_size)
            .serve_connection(TokioIo::new(stream), service)
    );
    let over = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = lapse(&limits, activity.subscribe()) => {}
        }
    };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = over => {
            connection.as_mut().graceful_shutdown();
            timeout(limits.farewell, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        debug!(%peer, %error, "an admin client misbehaved, or left early");
    }
}

/// Completes when the connection's time is over: after its lifetime, or for a stream once its client has not read for too long.
async fn lapse(limits: &Limits, mut activity: watch::Receiver<Activity>) {
    sleep(limits.lifetime).await;
    loop {
        let now = *activity.borrow_and_update();
        let waited = match now {
            Activity::Answering => return,
            Activity::Waiting => activity.changed().await,
            Activity::Given(at) => match timeout_at((at + limits.stall).into(), activity.changed()).await {
                Ok(changed) => changed,
                Err(_) => return,
            },
        };
        if waited.is_err() {
            return;
        }
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "serving an admin client panicked; this is a defect in pgnorth");
    }
}

/// As the proxy's own listener does: what is wrong with the address that means "all", and is neither its port nor a right, is a host with IPv6 switched off.
fn bind_or_fall_back<L>(address: SocketAddr, bind: impl Fn(SocketAddr) -> io::Result<L>) -> io::Result<L> {
    let failed = |address, error: io::Error| io::Error::new(error.kind(), cannot_bind(address, &error));
    let error = match bind(address) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    let decided = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    if address.ip() != IpAddr::from(Ipv6Addr::UNSPECIFIED) || decided {
        return Err(failed(address, error));
    }
    let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    warn!(%address, %fallback, %error, "this host has no IPv6: the admin port is on IPv4 only");
    bind(fallback).map_err(|error| failed(fallback, error))
}

fn cannot_bind(address: SocketAddr, error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 are for root; choose a higher one",
        _ => "choose an address of this host",
    };
    format!("the admin listener can't bind {address}: {error}: {fix} (--admin or PGNORTH_ADMIN)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_the_default_address_is_all_of_ipv4() {
        // What socket(2) says where the kernel was booted with ipv6.disable=1, and under systemd's RestrictAddressFamilies=AF_INET.
        let bind = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(io::Error::from_raw_os_error(97)),
        };
        let any = "[::]:8080".parse().unwrap();
        assert_eq!(bind_or_fall_back(any, bind).unwrap(), "0.0.0.0:8080".parse().unwrap());
        let one = bind_or_fall_back("[fd00::7]:8080".parse().unwrap(), bind).unwrap_err();
        assert!(one.to_string().contains("[fd00::7]:8080"), "{one}");
    }

    #[test]
    fn a_busy_port_is_busy_for_ipv4_too() {
        let bind = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::AddrInUse.into()),
        };
        let error = bind_or_fall_back("[::]:8080".parse().unwrap(), bind).unwrap_err();
        assert!(error.to_string().contains("another process listens there"), "{error}");
    }
}
