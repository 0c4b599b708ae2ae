//! The resulting settings, as a command line and as an environment file, checked by pgnorth's own parser.

use std::ffi::OsString;
use std::fmt::Write;

use crate::config::{COMMANDS, Settings, SettingsError};

/// The settings of one pgnorth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suggestion {
    /// Flags without hyphens, with their values. Each route is a separate flag.
    pub(super) settings: Vec<(&'static str, String)>,
}

impl Suggestion {
    /// Returns the flags as `--flag=value`.
    pub fn arguments(&self) -> Vec<String> {
        let flags = self.settings.iter();
        flags.map(|(flag, value)| format!("--{flag}={value}")).collect()
    }

    /// Returns the environment variables. All routes share one variable.
    pub fn variables(&self) -> Vec<(String, String)> {
        let mut all = Vec::<(String, String)>::new();
        for (flag, value) in &self.settings {
            let setting = COMMANDS[0].settings().find(|setting| setting.flag == *flag);
            let name = setting.expect("only settings of the proxy are suggested").env();
            match all.iter_mut().find(|(other, _)| *other == name) {
                Some((_, values)) => *values = format!("{values};{value}"),
                None => all.push((name, value.clone())),
            }
        }
        all
    }

    /// Returns the command line, with one setting on each line.
    pub(super) fn command(&self) -> String {
        let mut text = "pgnorth".to_owned();
        for (flag, value) in &self.settings {
            let _infallible = write!(text, " \\\n  --{flag} {}", quoted(value));
        }
        text
    }

    /// Returns the lines of an environment file. systemd, and a shell that sources the file, read the same values.
    pub(super) fn environment(&self) -> String {
        let lines = self.variables().into_iter();
        lines
            .map(|(name, value)| format!("{name}={}\n", quoted(&value)))
            .collect()
    }

    /// Returns the errors of pgnorth's parser, if these settings are invalid.
    pub(super) fn problem(&self) -> Option<String> {
        problem(self.arguments())
    }
}

/// Returns the problem with these settings, if there is one: a value that shells and systemd read differently, or the
/// errors of pgnorth's parser. A placeholder stands for the members' URLs if the settings have none.
pub(super) fn problem_of(settings: &[(&'static str, String)]) -> Option<String> {
    let cluster = ("patroni", "http://h:8008".to_owned());
    let is_named = settings.iter().any(|(flag, _)| *flag == cluster.0);
    let cluster = (!is_named).then_some(&cluster);
    let flags = settings.iter().chain(cluster);
    if let Some((_, value)) = settings.iter().find(|(_, value)| !is_plain(value)) {
        return Some(format!(
            "{value:?} has characters that shells and systemd read differently: set this value by hand"
        ));
    }
    problem(flags.map(|(flag, value)| format!("--{flag}={value}")).collect())
}

/// Quotes a plain value if a shell needs it: a shell expands brackets as a pattern, and ends a command at a semicolon.
fn quoted(value: &str) -> String {
    let quote = if value.contains(['[', ';']) { "'" } else { "" };
    format!("{quote}{value}{quote}")
}

/// Returns true if a shell and systemd read the text in the same way, as it is or within single quotes.
fn is_plain(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.:/+@,=[]%".contains(letter);
    !text.is_empty() && text.chars().all(plain)
}

fn problem(arguments: Vec<String>) -> Option<String> {
    let all = ["pgnorth".to_owned()].into_iter().chain(arguments);
    match Settings::read(all.map(OsString::from), |_| None) {
        Ok(_) => None,
        Err(SettingsError::Invalid(settings)) => Some(settings.problems().collect::<Vec<_>>().join("; ")),
        Err(SettingsError::Usage(usage)) => Some(usage.kind().to_string()),
    }
}
