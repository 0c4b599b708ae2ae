//! A worker's inbox: many threads put in, one takes out.

use super::{Mutex, PoisonError};

/// Messages, in order.
#[derive(Debug)]
pub(super) struct Inbox<T>(Mutex<Inside<T>>);

#[derive(Debug)]
struct Inside<T> {
    messages: Vec<T>,
    /// The bell was rung, or is about to be, since the inbox was last emptied.
    rung: bool,
}

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inside {
            messages: Vec::new(),
            rung: false,
        }))
    }

    /// Puts a message in. Tells whether the bell must be rung for it now; one that is not urgent lies there until somebody rings, or until the worker
    /// looks by itself.
    ///
    /// `urgent` is asked while nobody else can put in or take out. So what it starts finds the message in the inbox; and if what it looks at is changed first,
    /// and a message about that is put in afterwards, then either it sees the change, or that message comes after this one.
    pub(super) fn put(&self, mut message: T, urgent: impl FnOnce(&mut T) -> bool) -> bool {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = urgent(&mut message) && !inside.rung;
        inside.rung |= ring;
        inside.messages.push(message);
        ring
    }

    /// Empties it. To be called after each ring of the bell.
    pub(super) fn take(&self) -> Vec<T> {
        let mut inside = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inside.rung = false;
        std::mem::take(&mut inside.messages)
    }
}
