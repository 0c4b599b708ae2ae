//! Priorities for systemd's journal: `<N>` before each line (sd-daemon(3)), if standard error is the journal. The
//! journal removes the prefix and stores the priority, so that `journalctl -p warning` finds warnings.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::linux::fs::MetadataExt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Prefix of errors.
pub(super) const ERROR: &str = "<3>";

/// Writes events as `inner` does, with a prefix if `is_on`.
pub(super) struct WithPriority<F> {
    pub(super) inner: F,
    pub(super) is_on: bool,
}

impl<S, N, F> FormatEvent<S, N> for WithPriority<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.is_on {
            out.write_str(prefix(*event.metadata().level()))?;
        }
        self.inner.format_event(ctx, out, event)
    }
}

/// Returns true if systemd connected this standard error to the journal: `JOURNAL_STREAM` then has its device and inode
/// (systemd.exec(5)). A process that redirects its standard error elsewhere inherits the variable all the same.
pub(super) fn is_journal(journal_stream: Option<&OsStr>, stderr: &File) -> bool {
    let Some((device, inode)) = journal_stream
        .and_then(OsStr::to_str)
        .and_then(|stream| stream.split_once(':'))
    else {
        return false;
    };
    let is =
        |metadata: std::fs::Metadata| device.parse() == Ok(metadata.st_dev()) && inode.parse() == Ok(metadata.st_ino());
    stderr.metadata().is_ok_and(is)
}

/// Returns the prefix of syslog's priority for a level.
fn prefix(level: Level) -> &'static str {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}
