//! A worker's thread: it waits for events, and runs its tasks and its pairs.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::event::epoll::Event;

use super::handle::{Executor, Task};
use super::mailbox::{Message, WorkerHandle};
use super::pair::Owner;
use super::pairs::Pairs;
use crate::proxy::forward::reactor::{EVENT_BATCH, Epoll, Reactor, Syscalls, Timerfd, Token};
use crate::proxy::forward::relay::{IoContext, Traffic};

/// The parts of a worker whose creation may fail. They are created before the worker's thread, and sent to it.
pub(crate) struct Setup<O, S> {
    number: usize,
    handle: Arc<WorkerHandle<O>>,
    epoll: Epoll,
    timerfd: Timerfd,
    io: IoContext<S>,
}

pub(crate) struct Worker<O, S> {
    handle: Arc<WorkerHandle<O>>,
    executor: Executor<O>,
    reactor: Reactor,
    tasks: FuturesUnordered<Task>,
    pairs: Pairs<O, S>,
    closing: bool,
}

impl<O: Owner, S: Syscalls> Setup<O, S> {
    pub(crate) fn new(
        number: usize,
        handle: Arc<WorkerHandle<O>>,
        traffic: Arc<Traffic>,
        syscalls: S,
    ) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        handle.watch(&epoll)?;
        let timerfd = Timerfd::new(&epoll)?;
        Ok(Self {
            number,
            handle,
            epoll,
            timerfd,
            io: IoContext::new(traffic, syscalls),
        })
    }
}

impl<O: Owner, S: Syscalls> Worker<O, S> {
    pub(crate) fn new(setup: Setup<O, S>) -> Self {
        let reactor = Reactor::new(setup.epoll);
        Self {
            handle: setup.handle,
            executor: Executor::new(setup.number, reactor.clone()),
            reactor: reactor.clone(),
            tasks: FuturesUnordered::new(),
            pairs: Pairs::new(setup.io, setup.timerfd, reactor),
            closing: false,
        }
    }

    /// Runs until [`Message::Close`] has arrived and no task and no pair is left.
    pub(crate) fn run(mut self) {
        let waker = Waker::from(self.handle.clone());
        let mut events = Vec::with_capacity(EVENT_BATCH);
        while !(self.closing && self.pairs.is_empty() && self.tasks.is_empty()) {
            let woken = self.wait(&mut events);
            if woken {
                // Messages are read before events, so that a pair that is over moves no late bytes.
                self.read_mail();
            }
            for event in &events {
                self.on_event(event);
            }
            self.pairs.run_queued();
            if self.handle.wake_flag().take() || woken {
                self.read_mail();
                self.run_tasks(&mut Context::from_waker(&waker));
            }
        }
    }

    /// Fetches the pending events, and waits for one if there is nothing else to do. Returns true if another thread, or
    /// a task, woke the worker.
    fn wait(&self, events: &mut Vec<Event>) -> bool {
        let wake_flag = self.handle.wake_flag();
        let may_sleep = !self.pairs.has_queued() && wake_flag.try_sleep();
        self.reactor.epoll().wait(events, may_sleep);
        wake_flag.take()
    }

    fn on_event(&mut self, event: &Event) {
        let flags = event.flags;
        match Token::decode(event.data.u64()) {
            // The only purpose of this event is to end the wait.
            Token::Eventfd => {}
            Token::Timer => self.pairs.on_timer(),
            Token::Socket(number, side) if self.pairs.on_event(number, side, flags) => {}
            token @ (Token::Socket(..) | Token::Listener(_)) => self.reactor.on_event(token, flags),
        }
    }

    fn read_mail(&mut self) {
        let mut check_owners = false;
        for message in self.handle.take_messages() {
            match message {
                Message::Run(job) => job(&self.executor),
                Message::CheckOwners => check_owners = true,
                Message::Park(most, receiver) => {
                    if let Err(lost) = receiver.send(self.pairs.park(most)) {
                        // The thread that asked for them is gone.
                        lost.0.into_iter().for_each(|pair| self.executor.unpark(*pair));
                    }
                }
                Message::Close => self.closing = true,
            }
        }
        if check_owners {
            self.pairs.check_owners();
        }
    }

    /// Polls every task that was woken or started, and adopts the pairs that tasks and jobs have added.
    fn run_tasks(&mut self, context: &mut Context<'_>) {
        loop {
            let polled = self.tasks.poll_next_unpin(context);
            for pair in self.executor.take_pairs() {
                self.pairs.adopt(pair);
            }
            if let Poll::Ready(Some(())) = polled {
                continue;
            }
            match self.executor.take_tasks() {
                none if none.is_empty() => return,
                started => self.tasks.extend(started),
            }
        }
    }
}
