//! The log: one line per event on stderr, as text for people or as JSON. This module filters and writes the lines of
//! all others.

mod text;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, IsTerminal};
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

use self::writer::Queue;
use crate::config::{COMMIT, Format, Job, LogFilter, Settings, VERSION};
use crate::metrics::Metrics;

/// Time for writing the rest of the log when the process ends. With a reader this takes microseconds.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of a process. Dropped, it writes the remaining lines if stderr has a reader.
#[derive(Debug)]
pub struct Log(Queue);

impl Log {
    /// Starts logging for the whole process, panics included. Text has colours if stderr is a terminal and NO_COLOR is
    /// not set.
    ///
    /// # Errors
    /// Returns an error if the process logs already, or cannot open a file or start a thread.
    pub fn start(filter: &LogFilter, format: Format, metrics: &Metrics) -> Result<Self> {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Not `io::stderr`, whose lock a thread that is stuck in a write would hold.
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let stderr = File::from(stderr.context("cannot duplicate standard error")?);
        let queue = Queue::start(stderr, metrics.log_lines_lost.clone()).context("cannot start the log thread")?;
        tracing_subscriber::registry()
            .with(env_filter(filter))
            .with(layer(format, colour, queue.clone()))
            .try_init()?;
        let panicked = queue.clone();
        panic::set_hook(Box::new(move |panic| log_panic(panic, &panicked)));
        Ok(Self(queue))
    }

    /// Logs the error that ends the process: in the log's own format, so that a reader of JSON gets no stray line, and
    /// despite any filter.
    pub fn ends(&self, reason: &dyn Display) {
        log_or_push(&self.0, "pgnorth ends", reason, None);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(FLUSH);
    }
}

/// Logs a panic. The standard library's own hook would block on a stderr that has no reader.
fn log_panic(panic: &PanicHookInfo<'_>, queue: &Queue) {
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let reason = format_args!("thread {thread} at {place}: {what}").to_string();
    log_or_push(queue, "a panic; this is a defect in pgnorth", &reason, backtrace);
}

fn log_or_push(queue: &Queue, message: &str, reason: &dyn Display, backtrace: Option<Backtrace>) {
    if enabled!(target: "pgnorth", Level::ERROR) {
        error!(target: "pgnorth", %reason, backtrace = backtrace.map(tracing::field::display), "{message}");
    } else {
        queue.push(format!("pgnorth: {message}: {reason:#}\n").as_bytes());
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

fn layer<S, W>(format: Format, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
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
        Format::Json => layer.json().boxed(),
        Format::Text => layer.event_format(text::Line).fmt_fields(text::Fields).boxed(),
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
