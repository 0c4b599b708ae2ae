//! The admin listener: HTTP for probes, scrapers, browsers and operators. `admin/pages.rs` has the answers.
//!
//! It runs on its own thread, where nothing blocks, and bounds every connection in time and size.

mod collect;
mod connections;
mod endpoints;
mod history;
mod host;
mod live;
mod operators;
mod pages;
pub mod status;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Unregistered};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::connections::{Connections, serve};
pub use self::endpoints::{ENDPOINTS, Endpoint};
pub use self::host::Hosts;
use self::live::Live;
pub use self::operators::Operators;
pub use self::operators::token::read as read_token;
use crate::leader::fit::Fitness;
use crate::leader::view::View;
use crate::liveness::Liveness;
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::route::{RouteKind, Upstream};
use crate::slot::RouteSlot;
use crate::wait_queue::WaitQueue;

const CANNOT_ACCEPT: &str = "the admin port cannot accept connections";

/// The values that the pages show.
#[derive(Debug)]
pub struct Facts {
    /// The current decision about the primary.
    pub slot: Arc<RouteSlot>,
    /// The proxy's listeners; empty for a publisher or a watcher.
    pub routes: Vec<BoundRoute>,
    /// The liveness of the process's threads.
    pub liveness: Liveness,
    /// The readiness that load balancers see.
    pub readiness: ReadinessHandle,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The last changes of leader.
    pub recorder: Arc<Recorder>,
    /// The clients that wait.
    pub wait_queue: Arc<WaitQueue>,
    /// Discovery's view of the cluster.
    pub view: watch::Receiver<Arc<View>>,
    /// Limits repeated log lines.
    pub log_limiter: LogLimiter,
    /// The host names that requests may have.
    pub hosts: Hosts,
    /// Accepts operator commands; `None` if they are off.
    pub operators: Option<Operators>,
}

/// A listener for PostgreSQL clients, and the decision about its route.
#[derive(Clone, Debug)]
pub struct BoundRoute {
    /// The kind of route.
    pub kind: RouteKind,
    /// The server of a member that this route's sessions go to.
    pub upstream: Upstream,
    /// The address that was bound.
    pub address: SocketAddr,
    /// The members that clients go to.
    pub slot: Arc<RouteSlot>,
    /// The newest outcome for each member; `None` for a route to the primary.
    pub fitness: Option<watch::Receiver<Arc<Fitness>>>,
}

/// The limits for admin clients.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time for a request's head to arrive, also for the next request on an idle connection.
    pub head_time: Duration,
    /// Size of a request's head, in bytes.
    pub head_size: usize,
    /// Lifetime of a connection from accept. A stream of events is not limited.
    pub lifetime: Duration,
    /// Time to finish an answer after the lifetime, or after the process stops.
    pub farewell: Duration,
    /// Maximum number of open connections. A further connection closes the oldest one, so that idle clients cannot keep
    /// a probe out.
    pub connections: usize,
    /// Maximum number of open streams of events. A further client is refused, and can poll.
    pub viewers: usize,
    /// Shortest time between two events.
    pub pace: Duration,
    /// Time for which a stream's client may leave an event unread. The kernel buffers some events first.
    pub stall: Duration,
}

/// A bound listener. Clients that connect before [`Admin::run`] wait in the kernel's queue.
#[derive(Debug)]
pub struct Admin {
    listener: Unregistered,
    limits: Limits,
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
    /// Binds the address. `[::]` also accepts IPv4, unless the host sets `net.ipv6.bindv6only`. On a host without
    /// IPv6, `0.0.0.0` is bound instead.
    ///
    /// # Errors
    /// Returns an error whose text names the address and the fix.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::with_limits(address, Limits::default())
    }

    /// Binds like [`Admin::bind`], with other limits.
    ///
    /// # Errors
    /// Returns the errors of [`Admin::bind`].
    pub fn with_limits(address: SocketAddr, limits: Limits) -> io::Result<Self> {
        let bind = |address: SocketAddr| {
            let listener = Unregistered::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = bind_or_fall_back(address, bind)?;
        Ok(Self { listener, limits })
    }

    /// Adopts a listener that another process has opened.
    ///
    /// # Errors
    /// Returns the system's error if the listener cannot be used.
    pub fn adopt(listener: Unregistered) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let limits = Limits::default();
        Ok(Self { listener, limits })
    }

    /// Returns the listener, for another process to share it.
    pub fn listener(&self) -> &Unregistered {
        &self.listener
    }

    /// Returns the address, with the port that was bound.
    ///
    /// # Errors
    /// Returns the system's error if the socket has no address, which should not happen.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled, then closes the listener and gives open answers a moment to finish. Not
    /// cancel-safe: dropping the future disconnects the clients.
    ///
    /// # Errors
    /// Returns an error if the runtime cannot register the listener. Errors of clients and of accept are not returned.
    pub async fn run(self, facts: Arc<Facts>, stop: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::from_std(self.listener)?;
        let log_limiter = facts.log_limiter.clone();
        let live = Arc::new(Live::new(facts, &self.limits));
        let serving = async {
            let mut connections = Connections::new(self.limits.connections);
            while let Some((stream, peer)) = next(&listener, &mut connections, &log_limiter, &stop).await {
                connections.evict_oldest().await;
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

/// Returns the next client, or `None` when `stop` is cancelled. Removes finished connections while it waits.
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

/// Waits a second after accept has failed, because it would fail again immediately, for example for lack of files or
/// memory. Does not wait if only the client disconnected before accept.
async fn rest_after(error: &io::Error, log_limiter: &LogLimiter, stop: &CancellationToken) {
    if error.kind() == io::ErrorKind::ConnectionAborted {
        return;
    }
    if log_limiter.should_log(CANNOT_ACCEPT) {
        warn!(%error, "{CANNOT_ACCEPT}; pgnorth retries every second");
    }
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(Duration::from_secs(1)) => {}
    }
}

/// Binds `address`, or `0.0.0.0` in place of `[::]` if IPv6 is off. Any error except "address in use" and "permission
/// denied" counts as a sign that IPv6 is off.
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
    warn!(%address, %fallback, %error, "the admin port cannot listen on IPv6; falling back to IPv4 only");
    bind(fallback).map_err(|error| failed(fallback, error))
}

fn cannot_bind(address: SocketAddr, error: &io::Error) -> String {
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => "another process listens there; choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need CAP_NET_BIND_SERVICE; choose a higher port",
        _ => "choose an address of this host",
    };
    format!("the admin port cannot listen on {address}: {error}: {fix} (--admin or PGNORTH_ADMIN)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_the_default_address_is_all_of_ipv4() {
        // The errors of socket(2) on a kernel that was booted with ipv6.disable=1, and under systemd's
        // RestrictAddressFamilies=AF_INET.
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
