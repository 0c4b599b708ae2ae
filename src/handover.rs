//! The channel between a pgnorth that is being replaced and its successor, and the messages on it. `app` acts on the
//! messages.
//!
//! The channel is a pair of connected Unix sockets. The old process keeps one and starts the successor with the other
//! as its standard input, so that no other process can reach it. The variable [`PREDECESSOR`] tells the successor.

mod channel;
mod messages;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::net::SocketType;
use rustix::net::sockopt::{socket_peercred, socket_type};
use thiserror::Error;

pub use self::channel::{Channel, ChannelError, MAX_FILES, Received};
pub use self::messages::{
    Counters, FromPredecessor, FromSuccessor, HandoverState, Histograms, PassedHold, PassedListener,
};

/// The variable that holds the process id of the pgnorth that a new one replaces.
pub const PREDECESSOR: &str = "PGNORTH_PREDECESSOR";

/// The error if [`PREDECESSOR`] is set, but standard input is not a channel to that process.
#[derive(Debug, Error)]
#[error(
    "{PREDECESSOR} is set (pgnorth sets it for the process that replaces it), but standard input is not a channel to \
     process {0:?}; unset the variable"
)]
pub struct NoChannel(OsString);

/// Returns the channel to the process that this one replaces, if there is such a process. In that case, /dev/null
/// becomes standard input.
///
/// # Errors
/// Returns an error if the variable is set, but not by a pgnorth that started this process.
pub fn predecessor(variable: Option<OsString>) -> Result<Option<Channel>, NoChannel> {
    let Some(variable) = variable.filter(|variable| !variable.is_empty()) else {
        return Ok(None);
    };
    let pid = variable.to_str().and_then(|pid| pid.parse().ok());
    match pid.and_then(|pid: i32| take_stdin(pid).ok().flatten()) {
        Some(channel) => Ok(Some(channel)),
        None => Err(NoChannel(variable)),
    }
}

fn take_stdin(pid: i32) -> io::Result<Option<Channel>> {
    let stdin = io::stdin();
    if socket_type(&stdin)? != SocketType::SEQPACKET || socket_peercred(&stdin)?.pid.as_raw_nonzero().get() != pid {
        return Ok(None);
    }
    let channel = stdin.as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Some(Channel::new(channel)))
}

/// Returns the id of the process at the other end of a Unix socket.
///
/// # Errors
/// Returns the system's error.
pub fn peer_pid(socket: impl AsFd) -> io::Result<u32> {
    let pid = socket_peercred(socket)?.pid.as_raw_nonzero().get();
    u32::try_from(pid).map_err(io::Error::other)
}

/// Returns the effective user id of this process.
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}
