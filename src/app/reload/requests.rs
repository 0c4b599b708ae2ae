//! Receives requests for a reload: from SIGHUP, and from the socket that `pgnorth reload` connects to.
//!
//! The socket has an abstract name with the process id, so there is no file to protect or to clean up. The kernel
//! reports the user of each connection: only root and the user of this process may request a reload.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener as StdUnixListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

/// The beginning of the socket's name; the process id follows.
pub(super) const NAME: &str = "pgnorth/";
/// Time for a request to arrive, and for its answer to be read.
const TRANSFER: Duration = Duration::from_secs(5);
/// Maximum size of a request in bytes. A service's environment has a few KiB, and rarely more than 100 KiB.
const MAX_REQUEST: u64 = 1 << 20;
/// Pause after an accept(2) that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The settings of the successor that differ from those of this process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::app) struct Change {
    /// Flags that replace those of this process.
    pub(in crate::app) flags: Vec<(String, String)>,
    /// The whole environment; `None` keeps the environment of this process.
    pub(in crate::app) environment: Option<Vec<(String, String)>>,
}

/// The answer to `pgnorth reload`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    pub(super) reloaded: bool,
    pub(super) text: String,
}

/// A request for a reload.
#[derive(Debug)]
pub(in crate::app) struct Request {
    /// Its origin, for the log.
    pub(in crate::app) by: &'static str,
    pub(in crate::app) change: Change,
    pub(in crate::app) replies: Replies,
}

/// The connection on which the result of a request is reported; `None` for a signal.
#[derive(Debug, Default)]
pub(in crate::app) struct Replies(Option<UnixStream>);

/// Receiver of requests for a reload.
#[derive(Debug)]
pub(in crate::app) struct Requests {
    sender: mpsc::Sender<Request>,
    receiver: mpsc::Receiver<Request>,
}

impl Replies {
    /// Reports the result of the request.
    pub(in crate::app) async fn send(self, reloaded: bool, text: String) {
        if let Some(stream) = self.0 {
            // The command may have been interrupted.
            let _has_left = reply(stream, &Reply { reloaded, text }).await;
        }
    }
}

impl Requests {
    pub(in crate::app) fn new() -> Self {
        // During a reload, one further request may wait. Further signals are dropped, because they would have the same
        // effect; further commands wait in the socket.
        let (sender, receiver) = mpsc::channel(1);
        Self { sender, receiver }
    }

    /// Returns a function for the handler of SIGHUP.
    pub(in crate::app) fn on_signal(&self) -> impl Fn() + Send + 'static {
        let sender = self.sender.clone();
        move || {
            let request = Request {
                by: "SIGHUP",
                change: Change::default(),
                replies: Replies::default(),
            };
            let _one_waits_already = sender.try_send(request);
        }
    }

    /// Waits for the next request. Cancel-safe.
    pub(in crate::app) async fn next(&mut self) -> Request {
        match self.receiver.recv().await {
            Some(request) => request,
            // It cannot happen: this value holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Listens for `pgnorth reload`; the socket is closed when the future is dropped. Never returns.
    pub(in crate::app) fn listen(&self) -> impl Future<Output = ()> + use<> {
        let sender = self.sender.clone();
        async move {
            match bind() {
                Ok(listener) => accept(listener, sender).await,
                Err(error) => {
                    warn!(
                        %error,
                        "cannot open the socket for `pgnorth reload`; SIGHUP still reloads, but with the flags and \
                         environment of this process"
                    );
                    std::future::pending().await
                }
            }
        }
    }
}

/// Returns the address of the socket of the pgnorth with this process id.
pub(super) fn address(pid: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("{NAME}{pid}"))
}

fn bind() -> io::Result<UnixListener> {
    let listener = StdUnixListener::bind_addr(&address(std::process::id())?)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

async fn accept(listener: UnixListener, sender: mpsc::Sender<Request>) {
    loop {
        match listener.accept().await {
            // Requests are served one at a time, because they are few. Reading one has a deadline.
            Ok((stream, _)) => {
                if let Err(error) = serve(stream, &sender).await {
                    debug!(%error, "cannot read a reload request, or cannot answer it");
                }
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn serve(mut stream: UnixStream, sender: &mpsc::Sender<Request>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer == 0 || peer == own_uid() {
        let mut text = Vec::new();
        timeout(TRANSFER, (&mut stream).take(MAX_REQUEST).read_to_end(&mut text)).await??;
        let request = Request {
            by: "pgnorth reload",
            change: serde_json::from_slice(&text)?,
            replies: Replies(Some(stream)),
        };
        // Without a receiver, the connection ends without an answer.
        let _received = sender.send(request).await;
        return Ok(());
    }
    warn!(
        uid = peer,
        "rejected a reload request: only root and the user of this process may reload it"
    );
    let text = "only root and the user of the running pgnorth may reload it".to_owned();
    reply(stream, &Reply { reloaded: false, text }).await
}

async fn reply(mut stream: UnixStream, reply: &Reply) -> io::Result<()> {
    timeout(TRANSFER, stream.write_all(&serde_json::to_vec(reply)?)).await?
}

fn own_uid() -> u32 {
    crate::handover::own_uid()
}
