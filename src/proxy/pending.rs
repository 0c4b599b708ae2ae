//! Clients that were accepted and have not sent their first packet. Such a client has a connection, but no session
//! permit of `--max-sessions` and no connection to the leader.
//!
//! PostgreSQL's clients send their first packet immediately. Health checks by TCP connect, port scans and attackers do
//! not. They have as much time as PostgreSQL allows by default, but when connections run out, the client that has been
//! pending longest is closed to make room for the next one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::Shared;
use super::forward::{Executor, Socket};
use super::forwarded::{Admission, Forwarded};
use super::opening::{Opening, Purpose};
use super::refuse::{SqlState, refuse, send_error};
use super::session::{Hold, Session};
use super::transfer::{ParkedClient, WaitingClient};
use crate::ending::Ending;
use crate::metrics::Metrics;

/// Number of connections beyond `--max-sessions`, for clients that have not sent their first packet: it may be a
/// CancelRequest, or pgnorth may have to refuse the client because all sessions are in use.
pub(super) const RESERVE: usize = 256;
const NO_HEADER: &str = "closed a connection without a valid PROXY protocol header";
/// Time that a pending client has left once accepting has stopped. A first packet in flight arrives within this time.
const AT_SHUTDOWN: Duration = Duration::from_secs(1);

/// The number of connections that clients may still open, and the pending clients.
#[derive(Debug)]
pub(super) struct Connections {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Negative while evicted clients still hold their permits, or after another process handed over more clients than
    /// the limit allows.
    free: isize,
    next: u64,
    /// The pending clients in the order of arrival. Dropping a sender closes its client.
    pending: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The right to one open connection; it is dropped with the connection.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    number: u64,
    connections: Arc<Connections>,
}

/// A pending client's entry in the map. When this is dropped, the entry is removed.
struct PendingEntry<'permit> {
    permit: &'permit ConnectionPermit,
    metrics: &'permit Metrics,
}

impl Connections {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                free: isize::try_from(limit).unwrap_or(isize::MAX),
                next: 0,
                pending: BTreeMap::new(),
            }),
        })
    }

    /// Returns a permit for one more connection. If none is free, evicts the client that has been pending longest, or
    /// returns `None` if no client is pending.
    pub(super) fn open(self: &Arc<Self>) -> Option<ConnectionPermit> {
        let mut inner = self.lock();
        if inner.free <= 0 {
            inner.pending.pop_first()?;
        }
        inner.free -= 1;
        inner.next += 1;
        Some(ConnectionPermit {
            number: inner.next,
            connections: self.clone(),
        })
    }

    /// Returns a permit for a connection that another process has accepted, even if none is free.
    pub(super) fn admit(self: &Arc<Self>) -> ConnectionPermit {
        let mut inner = self.lock();
        inner.free -= 1;
        inner.next += 1;
        ConnectionPermit {
            number: inner.next,
            connections: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code under the lock can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Registers this client as pending at the first poll. Completes when the client must be closed to make room for
    /// another client. Cancel-safe.
    async fn evicted(&self, metrics: &Metrics) {
        let (sender, evicted) = oneshot::channel();
        self.connections.lock().pending.insert(self.number, sender);
        metrics.pending.inc();
        let _entry = PendingEntry { permit: self, metrics };
        let _sender_was_dropped = evicted.await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.lock().free += 1;
    }
}

impl Drop for PendingEntry<'_> {
    fn drop(&mut self) {
        self.permit.connections.lock().pending.remove(&self.permit.number);
        self.metrics.pending.dec();
    }
}

/// A client that was accepted and has not sent its first packet.
pub(super) struct Pending {
    pub(super) client: Socket,
    pub(super) peer: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) executor: Executor<Forwarded>,
    pub(super) since: Instant,
    /// Deadline for its first packet.
    pub(super) deadline: Instant,
    /// True if the client is not handed over to another process.
    pub(super) stays: bool,
}

impl Pending {
    pub(super) fn new(client: Socket, peer: SocketAddr, shared: Arc<Shared>, executor: Executor<Forwarded>) -> Self {
        let since = Instant::now();
        Self {
            client,
            peer,
            executor,
            since,
            deadline: since + shared.dependencies.settings.startup,
            shared,
            stays: false,
        }
    }

    /// Reads the first packet, and starts the session or delivers the cancellation that it requests.
    pub(super) async fn run(self, admission: Admission) {
        let opening = match self.comes_from_load_balancer() {
            true => Opening::behind_load_balancer(),
            false => Opening::default(),
        };
        self.go_on(opening, admission).await;
    }

    /// Continues like [`run`](Self::run) with a client that may have sent a part of its first packet already.
    pub(super) async fn go_on(mut self, mut opening: Opening, admission: Admission) {
        let departure = self.shared.departure.clone();
        let reading = self.first_packet(&mut opening, &admission.connection);
        let first = match departure.unless_requested(self.stays, reading).await {
            Ok(first) => first,
            Err(leaves) => return departure.park(self.parked(opening, admission), leaves),
        };
        if opening.lacks_header() {
            self.warn_without_header();
        }
        self.peer = opening.client_address().unwrap_or(self.peer);
        let ending = match first {
            Ok(Purpose::Cancel) => self.cancel(&opening).await,
            Ok(Purpose::Session) => match self.shared.session_permits.clone().try_acquire_owned() {
                Ok(session_permit) => {
                    let hold = Hold::begin(&self.shared, self.peer, session_permit);
                    let session = Session {
                        client: self.client,
                        peer: self.peer,
                        shared: self.shared,
                        executor: self.executor,
                        stays: self.stays,
                    };
                    return session.run(opening, admission, hold).await;
                }
                Err(_) => Ending::Full,
            },
            Err(ending) => ending,
        };
        // Counted before the error is sent, so that a client that reads the error finds it in the metrics.
        self.shared.dependencies.metrics.ended(ending);
        debug!(peer = %self.peer, %ending, "connection ended without a session");
        self.explain(ending, opening).await;
    }

    fn parked(self, opening: Opening, admission: Admission) -> ParkedClient {
        ParkedClient {
            client: WaitingClient {
                stream: self.client.into_stream(),
                peer: self.peer,
                opening,
                connection: admission.connection,
                since: self.since,
                deadline: self.deadline,
                hold: None,
                stays: false,
                tracked: self.shared.dependencies.drain.token(),
                shared: self.shared,
            },
            worker: self.executor.number(),
            count: admission.count,
        }
    }

    fn comes_from_load_balancer(&self) -> bool {
        let networks = &self.shared.dependencies.settings.proxy_protocol;
        networks.iter().any(|network| network.contains(self.peer.ip()))
    }

    fn warn_without_header(&self) {
        if self.shared.dependencies.log_limiter.should_log(NO_HEADER) {
            warn!(
                peer = %self.peer,
                "{NO_HEADER}, although it comes from a network in --proxy-protocol-from; enable the PROXY protocol on \
                 the load balancer, or correct the setting"
            );
        }
    }

    async fn first_packet(&self, opening: &mut Opening, connection: &ConnectionPermit) -> Result<Purpose, Ending> {
        let dependencies = &self.shared.dependencies;
        let stopped = async {
            dependencies.drain.accepting_stopped().cancelled().await;
            let _soon = timeout(AT_SHUTDOWN, dependencies.drain.forced().cancelled()).await;
        };
        tokio::select! {
            biased;
            purpose = opening.first(&self.client) => purpose.ok_or(Ending::NoStartup),
            () = connection.evicted(&dependencies.metrics) => Err(Ending::StartupExpired),
            () = sleep_until(self.deadline) => Err(Ending::StartupExpired),
            () = stopped => Err(Ending::Shutdown),
        }
    }

    /// Delivers a CancelRequest, unless shutdown is forced in the meantime.
    async fn cancel(&self, opening: &Opening) -> Ending {
        let forced = self.shared.dependencies.drain.forced();
        tokio::select! {
            biased;
            () = forced.cancelled() => Ending::Shutdown,
            sent = self.shared.deliver_cancel(&self.client, self.peer, opening.received()) => match sent {
                true => Ending::CancelSent,
                false => Ending::CancelDropped,
            },
        }
    }

    async fn explain(self, ending: Ending, opening: Opening) {
        let settings = &self.shared.dependencies.settings;
        match ending {
            Ending::Full => {
                self.shared.warn_full();
                let max_sessions = settings.max_sessions;
                let text = format!("pgnorth is full: its limit of {max_sessions} sessions (--max-sessions) is reached");
                let tls = &self.shared.dependencies.refusal_tls;
                refuse(
                    self.client,
                    opening.into_received(),
                    tls,
                    SqlState::TooManyConnections,
                    &text,
                )
                .await;
            }
            Ending::StartupExpired => {
                let startup = humantime::format_duration(settings.startup);
                let text = format!(
                    "pgnorth received no complete start-up packet within {startup}, or needed this connection for \
                     another client before that"
                );
                send_error(&self.client, SqlState::ProtocolViolation, &text).await;
            }
            Ending::Shutdown => {
                send_error(&self.client, SqlState::CannotConnectNow, "pgnorth is shutting down").await;
            }
            _ => {}
        }
    }
}
