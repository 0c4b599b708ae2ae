//! Tests of the workers between real sockets: every byte arrives, once and in order, whatever sessions and kernel do.
//!
//! PGNORTH_SESSIONS is the number of random sessions (`make test-integrity` runs 10,000); PGNORTH_SEED repeats a run.

mod closing;
mod content;
mod faults;
mod integrity;
mod limits;

use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::reactor::{Kernel, Syscalls};
use super::{Executor, Finish, Finished, Owner, Pipes, SessionCount, Traffic, Transferred, Workers};
use crate::liveness::Liveness;
use crate::metrics::Count;

/// Time after which a test fails. A lost wake-up would show as a hang.
const HANG: Duration = Duration::from_secs(60);

const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Workers and their counters.
struct Fixture {
    workers: Workers<TestOwner>,
    traffic: Arc<Traffic>,
}

/// The two ends of a session.
struct TestSession {
    client: TcpStream,
    leader: TcpStream,
    over: Arc<AtomicBool>,
    finished: mpsc::Receiver<Done>,
}

struct TestOwner {
    over: Arc<AtomicBool>,
    finished: mpsc::Sender<Done>,
    count: Option<SessionCount>,
}

/// The rest of a [`Finished`] pair whose sockets have been closed.
struct Done {
    finish: Finish,
    transferred: Transferred,
    owes_client: bool,
}

impl Owner for TestOwner {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn finished(self, pair: Finished) {
        drop((pair.client, pair.leader, self.count));
        // The test may no longer wait for this.
        let _gone = self.finished.send(Done {
            finish: pair.finish,
            transferred: pair.transferred,
            owes_client: pair.owes_client,
        });
    }
}

impl Fixture {
    fn start() -> Self {
        Self::with(Pipes::default(), || Kernel)
    }

    fn with<S: Syscalls>(pipes: Pipes, syscalls: impl Fn() -> S) -> Self {
        Self::with_fin_delay(pipes, syscalls, Duration::from_millis(20))
    }

    fn with_fin_delay<S: Syscalls>(pipes: Pipes, syscalls: impl Fn() -> S, fin_delay: Duration) -> Self {
        let traffic = Arc::new(Traffic {
            pipes,
            to_leader: Count::default(),
            to_client: Count::default(),
            client_timeout: USER_TIMEOUT,
            leader_timeout: USER_TIMEOUT,
            fin_delay,
        });
        let (workers, _ends) = Workers::start_with(2, &traffic, syscalls).unwrap();
        Self { workers, traffic }
    }

    /// Forwards between two connected streams, on the worker that has the fewest sessions.
    fn adopt(&self, client: TcpStream, leader: TcpStream, mut owner: TestOwner) {
        let worker = self.workers.least_loaded(None);
        owner.count = Some(self.workers.count_session(worker));
        self.workers.on(worker, |executor: &Executor<TestOwner>| {
            let client = executor.socket(client).unwrap();
            let leader = client.with_leader(leader).unwrap();
            let handle = executor.clone();
            executor.spawn(async move { handle.forward(client, leader, owner) });
        });
    }

    fn session(&self) -> TestSession {
        self.session_of(connected)
    }

    fn session_of(&self, connected: impl Fn() -> (TcpStream, TcpStream)) -> TestSession {
        let (client, client_side) = connected();
        let (leader, leader_side) = connected();
        let over = Arc::<AtomicBool>::default();
        let (done, finished) = mpsc::channel();
        let owner = TestOwner {
            over: over.clone(),
            finished: done,
            count: None,
        };
        self.adopt(client_side, leader_side, owner);
        TestSession {
            client,
            leader,
            over,
            finished,
        }
    }
}

/// Makes a connection. Returns the peer's end, whose calls block for a limited time, and pgnorth's end, which does not
/// block.
fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (own, _) = listener.accept().unwrap();
    own.set_nonblocking(true).unwrap();
    for stream in [&peer, &own] {
        stream.set_nodelay(true).unwrap();
    }
    peer.set_read_timeout(Some(HANG)).unwrap();
    peer.set_write_timeout(Some(HANG)).unwrap();
    (peer, own)
}

#[test]
fn a_stuck_worker_is_reported_by_its_name() {
    let fixture = Fixture::start();
    let liveness = Liveness::default();
    let heartbeats = ["worker-0", "worker-1"].map(|thread| liveness.watch(thread));
    let until = |stuck: Option<&str>| {
        let begun = Instant::now();
        while liveness.stuck().as_deref() != stuck {
            fixture.workers.request_heartbeats(&heartbeats);
            std::thread::sleep(Duration::from_millis(1));
            liveness.tick();
            assert!(begun.elapsed() < HANG, "not {stuck:?}, but {:?}", liveness.stuck());
        }
    };
    let (let_go, hang) = mpsc::channel::<()>();
    let hang = move |_: &Executor<TestOwner>| assert!(hang.recv().is_err());
    fixture.workers.on(1, hang);
    until(Some("worker-1"));
    drop(let_go);
    until(None);
}
