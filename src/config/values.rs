//! The values that settings accept, with their bounds: the single source for parsing, for the placeholder in the help
//! and for the reference.

use std::fmt;
use std::time::Duration;

use super::parse;

/// The values that a setting accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// Text with a placeholder for the help and a description. The setting's parser defines its grammar.
    Text(&'static str, &'static str),
    /// A file's path.
    File,
    /// A duration between these bounds, both included.
    Duration(Duration, Duration),
    /// A whole number from 1 to this maximum.
    Count(usize),
    /// A number of bytes between these bounds, both included, or 0.
    Size(usize, usize),
    /// On or off; the flag alone turns it on.
    Switch,
    /// `text` or `json`.
    Format,
}

impl Values {
    /// Returns the placeholder of the value in the help.
    pub const fn placeholder(&self) -> &'static str {
        match self {
            Self::Text(placeholder, _) => placeholder,
            Self::File => "FILE",
            Self::Duration(..) => "DURATION",
            Self::Count(_) => "COUNT",
            Self::Size(..) => "SIZE",
            Self::Switch => "true|false",
            Self::Format => "FORMAT",
        }
    }
}

/// Describes the values for the reference and `--help`.
impl fmt::Display for Values {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_, description) => out.write_str(description),
            Self::File => out.write_str("path"),
            Self::Duration(least, most) => {
                write!(out, "{} to {}", parse::human(*least), parse::human(*most))
            }
            Self::Count(most) => write!(out, "1 to {most}"),
            Self::Size(least, most) => write!(out, "{}MiB to {}GiB, or 0", least >> 20, most >> 30),
            Self::Switch => out.write_str("true or false"),
            Self::Format => out.write_str("text or json"),
        }
    }
}
