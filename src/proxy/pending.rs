//! Clients that were accepted and have not sent their first packet: they take no session_permit below `--max-sessions`, no dial and no backend of the leader.
//!
//! PostgreSQL's clients speak first, and at once. Health checks by TCP connect, port scans and attackers do not: they are given as long as PostgreSQL itself would
//! give them, but when connections run out, the client that has been pending for longest is closed in favour of the newcomer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::Shared;
use super::forward::{Executor, Socket};
use super::opening::{Opening, Purpose};
use super::refuse::{SqlState, refuse, tell_at_once};
use super::session::{Admission, Forwarded, Session};
use crate::ending::Ending;
use crate::metrics::Metrics;

/// Connections beyond `--max-sessions`, so that there is always room for clients whose first packet is yet to come: a CancelRequest, or one that is to be told that
/// pgnorth is full.
pub(super) const RESERVE: usize = 256;
/// What a pending client has left once accepting has stopped: a first packet that is on its way arrives by then.
const AT_SHUTDOWN: Duration = Duration::from_secs(1);

/// How many connections clients may have open, and which of them are pending.
#[derive(Debug)]
pub(super) struct Connections {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Below zero while clients that were told to go have not gone yet.
    free: isize,
    next: u64,
    /// By arrival; dropping the sender closes the client.
    pending: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The right to one open connection; dropped with it.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    number: u64,
    connections: Arc<Connections>,
}

/// An entry in the inner, struck out when the client is no longer pending.
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

    /// A slot for one more connection. Where none is free, the client that has been pending for longest loses its own; `None` if nobody is pending.
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing in here can panic half-way.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionPermit {
    /// Completes when this client, pending from the first poll on, has to go. Cancel-safe.
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

/// A client that was accepted.
pub(super) struct Pending {
    pub(super) client: Socket,
    pub(super) peer: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) executor: Executor<Forwarded>,
}

impl Pending {
    /// Reads the first packet, and does what it asks for: a session, which may become a pair, or a cancellation.
    pub(super) async fn run(self, admission: Admission) {
        let mut opening = Opening::default();
        let ending = match self.first_packet(&mut opening, &admission.connection).await {
            Ok(Purpose::Cancel) => self.cancel(&opening).await,
            Ok(Purpose::Session) => match self.shared.session_permits.clone().try_acquire_owned() {
                Ok(session_permit) => {
                    let session = Session {
                        client: self.client,
                        peer: self.peer,
                        shared: self.shared,
                        executor: self.executor,
                    };
                    return session.run(opening, admission, session_permit).await;
                }
                Err(_) => Ending::Full,
            },
            Err(ending) => ending,
        };
        // Counted before the client is told, as everything else about it: whoever reads an error finds it in the metrics.
        self.shared.context.metrics.ended(ending);
        debug!(peer = %self.peer, %ending, "connection ended without a session");
        self.say_why(ending, opening).await;
    }

    async fn first_packet(&self, opening: &mut Opening, connection: &ConnectionPermit) -> Result<Purpose, Ending> {
        let context = &self.shared.context;
        let stopped = async {
            context.drain.accepting_stopped().cancelled().await;
            let _soon = timeout(AT_SHUTDOWN, context.drain.forced().cancelled()).await;
        };
        tokio::select! {
            biased;
            purpose = opening.first(&self.client) => purpose.ok_or(Ending::NoStartup),
            () = connection.evicted(&context.metrics) => Err(Ending::StartupExpired),
            () = sleep(context.settings.startup) => Err(Ending::StartupExpired),
            () = stopped => Err(Ending::Shutdown),
        }
    }

    /// Delivers a CancelRequest, unless shutdown is forced meanwhile.
    async fn cancel(&self, opening: &Opening) -> Ending {
        let forced = self.shared.context.drain.forced();
        tokio::select! {
            biased;
            () = forced.cancelled() => Ending::Shutdown,
            sent = self.shared.deliver_cancel(&self.client, self.peer, opening.received()) => match sent {
                true => Ending::CancelSent,
                false => Ending::CancelDropped,
            },
        }
    }

    async fn say_why(self, ending: Ending, opening: Opening) {
        let settings = &self.shared.context.settings;
        match ending {
            Ending::Full => {
                self.shared.warn_full();
                let max_sessions = settings.max_sessions;
                let text = format!("pgnorth has {max_sessions} sessions open, as many as it may (--max-sessions)");
                let tls = &self.shared.context.refusal_tls;
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
                    "pgnorth got no whole start-up packet from this client, which has {startup} for it, and less when connections run out"
                );
                tell_at_once(&self.client, SqlState::ProtocolViolation, &text).await;
            }
            Ending::Shutdown => {
                tell_at_once(&self.client, SqlState::CannotConnectNow, "pgnorth is shutting down").await;
            }
            _ => {}
        }
    }
}
