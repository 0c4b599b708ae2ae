//! The queue of operator commands from the admin port to discovery, the only writer of the slots.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};

use crate::config::OperatorCommand;

/// Maximum number of commands that wait for discovery, which applies each immediately.
const CAPACITY: usize = 16;

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// New clients are held, until this time at the latest.
    Held(SystemTime),
    /// No hold is in force. The value is true if the command ended a hold.
    Released(bool),
    /// The number of sessions that were closed, and the time it took.
    Cut(u64, Duration),
    /// No member has this name. The value lists the known members.
    NoSuchMember(Vec<String>),
    /// Another cut is still in progress.
    CutUnderWay,
}

/// A command that is not answered yet.
#[derive(Debug)]
pub struct PendingCommand {
    /// The command.
    pub command: OperatorCommand,
    /// The operator's address.
    pub by: SocketAddr,
    reply: oneshot::Sender<Outcome>,
}

/// The sending end of the queue. Clones share it.
#[derive(Clone, Debug)]
pub struct CommandQueue(mpsc::Sender<PendingCommand>);

impl CommandQueue {
    /// Returns both ends of a new queue.
    pub fn new() -> (Self, mpsc::Receiver<PendingCommand>) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        (Self(sender), receiver)
    }

    /// Sends a command and waits for its outcome; `None` if discovery has ended. If this future is dropped, the
    /// command may still be applied.
    pub async fn send(&self, command: OperatorCommand, by: SocketAddr) -> Option<Outcome> {
        let (reply, outcome) = oneshot::channel();
        self.0.send(PendingCommand { command, by, reply }).await.ok()?;
        outcome.await.ok()
    }
}

impl PendingCommand {
    /// Answers the command.
    pub fn reply(self, outcome: Outcome) {
        let _operator_may_have_left = self.reply.send(outcome);
    }
}
