//! A thread that moves the bytes of many pairs, with an edge-triggered epoll of its own.

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
use slab::Slab;

use super::calls::Calls;
use super::flow::BUFFER;
use super::inbox::Inbox;
use super::relay::{Next, Relay};
use super::{Desk, Finish, Message, Owner, Traffic};

/// Edges taken from epoll at once.
const BATCH: usize = 256;
/// Pairs that moved bytes are checked after a quarter of TCP_USER_TIMEOUT, but not later than this.
const LONGEST_CHECK: Duration = Duration::from_millis(2500);
/// epoll's name for the mailbox; a pair's sockets have twice its key, and one more for the leader's.
const MAIL: u64 = u64::MAX;
/// epoll's name for the timer.
const TIME: u64 = u64::MAX - 1;

/// An inbox with a bell that wakes its worker.
#[derive(Debug)]
pub(super) struct Mailbox<O> {
    inbox: Inbox<Message<O>>,
    bell: OwnedFd,
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
    epoll: OwnedFd,
    tools: Tools,
    pairs: Slab<Pair<O>>,
    /// Keys of pairs that gave way to others, and can go on.
    turns: Vec<usize>,
    /// Keys of pairs that are to be checked when the timer rings: all at once, so that time costs an idle pair nothing.
    checks: Vec<usize>,
    /// A timeout of epoll_wait(2) would do, but the kernel would set up a timer for each single wait: 2 µs of a message (measured).
    timer: OwnedFd,
    check_every: Duration,
    closing: bool,
}

struct Pair<O> {
    relay: Relay,
    owner: O,
    has_turn: bool,
    has_check: bool,
}

impl<O> Mailbox<O> {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            inbox: Inbox::new(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    pub(super) fn post(&self, message: Message<O>) {
        if self.inbox.put(message) {
            // Edge-triggered, it is never read; its counter would be full after 2^64 rings.
            let _rings = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl<O: Owner> Worker<O> {
    pub(super) fn new(desk: Arc<Desk<O>>, traffic: Arc<Traffic>, calls: Box<dyn Calls>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edges = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &desk.mailbox.bell, EventData::new_u64(MAIL), edges)?;
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        // Edge-triggered, neither is ever read.
        epoll::add(&epoll, &timer, EventData::new_u64(TIME), edges)?;
        let check_every = match traffic.user_timeout {
            Duration::ZERO => LONGEST_CHECK,
            timeout => (timeout / 4).min(LONGEST_CHECK),
        };
        Ok(Self {
            desk,
            epoll,
            tools: Tools {
                buffer: vec![0; BUFFER].into_boxed_slice(),
                calls,
                traffic,
            },
            pairs: Slab::new(),
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
            let mut newcomers = Vec::new();
            if edges.iter().any(|edge| edge.data.u64() == MAIL) {
                newcomers = self.read_mail();
            }
            for edge in &edges {
                match edge.data.u64() {
                    MAIL => {}
                    TIME => self.check(),
                    token => self.told(token, edge.flags),
                }
            }
            for key in std::mem::take(&mut self.turns) {
                if let Some(pair) = self.pairs.get_mut(key) {
                    pair.has_turn = false;
                    self.give_turn(key);
                }
            }
            // Only now: what epoll told above was of pairs that had these keys before.
            for (client, leader, owner) in newcomers {
                self.adopt(client, leader, owner);
            }
        }
    }

    fn wait(&self, edges: &mut Vec<Event>) {
        let at_once = Timespec::default();
        let timeout = (!self.turns.is_empty()).then_some(&at_once);
        edges.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(edges), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll_wait(2) on an epoll of our own: {error}"),
        }
    }

    fn read_mail(&mut self) -> Vec<(TcpStream, TcpStream, O)> {
        let mut newcomers = Vec::new();
        let mut look = false;
        for message in self.desk.mailbox.inbox.take() {
            match message {
                Message::Adopt(client, leader, owner) => newcomers.push((client, leader, owner)),
                Message::Look => look = true,
                Message::Close => self.closing = true,
            }
        }
        if look {
            let over: Vec<_> = self.pairs.iter().filter(|(_, pair)| pair.owner.is_over()).collect();
            let over: Vec<_> = over.into_iter().map(|(key, _)| key).collect();
            for key in over {
                self.finish(key, Finish::Stopped);
            }
        }
        newcomers
    }

    fn adopt(&mut self, client: TcpStream, leader: TcpStream, owner: O) {
        let relay = Relay::new(client, leader);
        let over = owner.is_over();
        let key = self.pairs.insert(Pair {
            relay,
            owner,
            has_turn: false,
            has_check: false,
        });
        if over {
            return self.finish(key, Finish::Stopped);
        }
        let relay = &self.pairs[key].relay;
        let token = 2 * key as u64;
        let watched = relay.client.watch(&self.epoll, token);
        if let Err(error) = watched.and_then(|()| relay.leader.watch(&self.epoll, token + 1)) {
            self.finish(key, Finish::Failed(error));
        }
    }

    fn told(&mut self, token: u64, edges: EventFlags) {
        let Ok(key) = usize::try_from(token / 2) else { return };
        // It may have finished since epoll wrote this down.
        let Some(pair) = self.pairs.get_mut(key) else { return };
        let socket = match token % 2 {
            0 => &mut pair.relay.client,
            _ => &mut pair.relay.leader,
        };
        socket.told(edges);
        self.give_turn(key);
    }

    fn give_turn(&mut self, key: usize) {
        let pair = &mut self.pairs[key];
        let mut next = pair.relay.run(&mut self.tools);
        if self.tools.calls.made_up() {
            pair.relay.client.believe_ready();
            pair.relay.leader.believe_ready();
            if matches!(next, Next::Wait) {
                next = Next::GoOn;
            }
        }
        match next {
            Next::Finish(finish) => return self.finish(key, finish),
            Next::GoOn if !pair.has_turn => {
                pair.has_turn = true;
                self.turns.push(key);
            }
            Next::GoOn | Next::Wait => {}
        }
        if !pair.has_check && pair.relay.needs_check() {
            pair.has_check = true;
            if self.checks.is_empty() {
                self.set_timer();
            }
            self.checks.push(key);
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
        for key in std::mem::take(&mut self.checks) {
            let Some(pair) = self.pairs.get_mut(key) else { continue };
            pair.has_check = false;
            match pair.relay.check(&mut self.tools) {
                Some(finish) => self.finish(key, finish),
                None => self.give_turn(key),
            }
        }
    }

    fn finish(&mut self, key: usize, finish: Finish) {
        let Pair { relay, owner, .. } = self.pairs.remove(key);
        self.desk.pairs.fetch_sub(1, Ordering::Relaxed);
        owner.finished(relay.finished(finish));
    }
}
