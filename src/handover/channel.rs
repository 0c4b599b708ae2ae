//! Sends and receives messages with open files over a Unix socket that preserves message boundaries. Every call has a
//! deadline, because the process at the other end may hang.

use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Maximum number of files in one message. Linux accepts 253 (SCM_MAX_FD).
pub const MAX_FILES: usize = 240;
/// Maximum size of one message. Linux keeps up to 208 KiB in a socket by default (net.core.wmem_default).
const MAX_BYTES: usize = 192 << 10;

/// Separator between the message and its bytes. JSON never contains it.
const SEPARATOR: u8 = 0;

/// A received message, with the bytes and files that came with it.
#[derive(Debug)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// The bytes that came with the message.
    pub bytes: Vec<u8>,
    /// The files that came with the message.
    pub files: Vec<OwnedFd>,
}

/// One end of the channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Reasons why a message could not be sent or received.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// The other process has ended, or closed the channel.
    #[error("the other process closed the channel")]
    Closed,
    /// The other process did not read or answer in time.
    #[error("the other process did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The kernel dropped files of the message, because too many are open in this process.
    #[error("not all passed files arrived: the limit of open files is reached (raise LimitNOFILE= or ulimit -n)")]
    FilesLost,
    /// The message is longer than this version accepts.
    #[error("the other process sent a message of more than {MAX_BYTES} bytes")]
    TooLong,
    /// This version cannot read the message.
    #[error("the other process sent a message that this version of pgnorth does not understand: {0}")]
    Unknown(#[source] serde_json::Error),
    /// Any other error.
    #[error("the channel failed: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

impl Channel {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Returns both ends; the second one is for the other process.
    ///
    /// # Errors
    /// Returns the system's error.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(own), other))
    }

    /// Sends a message with these bytes and files, which stay open here.
    ///
    /// # Errors
    /// Returns the reason why the message cannot have arrived.
    pub fn send<M: Serialize>(
        &self,
        message: &M,
        bytes: &[u8],
        files: &[BorrowedFd<'_>],
        within: Duration,
    ) -> Result<(), ChannelError> {
        let mut text = serde_json::to_vec(message).map_err(io::Error::from)?;
        if !bytes.is_empty() {
            text.push(SEPARATOR);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let deadline = Instant::now() + within;
        loop {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
                return Err(io::Error::other("a message has too many files").into());
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(
                &self.0,
                &[IoSlice::new(&text), IoSlice::new(bytes)],
                &mut control,
                flags,
            ) {
                Ok(_) => return Ok(()),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline, within)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives the next message with its bytes and files.
    ///
    /// # Errors
    /// Returns the reason why there is no message. Files of a message that cannot be read are closed.
    pub fn receive<M: DeserializeOwned>(&self, within: Duration) -> Result<Received<M>, ChannelError> {
        let deadline = Instant::now() + within;
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut is_reset = false;
        let received = loop {
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, deadline, within)?,
                Err(Errno::INTR) => {}
                // The other end was closed with an unread message. The kernel reports this once, before it delivers the
                // messages that the other end had sent.
                Err(Errno::CONNRESET) if !is_reset => is_reset = true,
                Err(error) => return Err(error.into()),
            }
        };
        let files: Vec<OwnedFd> = (control.drain())
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(files) => Some(files),
                _ => None,
            })
            .flatten()
            .collect();
        if received.flags.contains(ReturnFlags::TRUNC) {
            return Err(ChannelError::TooLong);
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::FilesLost);
        }
        if received.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        bytes.truncate(received.bytes);
        let end = bytes.iter().position(|byte| *byte == SEPARATOR).unwrap_or(bytes.len());
        let message = serde_json::from_slice(&bytes[..end]).map_err(ChannelError::Unknown)?;
        let bytes = bytes.get(end + 1..).unwrap_or_default().to_vec();
        Ok(Received { message, bytes, files })
    }

    fn wait(&self, events: PollFlags, deadline: Instant, within: Duration) -> Result<(), ChannelError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ChannelError::TimedOut(within));
        }
        let timeout = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&self.0, events)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_a_process_that_ended_is_read_although_it_left_one_unread() {
        let (ours, other) = Channel::pair().unwrap();
        let other = Channel::new(other);
        let soon = Duration::from_secs(10);
        ours.send(&"a question", &[], &[], soon).unwrap();
        other.send(&"the reason", &[], &[], soon).unwrap();
        drop(other);
        let received = ours.receive::<String>(soon).unwrap();
        assert_eq!(received.message, "the reason");
        assert!(matches!(ours.receive::<String>(soon), Err(ChannelError::Closed)));
    }
}
