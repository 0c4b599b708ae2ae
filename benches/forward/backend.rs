//! The backend: takes PostgreSQL's place where PostgreSQL itself would determine the figure. It does as little as
//! possible, so that the proxies' cost is visible.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::net::{RecvFlags, listen, recv};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::session::{ANSWER, QUESTION, TERMINATE, Trade, greet, wanted};

const PORT: u16 = 6000;
/// Backlog of the listener, so large that it does not delay a storm of connections.
const BACKLOG: i32 = 4096;
/// Bytes that are sent or taken at once.
const BULK: usize = 256 * 1024;
/// The listener's key among the guests'.
const LISTENER: u64 = u64::MAX;

/// A backend. It runs until the process ends.
pub struct Backend {
    address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    taken: AtomicU64,
    open: AtomicUsize,
}

/// A session on the thread that serves many.
struct Guest {
    stream: TcpStream,
    /// The start-up so far; `None` once it was answered.
    start_up: Option<Vec<u8>>,
    /// Bytes of questions that are not complete yet.
    asked: usize,
    _open: Open,
}

/// Counts a session as open until it is dropped.
struct Open(Arc<Counts>);

impl Backend {
    pub fn start() -> io::Result<Self> {
        Self::serve_on(TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?)
    }

    /// Starts a backend on a host of its own, with this network namespace.
    pub fn start_in(namespace: &File, address: SocketAddr) -> io::Result<Self> {
        // The thread that binds must be in the namespace; the socket remains there, whichever thread serves it.
        let bound = thread::scope(|scope| {
            let bind = || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
                TcpListener::bind(address)
            };
            scope.spawn(bind).join()
        });
        Self::serve_on(bound.map_err(|_| io::Error::other("the thread that binds panicked"))??)
    }

    fn serve_on(listener: TcpListener) -> io::Result<Self> {
        listen(&listener, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let backend = Self {
            address: listener.local_addr()?,
            counts: Arc::default(),
        };
        let counts = backend.counts.clone();
        thread::Builder::new().name("backend".into()).spawn(move || {
            let error = serve(&listener, &counts).expect_err("it serves for ever");
            eprintln!("the backend ended: {error}");
        })?;
        Ok(backend)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the bytes that were taken so far, on all sessions.
    pub fn taken(&self) -> u64 {
        self.counts.taken.load(Ordering::Relaxed)
    }

    /// Waits until no session is open, so that the remains of one contender do not affect the next.
    pub fn wait_until_quiet(&self, within: Duration) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match self.counts.open.load(Ordering::Relaxed) {
                0 => return Ok(()),
                open if start.elapsed() > within => {
                    return Err(format!(
                        "{open} sessions are still open at the backend, {within:?} after their clients left"
                    ));
                }
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

impl Open {
    fn count(counts: &Arc<Counts>) -> Self {
        counts.open.fetch_add(1, Ordering::Relaxed);
        Self(counts.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves many sessions. Level-triggered: a session costs a wait, a read and a write for each round trip.
fn serve(listener: &TcpListener, counts: &Arc<Counts>) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let reads = epoll::EventFlags::IN;
    epoll::add(&epoll, listener, epoll::EventData::new_u64(LISTENER), reads)?;
    let mut guests: Vec<Option<Guest>> = Vec::new();
    let mut free: Vec<usize> = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 16 * 1024];
    loop {
        events.clear();
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Err(rustix::io::Errno::INTR) => continue,
            waited => waited?,
        };
        for event in &events {
            let data = event.data;
            if data.u64() == LISTENER {
                let Some(guest) = accept(listener, counts)? else {
                    continue;
                };
                let place = free.pop().unwrap_or_else(|| {
                    guests.push(None);
                    guests.len() - 1
                });
                epoll::add(&epoll, &guest.stream, epoll::EventData::new_u64(place as u64), reads)?;
                guests[place] = Some(guest);
                continue;
            }
            let place = usize::try_from(data.u64()).expect("a place is an index");
            let Some(guest) = guests[place].as_mut() else { continue };
            match guest.turn(&mut buffer) {
                Ok(None | Some(Trade::Answer)) => continue,
                Ok(Some(trade)) => {
                    let guest = guests[place].take().expect("it was just served");
                    epoll::delete(&epoll, &guest.stream)?;
                    guest.move_out(trade)?;
                }
                // Closing the socket removes it from the epoll.
                Err(_) => guests[place] = None,
            }
            free.push(place);
        }
    }
}

fn accept(listener: &TcpListener, counts: &Arc<Counts>) -> io::Result<Option<Guest>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            Ok(Some(Guest {
                stream,
                start_up: Some(Vec::new()),
                asked: 0,
                _open: Open::count(counts),
            }))
        }
        // It was reset before it was accepted.
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Guest {
    /// Reads once. Returns the session's purpose if its start-up was just answered.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<Option<Trade>> {
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(start_up) = &mut self.start_up {
            start_up.extend_from_slice(&buffer[..length]);
            let wanted = wanted(start_up)?;
            if wanted.is_some() {
                greet(&mut self.stream)?;
                self.start_up = None;
            }
            return Ok(wanted);
        }
        if buffer[..length] == TERMINATE {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.asked += length;
        while self.asked >= QUESTION {
            self.asked -= QUESTION;
            self.stream.write_all(&[b'a'; ANSWER])?;
        }
        Ok(None)
    }

    /// Moves the session to a thread of its own.
    fn move_out(self, trade: Trade) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        thread::Builder::new().name("backend session".into()).spawn(move || {
            // A client that leaves ends it, in one way or another.
            let _left = match trade {
                Trade::Give => give(&self.stream),
                Trade::Take => take(&self.stream, &self._open.0.taken),
                Trade::Answer | Trade::AnswerAlone => answer(&self.stream),
            };
        })?;
        Ok(())
    }
}

fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let mut question = [0; QUESTION];
    loop {
        stream.read_exact(&mut question)?;
        stream.write_all(&[b'a'; ANSWER])?;
    }
}

fn give(mut stream: &TcpStream) -> io::Result<()> {
    let bytes = vec![b'g'; BULK];
    loop {
        stream.write_all(&bytes)?;
    }
}

fn take(stream: &TcpStream, taken: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; BULK];
    loop {
        taken.fetch_add(forget(stream, &mut buffer)? as u64, Ordering::Relaxed);
    }
}

/// Takes bytes off a socket without copying them (tcp(7), MSG_TRUNC): the receiver is not measured.
pub fn forget(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    match recv(stream, buffer, RecvFlags::TRUNC)? {
        (_, 0) => Err(ErrorKind::UnexpectedEof.into()),
        (_, length) => Ok(length),
    }
}
