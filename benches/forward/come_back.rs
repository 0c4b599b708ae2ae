//! Thousands of sessions that come back at the same instant, as after a failover: the time until the last is in.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::contenders::Running;
use crate::session::{READY, Trade, is_held, start_up};

/// Deadline for all of them.
const PATIENCE: Duration = Duration::from_secs(30);
/// Time after the last client has connected, so that a proxy has read every start-up.
const PAUSE: Duration = Duration::from_secs(1);

/// A session that is not open yet.
struct Comer {
    stream: TcpStream,
    /// Bytes of the answer so far.
    answered: usize,
    has_sent: bool,
}

/// Returns the time in which so many sessions are open that begin to connect now.
pub fn at_once(contender: &Running, sessions: usize) -> io::Result<Duration> {
    let start = Instant::now();
    let mut crowd = Crowd::connect(contender.address, sessions)?;
    crowd.wait_until(|crowd| crowd.open == sessions)?;
    Ok(start.elapsed())
}

/// Returns the time in which so many sessions are open from the instant at which there is a leader again. Their clients
/// have connected while there was none, and are held. `None` for contenders that do not follow a cluster.
pub fn after_a_hold(contender: &Running, sessions: usize) -> io::Result<Option<Duration>> {
    let Some(patroni) = &contender.patroni else {
        return Ok(None);
    };
    patroni.lead(false);
    let start = Instant::now();
    while !is_held(contender.address)? {
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other("clients are not held while the cluster has no leader"));
        }
    }
    let crowd = Crowd::connect(contender.address, sessions).and_then(|mut crowd| {
        crowd.wait_until(|crowd| crowd.sent == sessions)?;
        thread::sleep(PAUSE);
        Ok(crowd)
    });
    let start = Instant::now();
    patroni.lead(true);
    crowd?.wait_until(|crowd| crowd.open == sessions)?;
    Ok(Some(start.elapsed()))
}

/// Sessions on their way, on one thread.
struct Crowd {
    epoll: std::os::fd::OwnedFd,
    comers: Vec<Comer>,
    sent: usize,
    open: usize,
}

impl Crowd {
    fn connect(address: SocketAddr, sessions: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut comers = Vec::with_capacity(sessions);
        for place in 0..sessions {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
            match connect(&socket, &address) {
                Ok(()) | Err(Errno::INPROGRESS) => {}
                Err(error) => return Err(error.into()),
            }
            let data = epoll::EventData::new_u64(place as u64);
            epoll::add(&epoll, &socket, data, epoll::EventFlags::OUT)?;
            comers.push(Comer {
                stream: socket.into(),
                answered: 0,
                has_sent: false,
            });
        }
        Ok(Self {
            epoll,
            comers,
            sent: 0,
            open: 0,
        })
    }

    fn wait_until(&mut self, done: impl Fn(&Self) -> bool) -> io::Result<()> {
        let start = Instant::now();
        let mut events = Vec::with_capacity(1024);
        while !done(self) {
            if start.elapsed() > PATIENCE {
                let text = format!(
                    "{} of {} sessions are open after {PATIENCE:?}",
                    self.open,
                    self.comers.len()
                );
                return Err(io::Error::other(text));
            }
            events.clear();
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&second)) {
                Err(Errno::INTR) => continue,
                waited => waited?,
            };
            for event in &events {
                let data = event.data;
                self.turn(data.u64())?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, key: u64) -> io::Result<()> {
        let comer = &mut self.comers[usize::try_from(key).expect("a place is an index")];
        if !comer.has_sent {
            comer.stream.write_all(&start_up("bench", Trade::Answer.name()))?;
            comer.has_sent = true;
            self.sent += 1;
            let data = epoll::EventData::new_u64(key);
            return Ok(epoll::modify(&self.epoll, &comer.stream, data, epoll::EventFlags::IN)?);
        }
        let mut answer = [0; READY.len()];
        match comer.stream.read(&mut answer[comer.answered..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => comer.answered += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        if comer.answered == READY.len() {
            self.open += 1;
            epoll::delete(&self.epoll, &comer.stream)?;
        }
        Ok(())
    }
}
