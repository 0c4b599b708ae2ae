//! Passes the waiting clients and then the forwarded sessions to the successor, in batches.
//!
//! No worker runs a session while it is passed. The successor answers before it moves the first byte. Until that
//! answer, the session belongs to this process, and continues here if the successor ends or refuses it. The last answer
//! stays readable after the successor has ended, so this process can tell which sessions it had taken: none is lost or
//! run twice.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{ANSWER, ReloadError};
use crate::handover::{Channel, ChannelError, FromPredecessor, FromSuccessor, MAX_FILES};
use crate::proxy::{Parked, Sessions};

/// Time for the waiting clients to leave their tasks. Each client leaves when its worker next runs the task.
const LEAVE: Duration = Duration::from_secs(1);
/// Maximum number of sessions of each worker that are passed at the same time.
const AT_ONCE: usize = 16;
/// Limit of undelivered bytes in a message with several sessions; a message with a single session may have up to twice
/// as many.
const MAX_BYTES: usize = 64 << 10;
/// Time without sessions to pass, after which the hand-over of sessions ends. Until then, clients that are still
/// connecting may become sessions.
const SETTLE: Duration = Duration::from_secs(3);
/// Interval of the checks for clients that have left their tasks, and for sessions to pass.
const LOOK: Duration = Duration::from_millis(5);

/// The answer of the successor to one message.
struct Answer {
    /// Positions of the sessions that stay here; `None` if the successor has taken none of the message's sessions.
    left: Option<Vec<usize>>,
    /// The reason why the successor takes no more sessions.
    end: Option<End>,
}

enum End {
    Lost(ReloadError),
    Refused(String),
}

/// Sessions and clients on their way to the successor. When this is dropped, the waiting clients stay here again.
pub(super) struct Passing<'a> {
    sessions: &'a Sessions,
    channel: &'a Channel,
    successor: &'a mut Child,
    taken: usize,
    stay: usize,
    /// True if the successor takes no more sessions.
    refused: bool,
}

impl<'a> Passing<'a> {
    pub(super) fn new(sessions: &'a Sessions, channel: &'a Channel, successor: &'a mut Child) -> Self {
        Self {
            sessions,
            channel,
            successor,
            taken: 0,
            stay: 0,
            refused: false,
        }
    }

    /// Passes the waiting clients before the successor accepts, so that they keep their places ahead of new ones.
    ///
    /// # Errors
    /// Returns the reason why the successor was lost. Clients that it had not taken still wait here.
    pub(super) fn waiting_clients(&mut self) -> Result<(), ReloadError> {
        let begun = Instant::now();
        self.sessions.let_clients_leave();
        while self.sessions.waiting() > 0 && begun.elapsed() < LEAVE {
            sleep(LOOK);
        }
        self.pass(self.sessions.park_clients())
    }

    /// Passes every session, and every client that becomes a session or waits again in the meantime. Those that the
    /// successor refuses stay here.
    ///
    /// # Errors
    /// Returns the reason why the successor was lost. It has then ended; sessions that it had not taken continue here.
    pub(super) fn everything(&mut self) -> Result<(), ReloadError> {
        let begun = Instant::now();
        let mut last = begun;
        while last.elapsed() < SETTLE && !self.refused {
            let parked = self.sessions.park(AT_ONCE);
            if parked.is_empty() {
                if self.sessions.clients() <= self.stay {
                    break;
                }
                sleep(LOOK);
                continue;
            }
            last = Instant::now();
            self.pass(parked)?;
        }
        let (passed, remaining) = (self.taken, self.sessions.clients());
        info!(passed, remaining, took = ?begun.elapsed(), "reload: handed over sessions and held clients");
        Ok(())
    }

    /// Returns the error for a successor that was lost for this reason.
    pub(super) fn lost(&self, error: ReloadError) -> ReloadError {
        match self.taken {
            0 => error,
            taken => ReloadError::LostWithSessions {
                taken,
                error: Box::new(error),
            },
        }
    }

    fn pass(&mut self, parked: Vec<Parked>) -> Result<(), ReloadError> {
        let mut batches = batches(parked).into_iter();
        while let Some(batch) = batches.next() {
            let mut untouched = Vec::new();
            let Answer { left, end } = self.ask(&batch);
            match left {
                Some(left) => self.keep(batch, &left),
                None => untouched = batch,
            }
            if let Some(end) = end {
                // Together, so that clients keep their order.
                untouched.extend(batches.flatten());
                self.sessions.keep_clients(untouched);
                return self.not_taken(end);
            }
        }
        Ok(())
    }

    fn not_taken(&mut self, end: End) -> Result<(), ReloadError> {
        match end {
            End::Lost(error) => Err(self.lost(error)),
            End::Refused(why) => {
                self.refused = true;
                warn!(
                    why,
                    "reload: the new process cannot take more sessions; the others stay in this process until they end"
                );
                Ok(())
            }
        }
    }

    /// Keeps the sessions and clients that the successor left here. They are not passed again, except a client that
    /// becomes a session. The successor owns the others.
    fn keep(&mut self, batch: Vec<Parked>, left: &[usize]) {
        let (mut own, count) = (Vec::new(), batch.len());
        for (number, mut session) in batch.into_iter().enumerate() {
            if left.contains(&number) {
                session.stay();
                own.push(session);
            }
        }
        self.taken += count - own.len();
        self.stay += own.len();
        self.sessions.put_back(own);
    }

    /// Sends one message with sessions, and returns the answer.
    fn ask(&mut self, batch: &[Parked]) -> Answer {
        let lost = |left, error| Answer {
            left,
            end: Some(End::Lost(error)),
        };
        if let Err(error) = send(self.channel, batch) {
            return lost(None, error.into());
        }
        match self.channel.receive(ANSWER).map(|received| received.message) {
            Ok(FromSuccessor::SessionsTaken { left }) => Answer {
                left: Some(left),
                end: None,
            },
            Ok(FromSuccessor::SessionsRefused { why }) => Answer {
                left: None,
                end: Some(End::Refused(why)),
            },
            Ok(_) => lost(self.last_answer(false), ReloadError::OutOfTurn),
            Err(error) => lost(self.last_answer(matches!(error, ChannelError::Closed)), error.into()),
        }
    }

    /// Ends a successor that does not answer. Returns its last answer if it took sessions before it ended.
    fn last_answer(&mut self, is_ending: bool) -> Option<Vec<usize>> {
        if is_ending {
            let _status = super::wait(self.successor);
        }
        let _ended = self.successor.kill();
        let _status = self.successor.wait();
        match self.channel.receive(LOOK).ok()?.message {
            FromSuccessor::SessionsTaken { left } => Some(left),
            _ => None,
        }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        self.sessions.keep_clients(Vec::new());
    }
}

/// Divides sessions into batches that fit into one message each.
fn batches(parked: Vec<Parked>) -> Vec<Vec<Parked>> {
    let mut batches: Vec<Vec<Parked>> = Vec::new();
    let (mut files, mut bytes) = (usize::MAX, 0);
    for session in parked {
        let (own_files, own_bytes) = session.size();
        if files.saturating_add(own_files) > MAX_FILES || bytes + own_bytes > MAX_BYTES {
            batches.push(Vec::new());
            (files, bytes) = (0, 0);
        }
        (files, bytes) = (files + own_files, bytes + own_bytes);
        batches
            .last_mut()
            .expect("the first session begins a batch")
            .push(session);
    }
    batches
}

fn send(channel: &Channel, batch: &[Parked]) -> Result<(), ChannelError> {
    let (mut described, mut bytes, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for session in batch {
        let (passed, own_bytes, own_files) = session.describe();
        described.push(serde_json::to_value(passed).map_err(std::io::Error::from)?);
        bytes.extend(own_bytes);
        files.extend(own_files);
    }
    let message = FromPredecessor::Sessions { sessions: described };
    channel.send(&message, &bytes, &files, ANSWER)
}
