//! The admin port's connections: served within limits of time and size, and closed if there are too many.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::live::{Activity, Live};
use super::{Limits, pages};

/// The open connections, the oldest first.
pub(super) struct Connections {
    tasks: JoinSet<()>,
    by_age: VecDeque<AbortHandle>,
    most: usize,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            tasks: JoinSet::new(),
            by_age: VecDeque::new(),
            most,
        }
    }

    /// Closes the oldest connections until there is space for one more. Waits only for tasks that it has aborted.
    pub(super) async fn evict_oldest(&mut self) {
        while self.tasks.len() >= self.most {
            let Some(oldest) = self.by_age.pop_front() else { return };
            if !oldest.is_finished() {
                debug!("too many admin connections: closed the oldest");
                oldest.abort();
            }
            self.reap().await;
        }
    }

    pub(super) fn add(&mut self, connection: impl Future<Output = ()> + Send + 'static) {
        self.by_age.retain(|connection| !connection.is_finished());
        self.by_age.push_back(self.tasks.spawn(connection));
    }

    /// Waits for one connection to end; waits forever if there is none. Cancel-safe.
    pub(super) async fn reap(&mut self) {
        match self.tasks.join_next().await {
            Some(result) => log_panic(result),
            None => std::future::pending().await,
        }
    }

    /// Waits for all connections to end. Their `stop` tokens must be cancelled, so that this takes a bounded time.
    pub(super) async fn finish(mut self) {
        while let Some(result) = self.tasks.join_next().await {
            log_panic(result);
        }
    }
}

/// Serves one connection until it closes, its time limit is reached, or `stop` is cancelled.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    live: Arc<Live>,
    limits: Limits,
    stop: CancellationToken,
) {
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
            // Larger than a head may be, so that the sender of a head that is slightly too long gets an answer.
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
        debug!(%peer, %error, "an admin connection ended with an error");
    }
}

/// Waits until the connection's time limit: its lifetime or, for a stream, the time for which its client does not read.
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
        error!(%error, "the task of an admin connection panicked; this is a defect in pgnorth");
    }
}
