//! A log that is not read: standard error is a full pipe. It costs log lines, which are counted and reported later, and
//! nothing else.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::pipe::fcntl_setpipe_size;
use serde_json::Value;

use crate::fake_cluster::{FakeCluster, Product, eventually};

/// The lines that pgnorth wrote to a pipe.
struct Log {
    pipe: PipeReader,
    unparsed: Vec<u8>,
}

impl Log {
    /// Returns a pgnorth whose log is read until it listens, and not after that.
    async fn stuck(cluster: &FakeCluster, flags: &[&str]) -> (Product, Self) {
        let (pipe, writer) = std::io::pipe().unwrap();
        fcntl_setpipe_size(&writer, 4096).unwrap();
        let product = Product::spawn(cluster, flags, Some(writer.into()));
        let mut log = Self {
            pipe,
            unparsed: Vec::new(),
        };
        let line = log.next("listening");
        log.stick();
        (product.listens(&line), log)
    }

    /// Fills the pipe to the last byte. Another open file of the same pipe is used, because a non-blocking stderr of
    /// pgnorth would change the subject of the test.
    fn stick(&self) {
        let path = format!("/proc/self/fd/{}", self.pipe.as_raw_fd());
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
        let mut filler: File = options.open(path).unwrap();
        loop {
            match filler.write(b"\n") {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Reads until a line has this message.
    fn next(&mut self, message: &str) -> Value {
        loop {
            while let Some(end) = self.unparsed.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unparsed.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                if event["fields"]["message"] == message {
                    return event;
                }
            }
            let mut bytes = [0; 4096];
            let count = self.pipe.read(&mut bytes).unwrap();
            assert!(count > 0, "the log ended without: {message}");
            self.unparsed.extend(&bytes[..count]);
        }
    }
}

/// Returns the number of lost lines, from the metric.
async fn lost(product: &Product) -> u64 {
    let (_, metrics) = product.page("/metrics").await;
    let value = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pgnorth_log_lines_lost_total "));
    value.expect("the metric is there").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_stops_neither_sessions_nor_probes_nor_a_failover() {
    let cluster = FakeCluster::start(20).await;
    let (product, mut log) = Log::stuck(&cluster, &["--log", "info,pgnorth::proxy=debug"]).await;
    let first = product.session().await;
    for _ in 0..20 {
        product.session().await.lives().await;
    }
    cluster.b.is_primary(2);
    cluster.lock_moves_to("b");
    first.ends().await;
    assert_eq!(product.session().await.member, "b");
    assert_eq!(product.page("/livez").await.0, 200);
    // The lines that fitted are not lost.
    assert_eq!(lost(&product).await, 0);
    let changed = tokio::task::spawn_blocking(move || log.next("leader changed"));
    assert_eq!(
        changed.await.unwrap()["fields"]["to"].as_str().unwrap().get(..4),
        Some("b at")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_lines_are_counted_and_reported_once_the_log_is_read_again() {
    let cluster = FakeCluster::start(20).await;
    let (product, mut log) = Log::stuck(&cluster, &["--log", "info,pgnorth::proxy=debug"]).await;
    eventually("lines are lost", async || {
        for _ in 0..100 {
            product.session().await;
        }
        (lost(&product).await > 0).then_some(())
    })
    .await;
    let message = "log lines were lost because nothing read standard error";
    let line = tokio::task::spawn_blocking(move || log.next(message)).await.unwrap();
    assert_eq!(line["level"], "WARN");
    let lines = line["fields"]["lines"].as_u64().unwrap();
    assert!(lines > 0 && lines <= lost(&product).await, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unread_log_does_not_delay_the_shutdown() {
    let cluster = FakeCluster::start(20).await;
    let (mut product, _log) = Log::stuck(&cluster, &["--lame-duck", "0s", "--drain", "0s"]).await;
    product.is_asked_to_end();
    assert_eq!(product.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_lines_before_the_end_are_written() {
    let cluster = FakeCluster::start(20).await;
    let mut product = Product::start(&cluster, &["--lame-duck", "0s"]).await;
    product.is_asked_to_end();
    product.ended().await;
    let last = product.events().pop().unwrap();
    assert_eq!(last["fields"]["message"], "every session finished");
}
