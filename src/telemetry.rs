//! The log: one line per event on stderr, as human-readable text or as JSON. This module filters and writes the lines
//! of all other modules.

mod journal;
mod text;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use tracing::{Level, Subscriber, enabled, error, info};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::journal::WithPriority;
use self::writer::Queue;
use crate::config::{COMMIT, Format, Job, LogFilter, Settings, VERSION};
use crate::metrics::Metrics;

/// Time limit for writing the rest of the log when the process ends. If stderr has a reader, this takes microseconds.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of a process. When this is dropped, it writes the remaining lines if stderr has a reader.
#[derive(Debug)]
pub struct Log {
    queue: Queue,
    to_journal: bool,
}

impl Log {
    /// Starts logging for the whole process, panics included. Text has colours if stderr is a terminal and NO_COLOR is
    /// not set.
    ///
    /// # Errors
    /// Returns an error if the process already logs, or cannot open a file or start a thread.
    pub fn start(filter: &LogFilter, format: Format, metrics: &Metrics) -> Result<Self> {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Not `io::stderr`, whose lock a thread that is stuck in a write would hold.
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let stderr = File::from(stderr.context("cannot duplicate standard error")?);
        let to_journal = leads_to_journal(&stderr);
        let queue = Queue::start(stderr, metrics.log_lines_lost.clone()).context("cannot start the log thread")?;
        tracing_subscriber::registry()
            .with(env_filter(filter))
            .with(layer(format, colour, to_journal, queue.clone()))
            .try_init()?;
        let panicked = queue.clone();
        panic::set_hook(Box::new(move |panic| log_panic(panic, &panicked, to_journal)));
        Ok(Self { queue, to_journal })
    }

    /// Logs the error that ends the process. The line has the log's own format, so that a JSON reader gets no stray
    /// line, and no filter suppresses it.
    pub fn ends(&self, reason: &dyn Display) {
        log_or_push(&self.queue, self.to_journal, "pgnorth ends", reason, None);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(FLUSH);
    }
}

/// Logs a panic. The standard library's own hook would block on a stderr that has no reader.
fn log_panic(panic: &PanicHookInfo<'_>, queue: &Queue, to_journal: bool) {
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let reason = format_args!("thread {thread} at {place}: {what}").to_string();
    let message = "a thread panicked; this is a defect in pgnorth";
    log_or_push(queue, to_journal, message, &reason, backtrace);
}

/// Returns true if standard error is systemd's journal.
fn leads_to_journal(stderr: &File) -> bool {
    journal::is_journal(std::env::var_os("JOURNAL_STREAM").as_deref(), stderr)
}

/// Prints an error without the log, such as that of invalid settings. Unlike `eprintln!`, it survives a closed stderr.
pub fn print_error(what: &dyn Display) {
    let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let prefix = if stderr.is_ok_and(|stderr| leads_to_journal(&stderr)) {
        journal::ERROR
    } else {
        ""
    };
    let text = format!("pgnorth: {what}\n");
    let lines: String = text
        .split_inclusive('\n')
        .map(|line| format!("{prefix}{line}"))
        .collect();
    let _closed = io::stderr().write_all(lines.as_bytes());
}

fn log_or_push(queue: &Queue, to_journal: bool, message: &str, reason: &dyn Display, backtrace: Option<Backtrace>) {
    if enabled!(target: "pgnorth", Level::ERROR) {
        error!(target: "pgnorth", %reason, backtrace = backtrace.map(tracing::field::display), "{message}");
    } else {
        let prefix = if to_journal { journal::ERROR } else { "" };
        queue.push(format!("{prefix}pgnorth: {message}: {reason:#}\n").as_bytes());
    }
}

/// Logs the build and the settings in force. They hold no secrets: a URL with a password is invalid.
pub fn announce(settings: &Settings) {
    let what = match &settings.job {
        Job::Proxy(_) => "pgnorth starts",
        Job::Publish(_) => "pgnorth publish starts",
        Job::Watch(_) => "pgnorth watch starts",
        // Their output is a report or one line.
        Job::Status(_) | Job::SendCommand(_) | Job::Reload(_) | Job::Doctor(_) | Job::Import(_) => return,
    };
    info!(target: "pgnorth", version = VERSION, commit = COMMIT, settings = settings.in_force, "{what}");
}

fn env_filter(filter: &LogFilter) -> EnvFilter {
    EnvFilter::try_new(filter.directives()).expect("a LogFilter holds valid directives")
}

fn layer<S, W>(format: Format, colour: bool, to_journal: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colour)
        .with_timer(Utc)
        // It would report a closed stderr on stderr, which panics.
        .log_internal_errors(false);
    match format {
        Format::Json => layer
            .json()
            .map_event_format(|inner| WithPriority {
                inner,
                is_on: to_journal,
            })
            .boxed(),
        Format::Text => {
            let inner = text::Line;
            let line = WithPriority {
                inner,
                is_on: to_journal,
            };
            layer.event_format(line).fmt_fields(text::Fields).boxed()
        }
    }
}

/// Formats times as RFC 3339 in UTC with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{:.3}", jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests;
