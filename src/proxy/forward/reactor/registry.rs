//! The files that tasks wait for: the events that came, and the tasks to wake.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::event::epoll::EventFlags;

use super::epoll::Epoll;
use super::token::Token;

/// A worker's epoll and the registrations in it. Clones are handles on the same reactor.
#[derive(Clone, Debug)]
pub(crate) struct Reactor(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    epoll: Epoll,
    next_number: Cell<u64>,
    /// The files by their encoded tokens.
    registered: RefCell<HashMap<u64, Rc<Readiness>>>,
}

/// The events of a file since its task last checked, and the task's waker. Only one task waits for a file.
#[derive(Debug)]
struct Readiness {
    events: Cell<EventFlags>,
    waker: RefCell<Option<Waker>>,
}

/// A file that a task waits for. When this is dropped, the reactor removes its entry; epoll removes the file when the
/// file is closed.
#[derive(Debug)]
pub(crate) struct Registration {
    token: Token,
    reactor: Reactor,
    readiness: Rc<Readiness>,
}

impl Reactor {
    pub(crate) fn new(epoll: Epoll) -> Self {
        Self(Rc::new(Inner {
            epoll,
            next_number: Cell::new(0),
            registered: RefCell::default(),
        }))
    }

    pub(crate) fn epoll(&self) -> &Epoll {
        &self.0.epoll
    }

    /// Returns a new number for a token.
    pub(crate) fn next_number(&self) -> u64 {
        let next = self.0.next_number.get();
        self.0.next_number.set(next + 1);
        next
    }

    pub(crate) fn register(&self, token: Token) -> Registration {
        let readiness = Rc::new(Readiness {
            events: Cell::new(EventFlags::empty()),
            waker: RefCell::default(),
        });
        self.0.registered.borrow_mut().insert(token.encode(), readiness.clone());
        Registration {
            token,
            reactor: self.clone(),
            readiness,
        }
    }

    /// Records an event, and wakes the task that waits for this file. Ignores an event of a file whose registration was
    /// dropped.
    pub(crate) fn on_event(&self, token: Token, flags: EventFlags) {
        let readiness = self.0.registered.borrow().get(&token.encode()).cloned();
        let Some(readiness) = readiness else { return };
        readiness.events.set(readiness.events.get() | flags);
        if let Some(waker) = readiness.waker.take() {
            waker.wake();
        }
    }
}

impl Registration {
    pub(crate) fn epoll(&self) -> &Epoll {
        self.reactor.epoll()
    }

    pub(crate) fn reactor(&self) -> &Reactor {
        &self.reactor
    }

    /// Returns the events since the last call.
    pub(crate) fn take_events(&self) -> EventFlags {
        self.readiness.events.replace(EventFlags::empty())
    }

    /// Makes the next event wake this task.
    pub(crate) fn wait<T>(&self, context: &Context<'_>) -> Poll<T> {
        let waker = &mut *self.readiness.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reactor.0.registered.borrow_mut().remove(&self.token.encode());
    }
}
