//! Every byte arrives once and in order, whatever the sizes, pauses and half-closes.

use std::time::Duration;

use pgnorth::ending::Ending;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::{Random, Rig, within};

/// The stream that one side sends: this number of bytes from the seed, in random pieces with random pauses.
#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    bytes: u64,
    pauses: bool,
}

async fn send(mut to: impl AsyncWrite + Unpin, plan: Plan) {
    let mut content = Random(plan.seed);
    let mut habits = Random(plan.seed ^ 0xFACE);
    let mut left = plan.bytes;
    while left > 0 {
        // From a few bytes, which are copied, to pieces that fill buffers and are spliced; whole words, so that the
        // receiver can check them.
        let most = 8 << habits.below(15);
        let piece = left.min(8 + habits.below(most) / 8 * 8);
        to.write_all(&content.bytes(piece as usize)).await.unwrap();
        left -= piece;
        if plan.pauses && habits.below(16) == 0 {
            tokio::time::sleep(Duration::from_micros(habits.below(3000))).await;
        }
    }
    to.shutdown().await.unwrap();
}

async fn receive(mut from: impl AsyncRead + Unpin, plan: Plan) {
    let mut habits = Random(plan.seed ^ 0xBEEF);
    let mut received = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    let (mut expected, mut total) = (Random(plan.seed), 0);
    loop {
        let most = 1 + habits.below(buffer.len() as u64) as usize;
        let read = from.read(&mut buffer[..most]).await.unwrap();
        received.extend_from_slice(&buffer[..read]);
        total += read as u64;
        let whole = if read == 0 {
            received.len()
        } else {
            received.len() / 8 * 8
        };
        assert!(
            received[..whole] == expected.bytes(whole),
            "differs before byte {total}"
        );
        received.drain(..whole);
        if read == 0 {
            assert_eq!(total, plan.bytes, "bytes received");
            return;
        }
        if plan.pauses && habits.below(16) == 0 {
            tokio::time::sleep(Duration::from_micros(habits.below(3000))).await;
        }
    }
}

async fn exchange(client: TcpStream, leader: TcpStream, up: Plan, down: Plan) {
    let (client_reads, client_writes) = client.into_split();
    let (leader_reads, leader_writes) = leader.into_split();
    let tasks = [
        tokio::spawn(send(client_writes, up)),
        tokio::spawn(receive(leader_reads, up)),
        tokio::spawn(send(leader_writes, down)),
        tokio::spawn(receive(client_reads, down)),
    ];
    for task in tasks {
        within("the exchange", task).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_megabytes_both_ways_at_once() {
    let (rig, backend) = Rig::routed().await;
    let (client, leader) = rig.session(&backend).await;
    let plan = |seed| Plan {
        seed,
        bytes: 64 << 20,
        pauses: false,
    };
    exchange(client, leader, plan(3), plan(4)).await;
    until_all_closed(&rig, 1).await;
    assert_eq!(rig.metrics.bytes_to_leader.get(), 1 + (64 << 20));
    assert_eq!(rig.metrics.bytes_to_client.get(), 1 + (64 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn random_sessions() {
    let seed = std::env::var("PGNORTH_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_261_120);
    let count: u64 = std::env::var("PGNORTH_SESSIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    println!("PGNORTH_SEED={seed} PGNORTH_SESSIONS={count}");
    let (rig, backend) = Rig::routed().await;
    let mut random = Random(seed);
    let (mut up_bytes, mut down_bytes) = (0, 0);
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (client, leader) = rig.session(&backend).await;
        let mut plan = || Plan {
            seed: random.next() | 1,
            // From nothing to 8 MiB, every magnitude equally often.
            bytes: {
                let bound = 1 << random.below(24);
                random.below(bound)
            },
            pauses: random.below(2) == 0,
        };
        let (up, down) = (plan(), plan());
        up_bytes += up.bytes + 1;
        down_bytes += down.bytes + 1;
        running.spawn(exchange(client, leader, up, down));
        if running.len() >= 32 {
            within("a session", running.join_next()).await.unwrap().unwrap();
        }
    }
    while let Some(done) = within("a session", running.join_next()).await {
        done.unwrap();
    }
    until_all_closed(&rig, count).await;
    assert_eq!(rig.metrics.bytes_to_leader.get(), up_bytes);
    assert_eq!(rig.metrics.bytes_to_client.get(), down_bytes);
}

async fn until_all_closed(rig: &Rig, count: u64) {
    super::support::until("all sessions end as closed", || {
        rig.metrics.endings(Ending::ClientClosed) + rig.metrics.endings(Ending::LeaderClosed) == count
    })
    .await;
}
