//! Messages of a hand-over, through the real channel: no bytes make the receiver panic, every refusal says something, and
//! what was understood stays the same when it is passed on.
//!
//! Input: one message, then a zero and its bytes, if any.
#![no_main]

use std::fmt::Debug;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pgnorth::handover::{Channel, ChannelError, FromPredecessor, FromSuccessor};
use pgnorth::proxy::Passed;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(5);

fuzz_target!(|bytes: &[u8]| {
    if let Some(FromPredecessor::Sessions { sessions }) = received(bytes) {
        for session in sessions {
            if let Ok(session) = serde_json::from_value::<Passed>(session) {
                stays_the_same(&session);
            }
        }
    }
    if let Some(message) = received::<FromPredecessor>(bytes) {
        stays_the_same(&message);
    }
    if let Some(FromSuccessor::State(state)) = received(bytes) {
        assert!(!state.ready || state.may_follow(&state), "it may follow itself");
        assert!(state.keeps_all(&state));
    }
    if let Some(message) = received::<FromSuccessor>(bytes) {
        stays_the_same(&message);
    }
});

/// Sends the bytes as one message, and returns what the other end understands.
fn received<M: DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    let (channel, other) = Channel::pair().expect("a channel");
    // write(2) on it sends one message.
    UnixStream::from(other).write_all(bytes).expect("the message fits");
    match channel.receive(SOON) {
        Ok(received) => Some(received.message),
        Err(error) => {
            assert!(!matches!(error, ChannelError::TimedOut(_)), "{error}");
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

fn stays_the_same<M: Serialize + DeserializeOwned + Debug>(message: &M) {
    let text = serde_json::to_string(message).expect("JSON");
    let again: M = serde_json::from_str(&text).expect("understood once, understood again");
    assert_eq!(format!("{again:?}"), format!("{message:?}"));
}
