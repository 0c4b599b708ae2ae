//! pgnorth's binary: settings, then the log, then the app; its outcome is the exit code.
//!
//! 0: ended as asked. 1: something failed while it ran. 2: it was started wrongly.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;

use pgnorth::config::{Refused, Settings};
use pgnorth::metrics::Metrics;
use pgnorth::telemetry::Log;
use pgnorth::{app, telemetry};

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args_os(), |name| std::env::var_os(name)) {
        Ok(settings) => settings,
        Err(refused) => return refuse(&refused),
    };
    let metrics = Arc::new(Metrics::new());
    let log = match Log::start(&settings.log, settings.log_format, &metrics) {
        Ok(log) => log,
        Err(error) => {
            complain(&format_args!("{error:#}"));
            return ExitCode::FAILURE;
        }
    };
    telemetry::announce(&settings);
    app::run(settings, metrics).unwrap_or_else(|error| {
        log.ends(&format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn refuse(refused: &Refused) -> ExitCode {
    match refused {
        Refused::Usage(usage) => {
            // Nobody is left to tell when the stream is closed.
            let _unheard = usage.print();
            u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
        }
        Refused::Mistakes(mistakes) => {
            complain(mistakes);
            ExitCode::from(2)
        }
    }
}

/// Before there is a log. Unlike `eprintln!`, it survives a closed stderr.
fn complain(what: &dyn std::fmt::Display) {
    let _unheard = writeln!(io::stderr(), "pgnorth: {what}");
}
