//! The unanswered questions of one publisher to another about an object (pure: time is an argument).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::READ_INTERVAL;
use super::objects::Kind;

/// Time for another publisher to answer. Each reads the objects every `READ_INTERVAL`, so it has seen the question
/// twice by then.
pub(super) const ANSWER: Duration = Duration::from_millis(2500 * READ_INTERVAL.as_secs());

/// The newest question about each kind of object, and the time at which it was first seen.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<Kind, (String, Instant)>);

impl Questions {
    /// Records the question in an object that was just read.
    pub(super) fn seen(&mut self, kind: Kind, question: Option<&str>, now: Instant) {
        match question {
            None => _ = self.0.remove(&kind),
            Some(question) if self.0.get(&kind).is_some_and(|(known, _)| known == question) => {}
            Some(question) => _ = self.0.insert(kind, (question.to_owned(), now)),
        }
    }

    /// Returns the question if no publisher has answered it in time.
    pub(super) fn unanswered(&self, kind: Kind, now: Instant) -> Option<&str> {
        let (question, since) = self.0.get(&kind)?;
        (now.duration_since(*since) >= ANSWER).then_some(question)
    }
}
