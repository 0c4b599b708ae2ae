//! The load: threads that send and receive, and the window in which their work is counted.

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

/// Bytes that a streaming client sends or takes at once.
const BULK: usize = 256 * 1024;

/// Time for which a load runs before it is counted, and for which it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub warm: Duration,
    pub counted: Duration,
}

/// The work of one thread in the window.
#[derive(Debug, Default)]
pub struct Tally {
    /// Round trips, or connections.
    pub done: u64,
    /// Connections that failed.
    pub failed: u64,
    /// Bytes that were received.
    pub received: u64,
    /// The time of each, in nanoseconds.
    pub latencies: Vec<u32>,
}

/// The work of all threads in the window.
#[derive(Debug)]
pub struct Seen {
    pub lasted: Duration,
    /// CPU time of the contender; `None` if it is the kernel.
    pub cpu: Option<Duration>,
    /// Bytes that the backend took.
    pub taken: u64,
    /// One tally for each load, in their order.
    pub tallies: Vec<Tally>,
}

/// The present phase of the window. Only [`run`] changes it.
#[derive(Debug)]
pub struct Phase(AtomicU8);

const WARM: u8 = 0;
const COUNTED: u8 = 1;
const OVER: u8 = 2;

/// Work that continues until the window is over.
pub type Load<'a> = Box<dyn FnOnce(&Phase) -> io::Result<Tally> + Send + 'a>;

/// Runs the loads through one window, each on a thread.
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
    /// Returns the sum over all threads.
    pub fn done(&self) -> u64 {
        self.tallies.iter().map(|tally| tally.done).sum()
    }

    /// Returns round trips or connections a second.
    pub fn rate(&self) -> f64 {
        self.done() as f64 / self.lasted.as_secs_f64()
    }

    /// Returns the bytes that arrived at either end.
    pub fn bytes(&self) -> u64 {
        self.taken + self.tallies.iter().map(|tally| tally.received).sum::<u64>()
    }
}

/// Returns a load that sends as much as is taken; the backend counts.
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

/// Returns a load that receives the backend's bytes.
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

/// Returns a load of one session, one round trip after the other, with two system calls each.
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

/// Returns a load of many sessions, with one round trip on each after the other.
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

/// Returns a load that connects, waits for the answer to its start-up and terminates, again and again, whatever fails.
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

/// Returns a load that connects, waits for the answer to its start-up and terminates, again and again.
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
