//! The error of one direction: which of its two ends failed, and how.

use std::io;

use rustix::io::Errno;

/// The reason why a direction cannot go on.
#[derive(Debug)]
pub(crate) struct DirectionError {
    pub(crate) failed: FailedEnd,
    pub(crate) error: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedEnd {
    Source,
    Sink,
    /// Neither: pgnorth itself could not go on, for example without memory.
    Internal,
}

impl DirectionError {
    pub(crate) fn source(error: io::Error) -> Self {
        Self::of(FailedEnd::Source, error)
    }

    pub(crate) fn sink(error: io::Error) -> Self {
        Self::of(FailedEnd::Sink, error)
    }

    pub(crate) fn internal(error: io::Error) -> Self {
        Self::of(FailedEnd::Internal, error)
    }

    fn of(end: FailedEnd, error: io::Error) -> Self {
        let failed = match error.kind() {
            io::ErrorKind::OutOfMemory | io::ErrorKind::InvalidInput => FailedEnd::Internal,
            _ => end,
        };
        Self { failed, error }
    }
}

/// Returns true if a system without splice(2) for sockets answers like this: under a seccomp profile, or a kernel in
/// user space.
pub(crate) fn is_splice_refused(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP)
    )
}
