//! Bytes that were read from one side and not yet accepted by the other.

use std::io;

use super::context::IoContext;
use super::error::{DirectionError, is_splice_refused};
use super::pipes::Pipe;
use crate::proxy::forward::reactor::{PolledStream, Syscalls};

#[derive(Debug, Default)]
pub(crate) enum Undelivered {
    #[default]
    Nothing,
    /// Bytes in memory, and the number of them that were sent.
    Bytes(Box<[u8]>, usize),
    /// A pipe, which may be empty.
    Pipe(Pipe),
}

impl Undelivered {
    pub(crate) fn has_bytes(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bytes(..) => true,
            Self::Pipe(pipe) => pipe.filled > 0,
        }
    }

    /// Sends once. Returns the number of bytes that the sink accepted; `None` if it accepts none now.
    pub(crate) fn send<S: Syscalls>(
        &mut self,
        sink: &mut PolledStream,
        io: &mut IoContext<S>,
    ) -> Result<Option<usize>, DirectionError> {
        let sent = match self.try_send(sink, io) {
            Err(error) if is_splice_refused(&error) && self.empty_pipe(&error, io)? => self.try_send(sink, io),
            sent => sent,
        };
        let sent = sent.map_err(DirectionError::sink)?;
        if let Some(sent) = sent {
            self.remove(sent)?;
        }
        Ok(sent)
    }

    fn try_send<S: Syscalls>(&mut self, sink: &mut PolledStream, io: &mut IoContext<S>) -> io::Result<Option<usize>> {
        match self {
            Self::Nothing => Ok(Some(0)),
            Self::Bytes(bytes, sent) => sink.write(|sink| io.syscalls.send(sink, &bytes[*sent..])),
            Self::Pipe(pipe) => sink.write(|sink| io.syscalls.drain(pipe.output(), sink, pipe.filled)),
        }
    }

    fn remove(&mut self, count: usize) -> Result<(), DirectionError> {
        match self {
            Self::Nothing => {}
            Self::Bytes(bytes, sent) => {
                *sent += count;
                if *sent == bytes.len() {
                    *self = Self::Nothing;
                }
            }
            Self::Pipe(_) if count == 0 => {
                let error = io::Error::other("splice(2) moved no byte although the pipe holds some");
                return Err(DirectionError::internal(error));
            }
            Self::Pipe(pipe) => pipe.filled -= count,
        }
        Ok(())
    }

    /// Moves the bytes from the pipe to memory with read(2), after splice(2) was refused. Returns true if there was a
    /// pipe.
    fn empty_pipe<S: Syscalls>(&mut self, error: &io::Error, io: &mut IoContext<S>) -> Result<bool, DirectionError> {
        let Self::Pipe(pipe) = self else {
            return Ok(false);
        };
        io.traffic.pipes.on_splice_refused(error);
        let mut bytes = vec![0; pipe.filled];
        let mut taken = 0;
        while pipe.filled > 0 {
            let read = io.syscalls.take_out(pipe.output(), &mut bytes[taken..]);
            let read = read.map_err(|error| DirectionError::internal(error.into()))?;
            if read == 0 {
                let error = io::Error::other("a pipe ended before all of its bytes were read");
                return Err(DirectionError::internal(error));
            }
            taken += read;
            pipe.filled -= read;
        }
        *self = Self::Bytes(bytes.into_boxed_slice(), 0);
        Ok(true)
    }
}
