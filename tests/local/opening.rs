//! A leader that cannot take a client yet does not fail the client: its first packet goes to the next leader that can.

use pgnorth::ending::Ending;
use pgnorth::metrics::SessionState;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::support::{Backend, Rig, read_exactly, read_to_end, settings, within};

const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 210, 22, 47];
const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// Returns a StartupMessage of protocol 3.
fn startup() -> Vec<u8> {
    let parameters = b"user\0postgres\0\0";
    let length = u32::try_from(8 + parameters.len()).unwrap();
    [&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat()
}

fn error(code: &str) -> Vec<u8> {
    error_with(code, "the database system is starting up")
}

fn error_with(code: &str, message: &str) -> Vec<u8> {
    let fields = format!("SFATAL\0C{code}\0M{message}\0\0");
    let length = u32::try_from(fields.len() + 4).unwrap();
    [b"E", &length.to_be_bytes()[..], fields.as_bytes()].concat()
}

/// Reads a start-up as the leader, answers it, and closes if the answer is an error.
async fn answer(backend: &Backend, text: &[u8]) -> TcpStream {
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, startup().len()).await, startup());
    leader.write_all(text).await.unwrap();
    leader
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gets_57p03_waits_and_is_served_when_the_leader_can() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    for _ in 0..3 {
        drop(answer(&backend, &error("57P03")).await);
    }
    let mut leader = answer(&backend, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    rig.reaches(SessionState::Forwarding, 1).await;
    client.write_all(b"query").await.unwrap();
    assert_eq!(read_exactly(&mut leader, 5).await, b"query");
    drop(client);
    assert_eq!(read_to_end(&mut leader).await, b"");
    drop(leader);
    rig.ends(Ending::ClientClosed, 1).await;
    // Exact to the byte: bytes that went to leaders that did not take the client do not count.
    assert_eq!(rig.metrics.bytes_to_leader.get(), startup().len() as u64 + 5);
    assert_eq!(rig.metrics.bytes_to_client.get(), WELCOME.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_breaks_before_it_answers_is_tried_again() {
    let (mut rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    drop(answer(&backend, b"").await);
    let _leader = answer(&backend, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    let failure = within("a leader failure", rig.leader_failures.recv()).await.unwrap();
    assert!(failure.what.contains("before it answered"), "{}", failure.what);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_encryption_was_declined_the_plain_startup_is_sent_again() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(SSL_REQUEST).await.unwrap();
    let mut first = backend.accept().await;
    assert_eq!(read_exactly(&mut first, SSL_REQUEST.len()).await, SSL_REQUEST);
    first.write_all(b"N").await.unwrap();
    assert_eq!(read_exactly(&mut client, 1).await, b"N");
    client.write_all(&startup()).await.unwrap();
    assert_eq!(read_exactly(&mut first, startup().len()).await, startup());
    first.write_all(&error("57P03")).await.unwrap();
    let _leader = answer(&backend, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_an_answer_yet_moves_on_with_the_leader() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    let mut old = answer(&backend, b"").await;
    let next = Backend::start("pg-1").await;
    rig.route(&next);
    let _leader = answer(&next, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    assert_eq!(read_to_end(&mut old).await, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_comes_in_parts_is_read_to_its_end() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    let mut leader = answer(&backend, &error("57P03")[..7]).await;
    // Nothing shows that the first part has been read. If both are read at once, the test passes as well.
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    leader.write_all(&error("57P03")[7..]).await.unwrap();
    drop(leader);
    let _leader = answer(&backend, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_up_with_bytes_behind_it_is_sent_once() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    let sent = [&startup()[..], b"work"].concat();
    client.write_all(&sent).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, sent.len()).await, sent);
    leader.write_all(&error("57P03")).await.unwrap();
    assert_eq!(read_exactly(&mut client, error("57P03").len()).await, error("57P03"));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_errors_and_bytes_of_other_protocols_are_passed_on() {
    let (rig, backend) = Rig::routed().await;
    let refusal = error("28P01");
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    drop(answer(&backend, &refusal).await);
    assert_eq!(read_to_end(&mut client).await, refusal);

    let mut client = rig.connect().await;
    client.write_all(SSL_REQUEST).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, SSL_REQUEST.len()).await, SSL_REQUEST);
    leader.write_all(b"S").await.unwrap();
    assert_eq!(read_exactly(&mut client, 1).await, b"S");
    // From here on any bytes may follow, even some that look like an error.
    leader.write_all(&error("57P03")).await.unwrap();
    assert_eq!(read_exactly(&mut client, error("57P03").len()).await, error("57P03"));

    let mut client = rig.connect().await;
    client.write_all(SSL_REQUEST).await.unwrap();
    let mut leader = backend.accept().await;
    assert_eq!(read_exactly(&mut leader, SSL_REQUEST.len()).await, SSL_REQUEST);
    leader.write_all(b"N").await.unwrap();
    assert_eq!(read_exactly(&mut client, 1).await, b"N");
    leader.write_all(b"who are you?").await.unwrap();
    assert_eq!(read_exactly(&mut client, 12).await, b"who are you?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_up_that_kills_its_backend_is_not_sent_a_third_time() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    drop(answer(&backend, b"").await);
    // PostgreSQL recovers from it.
    drop(answer(&backend, &error("57P03")).await);
    drop(answer(&backend, b"").await);
    assert_eq!(read_to_end(&mut client).await, b"");
    rig.ends(Ending::LeaderLost, 1).await;
    // The next connection at the leader is another client's.
    let other = [&startup()[..startup().len() - 1], b"database\0shop\0\0"].concat();
    let other = [&u32::try_from(other.len()).unwrap().to_be_bytes()[..], &other[4..]].concat();
    let mut client = rig.connect().await;
    client.write_all(&other).await.unwrap();
    assert_eq!(read_exactly(&mut backend.accept().await, other.len()).await, other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_breaks_one_leader_is_served_by_the_next() {
    let (rig, backend) = Rig::routed().await;
    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    drop(answer(&backend, b"").await);
    let next = Backend::start("pg-1").await;
    rig.route(&next);
    drop(answer(&next, b"").await);
    let _leader = answer(&next, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
}

/// Returns a client that had to wait, and the leader that it is released to.
async fn held(rig: &Rig, first_packet: &[u8]) -> (TcpStream, Backend) {
    let mut client = rig.connect().await;
    client.write_all(first_packet).await.unwrap();
    rig.reaches(SessionState::Held, 1).await;
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    (client, backend)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_client_waits_for_a_free_connection_and_another_gets_53300_at_once() {
    let mut rig = Rig::start().await;
    let (mut client, backend) = held(&rig, &startup()).await;
    for _ in 0..2 {
        drop(answer(&backend, &error("53300")).await);
    }
    let _leader = answer(&backend, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    assert!(rig.leader_failures.try_recv().is_err(), "a primary that is full is one");

    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    drop(answer(&backend, &error("53300")).await);
    assert_eq!(read_to_end(&mut client).await, error("53300"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_client_tries_again_after_an_error_of_pgbouncer_that_may_pass() {
    let rig = Rig::start().await;
    let (mut client, backend) = held(&rig, &startup()).await;
    let not_yet = "server login has been failing, try again later (server_login_retry)";
    drop(answer(&backend, &error_with("08P01", not_yet)).await);
    drop(
        answer(
            &backend,
            &error_with("08P01", "no more connections allowed (max_client_conn)"),
        )
        .await,
    );
    // An error that another attempt would get, too.
    let final_error = error_with("08P01", "no such database: x");
    drop(answer(&backend, &final_error).await);
    assert_eq!(read_to_end(&mut client).await, final_error);

    let mut client = rig.connect().await;
    client.write_all(&startup()).await.unwrap();
    drop(answer(&backend, &error_with("08P01", not_yet)).await);
    assert_eq!(
        read_to_end(&mut client).await,
        error_with("08P01", not_yet),
        "it was not held"
    );
}

/// A pooler that is down says nothing about its PostgreSQL.
#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_fails_is_counted_and_not_reported_as_a_failure_of_the_leader() {
    let mut rig = Rig::with_poolers(6432).await;
    let (mut client, backend) = held(&rig, &startup()).await;
    drop(answer(&backend, b"").await);
    let _pooler = answer(&backend, WELCOME).await;
    assert_eq!(read_exactly(&mut client, WELCOME.len()).await, WELCOME);
    let counted = "pgnorth_pooler_failures_total{route=\"primary\",target=\"6432\"} 1\n";
    assert!(rig.metrics.render().contains(counted));
    assert!(rig.leader_failures.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_finds_no_free_connection_in_time_gets_the_leaders_own_error() {
    let rig = Rig::with_hold(std::time::Duration::from_secs(2), settings()).await;
    let (mut client, backend) = held(&rig, &startup()).await;
    let full = async {
        loop {
            drop(answer(&backend, &error("53300")).await);
        }
    };
    tokio::select! {
        text = read_to_end(&mut client) => assert_eq!(text, error("53300")),
        () = full => {}
    }
    drop(client);
    rig.ends(Ending::LeaderClosed, 1).await;
}

/// Returns a TLS record.
fn record(kind: u8, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut record = vec![kind, 3, 3, high, low];
    record.resize(5 + usize::from(length), 0);
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_client_keeps_its_dial_permit_until_its_login_is_over() {
    let (handshake, data) = (22, 23);
    let tls: &[(&[u8], &[u8])] = &[
        (SSL_REQUEST, b"S"),
        (&record(handshake, 288), &record(handshake, 88)),
        (
            &record(handshake, 321),
            &[record(handshake, 155), record(data, 795)].concat(),
        ),
        (&[record(data, 69), record(data, 73)].concat(), &record(data, 60)),
        (&record(data, 98), &record(data, 110)),
        (&record(data, 198), &record(data, 480)),
    ];
    let plain: &[(&[u8], &[u8])] = &[
        (&startup(), b"R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0"),
        (&[b'p'; 55], &[b'R'; 93]),
        (&[b'p'; 109], &[b'R'; 463]),
    ];
    let direct = &tls[1..];
    // A client or a leader that takes longer than 1 and 5 s loses its dial permit, as intended; on a busy machine these
    // may take as long.
    for (name, conversation) in [("TLS", tls), ("plaintext", plain), ("TLS without a request", direct)] {
        within(&format!("a login with the turn kept, {name}"), async {
            while !keeps_its_turn(conversation).await {}
        })
        .await;
    }
}

/// Checks that a held client with this conversation keeps its dial permit until just before the last answer, and not
/// after it.
async fn keeps_its_turn(conversation: &[(&[u8], &[u8])]) -> bool {
    let rig = Rig::start().await;
    let (mut client, backend) = held(&rig, conversation[0].0).await;
    let mut leader = backend.accept().await;
    let mut kept = true;
    for (at, (said, answered)) in conversation.iter().enumerate() {
        if at > 0 {
            client.write_all(said).await.unwrap();
        }
        assert_eq!(read_exactly(&mut leader, said.len()).await, *said);
        kept &= rig.sessions(SessionState::Dialling) == 1;
        leader.write_all(answered).await.unwrap();
        assert_eq!(read_exactly(&mut client, answered.len()).await, *answered);
    }
    rig.reaches(SessionState::Forwarding, 1).await;
    drop(client);
    drop(leader);
    rig.ends(Ending::ClientClosed, 1).await;
    let sum = |side: fn(&(&[u8], &[u8])) -> usize| conversation.iter().map(side).sum::<usize>() as u64;
    assert_eq!(rig.metrics.bytes_to_leader.get(), sum(|(said, _)| said.len()));
    assert_eq!(rig.metrics.bytes_to_client.get(), sum(|(_, answered)| answered.len()));
    kept
}
