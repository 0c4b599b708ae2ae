//! The status as a stream of events. Except for a viewer's first event, each document is written once for all viewers,
//! at a bounded rate. A viewer that reads slowly skips documents.

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

/// Interval of samples and of liveness ticks, and longest interval between events.
const SECOND: Duration = liveness::EVERY;
/// Time after which a browser reconnects, in milliseconds.
const RETRY: &str = "retry: 1000\n";

/// The state that all viewers share.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) facts: Arc<Facts>,
    begun: Instant,
    history: Mutex<History>,
    /// The newest event. A viewer that reads slowly skips the events in between.
    events: watch::Sender<Bytes>,
    permits: Arc<Semaphore>,
    /// Shortest time between two events.
    pace: Duration,
}

/// The activity of a connection, which determines its lifetime.
#[derive(Clone, Copy, Debug)]
pub(super) enum Activity {
    /// The connection serves ordinary answers.
    Answering,
    /// The stream waits for the next event.
    Waiting,
    /// The stream's client has not yet read the event that was passed to it at this time.
    Given(Instant),
}

/// One reader of the stream.
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

    /// Returns the document as of now.
    pub(super) fn status(&self) -> Status {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner).series();
        collect(&self.facts, history, self.begun, Instant::now())
    }

    fn event(&self) -> Bytes {
        let status = serde_json::to_string(&self.status()).expect("structs of texts and numbers are always valid JSON");
        // The JSON has no line break, so it is one line of data.
        format!("{RETRY}event: status\ndata: {status}\n\n").into()
    }

    /// Samples every second, and sends an event every second and at each change, but not more often than `pace`. Never
    /// returns.
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
            // Changes during this wait are not lost: both futures remember them.
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

    /// Returns a stream that begins with the current status; `None` if too many are open. It ends when `stop` is
    /// cancelled.
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
    /// Returns the next event. hyper asks for it once the client has read the previous one, apart from a small buffer.
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
