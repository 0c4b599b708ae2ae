//! Which side closes first.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::super::{Finish, Side};
use super::{Fixture, HANG, Kernel, Pipes, TestSession};

/// A client of PostgreSQL ends with this and a FIN.
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
        // As PostgreSQL: it does not wait for the FIN.
        leader.read_exact(&mut [0; TERMINATE.len()]).unwrap();
        drop(leader);
        let done = finished.recv_timeout(HANG).unwrap();
        assert!(matches!(done.finish, Finish::Closed(Side::Client)), "{:?}", done.finish);
        assert!(!is_in_time_wait(ours, theirs), "our port {ours} is in TIME_WAIT");
        assert!(is_in_time_wait(theirs, ours), "the leader's is not");
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
