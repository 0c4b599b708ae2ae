//! Human-readable log lines: time, level, module, message, then `field=value`, quoted unless it is one word. Text from
//! outside cannot break the line.

use std::fmt::{self, Debug, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::Utc;

const DIM: &str = "2";

/// Format of an event.
pub(super) struct Line;

/// Format of the fields of an event or of a span.
pub(super) struct Fields;

/// The message and the other fields, kept apart.
struct Parts {
    message: String,
    fields: String,
    colour: bool,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let colour = out.has_ansi_escapes();
        let metadata = event.metadata();
        let mut time = String::new();
        Utc.format_time(&mut Writer::new(&mut time))?;
        let level = format!("{:5}", metadata.level());
        write!(
            out,
            "{} {} ",
            painted(&time, DIM, colour),
            painted(&level, tint(metadata.level()), colour)
        )?;
        let module = metadata.target().strip_prefix("pgnorth::").unwrap_or(metadata.target());
        if module != "pgnorth" {
            write!(out, "{} ", painted(&format!("{module}:"), DIM, colour))?;
        }
        ctx.format_fields(out.by_ref(), event)?;
        for span in ctx.event_scope().into_iter().flatten() {
            write!(out, " {}", span.name())?;
            match span.extensions().get::<FormattedFields<N>>() {
                Some(fields) if !fields.is_empty() => write!(out, "{{{fields}}}")?,
                _ => {}
            }
        }
        writeln!(out)
    }
}

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'writer>, fields: R) -> fmt::Result {
        let mut parts = Parts {
            message: String::new(),
            fields: String::new(),
            colour: out.has_ansi_escapes(),
        };
        fields.record(&mut parts);
        let gap = if parts.message.is_empty() || parts.fields.is_empty() {
            ""
        } else {
            " "
        };
        write!(out, "{}{gap}{}", parts.message, parts.fields)
    }
}

impl Parts {
    fn push(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.extend(value.chars().flat_map(harmless));
            return;
        }
        let gap = if self.fields.is_empty() { "" } else { " " };
        let name = painted(&format!("{}=", field.name()), DIM, self.colour);
        let value = if is_one_word(value) {
            value.to_owned()
        } else {
            format!("{value:?}")
        };
        write!(self.fields, "{gap}{name}{value}").expect("writing to a String can't fail");
    }
}

impl Visit for Parts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

/// Returns true for one word, and for text that `?value` has already quoted.
fn is_one_word(value: &str) -> bool {
    let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
    let plain = |letter: char| !letter.is_whitespace() && !letter.is_control() && letter != '"';
    !value.is_empty() && (value.chars().all(plain) || (quoted && !value.contains(char::is_control)))
}

/// Returns the letter, or its escape if a terminal would act on it.
fn harmless(letter: char) -> impl Iterator<Item = char> {
    let (plain, escaped) = if letter.is_control() {
        (None, Some(letter.escape_default()))
    } else {
        (Some(letter), None)
    };
    plain.into_iter().chain(escaped.into_iter().flatten())
}

fn tint(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

fn painted(text: &str, code: &str, colour: bool) -> String {
    if colour {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
