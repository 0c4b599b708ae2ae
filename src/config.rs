//! The settings: flags and environment variables, read once, typed, with all invalid ones reported together.
//!
//! No I/O happens here: the caller passes arguments and environment, and no file is opened. A new setting needs a row
//! in `config/table/`, its place in the help in `config/commands.rs`, and a field beside the line that reads it, in the
//! module of its command. Everything else follows from the row.

mod commands;
mod invalid;
mod networks;
mod operator;
mod other_commands;
mod parse;
mod proxy;
mod reader;
mod routes;
mod sources;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

pub use commands::{COMMANDS, CommandRow, command_line, with_flags};
pub use invalid::{InvalidSetting, InvalidSettings};
pub use networks::Network;
pub use operator::OperatorCommand;
pub use other_commands::{Doctor, Haproxy, HaproxyStatistics, Publish, Reload, SendCommand, Status, Watch};
pub use parse::LogFilter;
pub use proxy::Proxy;
pub use sources::{DiscoverySettings, Etcd, Kubernetes, OwnPod};
pub use table::Setting;
pub use tls::{ClientTls, Identity};
pub use values::Values;

use reader::Reader;

/// The default of `--max-sessions`, if open files and local ports suffice.
pub const DEFAULT_SESSIONS: usize = 10_000;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit of this build; "unknown" if neither git nor PGNORTH_COMMIT names one.
pub const COMMIT: &str = env!("PGNORTH_COMMIT");

/// All settings of one start. No value holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The command, with its own settings.
    pub job: Job,
    /// Filter of the log.
    pub log: LogFilter,
    /// Format of the log.
    pub log_format: Format,
    /// The values in force, defaults included, as flags.
    pub in_force: String,
}

/// The command that pgnorth was started with. A new subcommand needs a variant here and a row in `config/commands.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// No subcommand: the proxy.
    Proxy(Proxy),
    /// `pgnorth publish`.
    Publish(Publish),
    /// `pgnorth watch`.
    Watch(Watch),
    /// `pgnorth status`.
    Status(Status),
    /// `pgnorth hold`, `pgnorth release`, `pgnorth cut`.
    SendCommand(SendCommand),
    /// `pgnorth reload`.
    Reload(Reload),
    /// `pgnorth doctor`.
    Doctor(Doctor),
    /// `pgnorth import`: the files of HAProxy's configuration, at least one.
    Import(Vec<PathBuf>),
}

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Human-readable text.
    Text,
    /// JSON, one object per line.
    Json,
}

/// The error of [`Settings::read`].
#[derive(Debug, Error)]
pub enum SettingsError {
    /// clap's output: help, version, an unknown flag, a flag without its value. It has its own stream and exit status.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// All invalid settings.
    #[error(transparent)]
    Invalid(#[from] InvalidSettings),
}

impl Settings {
    /// Reads the arguments, which begin with the program's name, and the variables through `env`. A flag overrides its
    /// variable, and a variable overrides the default; an empty variable counts as unset.
    ///
    /// # Errors
    /// [`SettingsError::Usage`] for help, version and an unusable command line; otherwise every invalid setting.
    pub fn read<A, E>(arguments: A, env: E) -> Result<Self, SettingsError>
    where
        A: IntoIterator<Item = OsString>,
        E: Fn(&str) -> Option<OsString>,
    {
        let matches = command_line().try_get_matches_from(arguments)?;
        let (row, flags) = commands::chosen(&matches);
        let mut reader = Reader::new(flags, &env);
        let job = match row.name {
            Some("publish") => Job::Publish(other_commands::publish(&mut reader)),
            Some("watch") => Job::Watch(other_commands::watch(&mut reader)),
            Some("status") => Job::Status(other_commands::status(&mut reader)),
            Some("hold") => {
                let length = reader.duration(&table::FOR);
                Job::SendCommand(other_commands::send_command(&mut reader, OperatorCommand::Hold(length)))
            }
            Some("release") => Job::SendCommand(other_commands::send_command(&mut reader, OperatorCommand::Release)),
            Some("cut") => {
                let member = reader.option(&table::MEMBER, parse::member);
                Job::SendCommand(other_commands::send_command(&mut reader, OperatorCommand::Cut(member)))
            }
            Some("reload") => Job::Reload(Reload {
                pid: reader.count(&table::PID).and_then(|pid| u32::try_from(pid).ok()),
                flags: commands::for_the_successor(flags),
            }),
            Some("doctor") => Job::Doctor(other_commands::doctor(&mut reader)),
            Some("import") => Job::Import(commands::files(flags)),
            _ => Job::Proxy(proxy::proxy(&mut reader)),
        };
        let log = reader.value(&table::LOG, LogFilter::parse);
        let log_format = reader.value(&table::LOG_FORMAT, parse::format);
        Ok(Self {
            job,
            log,
            log_format,
            in_force: reader.finish(&row.typed())?,
        })
    }
}
