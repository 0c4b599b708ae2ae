//! The flag that wakes a worker, under a model checker, which tries every interleaving of the threads.

#![allow(clippy::unwrap_used)]

use loom::sync::{Arc, Mutex, Notify};
use loom::thread;

// The wake flag imports its atomic from here.
mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
}

// The product's own file.
#[path = "../src/proxy/forward/executor/wake_flag.rs"]
mod wake_flag;

use wake_flag::WakeFlag;

/// A worker's mailbox, with loom's counterpart of an eventfd: signals before the worker waits are not lost, and several
/// count as one.
struct Mailbox {
    messages: Mutex<Vec<(usize, usize)>>,
    wake_flag: WakeFlag,
    eventfd: Notify,
}

#[test]
fn no_message_of_two_senders_is_lost() {
    loom::model(|| exchange(&[1, 1]));
}

#[test]
fn the_messages_of_one_sender_stay_in_order() {
    loom::model(|| exchange(&[3]));
}

/// Each sender posts its count of messages; one thread takes all of them, and sleeps in between if it may.
fn exchange(senders: &[usize]) {
    let mailbox = Arc::new(Mailbox {
        messages: Mutex::default(),
        wake_flag: WakeFlag::new(),
        eventfd: Notify::new(),
    });
    for (sender, count) in senders.iter().copied().enumerate() {
        let mailbox = mailbox.clone();
        thread::spawn(move || {
            for number in 0..count {
                mailbox.messages.lock().unwrap().push((sender, number));
                if mailbox.wake_flag.set() {
                    mailbox.eventfd.notify();
                }
            }
        });
    }
    let mut got: Vec<(usize, usize)> = Vec::new();
    // A message without a wake-up would leave the worker asleep for ever, which loom reports as a deadlock.
    while got.len() < senders.iter().sum() {
        if mailbox.wake_flag.try_sleep() {
            mailbox.eventfd.wait();
        }
        if mailbox.wake_flag.take() {
            got.append(&mut mailbox.messages.lock().unwrap());
        }
    }
    for sender in 0..senders.len() {
        let of_sender: Vec<_> = got.iter().filter(|(from, _)| *from == sender).collect();
        assert!(of_sender.is_sorted(), "{got:?}");
    }
}
