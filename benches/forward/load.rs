//! The load: threads that send and receive, and the window in which what they do counts.

mod many;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::backend::{Backend, forget};
use crate::contenders::Running;
use crate::session::{self, PATIENCE, Trade};

pub use many::ask_on_many;

/// Sent at once by a client that streams, and taken at once.
const BULK: usize = 256 * 1024;

/// How long a load runs before it counts, and how long it counts.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub warm: Duration,
    pub counted: Duration,
}

/// What one thread did in the window.
#[derive(Debug, Default)]
pub struct Tally {
    /// Round trips, or connections.
    pub done: u64,
    /// Connections that failed.
    pub failed: u64,
    /// Bytes that were received.
    pub received: u64,
    /// How long each took, in nanoseconds.
    pub latencies: Vec<u32>,
}

/// What all threads did in the window.
#[derive(Debug)]
pub struct Seen {
    pub lasted: Duration,
    /// CPU time of the contender; nothing if it is the kernel.
    pub cpu: Option<Duration>,
    /// Bytes that the backend took.
    pub taken: u64,
    /// In the order of the loads.
    pub tallies: Vec<Tally>,
}

/// Where the window stands. It moves on by itself from nowhere else than [`run`].
#[derive(Debug)]
pub struct Phase(AtomicU8);

const WARM: u8 = 0;
const COUNTED: u8 = 1;
const OVER: u8 = 2;

/// Something that goes on until the window is over.
pub type Load<'a> = Box<dyn FnOnce(&Phase) -> io::Result<Tally> + Send + 'a>;

/// Runs the loads, each on a thread, through one window.
pub fn run(window: Window, contender: &Running, backend: &Backend, loads: Vec<Load<'_>>) -> io::Result<Seen> {
    let phase = Phase(AtomicU8::new(WARM));
    thread::scope(|scope| {
        let threads: Vec<_> = loads.into_iter().map(|load| scope.spawn(|| load(&phase))).collect();
        thread::sleep(window.warm);
        let (cpu, taken, start) = (contender.cpu(), backend.taken(), Instant::now());
        phase.0.store(COUNTED, Ordering::Relaxed);
        thread::sleep(window.counted);
        phase.0.store(OVER, Ordering::Relaxed);
        let (lasted, taken_after, cpu_after) = (start.elapsed(), backend.taken(), contender.cpu());
        let tallies = threads.into_iter().map(|thread| match thread.join() {
            Ok(tally) => tally,
            Err(_) => Err(io::Error::other("a thread of the load panicked")),
        });
        Ok(Seen {
            lasted,
            cpu: cpu_after.zip(cpu).map(|(after, before)| after.saturating_sub(before)),
            taken: taken_after - taken,
            tallies: tallies.collect::<io::Result<_>>()?,
        })
    })
}

impl Phase {
    fn is_counted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == COUNTED
    }

    fn is_over(&self) -> bool {
        self.0.load(Ordering::Relaxed) == OVER
    }
}

impl Tally {
    fn count(&mut self, started: Instant, ended: Instant) {
        self.done += 1;
        let nanoseconds = (ended - started).as_nanos();
        self.latencies.push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
    }

    fn with_room() -> Self {
        Self {
            latencies: Vec::with_capacity(1 << 18),
            ..Self::default()
        }
    }
}

impl Seen {
    /// Of all threads together.
    pub fn done(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.done).sum()
    }

    /// Round trips or connections a second.
    pub fn rate(&self) -> f64 {
        self.done() as f64 / self.lasted.as_secs_f64()
    }

    /// Bytes that arrived at either end.
    pub fn bytes(&self) -> u64 {
        self.taken + self.tallies.iter().map(|tally| tally.received).sum::<u64>()
    }
}

/// Sends for as long as it is taken; the backend counts.
pub fn send_bulk<'a>(mut stream: TcpStream) -> Load<'a> {
    Box::new(move |phase| {
        stream.set_write_timeout(Some(PATIENCE))?;
        let bytes = vec![b's'; BULK];
        while !phase.is_over() {
            stream.write_all(&bytes)?;
        }
        Ok(Tally::default())
    })
}

/// Receives what the backend sends.
pub fn receive_bulk<'a>(stream: TcpStream) -> Load<'a> {
    Box::new(move |phase| {
        let mut tally = Tally::default();
        let mut buffer = vec![0; BULK];
        while !phase.is_over() {
            let length = forget(&stream, &mut buffer)?;
            if phase.is_counted() {
                tally.received += length as u64;
            }
        }
        Ok(tally)
    })
}

/// One session, one round trip after the other, with no system calls but the two.
pub fn ask_alone<'a>(mut stream: TcpStream) -> Load<'a> {
    Box::new(move |phase| {
        let mut tally = Tally::with_room();
        while !phase.is_over() {
            let started = Instant::now();
            session::ask(&mut stream)?;
            if phase.is_counted() {
                tally.count(started, Instant::now());
            }
        }
        Ok(tally)
    })
}

/// Many sessions, one round trip on each after the other.
pub fn ask_in_turn<'a>(streams: &'a mut [TcpStream]) -> Load<'a> {
    Box::new(move |phase| {
        let mut tally = Tally::with_room();
        while !phase.is_over() {
            for stream in &mut *streams {
                let started = Instant::now();
                session::ask(stream)?;
                if phase.is_counted() {
                    tally.count(started, Instant::now());
                }
            }
        }
        Ok(tally)
    })
}

/// Connects, has its start-up answered, terminates; and again, for as long as the window says, whatever fails.
pub fn come_and_go_regardless<'a>(address: SocketAddr) -> Load<'a> {
    Box::new(move |phase| {
        let mut tally = Tally::with_room();
        while !phase.is_over() {
            let started = Instant::now();
            let done = session::open(address, Trade::Answer).and_then(session::terminate);
            match done {
                Ok(()) if phase.is_counted() => tally.count(started, Instant::now()),
                Err(_) if phase.is_counted() => tally.failed += 1,
                _ => {}
            }
        }
        Ok(tally)
    })
}

/// Connects, has its start-up answered, terminates; and again.
pub fn come_and_go<'a>(address: SocketAddr) -> Load<'a> {
    Box::new(move |phase| {
        let mut tally = Tally::with_room();
        while !phase.is_over() {
            let started = Instant::now();
            session::open(address, Trade::Answer).and_then(session::terminate)?;
            if phase.is_counted() {
                tally.count(started, Instant::now());
            }
        }
        Ok(tally)
    })
}
