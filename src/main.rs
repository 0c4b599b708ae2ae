//! The binary: reads the settings, starts the log, runs the app.
//!
//! Exit status: 0 after SIGTERM or SIGINT, 1 on a runtime failure, 2 if the settings are invalid. `config/commands.rs`
//! has those of the subcommands.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use pgnorth::config::{Settings, SettingsError};
use pgnorth::metrics::Metrics;
use pgnorth::telemetry::Log;
use pgnorth::{app, telemetry};

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(error) => return refuse(&error),
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
    app::run(settings, metrics).unwrap_or_else(|error| {
        log.ends(&format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn refuse(error: &SettingsError) -> ExitCode {
    match error {
        SettingsError::Usage(usage) => {
            // A closed stream has no reader.
            let _closed = usage.print();
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        SettingsError::Invalid(settings) => {
            print_error(settings);
            ExitCode::from(2)
        }
    }
}

/// Prints an error without the log. Unlike `eprintln!`, it survives a closed stderr.
fn print_error(what: &dyn std::fmt::Display) {
    let _closed = writeln!(io::stderr(), "pgnorth: {what}");
}
