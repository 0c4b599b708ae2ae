//! Passes the forwarded sessions to the successor, some at a time.
//!
//! No worker runs a session while it is passed. The successor answers before it moves the first byte: until that answer,
//! the session is this process's, and goes on here if the successor ends or refuses it. Whether a successor that was
//! lost had answered is known once it has ended, because the answer stays readable. So no session is lost or run twice.

use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::{ANSWER, ReloadError};
use crate::handover::{Channel, ChannelError, FromPredecessor, FromSuccessor, MAX_FILES};
use crate::proxy::{ParkedSession, Sessions};

/// Sessions of each worker that are at rest at the same time.
const AT_ONCE: usize = 16;
/// Undelivered bytes in one message; one session has at most twice as many.
const MAX_BYTES: usize = 64 << 10;
/// Time without a session to pass, in which clients that are being connected may become one.
const SETTLE: Duration = Duration::from_secs(3);
/// Interval of looking for such sessions.
const LOOK: Duration = Duration::from_millis(5);

/// The answer of the successor to one message.
enum Answer {
    /// It has taken this many.
    Taken(usize),
    Refused(String),
}

/// Passes every session, also those that become one meanwhile. Sessions that the successor refuses stay here.
///
/// # Errors
/// Returns how the successor was lost. It has ended then; sessions that it had not taken go on here.
pub(super) fn pass(sessions: &Sessions, channel: &Channel, successor: &mut Child) -> Result<(), ReloadError> {
    let (begun, mut taken, mut stay) = (Instant::now(), 0, 0);
    let mut last = begun;
    while last.elapsed() < SETTLE {
        let parked = sessions.park(AT_ONCE);
        if parked.is_empty() {
            if sessions.clients() <= stay {
                break;
            }
            sleep(LOOK);
            continue;
        }
        last = Instant::now();
        let mut batches = batches(parked).into_iter();
        while let Some(batch) = batches.next() {
            let of = batch.len();
            match pass_batch(sessions, channel, successor, batch) {
                Ok(Answer::Taken(count)) => (taken, stay) = (taken + count, stay + of - count),
                Ok(Answer::Refused(why)) => {
                    batches.for_each(|batch| sessions.put_back(batch));
                    warn!(
                        why,
                        "reload: the new process cannot take more sessions; the others finish in this one"
                    );
                    return Ok(());
                }
                Err(error) => {
                    batches.for_each(|batch| sessions.put_back(batch));
                    return Err(match taken {
                        0 => error.into(),
                        taken => ReloadError::LostWithSessions { taken, error },
                    });
                }
            }
        }
    }
    info!(sessions = taken, stay, took = ?begun.elapsed(), "reload: the new process has taken the open sessions");
    Ok(())
}

/// Divides sessions so that each part fits into one message.
fn batches(parked: Vec<ParkedSession>) -> Vec<Vec<ParkedSession>> {
    let mut batches: Vec<Vec<ParkedSession>> = Vec::new();
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

/// Passes one message of sessions. Those that are not taken are put back.
fn pass_batch(
    sessions: &Sessions,
    channel: &Channel,
    successor: &mut Child,
    batch: Vec<ParkedSession>,
) -> Result<Answer, ChannelError> {
    if let Err(error) = send(channel, &batch) {
        sessions.put_back(batch);
        return Err(error);
    }
    match channel.receive(ANSWER) {
        Ok(received) => match received.message {
            FromSuccessor::SessionsTaken { left } => Ok(Answer::Taken(keep(sessions, batch, &left))),
            FromSuccessor::SessionsRefused { why } => {
                sessions.put_back(batch);
                Ok(Answer::Refused(why))
            }
            _ => Ok(last_word(sessions, channel, successor, batch, ChannelError::Closed)?),
        },
        Err(error) => last_word(sessions, channel, successor, batch, error),
    }
}

/// Keeps the sessions that the successor left, for good; the others are its own from now on. Returns their number.
fn keep(sessions: &Sessions, batch: Vec<ParkedSession>, left: &[usize]) -> usize {
    let (mut own, count) = (Vec::new(), batch.len());
    for (number, mut session) in batch.into_iter().enumerate() {
        if left.contains(&number) {
            session.stay();
            own.push(session);
        }
    }
    let taken = count - own.len();
    sessions.put_back(own);
    taken
}

/// Ends a successor that does not answer, and reads whether it had taken the sessions before it ended.
fn last_word(
    sessions: &Sessions,
    channel: &Channel,
    successor: &mut Child,
    batch: Vec<ParkedSession>,
    error: ChannelError,
) -> Result<Answer, ChannelError> {
    if matches!(error, ChannelError::Closed) {
        let _status = super::wait(successor);
    }
    let _ended = successor.kill();
    let _status = successor.wait();
    match channel.receive::<FromSuccessor>(LOOK).map(|last| last.message) {
        Ok(FromSuccessor::SessionsTaken { left }) => {
            keep(sessions, batch, &left);
        }
        _ => sessions.put_back(batch),
    }
    Err(error)
}

fn send(channel: &Channel, batch: &[ParkedSession]) -> Result<(), ChannelError> {
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
