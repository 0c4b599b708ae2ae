//! The commands that an operator can give to a running pgnorth: one type for the subcommands, their client, the admin
//! port and discovery.

use std::time::Duration;

/// A command for maintenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorCommand {
    /// Holds new clients, for at most this time.
    Hold(Duration),
    /// Ends the hold.
    Release,
    /// Closes sessions: those to this member, or all of them.
    Cut(Option<String>),
}
