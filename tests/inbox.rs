//! The only thing that a worker shares with those who hand it sessions, under a model checker: every interleaving of the threads is tried.

#![allow(clippy::unwrap_used)]

use std::sync::PoisonError;

use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

// The product's own file, with loom's mutex in the place of std's.
#[path = "../src/proxy/forward/inbox.rs"]
mod inbox;

use inbox::Inbox;

/// loom's stand-in for an edge-triggered eventfd: rings before the worker waits are not lost, and several count as one.
struct Mailbox {
    inbox: Inbox<(usize, usize)>,
    bell: Notify,
}

impl Mailbox {
    /// The last message is urgent; those before it wait for it.
    fn post(&self, message: (usize, usize), urgent: bool) {
        if self.inbox.put(message, |_| urgent) {
            self.bell.notify();
        }
    }
}

#[test]
fn no_message_of_two_senders_is_left_lying() {
    loom::model(|| exchange(&[1, 1]));
}

#[test]
fn the_messages_of_one_sender_stay_in_order() {
    loom::model(|| exchange(&[3]));
}

/// Each sender posts so many messages; one thread takes them all.
fn exchange(senders: &[usize]) {
    let mailbox = Arc::new(Mailbox {
        inbox: Inbox::new(),
        bell: Notify::new(),
    });
    for (sender, count) in senders.iter().copied().enumerate() {
        let mailbox = mailbox.clone();
        thread::spawn(move || (0..count).for_each(|number| mailbox.post((sender, number), number + 1 == count)));
    }
    let mut got = Vec::new();
    // A message that nobody rings for would leave the worker waiting for ever, which loom reports as a deadlock.
    while got.len() < senders.iter().sum() {
        mailbox.bell.wait();
        got.extend(mailbox.inbox.take());
    }
    for sender in 0..senders.len() {
        let of_sender: Vec<_> = got.iter().filter(|(from, _)| *from == sender).collect();
        assert!(of_sender.is_sorted(), "{got:?}");
    }
}
