//! Tests of the order in which the sides close.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_recv_buffer_size;

use super::super::{Executor, Finish, Pair, Side};
use super::content::Content;
use super::faults::{FailingSplice, LostLeader};
use super::{Fixture, HANG, Kernel, Pipes, TestOwner, TestSession, connected};

/// The Terminate message, which a PostgreSQL client sends before its FIN.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

#[test]
fn a_client_that_terminates_leaves_no_port_of_ours_in_time_wait() {
    // The client's FIN waits for so long that even on a busy machine the leader's comes first.
    let fixture = Fixture::with_fin_delay(Pipes::default(), || Kernel, Duration::from_secs(3600));
    for _ in 0..20 {
        let TestSession {
            mut client,
            mut leader,
            finished,
            ..
        } = fixture.session();
        let (theirs, ours) = (leader.local_addr().unwrap(), leader.peer_addr().unwrap());
        client.write_all(TERMINATE).unwrap();
        drop(client);
        // Like PostgreSQL, the leader does not wait for the FIN.
        leader.read_exact(&mut [0; TERMINATE.len()]).unwrap();
        drop(leader);
        let done = finished.recv_timeout(HANG).unwrap();
        assert!(matches!(done.finish, Finish::Closed(Side::Client)), "{:?}", done.finish);
        assert!(!is_in_time_wait(ours, theirs), "our port {ours} is in TIME_WAIT");
        // On a busy machine the kernel may process our FIN later.
        let begun = Instant::now();
        while !is_in_time_wait(theirs, ours) {
            assert!(begun.elapsed() < HANG, "the leader's port is not in TIME_WAIT");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_leader_that_waits_for_the_clients_fin_gets_it() {
    let fixture = Fixture::start();
    let mut session = fixture.session();
    session.client.write_all(b"all there is").unwrap();
    session.client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    session.leader.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"all there is");
    session.leader.write_all(b"an answer").unwrap();
    drop(session.leader);
    let mut answer = Vec::new();
    session.client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"an answer");
    let done = session.finished.recv_timeout(HANG).unwrap();
    assert!(matches!(done.finish, Finish::Closed(Side::Client)), "{:?}", done.finish);
}

#[test]
fn a_slow_client_gets_every_byte_of_a_leader_that_closed_and_then_resets() {
    const LENGTH: usize = 256 << 10;
    let fixture = Fixture::start();
    // The client's window is so small that most of the bytes wait in pgnorth's socket.
    let mut session = fixture.session_of(|| {
        let (peer, own) = connected();
        set_socket_recv_buffer_size(&peer, 4096).unwrap();
        (peer, own)
    });
    let bytes = Content::new(1).next(LENGTH).to_vec();
    session.leader.write_all(&bytes).unwrap();
    drop(session.leader);
    let begun = Instant::now();
    while fixture.traffic.to_client.get() < LENGTH as u64 {
        assert!(begun.elapsed() < HANG, "pgnorth does not read what the leader has sent");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The kernel answers bytes for a closed socket with a reset, after which pgnorth's own sends fail.
    for _ in 0..20 {
        session.client.write_all(b"too late").unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut got = Vec::new();
    session.client.read_to_end(&mut got).unwrap();
    assert!(got == bytes, "{} of {LENGTH} bytes", got.len());
    drop(session.client);
    let done = session.finished.recv_timeout(HANG).unwrap();
    assert!(matches!(done.finish, Finish::Closed(Side::Leader)), "{:?}", done.finish);
}

#[test]
fn the_bytes_that_a_leader_sent_before_its_reset_are_delivered() {
    // More than a direction moves at a time.
    const LENGTH: usize = 5 << 20;
    let own = Arc::<OnceLock<SocketAddr>>::default();
    let fixture = Fixture::with(Pipes::default(), || LostLeader {
        own: own.clone(),
        is_lost: false,
        left: LENGTH,
        error: Errno::PIPE,
    });
    let mut session = fixture.session();
    own.set(session.leader.peer_addr().unwrap()).unwrap();
    session.client.write_all(b"a question").unwrap();
    let done = session.finished.recv_timeout(HANG).unwrap();
    assert!(
        matches!(done.finish, Finish::Lost(Side::Leader, _)),
        "{:?}",
        done.finish
    );
    assert_eq!(done.transferred.to_client, LENGTH as u64);
}

#[test]
fn a_fast_stream_does_not_hold_the_worker_after_its_session_has_failed() {
    // A stream that never ends is one of 10 GB here, so that a failing test ends.
    const STREAM: usize = 10 << 30;
    let own = Arc::<OnceLock<SocketAddr>>::default();
    let fixture = Fixture::with(Pipes::default(), || LostLeader {
        own: own.clone(),
        is_lost: false,
        left: STREAM,
        // pgnorth's memory is exhausted; both sides are alive.
        error: Errno::NOMEM,
    });
    let mut session = fixture.session();
    own.set(session.leader.peer_addr().unwrap()).unwrap();
    session.client.write_all(b"a question").unwrap();
    let done = session.finished.recv_timeout(HANG).unwrap();
    assert!(matches!(done.finish, Finish::Failed(_)), "{:?}", done.finish);
    let delivered = done.transferred.to_client;
    assert!(delivered <= 100 << 20, "the worker moved {delivered} bytes at once");
}

#[test]
fn a_resumed_session_that_epoll_does_not_accept_ends_as_failed() {
    let fixture = Fixture::start();
    let ((client, client_side), (leader, leader_side)) = (connected(), connected());
    let (done, finished) = mpsc::channel();
    let owner = TestOwner {
        over: Arc::default(),
        finished: done,
        count: None,
    };
    fixture.workers.on(0, |executor: &Executor<TestOwner>| {
        // epoll refuses these sockets because they are in it already. A lack of memory has the same effect.
        let client = executor.socket(client_side).unwrap();
        let leader = client.with_leader(leader_side).unwrap();
        executor.unpark(Pair::new(client, leader, owner));
    });
    let done = finished.recv_timeout(HANG).unwrap();
    assert!(matches!(done.finish, Finish::Failed(_)), "{:?}", done.finish);
    for mut end in [client, leader] {
        assert_eq!(end.read(&mut [0]).unwrap(), 0, "its sockets are closed");
    }
}

/// Returns true if this connection is in TIME_WAIT, in this network namespace.
fn is_in_time_wait(executor: SocketAddr, remote: SocketAddr) -> bool {
    const TIME_WAIT: &str = "06";
    let port = |address: SocketAddr| format!(":{:04X}", address.port());
    let (executor, remote) = (port(executor), port(remote));
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&executor) && fields[2].ends_with(&remote) && fields[3] == TIME_WAIT
    })
}

#[test]
fn a_pipe_from_which_no_byte_comes_ends_its_session_only() {
    // A fake, because Linux moves at least one byte. Without an error, the worker would try for ever.
    let broken = || FailingSplice {
        fill: None,
        drain: Ok(0),
    };
    let fixture = Fixture::with(Pipes::default(), broken);
    let mut session = fixture.session();
    session.client.set_nonblocking(true).unwrap();
    session.leader.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    let finished = loop {
        let _full = session.client.write(&[7; 256 << 10]);
        if let Ok(finished) = session.finished.try_recv() {
            break finished;
        }
        let _empty = session.leader.read(&mut [0; 64 << 10]);
        assert!(begun.elapsed() < HANG, "the session does not end");
    };
    assert!(
        matches!(&finished.finish, Finish::Failed(error) if error.to_string().contains("splice(2)")),
        "{:?}",
        finished.finish
    );
}
