//! A worker's inbox: many threads put in, one takes out.

use super::{Mutex, PoisonError};

/// Messages, in order.
#[derive(Debug)]
pub(super) struct Inbox<T>(Mutex<Vec<T>>);

impl<T> Inbox<T> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// Puts a message in. Tells whether the bell must be rung now: for the others it has been, since the inbox was last emptied.
    pub(super) fn put(&self, message: T) -> bool {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        messages.push(message);
        messages.len() == 1
    }

    /// Empties it. To be called after each ring of the bell.
    pub(super) fn take(&self) -> Vec<T> {
        let mut messages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *messages)
    }
}
