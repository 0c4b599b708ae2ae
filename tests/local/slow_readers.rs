//! A side that does not read stops the other side, and its session lives as long as the side itself.

use std::time::Duration;

use pgnorth::ending::Ending;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::support::{Random, Rig, read_to_end, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stops_stops_the_writer_and_gets_every_byte_later() {
    const ALL: usize = 128 << 20;
    // Socket buffers on both legs (at most 4 + 6 MiB each here) and one pipe.
    const BOUND: usize = 32 << 20;
    let (rig, backend) = Rig::routed().await;
    let (mut client, mut leader) = rig.session(&backend).await;
    let bytes = Random(5).bytes(ALL);
    let mut sent = 0;
    // A stream is stalled if it takes nothing for a second: under any load a moving stream takes something.
    while let Ok(wrote) = timeout(Duration::from_secs(1), leader.write(&bytes[sent..])).await {
        sent += wrote.unwrap();
        assert!(sent < BOUND, "the writer is not stopped: {sent} bytes on their way");
    }
    assert!(sent > 0);
    let expected = bytes.clone();
    let rest = tokio::spawn(async move {
        leader.write_all(&bytes[sent..]).await.unwrap();
        leader.shutdown().await.unwrap();
    });
    assert!(read_to_end(&mut client).await == expected, "the bytes differ");
    within("the rest is sent", rest).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_living_peer_that_reads_nothing_for_longer_than_the_user_timeout_survives() {
    // Linux counts a closed window as silence: without forward/stall.rs these sessions end in ETIMEDOUT.
    let user_timeout = Duration::from_secs(2);
    for megabytes in [1, 24] {
        let (rig, backend) = Rig::with_user_timeout(user_timeout).await;
        let (mut client, mut leader) = rig.session(&backend).await;
        let bytes = Random(6).bytes(megabytes << 20);
        let expected = bytes.clone();
        let upload = tokio::spawn(async move {
            client.write_all(&bytes).await.unwrap();
            client.shutdown().await.unwrap();
            client
        });
        // Not a wait for an event: this is the silence that the test is about.
        tokio::time::sleep(4 * user_timeout).await;
        assert!(
            read_to_end(&mut leader).await == expected,
            "{megabytes} MB: the bytes differ"
        );
        drop(leader);
        within("the upload", upload).await.unwrap();
        rig.ends(Ending::ClientClosed, 1).await;
    }
}
