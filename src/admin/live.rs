//! The status as a stream of events: one document, written once for all who look, at most so often, and given to each as fast as that one reads.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::Stream;
use futures_util::stream::unfold;
use hyper::body::{Bytes, Frame};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::collect::collect;
use super::history::History;
use super::status::Status;
use super::{Facts, Limits};
use crate::liveness;

/// One sample of the history, and one event at least; and one tick for the threads that are watched.
const SECOND: Duration = liveness::EVERY;
/// How long a browser waits before it connects again, in milliseconds.
const RETRY: &str = "retry: 1000\n";

/// What all who look share.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) facts: Arc<Facts>,
    begun: Instant,
    history: Mutex<History>,
    /// The newest event. Who reads slowly gets the newest next, not all those in between.
    events: watch::Sender<Bytes>,
    permits: Arc<Semaphore>,
    /// The shortest time between two events.
    pace: Duration,
}

/// What a connection is doing, for whoever bounds its life.
#[derive(Clone, Copy, Debug)]
pub(super) enum Activity {
    /// Ordinary answers.
    Answering,
    /// A stream that waits for the next event.
    Waiting,
    /// A stream whose client has not taken the event yet that it was given then.
    Given(Instant),
}

/// One who looks.
struct Viewer {
    live: Arc<Live>,
    events: watch::Receiver<Bytes>,
    activity: watch::Sender<Activity>,
    stop: CancellationToken,
    begins: bool,
    _permit: OwnedSemaphorePermit,
}

impl Live {
    pub(super) fn new(facts: Arc<Facts>, limits: &Limits) -> Self {
        let begun = Instant::now();
        Self {
            begun,
            history: Mutex::new(History::new(&facts.metrics, begun)),
            events: watch::Sender::new(Bytes::new()),
            permits: Arc::new(Semaphore::new(limits.viewers)),
            pace: limits.pace,
            facts,
        }
    }

    /// The document as of now.
    pub(super) fn status(&self) -> Status {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner).series();
        collect(&self.facts, history, self.begun, Instant::now())
    }

    fn event(&self) -> Bytes {
        let status = serde_json::to_string(&self.status()).expect("structs of texts and numbers are always valid JSON");
        // JSON has no line break: it is one line of data.
        format!("{RETRY}event: status\ndata: {status}\n\n").into()
    }

    /// Samples each second, and tells those who look each second and at each change. Never returns.
    pub(super) async fn run(&self) {
        let mut second = interval(SECOND);
        second.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut seen = self.facts.view.clone();
        loop {
            let changed = self.facts.slot.changed();
            let next = tokio::time::Instant::now() + self.pace;
            if self.events.receiver_count() > 0 {
                self.events.send_replace(self.event());
            }
            // Changes meanwhile are not lost: both remember.
            sleep_until(next).await;
            tokio::select! {
                () = changed => {}
                Ok(()) = seen.changed() => {}
                _ = second.tick() => {
                    self.facts.liveness.tick();
                    let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
                    history.sample(&self.facts.metrics, Instant::now());
                }
            }
        }
    }

    /// A stream for one more who looks, the present first; `None` if there are too many already. It ends at `stop`.
    pub(super) fn watch(
        self: &Arc<Self>,
        activity: watch::Sender<Activity>,
        stop: CancellationToken,
    ) -> Option<impl Stream<Item = Result<Frame<Bytes>, Infallible>> + use<>> {
        let viewer = Viewer {
            _permit: self.permits.clone().try_acquire_owned().ok()?,
            events: self.events.subscribe(),
            live: self.clone(),
            activity,
            stop,
            begins: true,
        };
        Some(unfold(viewer, |mut viewer| async move {
            let event = viewer.next().await?;
            Some((Ok(Frame::data(event)), viewer))
        }))
    }
}

impl Viewer {
    /// Asked for only when there is room for it: hyper buffers little, then waits for the client.
    async fn next(&mut self) -> Option<Bytes> {
        self.activity.send_replace(Activity::Waiting);
        let event = if std::mem::take(&mut self.begins) {
            self.live.event()
        } else {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                changed = self.events.changed() => changed.ok()?,
            }
            self.events.borrow_and_update().clone()
        };
        self.activity.send_replace(Activity::Given(Instant::now()));
        Some(event)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.activity.send_replace(Activity::Answering);
    }
}
