//! Clients are served in the order of their arrival, and all are served.

use std::time::Duration;

use pgnorth::metrics::SessionState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::refusal::SSL_REQUEST;
use super::support::{Backend, MANY_FILES, Rig, read_exactly, within};

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_waiting_clients_are_all_served_and_none_is_overtaken_by_many() {
    const CLIENTS: u16 = 2000;
    // The clients that may dial at once can change places among themselves, and as many again while permits are handed
    // on.
    const OVERTAKEN: u16 = 2 * 64;
    // On a busy machine a thread may be delayed with its few clients; no client is delayed behind half of the others.
    const FEW: usize = CLIENTS as usize / 20;
    const MANY: u16 = CLIENTS / 2;
    let _alone = MANY_FILES.lock().await;
    let rig = Rig::start().await;
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let mut client = rig.connect().await;
        // A startup packet: its length, the protocol's version, and instead of parameters this client's number.
        let packet = [12, 3 << 16, u32::from(number)].map(u32::to_be_bytes).concat();
        client.write_all(&packet).await.unwrap();
        rig.reaches(SessionState::Held, i64::from(number) + 1).await;
        clients.push(client);
    }
    let backend = Backend::start("pg-0").await;
    rig.route(&backend);
    let (tell, mut order) = tokio::sync::mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        for _ in 0..CLIENTS {
            let mut leader = backend.accept().await;
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut packet = [0; 12];
                leader.read_exact(&mut packet).await.unwrap();
                let number = u16::from_be_bytes([packet[10], packet[11]]);
                tell.send(number).unwrap();
                // A backend needs a moment to start.
                tokio::time::sleep(Duration::from_millis(1)).await;
                leader.write_u16(number).await.unwrap();
                std::future::pending::<()>().await;
            });
        }
    });
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(read_exactly(client, 2).await, (number as u16).to_be_bytes());
    }
    within("all are accepted", serving).await.unwrap();
    let mut late = Vec::new();
    for place in 0..CLIENTS {
        let number = order.recv().await.unwrap();
        let moved = number.abs_diff(place);
        assert!(moved <= MANY, "client {number} came in place {place}");
        if moved > OVERTAKEN {
            late.push((number, place));
        }
    }
    assert!(late.len() <= FEW, "clients and their places: {late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_stop_sending_do_not_keep_others_from_the_leader() {
    let (rig, backend) = Rig::routed().await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        let mut client = rig.connect().await;
        client.write_all(&SSL_REQUEST).await.unwrap();
        silent.push(client);
    }
    let mut client = rig.connect().await;
    client.write_all(b"hello").await.unwrap();
    let serving = tokio::spawn(async move {
        loop {
            // The silent clients are told to continue without encryption, and do not. The order of accepts does not
            // identify a connection's client.
            let mut leader = backend.accept().await;
            tokio::spawn(async move {
                let mut greeting = [0; 5];
                if leader.read_exact(&mut greeting).await.is_err() {
                    return;
                }
                let answer = if greeting == SSL_REQUEST[..5] {
                    b"N"
                } else {
                    &greeting[..]
                };
                leader.write_all(answer).await.unwrap();
                std::future::pending::<()>().await;
            });
        }
    });
    assert_eq!(read_exactly(&mut client, 5).await, b"hello");
    rig.reaches(SessionState::Forwarding, 1).await;
    rig.reaches(SessionState::Dialling, 200).await;
    serving.abort();
}
