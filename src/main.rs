//! The binary: reads the settings, starts the log, runs the app.
//!
//! Exit status: 0 after SIGTERM or SIGINT, 1 on a runtime failure, 2 if the settings or the inherited
//! sockets are invalid. `config/commands.rs` lists the exit statuses of the subcommands.

use std::process::ExitCode;
use std::sync::Arc;

use pgnorth::app::{Predecessor, Started};
use pgnorth::config::{Settings, SettingsError};
use pgnorth::handover::PREDECESSOR;
use pgnorth::metrics::Metrics;
use pgnorth::systemd::Notifier;
use pgnorth::telemetry::{Log, print_error};
use pgnorth::{app, handover, systemd, telemetry};

fn main() -> ExitCode {
    let predecessor = match handover::predecessor(std::env::var_os(PREDECESSOR)) {
        Ok(channel) => channel.map(Predecessor::new),
        Err(error) => return invalid(&error),
    };
    let settings = match Settings::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(error) => {
            if let Some(predecessor) = predecessor {
                predecessor.refuse(&error.to_string());
            }
            return refuse(&error);
        }
    };
    // Before the first thread starts, because this changes the environment.
    let activated = match systemd::take_listeners() {
        Ok(activated) => activated,
        Err(error) => return invalid(&error),
    };
    let metrics = Arc::new(Metrics::new());
    let log = match Log::start(&settings.log, settings.log_format, &metrics) {
        Ok(log) => log,
        Err(error) => {
            print_error(&format_args!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    telemetry::announce(&settings);
    let started = Started {
        arguments: std::env::args_os().collect(),
        activated,
        predecessor,
        notifier: Notifier::new(std::env::var_os("NOTIFY_SOCKET")),
    };
    app::run(settings, metrics, started).unwrap_or_else(|error| {
        log.ends(&format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn refuse(error: &SettingsError) -> ExitCode {
    match error {
        SettingsError::Usage(usage) => {
            // If the stream is closed, nobody reads the text.
            let _closed = usage.print();
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        SettingsError::Invalid(settings) => invalid(settings),
    }
}

fn invalid(error: &dyn std::fmt::Display) -> ExitCode {
    print_error(error);
    ExitCode::from(2)
}
