//! Many sessions on one thread, as a client's pool has them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use super::{Load, Tally};
use crate::session::{ANSWER, PATIENCE, QUESTION};

/// One session of such a thread.
struct Asker<'a> {
    stream: &'a TcpStream,
    asked: Instant,
    answered: usize,
}

/// Returns a load of many sessions on one thread, each with one question under way at any time.
pub fn ask_on_many(streams: &[TcpStream]) -> Load<'_> {
    Box::new(move |phase| {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut askers = Vec::new();
        for (place, stream) in streams.iter().enumerate() {
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(place as u64);
            epoll::add(&epoll, stream, data, epoll::EventFlags::IN)?;
            askers.push(Asker::ask(stream)?);
        }
        let mut tally = Tally::with_room();
        let mut events = Vec::with_capacity(256);
        let mut buffer = [0; 4096];
        while !phase.is_over() {
            events.clear();
            wait(&epoll, &mut events)?;
            for event in &events {
                let data = event.data;
                let asker = &mut askers[usize::try_from(data.u64()).expect("a place is an index")];
                if let Some(started) = asker.turn(&mut buffer)?
                    && phase.is_counted()
                {
                    tally.count(started, asker.asked);
                }
            }
        }
        Ok(tally)
    })
}

impl<'a> Asker<'a> {
    fn ask(mut stream: &'a TcpStream) -> io::Result<Self> {
        stream.write_all(&[b'q'; QUESTION])?;
        Ok(Self {
            stream,
            asked: Instant::now(),
            answered: 0,
        })
    }

    /// Reads once. When the answer is complete, asks again and returns the time of the last question.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<Option<Instant>> {
        match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.answered += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        if self.answered < ANSWER {
            return Ok(None);
        }
        let started = self.asked;
        *self = Self::ask(self.stream)?;
        Ok(Some(started))
    }
}

fn wait(epoll: impl AsFd, events: &mut Vec<epoll::Event>) -> io::Result<()> {
    let patience = Timespec {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    let waited = epoll::wait(epoll, rustix::buffer::spare_capacity(events), Some(&patience));
    match waited {
        Ok(0) => Err(io::Error::new(
            ErrorKind::TimedOut,
            format!("no answer on any session for {PATIENCE:?}"),
        )),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
