//! Asks the kernel whether a socket holds bytes that it has not yet sent for the first time.
//!
//! SIOCOUTQNSD has no safe wrapper, but with TCP_NOTSENT_LOWAT = 1 a socket is writable if and only if it has no unsent
//! bytes and at most two thirds of its send buffer are in use.

use std::net::TcpStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::proxy::socket;

/// Returns true if there are unsent bytes, or if more than two thirds of the send buffer are in use; false on an error.
/// Leaves TCP_NOTSENT_LOWAT as it was.
pub(crate) fn has_unsent(stream: &TcpStream) -> bool {
    let Ok(before) = socket::notsent_lowat(stream) else {
        return false;
    };
    let unsent = wait_for_unsent(stream);
    let _gone = socket::set_notsent_lowat(stream, before);
    unsent
}

/// Returns the same as [`has_unsent`], but leaves TCP_NOTSENT_LOWAT at 1, so that an epoll that reports writability
/// reports when every byte is sent.
pub(crate) fn wait_for_unsent(stream: &TcpStream) -> bool {
    if socket::set_notsent_lowat(stream, 1).is_err() {
        return false;
    }
    let mut polled = [PollFd::new(stream, PollFlags::OUT)];
    matches!(poll(&mut polled, Some(&Timespec::default())), Ok(0))
}
