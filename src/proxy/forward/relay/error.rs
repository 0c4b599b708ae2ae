//! The error of one direction: which of its two ends failed, and how.

use std::io;

use rustix::io::Errno;

/// The reason why a direction cannot continue.
#[derive(Debug)]
pub(crate) struct DirectionError {
    pub(crate) failed: FailedEnd,
    pub(crate) error: io::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailedEnd {
    Source,
    Sink,
    /// Neither end: pgnorth itself could not continue this connection, for example because it ran out of memory.
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

/// Returns true if the error means that the system does not support splice(2) for sockets, as under a seccomp profile
/// or on a kernel in user space.
pub(crate) fn is_splice_refused(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_no_fault_of_either_end() {
        let failed = |kind: io::ErrorKind| DirectionError::source(kind.into()).failed;
        assert_eq!(failed(io::ErrorKind::OutOfMemory), FailedEnd::Internal);
        assert_eq!(failed(io::ErrorKind::InvalidInput), FailedEnd::Internal);
        assert_eq!(failed(io::ErrorKind::ConnectionReset), FailedEnd::Source);
        assert_eq!(
            DirectionError::sink(io::ErrorKind::BrokenPipe.into()).failed,
            FailedEnd::Sink
        );
    }

    #[test]
    fn a_reset_is_no_refusal_of_splice() {
        for errno in [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP] {
            assert!(is_splice_refused(&errno.into()), "{errno}");
        }
        for errno in [Errno::CONNRESET, Errno::PIPE, Errno::TIMEDOUT, Errno::NOMEM] {
            assert!(!is_splice_refused(&errno.into()), "{errno}");
        }
    }
}
