//! Random sessions: both directions at once, sizes up to 64 MiB, pauses, half-closes, slow readers, resets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::connect_unspec;

use super::super::Pipes;
use super::super::relay::make_pipe;
use super::super::{Finish, Transferred};
use super::content::{Content, Random};
use super::faults::{FailingSplice, FaultyKernel};
use super::{Fixture, HANG, TestSession};

/// Number of sessions at the same time, with four threads each.
const AT_ONCE: usize = 16;
const MOST: u64 = 64 << 20;

/// The content of one direction, and the behaviour of its two ends.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    bytes: u64,
    /// Maximum size of the pieces that the sender sends, in bytes.
    piece: u64,
    sender_pauses: bool,
    receiver_pauses: bool,
}

/// One session. The client resets it after it has sent `reset_after` bytes.
#[derive(Clone, Copy, Debug)]
struct Session {
    up: Plan,
    down: Plan,
    reset_after: Option<u64>,
}

#[test]
fn random_sessions_arrive_whole() {
    run(&Fixture::start(), number("PGNORTH_SESSIONS", 150), MOST);
}

#[test]
fn random_sessions_arrive_whole_from_a_faulty_kernel() {
    let seed = Mutex::new(seed());
    let fixture = Fixture::with(Pipes::default(), || {
        let mut seed = seed.lock().unwrap();
        *seed += 1;
        FaultyKernel::new(*seed)
    });
    run(&fixture, number("PGNORTH_SESSIONS", 300) / 2, 1 << 20);
}

#[test]
fn random_sessions_arrive_whole_without_pipes() {
    let fixture = Fixture::with(Pipes::made_by(|_| None), || super::Kernel);
    run(&fixture, number("PGNORTH_SESSIONS", 300) / 6, 8 << 20);
}

#[test]
fn random_sessions_arrive_whole_through_small_pipes() {
    // As after EPERM from F_SETPIPE_SZ.
    let fixture = Fixture::with(Pipes::made_by(|_| make_pipe(false)), || super::Kernel);
    run(&fixture, number("PGNORTH_SESSIONS", 300) / 6, 8 << 20);
}

#[test]
fn random_sessions_arrive_whole_where_splice_is_refused() {
    for error in [Errno::PERM, Errno::NOSYS, Errno::INVAL] {
        for fills in [false, true] {
            let fixture = Fixture::with(Pipes::default(), move || FailingSplice {
                fill: (!fills).then_some(error),
                drain: Err(error),
            });
            run(&fixture, number("PGNORTH_SESSIONS", 300) / 12, 1 << 20);
            assert!(fixture.traffic.pipes.take().is_none(), "it is tried no more");
        }
    }
}

fn seed() -> u64 {
    number("PGNORTH_SEED", 20_261_120)
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Runs `count` sessions; afterwards the counters must be exact, if nothing was reset.
fn run(fixture: &Fixture, count: u64, most: u64) {
    eprintln!("PGNORTH_SEED={} sessions={count}", seed());
    let random = Mutex::new((Random(seed()), 0));
    let totals = Mutex::new(Transferred::default());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let session = {
                        let (random, begun) = &mut *random.lock().unwrap();
                        if *begun == count {
                            return;
                        }
                        *begun += 1;
                        Session::any(random, most)
                    };
                    let transferred = session.run(fixture);
                    *totals.lock().unwrap() += transferred;
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap();
    let counted = Transferred {
        to_leader: fixture.traffic.to_leader.get(),
        to_client: fixture.traffic.to_client.get(),
    };
    assert_eq!(counted, totals, "bytes counted, and delivered");
}

impl Session {
    fn any(random: &mut Random, most: u64) -> Self {
        let up = Plan::any(random, most);
        let reset = random.once_in(6);
        Self {
            up,
            down: Plan::any(random, most),
            reset_after: reset.then(|| random.below(up.bytes + 1)),
        }
    }

    /// Carries out the plan at both ends. Returns the bytes that the worker delivered.
    fn run(self, fixture: &Fixture) -> Transferred {
        let TestSession {
            client,
            leader,
            finished,
            ..
        } = fixture.session();
        let reset = self.reset_after.is_some();
        let (up_received, down_received) = thread::scope(|scope| {
            let leader_sends = scope.spawn(|| self.down.send(&leader, None, reset));
            let leader_receives = scope.spawn(|| self.up.receive(&leader, reset));
            let client_receives = scope.spawn(|| self.down.receive(&client, reset));
            self.up.send(&client, self.reset_after, reset);
            let up_received = leader_receives.join().unwrap_or_else(|_| panic!("leader: {self:?}"));
            leader_sends.join().unwrap_or_else(|_| panic!("leader sends: {self:?}"));
            let down_received = client_receives.join().unwrap_or_else(|_| panic!("client: {self:?}"));
            (up_received, down_received)
        });
        let pair = finished
            .recv_timeout(HANG)
            .unwrap_or_else(|_| panic!("not finished: {self:?}"));
        if self.reset_after.is_none() {
            assert!(matches!(pair.finish, Finish::Closed(_)), "{:?} {self:?}", pair.finish);
            assert_eq!(
                (up_received, down_received),
                (self.up.bytes, self.down.bytes),
                "{self:?}"
            );
            let received = Transferred {
                to_leader: up_received,
                to_client: down_received,
            };
            assert_eq!(pair.transferred, received, "{self:?}");
        } else {
            assert!(!matches!(pair.finish, Finish::Failed(_)), "{:?} {self:?}", pair.finish);
        }
        pair.transferred
    }
}

impl Plan {
    fn any(random: &mut Random, most: u64) -> Self {
        // Every magnitude equally often.
        let magnitude = random.below(u64::from(most.ilog2()) + 1);
        Self {
            seed: random.next(),
            bytes: random.below(2 << magnitude).min(most),
            piece: 1 << random.below(18),
            sender_pauses: random.once_in(3),
            receiver_pauses: random.once_in(3),
        }
    }

    /// Sends everything and a FIN; or `reset_after` bytes and a reset.
    fn send(self, mut to: &TcpStream, reset_after: Option<u64>, may_break: bool) {
        let mut habits = Random(self.seed ^ 0xFACE);
        let mut content = Content::new(self.seed);
        let mut left = reset_after.unwrap_or(self.bytes);
        // Large transfers in pieces of a few bytes would only take a long time.
        let piece = self.piece.max(self.bytes >> 12);
        while left > 0 {
            let length = left.min(1 + habits.below(piece));
            match to.write_all(content.next(length as usize)) {
                Ok(()) => left -= length,
                Err(error) if may_break && error.kind() != ErrorKind::WouldBlock => return,
                Err(error) => panic!("sending: {error}"),
            }
            pause(self.sender_pauses, &mut habits);
        }
        if reset_after.is_some() {
            // A close would wait for the other thread that uses the socket.
            connect_unspec(to).unwrap();
        } else {
            // The other side may have been reset meanwhile.
            let _reset = to.shutdown(Shutdown::Write);
        }
    }

    /// Receives to the end, and compares each byte with the one that was sent.
    fn receive(self, mut from: &TcpStream, may_break: bool) -> u64 {
        let mut habits = Random(self.seed ^ 0xBEEF);
        let mut content = Content::new(self.seed);
        let mut buffer = vec![0; 256 << 10];
        let mut total = 0;
        loop {
            let most = 1 + habits.below(buffer.len() as u64) as usize;
            let read = match from.read(&mut buffer[..most]) {
                Ok(0) => return total,
                Ok(read) => read,
                Err(error) if may_break && error.kind() != ErrorKind::WouldBlock => return total,
                Err(error) => panic!("receiving, after {total} bytes: {error}"),
            };
            assert!(buffer[..read] == *content.next(read), "differs after {total} bytes");
            total += read as u64;
            pause(self.receiver_pauses, &mut habits);
        }
    }
}

fn pause(pauses: bool, habits: &mut Random) {
    if pauses && habits.once_in(16) {
        thread::sleep(Duration::from_micros(habits.below(2000)));
    }
}
