//! A thread that moves the bytes of many pairs, with an edge-triggered epoll of its own.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::calls::Calls;
use super::flow::BUFFER;
use super::inbox::Inbox;
use super::relay::{Next, Relay};
use super::{Desk, Finish, Message, Owner, Traffic};

/// Edges taken from epoll at once.
const BATCH: usize = 256;
/// Pairs that moved bytes are checked after a quarter of TCP_USER_TIMEOUT, but not later than this.
const LONGEST_CHECK: Duration = Duration::from_millis(2500);
/// epoll's name for the mailbox; a pair's sockets have twice its number, and one more for the leader's.
const MAIL: u64 = u64::MAX;
/// epoll's name for the timer.
const TIME: u64 = u64::MAX - 1;

/// A worker's inbox, the bell that wakes it, and the epoll where both of it come together.
#[derive(Debug)]
pub(super) struct Mailbox<O> {
    inbox: Inbox<Message<O>>,
    bell: OwnedFd,
    epoll: OwnedFd,
}

/// What moving bytes takes, lent to one pair after the other.
pub(super) struct Tools {
    pub(super) buffer: Box<[u8]>,
    pub(super) calls: Box<dyn Calls>,
    pub(super) traffic: Arc<Traffic>,
}

/// The thread's state.
pub(super) struct Worker<O> {
    desk: Arc<Desk<O>>,
    tools: Tools,
    pairs: HashMap<u64, Box<Pair<O>>>,
    /// Pairs that gave way to others, and can go on.
    turns: Vec<u64>,
    /// Pairs that are to be checked when the timer rings: all at once, so that time costs an idle pair nothing.
    checks: Vec<u64>,
    /// A timeout of epoll_wait(2) would do, but the kernel would set up a timer for each single wait, which costs 1 µs of each message.
    timer: OwnedFd,
    check_every: Duration,
    closing: bool,
}

/// What a worker has of a session.
#[derive(Debug)]
pub(super) struct Pair<O> {
    relay: Relay,
    owner: O,
    /// Its sockets cannot be watched.
    unwatched: Option<io::Error>,
    has_turn: bool,
    has_check: bool,
}

impl<O> Pair<O> {
    pub(super) fn new(client: TcpStream, leader: TcpStream, owner: O) -> Self {
        Self {
            relay: Relay::new(client, leader),
            owner,
            unwatched: None,
            has_turn: false,
            has_check: false,
        }
    }

    fn watch(&mut self, epoll: &OwnedFd, number: u64) {
        let client = self.relay.client.watch(epoll, 2 * number);
        let both = client.and_then(|()| self.relay.leader.watch(epoll, 2 * number + 1));
        self.unwatched = both.err();
    }
}

impl<O: Owner> Mailbox<O> {
    pub(super) fn new() -> io::Result<Self> {
        let mailbox = Self {
            inbox: Inbox::new(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        };
        mailbox.listen(&mailbox.bell, MAIL)?;
        Ok(mailbox)
    }

    /// For what is edge-triggered and never read: a bell (its counter would be full after 2^64 rings), a timer.
    fn listen(&self, to: &OwnedFd, token: u64) -> io::Result<()> {
        let edges = EventFlags::IN | EventFlags::ET;
        Ok(epoll::add(&self.epoll, to, EventData::new_u64(token), edges)?)
    }

    /// Leaves a message. A pair is watched from now on, and its first edge makes the worker look for it here: an idle newcomer wakes nobody.
    pub(super) fn post(&self, message: Message<O>) {
        let ring = self.inbox.put(message, |message| match message {
            Message::Adopt(number, pair) => {
                pair.watch(&self.epoll, *number);
                pair.unwatched.is_some() || pair.owner.is_over()
            }
            Message::Look | Message::Close => true,
        });
        if ring {
            let _rings = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl<O: Owner> Worker<O> {
    pub(super) fn new(desk: Arc<Desk<O>>, traffic: Arc<Traffic>, calls: Box<dyn Calls>) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        desk.mailbox.listen(&timer, TIME)?;
        let check_every = match traffic.user_timeout {
            Duration::ZERO => LONGEST_CHECK,
            timeout => (timeout / 4).min(LONGEST_CHECK),
        };
        Ok(Self {
            desk,
            tools: Tools {
                buffer: vec![0; BUFFER].into_boxed_slice(),
                calls,
                traffic,
            },
            pairs: HashMap::new(),
            turns: Vec::new(),
            checks: Vec::new(),
            timer,
            check_every,
            closing: false,
        })
    }

    /// Until the mailbox was closed and the last pair has finished.
    pub(super) fn run(mut self) {
        let mut edges = Vec::with_capacity(BATCH);
        while !(self.closing && self.pairs.is_empty()) {
            self.wait(&mut edges);
            // The end of a pair wins over a late byte, so the mail comes first.
            if edges.iter().any(|edge| edge.data.u64() == MAIL) {
                self.read_mail();
            }
            for edge in &edges {
                match edge.data.u64() {
                    MAIL => {}
                    TIME => self.check(),
                    token => self.told(token, edge.flags),
                }
            }
            for number in std::mem::take(&mut self.turns) {
                if let Some(pair) = self.pairs.get_mut(&number) {
                    pair.has_turn = false;
                    self.give_turn(number);
                }
            }
        }
    }

    fn wait(&self, edges: &mut Vec<Event>) {
        let at_once = Timespec::default();
        let timeout = (!self.turns.is_empty()).then_some(&at_once);
        edges.clear();
        match epoll::wait(&self.desk.mailbox.epoll, rustix::buffer::spare_capacity(edges), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait(2) on an epoll of our own: {error}"),
        }
    }

    fn read_mail(&mut self) {
        let mut look = false;
        for message in self.desk.mailbox.inbox.take() {
            match message {
                Message::Adopt(number, mut pair) => {
                    let unwatched = pair.unwatched.take();
                    let over = pair.owner.is_over();
                    self.pairs.insert(number, pair);
                    if over {
                        self.finish(number, Finish::Stopped);
                    } else if let Some(error) = unwatched {
                        self.finish(number, Finish::Failed(error));
                    }
                }
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

    fn told(&mut self, token: u64, edges: EventFlags) {
        let number = token / 2;
        if !self.pairs.contains_key(&number) {
            // A newcomer, or one that has finished since epoll wrote this down.
            self.read_mail();
        }
        let Some(pair) = self.pairs.get_mut(&number) else {
            return;
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
        let epoll = &self.desk.mailbox.epoll;
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
        if !pair.has_check && pair.relay.needs_check() {
            pair.has_check = true;
            if self.checks.is_empty() {
                self.set_timer();
            }
            self.checks.push(number);
        }
    }

    fn set_timer(&self) {
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(self.check_every).unwrap_or_default(),
        };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            panic!("timerfd_settime(2) on a timer of our own: {error}");
        }
    }

    fn check(&mut self) {
        for number in std::mem::take(&mut self.checks) {
            let Some(pair) = self.pairs.get_mut(&number) else {
                continue;
            };
            pair.has_check = false;
            match pair.relay.check(&mut self.tools) {
                Some(finish) => self.finish(number, finish),
                None => self.give_turn(number),
            }
        }
    }

    fn finish(&mut self, number: u64, finish: Finish) {
        if let Some(pair) = self.pairs.remove(&number) {
            self.desk.pairs.fetch_sub(1, Ordering::Relaxed);
            pair.owner.finished(pair.relay.finished(finish));
        }
    }
}
