//! What an operator asks for through the admin port, on its way to discovery: that alone writes the slot.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

/// Orders that may wait; each is carried out at once.
const WAITING: usize = 16;

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// New clients wait, for so long at most.
    Hold(Duration),
    /// They need not any longer.
    Release,
    /// Sessions end: all of them, or those to this member.
    Cut(Option<String>),
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// New clients are held, at most until then.
    Held(SystemTime),
    /// No hold is in force any longer, and whether one was.
    Released(bool),
    /// So many sessions were closed, and how long that took.
    Cut(u64, Duration),
    /// There is no such member; there are these.
    NoSuchMember(Vec<String>),
    /// Another cut is not over yet.
    CutUnderWay,
}

/// A wish, who has it, and where the outcome is waited for.
#[derive(Debug)]
pub struct Order {
    /// What is wanted.
    pub wish: Wish,
    /// Whose connection it came through.
    pub by: SocketAddr,
    answer: oneshot::Sender<Outcome>,
}

/// Where orders are given. Clones share it.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// The giving end, and the end where they are carried out.
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        let (give, take) = mpsc::channel(WAITING);
        (Self(give), take)
    }

    /// Gives an order, and waits for its outcome: `None` if whoever carries orders out has ended. Given up, the order may be carried out all the same.
    pub async fn give(&self, wish: Wish, by: SocketAddr) -> Option<Outcome> {
        let (answer, outcome) = oneshot::channel();
        self.0.send(Order { wish, by, answer }).await.ok()?;
        outcome.await.ok()
    }
}

impl Order {
    /// Tells the outcome.
    pub fn is_done(self, outcome: Outcome) {
        let _nobody_waits_any_more = self.answer.send(outcome);
    }
}
