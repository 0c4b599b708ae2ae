//! A thread that moves the bytes of many pairs, with an edge-triggered epoll of its own.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::direction::BUFFER;
use super::executor::{Executor, Socket, Task};
use super::pipes::{self, Pipe};
use super::relay::{Next, Relay};
use super::syscalls::Syscalls;
use super::timers::{Delays, Timer, Timers};
use super::wake_flag::WakeFlag;
use super::{Finish, Message, Owner, Side, Traffic, WorkerHandle};

/// Edges taken from epoll at once.
const BATCH: usize = 256;
/// Pairs that moved bytes are checked after a quarter of TCP_USER_TIMEOUT, but not later than this.
const LONGEST_CHECK: Duration = Duration::from_millis(2500);
/// What a client is given to close after its leader did, before its session ends.
const LINGER: Duration = Duration::from_secs(1);
/// epoll's name for the eventfd; a pair's sockets have twice its number, and one more for the leader's.
const WAKE: u64 = u64::MAX;
/// epoll's name for the timer.
const TIME: u64 = u64::MAX - 1;

/// What a worker is left by others, and the wake_flag that wakes it.
#[derive(Debug)]
pub(super) struct Mailbox<O> {
    messages: Mutex<Vec<Message<O>>>,
    wake_flag: WakeFlag,
    /// An eventfd(2) in the worker's epoll.
    eventfd: OwnedFd,
}

/// What a worker is made of, outside of its thread.
pub(super) struct Setup<O> {
    number: usize,
    handle: Arc<WorkerHandle<O>>,
    epoll: OwnedFd,
    timer: OwnedFd,
    io: IoContext,
}

/// What moving bytes takes, lent to one pair after the other.
pub(super) struct IoContext {
    pub(super) buffer: Box<[u8]>,
    pub(super) syscalls: Box<dyn Syscalls>,
    pub(super) traffic: Arc<Traffic>,
    took_pipe: bool,
}

/// The thread's state.
pub(super) struct Worker<O> {
    handle: Arc<WorkerHandle<O>>,
    io: IoContext,
    executor: Executor<O>,
    tasks: FuturesUnordered<Task<O>>,
    pairs: HashMap<u64, Box<Pair<O>>>,
    /// Pairs that gave way to others, and can go on.
    ready: Vec<u64>,
    /// Pairs that are to be looked at when the timer rings; time costs an idle pair nothing.
    timers: Timers,
    gives_pipes_back: bool,
    /// A timeout of epoll_wait(2) would do, but the kernel would set up a timer for each single wait, which costs 1 µs of each message.
    timer: OwnedFd,
    closing: bool,
}

/// A session whose bytes a worker moves.
#[derive(Debug)]
pub(crate) struct Pair<O> {
    number: u64,
    relay: Relay,
    owner: O,
    is_queued: bool,
    /// Whether it stands in the timers: in the order of [`OF_PAIRS`].
    noted: [bool; OF_PAIRS.len()],
}

/// What the timers may hold for a pair, once each.
const OF_PAIRS: [Timer; 3] = [Timer::Fin, Timer::Linger, Timer::Check];

impl<O> Pair<O> {
    /// Of sockets of one worker; the leader's was dialled for this client.
    pub(crate) fn new(client: Socket, leader: Socket, owner: O) -> Self {
        let ((token, client), (_, leader)) = (client.into_polled(), leader.into_polled());
        Self {
            number: token / 2,
            relay: Relay::new(client, leader),
            owner,
            is_queued: false,
            noted: [false; OF_PAIRS.len()],
        }
    }
}

impl<O> Mailbox<O> {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::default(),
            wake_flag: WakeFlag::new(),
            eventfd: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(super) fn post(&self, message: Message<O>) {
        self.lock().push(message);
        self.wake();
    }

    fn wake(&self) {
        if self.wake_flag.set() {
            // It fails when the counter is full, and then the eventfd is on.
            let _rings = rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message<O>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the worker for its tasks.
impl<O: Owner> Wake for WorkerHandle<O> {
    fn wake(self: Arc<Self>) {
        self.mailbox.wake();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.wake();
    }
}

impl<O: Owner> Setup<O> {
    pub(super) fn new(
        number: usize,
        handle: Arc<WorkerHandle<O>>,
        traffic: Arc<Traffic>,
        syscalls: Box<dyn Syscalls>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        // Neither is ever read: edges tell enough, and the eventfd's counter would be full after 2^64 rings.
        for (file, token) in [(&handle.mailbox.eventfd, WAKE), (&timer, TIME)] {
            epoll::add(&epoll, file, EventData::new_u64(token), EventFlags::IN | EventFlags::ET)?;
        }
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            number,
            handle,
            epoll,
            timer,
            io: IoContext {
                buffer,
                syscalls,
                traffic,
                took_pipe: false,
            },
        })
    }
}

impl IoContext {
    /// An empty pipe, if one is to be had.
    pub(super) fn take_pipe(&mut self) -> Option<Pipe> {
        let pipe = self.traffic.pipes.take();
        self.took_pipe |= pipe.is_some();
        pipe
    }
}

impl Delays {
    fn of(traffic: &Traffic) -> Self {
        Self {
            fin: traffic.fin_delay,
            linger: LINGER,
            check: [traffic.client_timeout, traffic.leader_timeout]
                .iter()
                .filter(|timeout| !timeout.is_zero())
                .map(|timeout| *timeout / 4)
                .fold(LONGEST_CHECK, Duration::min),
            pipes: pipes::IDLE,
        }
    }
}

impl<O: Owner> Worker<O> {
    pub(super) fn new(setup: Setup<O>) -> Self {
        let timers = Timers::new(Delays::of(&setup.io.traffic));
        Self {
            handle: setup.handle,
            io: setup.io,
            executor: Executor::new(setup.number, setup.epoll),
            tasks: FuturesUnordered::new(),
            pairs: HashMap::new(),
            ready: Vec::new(),
            timers,
            gives_pipes_back: false,
            timer: setup.timer,
            closing: false,
        }
    }

    /// Until the mailbox was closed and the last task and pair have finished.
    pub(super) fn run(mut self) {
        let waker = Waker::from(self.handle.clone());
        let mut edges = Vec::with_capacity(BATCH);
        while !(self.closing && self.pairs.is_empty() && self.tasks.is_empty()) {
            let rung = self.wait(&mut edges);
            if rung {
                // The end of a pair wins over a late byte, so the mail comes first.
                self.read_mail();
            }
            for edge in &edges {
                match edge.data.u64() {
                    WAKE => {}
                    TIME => self.do_what_is_due(),
                    token => self.on_event(token, edge.flags),
                }
            }
            for number in std::mem::take(&mut self.ready) {
                if let Some(pair) = self.pairs.get_mut(&number) {
                    pair.is_queued = false;
                    self.run_pair(number);
                }
            }
            if self.handle.mailbox.wake_flag.take() || rung {
                self.read_mail();
                self.run_tasks(&mut Context::from_waker(&waker));
            }
        }
    }

    /// Blocked for edges, unless there is something to do. Tells whether the wake_flag was rung.
    fn wait(&self, edges: &mut Vec<Event>) -> bool {
        let wake_flag = &self.handle.mailbox.wake_flag;
        let at_once = Timespec::default();
        let sleeps = self.ready.is_empty() && wake_flag.try_sleep();
        let timeout = (!sleeps).then_some(&at_once);
        edges.clear();
        match epoll::wait(
            self.executor.reactor().epoll(),
            rustix::buffer::spare_capacity(edges),
            timeout,
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait(2) on an epoll of our own: {error}"),
        }
        wake_flag.take()
    }

    fn read_mail(&mut self) {
        let messages = std::mem::take(&mut *self.handle.mailbox.lock());
        let mut look = false;
        for message in messages {
            match message {
                Message::Run(job) => job(&self.executor),
                Message::CheckOwners => look = true,
                Message::Close => self.closing = true,
            }
        }
        if look {
            let over: Vec<_> = self.pairs.iter().filter(|(_, pair)| pair.owner.is_over()).collect();
            let over: Vec<_> = over.into_iter().map(|(number, _)| *number).collect();
            for number in over {
                self.finish(number, Finish::Stopped);
            }
        }
    }

    /// Lets every task go on that was woken, and those begin that were started.
    fn run_tasks(&mut self, context: &mut Context<'_>) {
        loop {
            match self.tasks.poll_next_unpin(context) {
                Poll::Ready(Some(Some(pair))) => self.adopt(pair),
                Poll::Ready(Some(None)) => {}
                Poll::Ready(None) | Poll::Pending => match self.executor.spawned() {
                    none if none.is_empty() => return,
                    some => self.tasks.extend(some),
                },
            }
        }
    }

    fn adopt(&mut self, pair: Pair<O>) {
        let (number, over) = (pair.number, pair.owner.is_over());
        self.pairs.insert(number, Box::new(pair));
        if over {
            self.finish(number, Finish::Stopped);
        } else {
            // What came before may be here already.
            self.run_pair(number);
        }
    }

    fn on_event(&mut self, token: u64, edges: EventFlags) {
        let number = token / 2;
        let Some(pair) = self.pairs.get_mut(&number) else {
            return self.executor.reactor().on_event(token, edges);
        };
        let socket = match token % 2 {
            0 => &mut pair.relay.client,
            _ => &mut pair.relay.leader,
        };
        socket.on_event(edges);
        self.run_pair(number);
    }

    fn run_pair(&mut self, number: u64) {
        let Some(pair) = self.pairs.get_mut(&number) else {
            return;
        };
        let mut next = pair.relay.run(&mut self.io);
        if self.io.syscalls.fakes_readiness() {
            pair.relay.client.assume_ready();
            pair.relay.leader.assume_ready();
            if matches!(next, Next::Wait) {
                next = Next::GoOn;
            }
        }
        let epoll = self.executor.reactor().epoll();
        let client = pair.relay.client.update_write_interest(epoll, 2 * number);
        if let Err(error) = client.and_then(|()| pair.relay.leader.update_write_interest(epoll, 2 * number + 1)) {
            next = Next::Finish(Finish::Failed(error));
        }
        match next {
            Next::Finish(finish) => return self.finish(number, finish),
            Next::GoOn if !pair.is_queued => {
                pair.is_queued = true;
                self.ready.push(number);
            }
            Next::GoOn | Next::Wait => {}
        }
        for (noted, what) in pair.noted.iter_mut().zip(OF_PAIRS) {
            if !*noted && pair.relay.needs(what) {
                *noted = true;
                note(&mut self.timers, &self.timer, what, number);
            }
        }
        if self.io.took_pipe {
            self.io.took_pipe = false;
            if !self.gives_pipes_back {
                self.gives_pipes_back = true;
                note(&mut self.timers, &self.timer, Timer::Pipes, 0);
            }
        }
    }

    fn do_what_is_due(&mut self) {
        for (what, number) in self.timers.take_due(Instant::now()) {
            if what == Timer::Pipes {
                self.gives_pipes_back = self.io.traffic.pipes.give_back();
                if self.gives_pipes_back {
                    note(&mut self.timers, &self.timer, what, number);
                }
                continue;
            }
            let Some(pair) = self.pairs.get_mut(&number) else {
                continue;
            };
            for (noted, other) in pair.noted.iter_mut().zip(OF_PAIRS) {
                *noted &= other != what;
            }
            let finish = match what {
                Timer::Check => pair.relay.check(&mut self.io),
                Timer::Linger => pair.relay.lingers_in_vain().then_some(Finish::Closed(Side::Leader)),
                Timer::Fin | Timer::Pipes => {
                    pair.relay.fin_is_due();
                    None
                }
            };
            match finish {
                Some(finish) => self.finish(number, finish),
                None => self.run_pair(number),
            }
        }
        if let Some(after) = self.timers.next(Instant::now()) {
            set_timer(&self.timer, after);
        }
    }

    fn finish(&mut self, number: u64, finish: Finish) {
        if let Some(mut pair) = self.pairs.remove(&number) {
            if matches!(finish, Finish::Closed(Side::Leader)) {
                pair.relay.discard_unread(&mut self.io);
            }
            pair.owner.finished(pair.relay.finished(finish));
        }
    }
}

fn note(timers: &mut Timers, timer: &OwnedFd, what: Timer, number: u64) {
    if let Some(after) = timers.add(what, number, Instant::now()) {
        set_timer(timer, after);
    }
}

fn set_timer(timer: &OwnedFd, after: Duration) {
    let once = Itimerspec {
        it_interval: Timespec::default(),
        it_value: Timespec::try_from(after).unwrap_or_default(),
    };
    if let Err(error) = timerfd_settime(timer, TimerfdTimerFlags::empty(), &once) {
        panic!("timerfd_settime(2) on a timer of our own: {error}");
    }
}
