//! Many sessions over many reloads, measured: `make test-reload`. Most are idle, some ask all the time, two echo in bulk,
//! and 200 clients a second connect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{echoes, echoing_leader, reload, text};
use crate::fake_cluster::Product;
use crate::support::{HANG, within};

/// Patroni's default. The fake member runs in the process of the clients, and answers late when they are many.
const TTL: u32 = 30;
/// Sessions that echo in bulk.
const BULK: u64 = 2;
/// Pause of such a session between two portions.
const PACE: Duration = Duration::from_millis(10);
/// One in so many of the other sessions asks all the time; the others are idle, and ask now and then.
const ASKING: usize = 5;
const THINKS: Duration = Duration::from_millis(200);
const IDLE: Duration = Duration::from_secs(10);
/// Interval of new clients.
const NEXT: Duration = Duration::from_millis(5);
/// Growth from the first reloads to the last ones that is no leak: a new client has two files, and may have four pipes.
const MORE_FILES: usize = 60;
const MORE_MEMORY: usize = 8192;

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

/// Counts of all clients.
#[derive(Default)]
struct Counts {
    over: Arc<AtomicBool>,
    /// Longest answer of a session.
    answer: Longest,
    broken: AtomicUsize,
    /// Longest time from connecting to the answer.
    connect: Longest,
    connected: AtomicUsize,
    failed: AtomicUsize,
}

impl Counts {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Asks until the end, and once more.
async fn ask(mut stream: TcpStream, every: Duration, counts: Arc<Counts>) {
    loop {
        let (is_last, begun) = (counts.is_over(), Instant::now());
        let mut answer = [0; 4];
        let asked = timeout(HANG, async {
            stream.write_all(b"ping").await?;
            stream.read_exact(&mut answer).await
        });
        if !matches!(asked.await, Ok(Ok(_))) || answer != *b"ping" {
            counts.broken.fetch_add(1, Ordering::Relaxed);
            return;
        }
        counts.answer.record(begun);
        if is_last {
            return;
        }
        sleep(every).await;
    }
}

/// Connects again and again, without waiting for those before.
async fn connect(address: std::net::SocketAddr, counts: Arc<Counts>) {
    let (mut clients, mut ticks) = (JoinSet::new(), interval(NEXT));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !counts.is_over() {
        ticks.tick().await;
        let counts = counts.clone();
        clients.spawn(async move {
            let begun = Instant::now();
            let served = timeout(HANG, async {
                let mut stream = TcpStream::connect(address).await?;
                for expected in [b"a", b"x"] {
                    stream.write_all(b"x").await?;
                    let mut answer = [0];
                    stream.read_exact(&mut answer).await?;
                    assert_eq!(&answer, expected);
                }
                std::io::Result::Ok(())
            });
            let count = match served.await {
                Ok(Ok(())) => &counts.connected,
                _ => &counts.failed,
            };
            count.fetch_add(1, Ordering::Relaxed);
            counts.connect.record(begun);
        });
        while clients.try_join_next().is_some() {}
    }
    clients.join_all().await;
}

/// One reload, from its request to the end of the old process's part.
#[derive(Debug)]
struct Reloaded {
    took: Duration,
    /// Longest answer of a session.
    answer: Duration,
    connect: Duration,
    /// Of the new process.
    files: usize,
    kibibytes: usize,
}

/// Returns the open files and the resident memory of a process, in KiB.
fn usage(pid: u32) -> (usize, usize) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), kibibytes)
}

/// Returns the median and the largest value.
fn spread<T: Ord + Copy>(values: impl IntoIterator<Item = T>) -> (T, T) {
    let mut values: Vec<T> = values.into_iter().collect();
    values.sort_unstable();
    (values[values.len() / 2], values[values.len() - 1])
}

/// Fails if the median of the last quarter exceeds that of the first by more than this.
fn stays_flat(what: &str, values: &[usize], more: usize) {
    let quarter = values.len().div_ceil(4);
    let (first, _) = spread(values[..quarter].iter().copied());
    let (last, _) = spread(values[values.len() - quarter..].iter().copied());
    println!("{what}: {first} after the first reloads, {last} after the last ones");
    assert!(last <= first + more, "{what} grow: {values:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes some minutes, and measures: make test-reload"]
async fn many_sessions_live_on_over_many_reloads() {
    let (sessions, reloads) = (variable("PGNORTH_SESSIONS", 1000), variable("PGNORTH_RELOADS", 50));
    let member = echoing_leader().await;
    member.has_ttl(TTL);
    let product = Product::start_by_rest(&[&member], &[]).await;
    let counts = Arc::new(Counts::default());
    let mut running = JoinSet::new();
    for number in 0..sessions {
        let every = if number % ASKING == 0 { THINKS } else { IDLE };
        running.spawn(ask(product.session().await.into_stream(), every, counts.clone()));
    }
    let mut bulk = Vec::new();
    for seed in 1..=BULK {
        bulk.push(echoes(product.session().await, seed, PACE, counts.over.clone()));
    }
    running.spawn(connect(product.address, counts.clone()));
    sleep(Duration::from_secs(5)).await;
    let (answer, connect) = (counts.answer.take(), counts.connect.take());
    println!("without a reload: longest answer {answer:?}, longest new session {connect:?}");
    let (begun, before) = (Instant::now(), counts.connected.load(Ordering::Relaxed));
    let (mut pid, mut all) = (product.id(), Vec::new());
    for times in 1..=reloads {
        let begun = Instant::now();
        let output = reload(pid, &[], &[]).await;
        assert!(output.status.success(), "{}", text(&output));
        let took = begun.elapsed();
        product.is_replaced(times).await;
        pid = *product.successors().last().unwrap();
        sleep(THINKS).await;
        let (files, kibibytes) = usage(pid);
        let reloaded = Reloaded {
            took,
            answer: counts.answer.take(),
            connect: counts.connect.take(),
            files,
            kibibytes,
        };
        println!("{times}: {reloaded:?}");
        all.push(reloaded);
    }
    let rate = (counts.connected.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    counts.over.store(true, Ordering::Relaxed);
    while let Some(session) = within("the sessions end", running.join_next()).await {
        session.unwrap();
    }
    let mut bytes = 0;
    for session in bulk {
        bytes += within("the stream ends", session).await.unwrap();
    }
    let (connected, failed) = (&counts.connected, counts.failed.load(Ordering::Relaxed));
    let broken = counts.broken.load(Ordering::Relaxed);
    println!("{sessions} sessions, {reloads} reloads: {broken} broken; {bytes} bytes echoed as they were sent");
    println!("{connected:?} new clients, {rate:.0} a second: {failed} failed");
    println!("reload, median and longest: {:?}", spread(all.iter().map(|of| of.took)));
    let answers = spread(all.iter().map(|of| of.answer));
    println!("longest answer in a reload, median and longest: {answers:?}");
    let connects = spread(all.iter().map(|of| of.connect));
    println!("longest new session in a reload, median and longest: {connects:?}");
    assert_eq!((broken, failed), (0, 0));
    all_were_passed(&product, sessions);
    let of_all = |figure: fn(&Reloaded) -> usize| all.iter().map(figure).collect::<Vec<_>>();
    stays_flat("open files", &of_all(|of| of.files), MORE_FILES);
    stays_flat("KiB of resident memory", &of_all(|of| of.kibibytes), MORE_MEMORY);
}

/// Fails unless each reload has passed every session.
fn all_were_passed(product: &Product, sessions: usize) {
    let passed = product.events().into_iter().map(|event| event["fields"].clone());
    let passed = passed.filter(|fields| fields["message"] == "reload: handed over sessions and held clients");
    let mut times = Vec::new();
    for fields in passed {
        assert!(fields["passed"].as_u64().unwrap() >= sessions as u64, "{fields}");
        times.push(duration(fields["took"].as_str().unwrap()));
    }
    println!("hand-over of the sessions, median and longest: {:?}", spread(times));
    assert!(!product.log().contains("\"WARN\""), "a reload left something behind");
}

/// Reads a time as Rust prints it, such as 123.4ms.
fn duration(text: &str) -> Duration {
    let is_unit = |c: char| !c.is_ascii_digit() && c != '.';
    let (number, unit) = text.split_at(text.find(is_unit).unwrap());
    let of_a_second = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        _ => 1e-6,
    };
    Duration::from_secs_f64(number.parse::<f64>().unwrap() * of_a_second)
}
