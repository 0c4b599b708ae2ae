//! Many sessions over many reloads, measured: `make test-reload`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::{echoing_leader, reload, text};
use crate::fake_cluster::{Product, Session};
use crate::support::within;

/// Pause between two messages of a session.
const THINKS: Duration = Duration::from_millis(200);
/// Pause between two new clients.
const NEXT: Duration = Duration::from_millis(5);

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// The longest time that one of many waited, in microseconds.
#[derive(Default)]
struct Longest(AtomicU64);

impl Longest {
    fn record(&self, since: Instant) {
        let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(waited, Ordering::Relaxed);
    }

    fn take(&self) -> Duration {
        Duration::from_micros(self.0.swap(0, Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes, and measures"]
async fn many_sessions_live_on_over_many_reloads() {
    let (sessions, reloads) = (variable("PGNORTH_SESSIONS", 1000), variable("PGNORTH_RELOADS", 50));
    let member = echoing_leader().await;
    let product = Product::start_by_rest(&[&member], &[]).await;
    let (over, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(Longest::default()));
    let (new, slowest) = (Arc::new(AtomicUsize::new(0)), Arc::new(Longest::default()));
    let mut running = Vec::new();
    for _ in 0..sessions {
        let (over, longest) = (over.clone(), longest.clone());
        let mut stream = product.session().await.into_stream();
        running.push(tokio::spawn(async move {
            let mut answer = [0; 4];
            while !over.load(Ordering::Relaxed) {
                let sent = Instant::now();
                stream.write_all(b"ping").await.unwrap();
                within("the session answers", stream.read_exact(&mut answer))
                    .await
                    .unwrap();
                longest.record(sent);
                assert_eq!(&answer, b"ping");
                sleep(THINKS).await;
            }
        }));
    }
    running.push(tokio::spawn({
        let (over, new, slowest, address) = (over.clone(), new.clone(), slowest.clone(), product.address);
        async move {
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let mut stream = within("a client connects", TcpStream::connect(address)).await.unwrap();
                stream.write_all(b"?").await.unwrap();
                Session::of(stream).await.lives().await;
                slowest.record(begun);
                new.fetch_add(1, Ordering::Relaxed);
                sleep(NEXT).await;
            }
        }
    }));
    sleep(Duration::from_secs(5)).await;
    println!(
        "without a reload: longest answer {:?}, longest new session {:?}",
        longest.take(),
        slowest.take()
    );
    let (mut pid, mut files) = (product.id(), Vec::new());
    for times in 1..=reloads {
        let begun = Instant::now();
        let output = reload(pid, &[], &[]).await;
        assert!(output.status.success(), "{}", text(&output));
        let took = begun.elapsed();
        product.is_replaced(times).await;
        pid = *product.successors().last().unwrap();
        sleep(THINKS).await;
        files.push(std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count());
        println!(
            "reload {times}: {took:?}, longest answer {:?}, longest new session {:?}",
            longest.take(),
            slowest.take()
        );
    }
    over.store(true, Ordering::Relaxed);
    for session in running {
        within("the session ends", session).await.unwrap();
    }
    println!(
        "{sessions} sessions, {reloads} reloads, {} new clients; files {files:?}",
        new.load(Ordering::Relaxed)
    );
    let passed = product.events().into_iter().map(|event| event["fields"].clone());
    let passed = passed.filter(|fields| fields["message"] == "reload: the new process has taken the open sessions");
    for fields in passed {
        println!("passed {} sessions in {}", fields["clients"], fields["took"]);
        assert!(fields["clients"].as_u64().unwrap() >= sessions as u64, "{fields}");
    }
    assert!(!product.log().contains("\"WARN\""), "a reload left something behind");
}
