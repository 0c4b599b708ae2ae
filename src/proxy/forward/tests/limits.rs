//! The cost of sessions, and how they are stopped.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_send_buffer_size, set_tcp_user_timeout, tcp_user_timeout,
};

use super::super::{Finish, MAX_PIPES, Pipes, Transferred};
use super::content::Content;
use super::faults::Received;
use super::{Fixture, HANG, TestSession, connected};

/// Number of stalled sessions. Each has two sockets in the worker, and their two peers in the test.
const STALLED: usize = 1000;

#[test]
fn a_thousand_stalled_sessions_stay_within_their_bound() {
    // A thousand sessions are four thousand files.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .unwrap();
    let fixture = Fixture::start();
    let before = resident();
    let sessions: Vec<TestSession> = (0..STALLED).map(|_| fixture.session_of(narrow)).collect();
    let mut sent = vec![0_u64; STALLED];
    let mut contents: Vec<Content> = (0..STALLED as u64).map(Content::new).collect();
    // The leader's end reads nothing: every client sends until its socket accepts no more.
    for session in &sessions {
        session.client.set_nonblocking(true).unwrap();
    }
    let deadline = Instant::now() + HANG;
    let mut idle_rounds = 0;
    while idle_rounds < 3 {
        assert!(Instant::now() < deadline, "the writers are never stopped");
        let mut progress = false;
        for (index, session) in sessions.iter().enumerate() {
            let mut next = contents[index];
            match (&session.client).write(next.next(256 << 10)) {
                Ok(taken) => {
                    contents[index].next(taken);
                    sent[index] += taken as u64;
                    progress = true;
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        idle_rounds = if progress { 0 } else { idle_rounds + 1 };
        std::thread::sleep(Duration::from_millis(20));
    }
    let grown = resident().saturating_sub(before);
    // A copying direction keeps at most the 64 KiB that it read at once; pipes are the kernel's memory, and at most
    // MAX_PIPES. As much again for everything else.
    let bound = STALLED as u64 * 2 * 64 * 1024;
    assert!(
        grown < bound,
        "{grown} bytes for {STALLED} stalled sessions, of {bound}"
    );
    // No byte was lost.
    for (index, session) in sessions.iter().enumerate() {
        let mut content = Content::new(index as u64);
        let mut buffer = vec![0; 512 << 10];
        let mut left = sent[index];
        while left > 0 {
            let read = (&session.leader).read(&mut buffer).unwrap_or_else(|error| {
                panic!("session {index}: {error}, with {left} of {} bytes to come", sent[index])
            });
            assert!(buffer[..read] == *content.next(read), "session {index} differs");
            left -= read as u64;
        }
    }
    assert!(fixture.traffic.pipes.count() <= MAX_PIPES);
}

#[test]
fn a_client_that_sends_nothing_and_does_not_read_is_not_taken_for_a_dead_one() {
    let fixture = Fixture::start();
    let ours = std::cell::RefCell::new(Vec::new());
    let session = fixture.session_of(|| {
        let (peer, own) = narrow();
        set_tcp_user_timeout(&own, 10_000).unwrap();
        ours.borrow_mut().push(own.try_clone().unwrap());
        (peer, own)
    });
    let client = &ours.borrow()[0];
    // Bytes go in one direction only, until the socket accepts no more.
    session.leader.set_nonblocking(true).unwrap();
    let begun = Instant::now();
    while tcp_user_timeout(client).unwrap() != 0 {
        let _taken_or_full = (&session.leader).write(&[7; 64 << 10]);
        assert!(begun.elapsed() < HANG, "TCP_USER_TIMEOUT would end the client");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stream_that_was_received_already_needs_no_further_event() {
    // The periodic check of a session would move a quantum of it at a time, and so take far longer than HANG.
    const LENGTH: usize = 1 << 30;
    let fixture = Fixture::with(Pipes::default(), || Received { left: LENGTH });
    let mut session = fixture.session();
    session.client.write_all(b"the only event").unwrap();
    let begun = Instant::now();
    while fixture.traffic.to_leader.get() < LENGTH as u64 {
        assert!(begun.elapsed() < HANG, "{} bytes", fixture.traffic.to_leader.get());
        std::thread::sleep(Duration::from_millis(1));
    }
    session.over.store(true, Ordering::SeqCst);
    fixture.workers.check_owners();
    session.finished.recv_timeout(HANG).unwrap();
}

#[test]
fn a_pair_that_is_over_is_stopped_and_the_others_go_on() {
    let fixture = Fixture::start();
    let (ends, stays) = (fixture.session(), fixture.session());
    for session in [&ends, &stays] {
        passes(&session.client, &session.leader, b"before");
    }
    ends.over.store(true, Ordering::SeqCst);
    fixture.workers.check_owners();
    let pair = ends.finished.recv_timeout(HANG).unwrap();
    assert!(matches!(pair.finish, Finish::Stopped), "{:?}", pair.finish);
    assert_eq!(
        pair.transferred,
        Transferred {
            to_leader: 6,
            to_client: 0
        }
    );
    assert!(!pair.owes_client);
    passes(&stays.client, &stays.leader, b"after");
    passes(&stays.leader, &stays.client, b"and back");
}

#[test]
fn a_pair_that_is_over_before_it_is_forwarded_is_stopped_at_once() {
    let fixture = Fixture::start();
    let ((_client, client_side), (_leader, leader_side)) = (connected(), connected());
    let (done, finished) = std::sync::mpsc::channel();
    let over = std::sync::Arc::new(true.into());
    let owner = super::TestOwner {
        over,
        finished: done,
        count: None,
    };
    fixture.adopt(client_side, leader_side, owner);
    let pair = finished.recv_timeout(HANG).unwrap();
    assert!(matches!(pair.finish, Finish::Stopped), "{:?}", pair.finish);
}

#[test]
fn workers_end_with_their_last_session() {
    let fixture = Fixture::start();
    let session = fixture.session();
    let traffic = fixture.traffic.clone();
    drop(fixture);
    // No further session can begin, but this one continues.
    passes(&session.client, &session.leader, b"still");
    drop((session.client, session.leader));
    session.finished.recv_timeout(HANG).unwrap();
    let deadline = Instant::now() + HANG;
    while std::sync::Arc::strong_count(&traffic) > 1 {
        assert!(Instant::now() < deadline, "a worker is still there");
        std::thread::yield_now();
    }
}

#[test]
fn a_task_that_panics_takes_no_other_session_with_it() {
    let fixture = Fixture::start();
    let before = fixture.session();
    fixture
        .workers
        .on_each(|executor| executor.spawn(async { panic!("this test's own panic, on purpose") }));
    let after = fixture.session();
    for session in [&before, &after] {
        passes(&session.client, &session.leader, b"a question");
        passes(&session.leader, &session.client, b"an answer");
    }
}

#[test]
fn sessions_are_spread_evenly() {
    let fixture = Fixture::start();
    let sessions: Vec<TestSession> = (0..10).map(|_| fixture.session()).collect();
    assert_eq!(fixture.workers.session_counts(), [5, 5]);
    drop(sessions);
}

/// Makes a connection whose buffers are large enough for splice(2) to be tried, and small enough that a thousand
/// connections stay below the system's limit of TCP memory (net.ipv4.tcp_mem), beyond which the kernel drops received
/// bytes.
fn narrow() -> (TcpStream, TcpStream) {
    let (peer, own) = connected();
    for stream in [&peer, &own] {
        set_socket_send_buffer_size(stream, 96 << 10).unwrap();
        set_socket_recv_buffer_size(stream, 96 << 10).unwrap();
    }
    (peer, own)
}

fn passes(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut got = vec![0; bytes.len()];
    to.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

/// Returns this process's resident memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}
