//! The message about invalid settings: for each, the value and its origin, the problem, and a valid example. Passwords
//! are masked.

use std::error::Error;
use std::fmt;

use super::reader::{Origin, RawValue};
use super::routes::Mistake;
use super::table::{ETCD, PATRONI, SCOPE, Setting};

/// Maximum length of a value in a message, in characters; the rest is cut.
const SHOWN: usize = 100;

/// One invalid setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSetting {
    /// The setting; none if the problem concerns several.
    pub(super) flag: Option<&'static str>,
    /// The flag or variable as it was written, masked.
    wrote: String,
    /// Each problem, with a valid example to copy.
    problems: Vec<(String, String)>,
}

/// Every invalid setting of one start; never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidSettings {
    all: Vec<InvalidSetting>,
    /// The command whose `--help` explains them.
    command: String,
}

impl InvalidSetting {
    pub(super) fn of(setting: &Setting, given: Option<&RawValue>, problem: String) -> Self {
        let (flag, env) = (setting.flag, setting.env());
        Self {
            flag: Some(flag),
            wrote: match given {
                Some(RawValue {
                    text,
                    origin: Origin::Flag,
                }) => format!("--{flag} {}", shown(text)),
                Some(RawValue {
                    text,
                    origin: Origin::Env,
                }) => format!("{env}={}", shown(text)),
                None => format!("--{flag} (its default)"),
            },
            problems: vec![(problem, both_ways(setting))],
        }
    }

    /// Returns the error for all mistakes in the routes, each with a suggested route.
    pub(super) fn of_routes(setting: &Setting, given: &RawValue, mistakes: Vec<Mistake>) -> Self {
        let problems = mistakes.into_iter().map(|mistake| {
            let example = both_ways_with(setting, &mistake.instead);
            (mistake.problem, example)
        });
        Self {
            problems: problems.collect(),
            ..Self::of(setting, Some(given), String::new())
        }
    }

    pub(super) fn missing(setting: &Setting, why: &str) -> Self {
        Self {
            flag: Some(setting.flag),
            wrote: format!("no {}", setting.flag_and_variable()),
            problems: vec![(why.to_owned(), both_ways(setting))],
        }
    }

    pub(super) fn no_cluster() -> Self {
        Self {
            flag: None,
            wrote: "neither --scope nor --patroni: no cluster to follow".to_owned(),
            problems: vec![
                (
                    "in Kubernetes, name the cluster; pgnorth reads its leader lock from the Kubernetes API".to_owned(),
                    both_ways(&SCOPE),
                ),
                (
                    "with etcd, name the cluster and list etcd's client URLs".to_owned(),
                    both_ways(&ETCD),
                ),
                (
                    "elsewhere, list the REST API URLs of its members; this can be combined with either of the above"
                        .to_owned(),
                    both_ways(&PATRONI),
                ),
            ],
        }
    }
}

impl InvalidSettings {
    pub(super) fn unless_none(all: Vec<InvalidSetting>, command: &str) -> Result<(), Self> {
        if all.is_empty() {
            return Ok(());
        }
        Err(Self {
            all,
            command: command.to_owned(),
        })
    }
}

impl InvalidSettings {
    /// Returns each problem as a phrase, without the setting.
    pub fn problems(&self) -> impl Iterator<Item = &str> {
        let problems = self.all.iter().flat_map(|invalid| &invalid.problems);
        problems.map(|(problem, _)| problem.as_str())
    }
}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "  {}", self.wrote)?;
        self.problems
            .iter()
            .try_for_each(|(problem, example)| write!(out, "\n    {problem}\n    example: {example}"))
    }
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all.len() {
            1 => writeln!(out, "1 invalid setting\n")?,
            count => writeln!(out, "{count} invalid settings\n")?,
        }
        for invalid in &self.all {
            writeln!(out, "{invalid}\n")?;
        }
        write!(out, "`{} --help` explains every setting", self.command)
    }
}

impl Error for InvalidSettings {}

fn both_ways(setting: &Setting) -> String {
    both_ways_with(setting, setting.example)
}

fn both_ways_with(setting: &Setting, example: &str) -> String {
    let (flag, env) = (setting.flag, setting.env());
    // Unquoted, a shell expands brackets as a pattern.
    let quote = if example.contains(['[', '*']) { "'" } else { "" };
    format!("--{flag} {quote}{example}{quote}   or   {env}={example}")
}

/// Returns a value without a URL's password or query, without control characters, and cut to the maximum length.
///
/// The mask covers everything from the first `://` to the last `@`: a password may contain commas and slashes, and
/// masking too much does no harm.
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
    fn a_shown_value_holds_no_secret() {
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
