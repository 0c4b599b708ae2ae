//! What is said about values that can't be used: what was written and where, what is wrong, and what would be right. Passwords are masked.

use std::error::Error;
use std::fmt;

use super::reader::{Given, Origin};
use super::table::{PATRONI, SCOPE, Setting};

/// Longer values are cut in messages.
const SHOWN: usize = 100;

/// One setting that can't be used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting it is about, unless it is about several.
    pub(super) flag: Option<&'static str>,
    /// What was written, masked, as a flag or as a variable.
    wrote: String,
    /// What is wrong, each with values that would do, ready to be copied.
    problems: Vec<(String, String)>,
}

/// Every mistake of one start; never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistakes {
    all: Vec<Mistake>,
    /// Whose `--help` explains them.
    command: String,
}

impl Mistake {
    pub(super) fn of(setting: &Setting, given: Option<&Given>, problem: String) -> Self {
        let (flag, env) = (setting.flag, setting.env());
        Self {
            flag: Some(flag),
            wrote: match given {
                Some(Given {
                    text,
                    origin: Origin::Flag,
                }) => format!("--{flag} {}", shown(text)),
                Some(Given {
                    text,
                    origin: Origin::Env,
                }) => format!("{env}={}", shown(text)),
                None => format!("--{flag} (its default)"),
            },
            problems: vec![(problem, both_ways(setting))],
        }
    }

    pub(super) fn missing(setting: &Setting, why: &str) -> Self {
        Self {
            flag: Some(setting.flag),
            wrote: format!("no --{} ({})", setting.flag, setting.env()),
            problems: vec![(why.to_owned(), both_ways(setting))],
        }
    }

    pub(super) fn nowhere_to_ask() -> Self {
        Self {
            flag: None,
            wrote: "neither --scope nor --patroni: which cluster is to be followed?".to_owned(),
            problems: vec![
                (
                    "in Kubernetes, name it: the API of Kubernetes tells who leads".to_owned(),
                    both_ways(&SCOPE),
                ),
                (
                    "anywhere else, list the REST API of its members; both together work too".to_owned(),
                    both_ways(&PATRONI),
                ),
            ],
        }
    }
}

impl Mistakes {
    pub(super) fn unless_none(all: Vec<Mistake>, command: &str) -> Result<(), Self> {
        if all.is_empty() {
            return Ok(());
        }
        Err(Self {
            all,
            command: command.to_owned(),
        })
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "  {}", self.wrote)?;
        self.problems
            .iter()
            .try_for_each(|(problem, good)| write!(out, "\n    {problem}\n    good: {good}"))
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all.len() {
            1 => writeln!(out, "a mistake in the settings\n")?,
            count => writeln!(out, "{count} mistakes in the settings\n")?,
        }
        for mistake in &self.all {
            writeln!(out, "{mistake}\n")?;
        }
        write!(out, "`{} --help` explains every setting", self.command)
    }
}

impl Error for Mistakes {}

fn both_ways(setting: &Setting) -> String {
    let (flag, env, good) = (setting.flag, setting.env(), setting.good);
    // A shell would take brackets for a pattern.
    let quote = if good.contains(['[', '*']) { "'" } else { "" };
    format!("--{flag} {quote}{good}{quote}   or   {env}={good}")
}

/// A value as it may be shown: no password or query of a URL, no control characters, not too long.
///
/// The mask covers all from the first `://` to the last `@`: a password may hold commas and slashes, and too much hidden does no harm.
fn shown(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(at) = text.rfind('@') {
        let start = text
            .find("://")
            .map(|scheme| scheme + 3)
            .filter(|start| *start <= at)
            .unwrap_or(0);
        text.replace_range(start..at, "***");
    }
    if let (Some(_), Some(query)) = (text.find("://"), text.find(['?', '#'])) {
        text.replace_range(query + 1.., "***");
    }
    let mut shown: String = text.escape_debug().take(SHOWN).collect();
    if text.escape_debug().nth(SHOWN).is_some() {
        shown.push('…');
    }
    if shown.is_empty() || shown.contains(' ') {
        shown = format!("\"{shown}\"");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_holds_no_secret() {
        for (written, seen) in [
            ("http://u:p@h:8008", "http://***@h:8008"),
            ("http://u:p,q@h:8008", "http://***@h:8008"),
            ("http://a:8008,http://u:p@h:8008", "http://***@h:8008"),
            ("u:p@h:8008", "***@h:8008"),
            ("u:p@http://h", "***@http://h"),
            ("@://", "***@://"),
            ("https://h/?token=x", "https://h/?***"),
            ("one\ntwo", "one\\ntwo"),
            ("", "\"\""),
        ] {
            assert_eq!(shown(written), seen, "{written}");
        }
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), SHOWN + 1);
    }
}
