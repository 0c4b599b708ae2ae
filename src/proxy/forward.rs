//! Bytes both ways between two connected sockets, until both directions ended or one side broke.
//!
//! A few threads do it, each with an epoll of its own. A session stays on the worker where it began: as a task, which waits and decides, until it has its
//! leader; then as a pair whose bytes are moved. The worker knows nothing of leaders or terms. It asks the pair's [`Owner`] whether the pair is over, and
//! gives the sockets back to it at the end.

mod direction;
mod executor;
mod pipes;
mod polled_stream;
mod relay;
mod stall;
mod syscalls;
#[cfg(test)]
mod tests;
mod timers;
mod wake_flag;
mod worker;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
// The wake_flag names them through here: tests/wake_flag.rs puts a model checker's in their registration.
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::metrics::Count;
pub(crate) use executor::{Executor, Socket, accept};
pub(crate) use pipes::{MAX_PIPES, Pipes};
use syscalls::{Kernel, Syscalls};
pub(crate) use worker::Pair;
use worker::{Mailbox, Setup, Worker};

use crate::liveness::Beat;

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Who connected to pgnorth.
    Client,
    /// Whom pgnorth connected to.
    Leader,
}

/// How forwarding came to its end.
#[derive(Debug)]
pub(crate) enum Finish {
    /// Both sides sent a FIN and got every byte; this one closed first.
    Closed(Side),
    /// This side was reset, or vanished.
    Lost(Side, io::Error),
    /// The owner said that the pair is over.
    Stopped,
    /// pgnorth could not go on (out of memory, or of epoll watches).
    Failed(io::Error),
}

/// What all pairs share: the pool of pipes, the counters, and the patience with a silent peer.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Where streaming directions get their pipes from.
    pub(crate) pipes: Pipes,
    /// Bytes delivered to the leader.
    pub(crate) to_leader: Count,
    /// Bytes delivered to the client.
    pub(crate) to_client: Count,
    /// How long a client's host may be silent; zero: as long as the system has it.
    pub(crate) client_timeout: Duration,
    /// The same for the leader's.
    pub(crate) leader_timeout: Duration,
    /// How long a client's FIN waits for the leader's own.
    pub(crate) fin_delay: Duration,
}

/// Whose pair it is.
pub(crate) trait Owner: Send + 'static {
    /// Whether forwarding must stop. Asked when forwarding begins, and after each [`Workers::check_owners`].
    fn is_over(&self) -> bool;

    /// Forwarding has come to its end. Runs on the worker, so it must not block.
    fn finished(self, pair: Finished);
}

/// A pair that its owner gets back; nothing is closed yet.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) client: TcpStream,
    pub(crate) leader: TcpStream,
    pub(crate) finish: Finish,
    /// Bytes delivered to the leader, and to the client.
    pub(crate) moved: (u64, u64),
    /// Whose FIN came first, if any has come.
    pub(crate) closed_first: Option<Side>,
    /// Bytes for the client were still in undelivered: closing it with a FIN would pass a cut stream off as a whole one.
    pub(crate) owes_client: bool,
}

/// The threads. Dropped, they end when their last task and pair have.
#[derive(Debug)]
pub(crate) struct Workers<O: Owner> {
    handles: Vec<Arc<WorkerHandle<O>>>,
}

/// What is seen of a worker from outside.
#[derive(Debug)]
struct WorkerHandle<O> {
    mailbox: Mailbox<O>,
    sessions: Arc<AtomicUsize>,
}

/// A session's registration among a worker's; dropped with the session.
#[derive(Debug)]
pub(crate) struct SessionCount(Arc<AtomicUsize>);

/// Something to be begun on a worker.
type Job<O> = Box<dyn FnOnce(&Executor<O>) + Send>;

/// What a worker is told.
enum Message<O> {
    Run(Job<O>),
    /// Ask every owner whether its pair is over.
    CheckOwners,
    /// Nothing more will come.
    Close,
}

impl<O: Owner> Workers<O> {
    /// Starts `count` threads; on a tokio runtime, whose timers their tasks may use then. Each receiver gets its error when that thread broke down, which
    /// only a defect can make it do.
    pub(crate) fn start(count: usize, traffic: &Arc<Traffic>) -> io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        Self::start_with(count, traffic, || Box::new(Kernel))
    }

    fn start_with(
        count: usize,
        traffic: &Arc<Traffic>,
        syscalls: impl Fn() -> Box<dyn Syscalls>,
    ) -> io::Result<(Self, Vec<oneshot::Receiver<()>>)> {
        let mut started = (Self { handles: Vec::new() }, Vec::new());
        for number in 0..count {
            let handle = Arc::new(WorkerHandle {
                mailbox: Mailbox::new()?,
                sessions: Arc::default(),
            });
            let setup = Setup::new(number, handle.clone(), traffic.clone(), syscalls())?;
            let runtime = Handle::try_current().ok();
            let (ended, end) = oneshot::channel();
            std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let _timers = runtime.as_ref().map(Handle::enter);
                    Worker::new(setup).run();
                    let _nobody_waits_any_more = ended.send(());
                })?;
            started.0.handles.push(handle);
            started.1.push(end);
        }
        Ok(started)
    }

    /// Begins something on every worker.
    pub(crate) fn on_each(&self, job: impl Fn(&Executor<O>) + Clone + Send + 'static) {
        for handle in &self.handles {
            handle.mailbox.post(Message::Run(Box::new(job.clone())));
        }
    }

    /// Begins a session on the worker that has the fewest; at once, if that is `executor`, where this is called.
    pub(crate) fn begin_session(
        &self,
        executor: &Executor<O>,
        begin: impl FnOnce(&Executor<O>, SessionCount) + Send + 'static,
    ) {
        let least = self.least_loaded(Some(executor.number()));
        let count = SessionCount::of(&self.handles[least]);
        if least == executor.number() {
            return begin(executor, count);
        }
        let job = Box::new(|executor: &Executor<O>| begin(executor, count));
        self.handles[least].mailbox.post(Message::Run(job));
    }

    /// Which worker has the fewest sessions; of several, `own` if it is one of them.
    fn least_loaded(&self, own: Option<usize>) -> usize {
        let others = (0..self.handles.len()).filter(|number| Some(*number) != own);
        let all = own.into_iter().chain(others);
        all.min_by_key(|number| self.handles[*number].sessions.load(Ordering::Relaxed))
            .unwrap_or(0)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.handles.len()
    }

    /// Asks each worker for its beat, unless it has not given the last one yet.
    pub(crate) fn ask_for(&self, beats: &[Beat]) {
        for (handle, beat) in self.handles.iter().zip(beats).filter(|(_, beat)| beat.ask()) {
            let beat = beat.clone();
            handle.mailbox.post(Message::Run(Box::new(move |_| beat.beat())));
        }
    }

    /// Makes every worker ask each owner whether its pair is over, before it moves another byte.
    pub(crate) fn check_owners(&self) {
        for handle in &self.handles {
            handle.mailbox.post(Message::CheckOwners);
        }
    }
}

impl<O: Owner> Drop for Workers<O> {
    fn drop(&mut self) {
        for handle in &self.handles {
            handle.mailbox.post(Message::Close);
        }
    }
}

impl SessionCount {
    fn of<O>(handle: &WorkerHandle<O>) -> Self {
        handle.sessions.fetch_add(1, Ordering::Relaxed);
        Self(handle.sessions.clone())
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<O> std::fmt::Debug for Message<O> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Run(_) => "Run",
            Message::CheckOwners => "Look",
            Self::Close => "Close",
        })
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Leader,
            Self::Leader => Self::Client,
        }
    }
}
