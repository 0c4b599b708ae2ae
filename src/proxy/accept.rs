//! The accept loop: admits clients up to the limit, and continues after any error of accept(2).

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::forward::{Executor, Workers, accept};
use super::forwarded::{Admission, Forwarded};
use super::pending::Pending;
use super::{Accepting, Shared, socket};
use crate::ending::Ending;

/// Pause after accept(2) failed, usually for lack of files or memory. Clients wait in the backlog meanwhile, which is
/// better than closing them, because a file may soon be free. Therefore, no file is reserved for accepting clients only
/// to close them.
const PAUSE: Duration = Duration::from_millis(50);

/// Time for connections that are being established when a former listener is given up.
const LAST_HANDSHAKES: Duration = Duration::from_millis(500);

const FULL: &str = "refusing clients: the limit of sessions is reached";
const CANNOT_ACCEPT: &str = "cannot accept clients";

/// The signals that begin and stop accepting from a listener.
pub(super) struct Turns {
    pub(super) begin: CancellationToken,
    pub(super) stop: CancellationToken,
    /// True if the clients in the backlog are left to systemd, which keeps the listener open.
    pub(super) leaves_backlog: bool,
}

/// Accepts on this worker from `begin` until `stop`, except while the drain pauses accepting. Then accepts the clients
/// in the backlog, unless they are left to systemd or accepting was paused. Closes the listener unless another worker
/// still has it.
pub(super) async fn run(
    listener: Arc<TcpListener>,
    executor: Executor<Forwarded>,
    shared: Arc<Shared>,
    Turns {
        begin,
        stop: stopped,
        leaves_backlog,
    }: Turns,
) {
    let drain = shared.dependencies.drain.clone();
    tokio::select! {
        biased;
        () = stopped.cancelled() => return,
        () = begin.cancelled() => {}
    }
    if let Err(error) = socket::begin(&listener) {
        // The address was bound at the start, so no other process can have taken it.
        warn!(%error, address = ?listener.local_addr(), "cannot listen for clients on this address; restart pgnorth");
    }
    let mut acceptor = Acceptor::new(executor, shared);
    loop {
        let error = tokio::select! {
            biased;
            () = drain.accepting_pauses(true) => None,
            () = stopped.cancelled() => break,
            error = acceptor.admit_all(&listener) => Some(error),
        };
        if let Some(error) = error {
            acceptor.on_error(&error);
            sleep(PAUSE).await;
            continue;
        }
        // Of the processes that wait for a client, the kernel wakes only one (EPOLLEXCLUSIVE). A client for which it
        // has woken this process would wait in the backlog until another client comes.
        acceptor.take_backlog(&listener);
        tokio::select! {
            biased;
            () = stopped.cancelled() => return,
            () = drain.accepting_pauses(false) => {}
        }
    }
    if !leaves_backlog {
        // These clients have connected: closing the listener now would reset them.
        acceptor.take_backlog(&listener);
    }
}

/// Accepts from a listener of the replaced process until that process has closed it; a listener of this process has the
/// same port. Then closes the former listener without resetting any client.
pub(super) async fn from_former(
    listener: Arc<TcpListener>,
    workers: Arc<Workers<Forwarded>>,
    shared: Arc<Shared>,
    accepting: Accepting,
) {
    let stop = CancellationToken::new();
    let (socket, begin, stopping) = (listener.clone(), accepting.begin, stop.clone());
    let drain = shared.dependencies.drain.clone();
    workers.on_each(move |executor| {
        let turns = Turns {
            begin: begin.clone(),
            stop: stopping.clone(),
            // No process accepts from this listener later.
            leaves_backlog: false,
        };
        executor.spawn(run(socket.clone(), executor.clone(), shared.clone(), turns));
    });
    let stopped = drain.accepting_stopped();
    tokio::select! {
        () = accepting.alone.cancelled() => {}
        () = stopped.cancelled() => {}
    }
    if let Err(error) = socket::ignore_new(&listener) {
        debug!(%error, "cannot stop new connections to the old listener; closing it may reset a connecting client");
    }
    sleep(LAST_HANDSHAKES).await;
    stop.cancel();
}

/// Returns true if the next client is unaffected: only one connection failed before it was accepted (accept(2) returns
/// its network error), or a signal interrupted the call.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::PermissionDenied
    )
}

/// Starts the client's task on its worker.
fn begin(
    executor: &Executor<Forwarded>,
    client: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    admission: Admission,
) {
    let drain = shared.dependencies.drain.clone();
    match executor.socket(client) {
        Ok(client) => {
            let pending = Pending::new(client, peer, shared, executor.clone());
            executor.spawn(drain.track(pending.run(admission)));
        }
        Err(error) => {
            debug!(%peer, %error, ending = %Ending::Failed, "connection ended: its socket cannot be added to epoll");
            shared.dependencies.metrics.ended(Ending::Failed);
        }
    }
}

impl Shared {
    /// Logs that clients are refused, unless that was logged recently.
    pub(super) fn warn_full(&self) {
        let max_sessions = self.dependencies.settings.max_sessions;
        if self.dependencies.log_limiter.should_log(FULL) {
            warn!(
                max_sessions,
                "{FULL}; raise --max-sessions (each session needs two open files and a local port), or pool connections"
            );
        }
    }
}

/// The accept loop of one worker. It counts failures, so that the log shows when accepting works again.
struct Acceptor {
    executor: Executor<Forwarded>,
    shared: Arc<Shared>,
    failures: u64,
}

impl Acceptor {
    fn new(executor: Executor<Forwarded>, shared: Arc<Shared>) -> Self {
        Self {
            executor,
            shared,
            failures: 0,
        }
    }

    /// Admits clients until accept(2) fails for another reason than one client's connection. Cancel-safe.
    async fn admit_all(&mut self, listener: &TcpListener) -> io::Error {
        let listener = match self.executor.clone().listen(listener) {
            Ok(listener) => listener,
            Err(error) => return error,
        };
        loop {
            match listener.accept().await {
                Ok((client, peer)) => self.admit(client, peer),
                Err(error) if is_the_clients(&error) => {}
                Err(error) => return error,
            }
        }
    }

    /// Admits the clients in the backlog.
    fn take_backlog(&mut self, listener: &TcpListener) {
        loop {
            match accept(listener) {
                Ok((client, peer)) => self.admit(client, peer),
                Err(error) if is_the_clients(&error) => {}
                Err(_) => return,
            }
        }
    }

    fn admit(&mut self, client: TcpStream, peer: SocketAddr) {
        let dependencies = &self.shared.dependencies;
        dependencies.metrics.accepted.inc();
        if self.failures > 0 {
            info!(failures = self.failures, "accepting clients again");
            self.failures = 0;
        }
        // A dual-stack listener shows IPv4 clients as ::ffff:a.b.c.d.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        match self.shared.connections.open() {
            Some(connection) => {
                let shared = self.shared.clone();
                // The client may be passed to another worker, and the drain must not be over before it arrives.
                let tracked = dependencies.drain.token();
                self.shared
                    .workers
                    .begin_session(&self.executor, move |executor, count| {
                        let admission = Admission { connection, count };
                        begin(executor, client, peer, shared, admission);
                        drop(tracked);
                    });
            }
            None => self.reject(client, peer),
        }
    }

    /// Closes the client without an answer, because even the reserve of connections is used up, by clients that are
    /// being refused and by cancel requests.
    fn reject(&self, client: TcpStream, peer: SocketAddr) {
        self.shared.warn_full();
        debug!(%peer, ending = %Ending::Full, "connection ended without a session");
        self.shared.dependencies.metrics.ended(Ending::Full);
        drop(client);
    }

    fn on_error(&mut self, error: &io::Error) {
        let dependencies = &self.shared.dependencies;
        dependencies.metrics.accept_errors.increment(1);
        self.failures += 1;
        if dependencies.log_limiter.should_log(CANNOT_ACCEPT) {
            warn!(%error, "{CANNOT_ACCEPT}; new clients wait in the backlog, and pgnorth tries again");
        }
    }
}

#[cfg(test)]
mod tests;
