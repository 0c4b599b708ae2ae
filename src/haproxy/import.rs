//! Translates HAProxy's configuration, line by line, into settings of pgnorth, for `pgnorth import`. It is pure: the
//! caller reads the files.
//!
//! It never guesses: a line that is unknown, or that pgnorth has no setting for, is listed as one without an
//! equivalent. Every suggested setting has passed pgnorth's own parser.

mod check;
mod lines;
mod proxies;
mod report;
mod routes;
mod sections;
mod server;
mod suggestion;
mod words;

use thiserror::Error;

pub use self::suggestion::Suggestion;

use self::lines::Line;
use self::proxies::Reader;

/// The outcome for one line, or for a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The setting, or the part of a setting, that does the same.
    Setting(String),
    /// The reason why pgnorth needs no setting.
    NotNeeded(String),
    /// The remaining difference, because pgnorth has no equivalent.
    NoEquivalent(String),
}

impl Outcome {
    /// Merges two outcomes with the same reason into one that names the words of both; `None` for other outcomes.
    fn and(&self, next: &Self) -> Option<Self> {
        let both = |one: &str, other: &str| {
            let ((words, why), (word, other_why)) = (one.split_once(": ")?, other.split_once(": ")?);
            (why == other_why).then(|| match words.split(", ").any(|known| known == word) {
                true => one.to_owned(),
                false => format!("{words}, {word}: {why}"),
            })
        };
        match (self, next) {
            (Self::NotNeeded(one), Self::NotNeeded(other)) => both(one, other).map(Self::NotNeeded),
            (Self::NoEquivalent(one), Self::NoEquivalent(other)) => both(one, other).map(Self::NoEquivalent),
            _ => None,
        }
    }
}

/// The files, line by line, and the settings that result.
#[derive(Debug)]
pub struct Import {
    lines: Vec<Line>,
    /// One suggestion for each cluster, as far as the servers' addresses show; never empty.
    pub suggestions: Vec<Suggestion>,
}

/// The reason why nothing can be suggested. It includes the lines with their outcomes.
#[derive(Debug, Error)]
pub enum ImportError {
    /// No section checks members of Patroni.
    #[error(
        "{report}\nno section leads to members of Patroni: none has `bind`, `option httpchk` with one of Patroni's health \
         checks, and a `server` with `check` and the port of the REST API"
    )]
    NoPatroni {
        /// The lines with their outcomes.
        report: String,
    },
    /// The settings contradict each other.
    #[error("{report}\nthe settings above contradict each other: {problem}")]
    Contradiction {
        /// The lines with their outcomes.
        report: String,
        /// The contradiction.
        problem: String,
    },
}

/// Translates the files, each with its name, as one configuration.
///
/// # Errors
/// Returns the lines with their outcomes if no valid settings result.
pub fn import(files: &[(String, String)]) -> Result<Import, ImportError> {
    let (mut lines, sections) = lines::read(files);
    let suggestions = Reader::new(&mut lines, &sections).read();
    let import = Import { lines, suggestions };
    if import.suggestions.is_empty() {
        let report = import.annotated();
        return Err(ImportError::NoPatroni { report });
    }
    match import.suggestions.iter().find_map(Suggestion::problem) {
        Some(problem) => Err(ImportError::Contradiction {
            report: import.annotated(),
            problem,
        }),
        None => Ok(import),
    }
}

#[cfg(test)]
mod tests;
