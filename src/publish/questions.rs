//! The questions that stand about objects, and for how long. Pure: time is an argument.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::READ_INTERVAL;
use super::objects::Kind;

/// How long another publisher has to answer. Each looks at the objects every `READ_INTERVAL`, so it has seen the question twice by then.
pub(super) const ANSWER: Duration = Duration::from_millis(2500 * READ_INTERVAL.as_secs());

/// Each question that was seen last, and since when.
#[derive(Debug, Default)]
pub(super) struct Questions(BTreeMap<Kind, (String, Instant)>);

impl Questions {
    /// Notes what an object that was read just now asks.
    pub(super) fn seen(&mut self, kind: Kind, question: Option<&str>, now: Instant) {
        match question {
            None => _ = self.0.remove(&kind),
            Some(question) if self.0.get(&kind).is_some_and(|(known, _)| known == question) => {}
            Some(question) => _ = self.0.insert(kind, (question.to_owned(), now)),
        }
    }

    /// The question that nobody has answered in time.
    pub(super) fn unanswered(&self, kind: Kind, now: Instant) -> Option<&str> {
        let (question, since) = self.0.get(&kind)?;
        (now.duration_since(*since) >= ANSWER).then_some(question)
    }
}
