//! One row per setting: flag, group, values, help, default and example. The variable follows from the flag; `--help`,
//! man page, completions, reference and error messages follow from the row. `commands.rs` lists the settings of each
//! command.

mod finding;
mod instance;
mod listening;
mod other_commands;
mod sessions;

use std::time::Duration;

use clap::{Arg, ArgAction, ValueHint};

use super::values::Values;
pub(super) use finding::*;
pub(super) use instance::*;
pub(super) use listening::*;
pub(super) use other_commands::*;
pub(super) use sessions::*;

/// One setting as users see it.
#[derive(Debug)]
pub struct Setting {
    /// The flag without its hyphens.
    pub flag: &'static str,
    /// Heading in the help.
    group: &'static str,
    /// The values that the setting accepts.
    pub values: Values,
    /// Help in one phrase, as `-h` prints it.
    pub help: &'static str,
    /// Further sentences for `--help`, the man page and the reference; empty if the phrase is enough.
    pub more: &'static str,
    /// The page of `docs/` that explains the setting; empty if there is none.
    pub see: &'static str,
    unset: Unset,
    /// True if the flag may be given several times. In the variable, the values are separated by `;`.
    pub repeats: bool,
    /// A valid value, which error messages suggest.
    pub example: &'static str,
}

/// The value that applies if none is given.
#[derive(Debug)]
enum Unset {
    /// This value, parsed like a given one. A test parses all of them.
    Value(&'static str),
    /// A value that is known only at run time, described in words.
    Found(&'static str),
    Nothing,
}

/// The defaults of a row's optional parts.
const ROW: Setting = Setting {
    flag: "",
    group: "",
    values: NAME,
    help: "",
    more: "",
    see: "",
    unset: Unset::Nothing,
    repeats: false,
    example: "",
};

const LISTENING: &str = "Listening";
const PUBLISHING: &str = "Publishing";
const OPERATORS: &str = "Operator command";
const REPORT: &str = "Report";
const COMPARING: &str = "Comparing";
const FINDING: &str = "Finding the leader";
const SESSIONS: &str = "Sessions";
const SHUTDOWN: &str = "Shutdown";
const LOGS: &str = "Logs";

const NAME: Values = Values::Text("NAME", "name");
const FILE: Values = Values::File;
const ADDRESS: Values = Values::Text("ADDRESS", "IP address and port");
const HOUR: Duration = Duration::from_secs(3600);
const UP_TO_AN_HOUR: Values = Values::Duration(Duration::ZERO, HOUR);
const HOST_TIMEOUT: Values = Values::Duration(Duration::from_millis(100), HOUR);

impl Setting {
    /// Returns the name of the environment variable: PGNORTH_MAX_SESSIONS for `--max-sessions`.
    pub fn env(&self) -> String {
        format!("PGNORTH_{}", self.flag.to_ascii_uppercase().replace('-', "_"))
    }

    /// Returns the flag and the variable: `--max-sessions (PGNORTH_MAX_SESSIONS)`.
    pub fn flag_and_variable(&self) -> String {
        format!("--{} ({})", self.flag, self.env())
    }

    /// Returns the fixed default; `None` if there is no default, or if it is known only at run time.
    pub fn default(&self) -> Option<&'static str> {
        match self.unset {
            Unset::Value(value) => Some(value),
            Unset::Found(_) | Unset::Nothing => None,
        }
    }

    /// Returns the description of a default that is known only at run time.
    pub fn default_in_words(&self) -> Option<&'static str> {
        match self.unset {
            Unset::Found(text) => Some(text),
            Unset::Value(_) | Unset::Nothing => None,
        }
    }

    /// Returns clap's argument. clap's `env` and `default_value` are not used: clap would read the process's
    /// environment itself, and treat an empty variable as a value.
    pub(super) fn argument(&self) -> Arg {
        let default = self.default().or(self.default_in_words());
        let default = default.map_or(String::new(), |text| format!(" [default: {text}]"));
        let (env, help, more) = (self.env(), self.help, self.more);
        let rest = if more.is_empty() {
            String::new()
        } else {
            format!(". {more}")
        };
        let argument = Arg::new(self.flag)
            .long(self.flag)
            .value_name(self.values.placeholder())
            .help(format!("{help}\n[env: {env}]{default}"))
            .long_help(format!("{help}{rest}\n[env: {env}]{default} [values: {}]", self.values))
            .help_heading(self.group)
            .action(if self.repeats {
                ArgAction::Append
            } else {
                ArgAction::Set
            });
        match self.values {
            Values::Switch => argument
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
            Values::File => argument.value_hint(ValueHint::FilePath),
            _ => argument,
        }
    }
}
