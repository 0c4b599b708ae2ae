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

use super::agenda::{Agenda, Delays, Later};
use super::bell::Bell;
use super::calls::Calls;
use super::flow::BUFFER;
use super::local::{Local, Socket, Task};
use super::pipes::{self, Pipe};
use super::relay::{Next, Relay};
use super::{Desk, Finish, Message, Owner, Side, Traffic};

/// Edges taken from epoll at once.
const BATCH: usize = 256;
/// Pairs that moved bytes are checked after a quarter of TCP_USER_TIMEOUT, but not later than this.
const LONGEST_CHECK: Duration = Duration::from_millis(2500);
/// What a client is given to close after its leader did, before its session ends.
const LINGER: Duration = Duration::from_secs(1);
/// epoll's name for the alarm; a pair's sockets have twice its number, and one more for the leader's.
const ALARM: u64 = u64::MAX;
/// epoll's name for the timer.
const TIME: u64 = u64::MAX - 1;

/// What a worker is left by others, and the bell that wakes it.
#[derive(Debug)]
pub(super) struct Mailbox<O> {
    messages: Mutex<Vec<Message<O>>>,
    bell: Bell,
    /// An eventfd(2) in the worker's epoll.
    alarm: OwnedFd,
}

/// What a worker is made of, outside of its thread.
pub(super) struct Parts<O> {
    number: usize,
    desk: Arc<Desk<O>>,
    epoll: OwnedFd,
    timer: OwnedFd,
    tools: Tools,
}

/// What moving bytes takes, lent to one pair after the other.
pub(super) struct Tools {
    pub(super) buffer: Box<[u8]>,
    pub(super) calls: Box<dyn Calls>,
    pub(super) traffic: Arc<Traffic>,
    took_pipe: bool,
}

/// The thread's state.
pub(super) struct Worker<O> {
    desk: Arc<Desk<O>>,
    tools: Tools,
    local: Local<O>,
    tasks: FuturesUnordered<Task<O>>,
    pairs: HashMap<u64, Box<Pair<O>>>,
    /// Pairs that gave way to others, and can go on.
    turns: Vec<u64>,
    /// Pairs that are to be looked at when the timer rings; time costs an idle pair nothing.
    agenda: Agenda,
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
    has_turn: bool,
    /// Whether it stands in the agenda: in the order of [`OF_PAIRS`].
    noted: [bool; OF_PAIRS.len()],
}

/// What the agenda may hold for a pair, once each.
const OF_PAIRS: [Later; 3] = [Later::Fin, Later::Linger, Later::Check];

impl<O> Pair<O> {
    /// Of sockets of one worker; the leader's was dialled for this client.
    pub(crate) fn new(client: Socket, leader: Socket, owner: O) -> Self {
        let ((token, client), (_, leader)) = (client.into_watched(), leader.into_watched());
        Self {
            number: token / 2,
            relay: Relay::new(client, leader),
            owner,
            has_turn: false,
            noted: [false; OF_PAIRS.len()],
        }
    }
}

impl<O> Mailbox<O> {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            messages: Mutex::default(),
            bell: Bell::new(),
            alarm: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(super) fn post(&self, message: Message<O>) {
        self.lock().push(message);
        self.ring();
    }

    fn ring(&self) {
        if self.bell.ring() {
            // It fails when the counter is full, and then the alarm is on.
            let _rings = rustix::io::write(&self.alarm, &1_u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Message<O>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the worker for its tasks.
impl<O: Owner> Wake for Desk<O> {
    fn wake(self: Arc<Self>) {
        self.mailbox.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.mailbox.ring();
    }
}

impl<O: Owner> Parts<O> {
    pub(super) fn new(
        number: usize,
        desk: Arc<Desk<O>>,
        traffic: Arc<Traffic>,
        calls: Box<dyn Calls>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        // Neither is ever read: edges tell enough, and the alarm's counter would be full after 2^64 rings.
        for (file, token) in [(&desk.mailbox.alarm, ALARM), (&timer, TIME)] {
            epoll::add(&epoll, file, EventData::new_u64(token), EventFlags::IN | EventFlags::ET)?;
        }
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            number,
            desk,
            epoll,
            timer,
            tools: Tools {
                buffer,
                calls,
                traffic,
                took_pipe: false,
            },
        })
    }
}

impl Tools {
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
            fin: traffic.fin_patience,
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
    pub(super) fn new(parts: Parts<O>) -> Self {
        let agenda = Agenda::new(Delays::of(&parts.tools.traffic));
        Self {
            desk: parts.desk,
            tools: parts.tools,
            local: Local::new(parts.number, parts.epoll),
            tasks: FuturesUnordered::new(),
            pairs: HashMap::new(),
            turns: Vec::new(),
            agenda,
            gives_pipes_back: false,
            timer: parts.timer,
            closing: false,
        }
    }

    /// Until the mailbox was closed and the last task and pair have finished.
    pub(super) fn run(mut self) {
        let waker = Waker::from(self.desk.clone());
        let mut edges = Vec::with_capacity(BATCH);
        while !(self.closing && self.pairs.is_empty() && self.tasks.is_empty()) {
            let rung = self.wait(&mut edges);
            if rung {
                // The end of a pair wins over a late byte, so the mail comes first.
                self.read_mail();
            }
            for edge in &edges {
                match edge.data.u64() {
                    ALARM => {}
                    TIME => self.do_what_is_due(),
                    token => self.told(token, edge.flags),
                }
            }
            for number in std::mem::take(&mut self.turns) {
                if let Some(pair) = self.pairs.get_mut(&number) {
                    pair.has_turn = false;
                    self.give_turn(number);
                }
            }
            if self.desk.mailbox.bell.answer() || rung {
                self.read_mail();
                self.run_tasks(&mut Context::from_waker(&waker));
            }
        }
    }

    /// Waits for edges, unless there is something to do. Tells whether the bell was rung.
    fn wait(&self, edges: &mut Vec<Event>) -> bool {
        let bell = &self.desk.mailbox.bell;
        let at_once = Timespec::default();
        let sleeps = self.turns.is_empty() && bell.may_sleep();
        let timeout = (!sleeps).then_some(&at_once);
        edges.clear();
        match epoll::wait(
            self.local.reactor().epoll(),
            rustix::buffer::spare_capacity(edges),
            timeout,
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait(2) on an epoll of our own: {error}"),
        }
        bell.answer()
    }

    fn read_mail(&mut self) {
        let messages = std::mem::take(&mut *self.desk.mailbox.lock());
        let mut look = false;
        for message in messages {
            match message {
                Message::Run(job) => job(&self.local),
                Message::Look => look = true,
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
                Poll::Ready(None) | Poll::Pending => match self.local.spawned() {
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
            self.give_turn(number);
        }
    }

    fn told(&mut self, token: u64, edges: EventFlags) {
        let number = token / 2;
        let Some(pair) = self.pairs.get_mut(&number) else {
            return self.local.reactor().told(token, edges);
        };
        let socket = match token % 2 {
            0 => &mut pair.relay.client,
            _ => &mut pair.relay.leader,
        };
        socket.told(edges);
        self.give_turn(number);
    }

    fn give_turn(&mut self, number: u64) {
        let Some(pair) = self.pairs.get_mut(&number) else {
            return;
        };
        let mut next = pair.relay.run(&mut self.tools);
        if self.tools.calls.made_up() {
            pair.relay.client.believe_ready();
            pair.relay.leader.believe_ready();
            if matches!(next, Next::Wait) {
                next = Next::GoOn;
            }
        }
        let epoll = self.local.reactor().epoll();
        let client = pair.relay.client.watch_for_room(epoll, 2 * number);
        if let Err(error) = client.and_then(|()| pair.relay.leader.watch_for_room(epoll, 2 * number + 1)) {
            next = Next::Finish(Finish::Failed(error));
        }
        match next {
            Next::Finish(finish) => return self.finish(number, finish),
            Next::GoOn if !pair.has_turn => {
                pair.has_turn = true;
                self.turns.push(number);
            }
            Next::GoOn | Next::Wait => {}
        }
        for (noted, what) in pair.noted.iter_mut().zip(OF_PAIRS) {
            if !*noted && pair.relay.needs(what) {
                *noted = true;
                note(&mut self.agenda, &self.timer, what, number);
            }
        }
        if self.tools.took_pipe {
            self.tools.took_pipe = false;
            if !self.gives_pipes_back {
                self.gives_pipes_back = true;
                note(&mut self.agenda, &self.timer, Later::Pipes, 0);
            }
        }
    }

    fn do_what_is_due(&mut self) {
        for (what, number) in self.agenda.take_due(Instant::now()) {
            if what == Later::Pipes {
                self.gives_pipes_back = self.tools.traffic.pipes.give_back();
                if self.gives_pipes_back {
                    note(&mut self.agenda, &self.timer, what, number);
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
                Later::Check => pair.relay.check(&mut self.tools),
                Later::Linger => pair.relay.lingers_in_vain().then_some(Finish::Closed(Side::Leader)),
                Later::Fin | Later::Pipes => {
                    pair.relay.fin_is_due();
                    None
                }
            };
            match finish {
                Some(finish) => self.finish(number, finish),
                None => self.give_turn(number),
            }
        }
        if let Some(after) = self.agenda.next(Instant::now()) {
            set_timer(&self.timer, after);
        }
    }

    fn finish(&mut self, number: u64, finish: Finish) {
        if let Some(mut pair) = self.pairs.remove(&number) {
            if matches!(finish, Finish::Closed(Side::Leader)) {
                pair.relay.discard_unread(&mut self.tools);
            }
            pair.owner.finished(pair.relay.finished(finish));
        }
    }
}

fn note(agenda: &mut Agenda, timer: &OwnedFd, what: Later, number: u64) {
    if let Some(after) = agenda.add(what, number, Instant::now()) {
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
