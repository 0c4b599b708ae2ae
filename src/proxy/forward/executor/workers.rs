//! Starts the workers, distributes sessions among them, and makes them check whether sessions are over.

use std::io;
use std::sync::{Arc, mpsc};

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::handle::Executor;
use super::mailbox::{Message, SessionCount, WorkerHandle};
use super::pair::{Owner, Pair};
use super::worker::{Setup, Worker};
use crate::liveness::Heartbeat;
use crate::proxy::forward::reactor::{Kernel, Syscalls};
use crate::proxy::forward::relay::Traffic;

/// The worker threads. After this is dropped, each thread ends as soon as it has no task and no pair.
#[derive(Debug)]
pub(crate) struct Workers<O: Owner> {
    handles: Vec<Arc<WorkerHandle<O>>>,
}

impl<O: Owner> Workers<O> {
    /// Starts `count` threads. Their tasks may use the timers of the tokio runtime on which this is called, if any.
    /// Each receiver completes when its thread has ended; with an error if the thread panicked, which is a defect.
    pub(crate) fn start(count: usize, traffic: &Arc<Traffic>) -> io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        Self::start_with(count, traffic, || Kernel)
    }

    /// Starts threads like [`start`](Self::start), with other system calls.
    pub(crate) fn start_with<S: Syscalls>(
        count: usize,
        traffic: &Arc<Traffic>,
        syscalls: impl Fn() -> S,
    ) -> io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        let mut started = (Self { handles: Vec::new() }, Vec::new());
        for number in 0..count {
            let handle = Arc::new(WorkerHandle::new()?);
            let setup = Setup::new(number, handle.clone(), traffic.clone(), syscalls())?;
            let runtime = Handle::try_current().ok();
            let (ended, end) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _timers = runtime.as_ref().map(Handle::enter);
                    Worker::new(setup).run();
                    let _receiver_was_dropped = ended.send(());
                })?;
            started.0.handles.push(handle);
            started.1.push(end);
        }
        Ok(started)
    }

    /// Queues `job` for the worker with this number. Does not wait until the worker has run it.
    pub(crate) fn on(&self, number: usize, job: impl FnOnce(&Executor<O>) + Send + 'static) {
        self.handles[number].post(Message::Run(Box::new(job)));
    }

    /// Queues a copy of `job` for every worker. Does not wait until the workers have run it.
    pub(crate) fn on_each(&self, job: impl Fn(&Executor<O>) + Clone + Send + 'static) {
        for number in 0..self.count() {
            self.on(number, job.clone());
        }
    }

    /// Counts a session for the worker that has the fewest, and runs `begin` there: immediately if that is `own`, the
    /// current worker; otherwise, `begin` is queued.
    pub(crate) fn begin_session(
        &self,
        own: &Executor<O>,
        begin: impl FnOnce(&Executor<O>, SessionCount) + Send + 'static,
    ) {
        let number = self.least_loaded(Some(own.number()));
        let count = self.handles[number].count_session();
        if number == own.number() {
            return begin(own, count);
        }
        self.on(number, |executor| begin(executor, count));
    }

    /// Counts a session for the worker that has the fewest, and queues `begin` for that worker.
    pub(crate) fn place_session(&self, begin: impl FnOnce(&Executor<O>, SessionCount) + Send + 'static) {
        let number = self.least_loaded(None);
        let count = self.handles[number].count_session();
        self.on(number, |executor| begin(executor, count));
    }

    /// Parks and returns at most `most` pairs of the worker with this number. Blocks until the worker has done so.
    pub(crate) fn park(&self, number: usize, most: usize) -> Vec<Box<Pair<O>>> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.handles[number].post(Message::Park(most, sender));
        // A worker that has ended has no pairs.
        receiver.recv().unwrap_or_default()
    }

    /// Makes the worker with this number, from which these pairs were parked, run them again.
    pub(crate) fn unpark(&self, number: usize, parked: Vec<Box<Pair<O>>>) {
        self.on(number, move |executor| {
            parked.into_iter().for_each(|pair| executor.unpark(*pair))
        });
    }

    /// Returns the number of the worker with the fewest sessions. If several have equally few, `own` is preferred.
    pub(crate) fn least_loaded(&self, own: Option<usize>) -> usize {
        let others = (0..self.count()).filter(|number| Some(*number) != own);
        let all = own.into_iter().chain(others);
        all.min_by_key(|number| self.handles[*number].sessions()).unwrap_or(0)
    }

    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Requests a heartbeat from each worker that has answered the previous request.
    pub(crate) fn request_heartbeats(&self, heartbeats: &[Heartbeat]) {
        let due = heartbeats
            .iter()
            .enumerate()
            .filter(|(_, heartbeat)| heartbeat.request());
        for (number, heartbeat) in due {
            let heartbeat = heartbeat.clone();
            self.on(number, move |_| heartbeat.record());
        }
    }

    /// Makes every worker ask each owner whether its pair is over, once it has handled its current batch of events.
    pub(crate) fn check_owners(&self) {
        for handle in &self.handles {
            handle.post(Message::CheckOwners);
        }
    }
}

#[cfg(test)]
impl<O: Owner> Workers<O> {
    pub(crate) fn count_session(&self, number: usize) -> SessionCount {
        self.handles[number].count_session()
    }

    /// Returns the number of sessions of each worker.
    pub(crate) fn session_counts(&self) -> Vec<usize> {
        self.handles.iter().map(|handle| handle.sessions()).collect()
    }
}

impl<O: Owner> Drop for Workers<O> {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.post(Message::Close);
        }
    }
}
