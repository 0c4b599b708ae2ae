//! Many clients that ask for much and then do not read, and a pgnorth with a pod's memory: `make test-memory`. Root,
//! for the cgroup.
//!
//! PGNORTH_READERS says how many clients (1000); PGNORTH_BUFFERS, the value of --socket-buffers, if not the default.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fake_cluster::Product;
use crate::fake_patroni::FakeMember;
use crate::support::{MANY_FILES, Random};

/// The limit in deploy/base.
const LIMIT: u64 = 512 << 20;
/// Size of each client's result: more than all buffers between it and the leader.
const RESULT: usize = 8 << 20;
/// Bytes that a client reads before it stops.
const READ_FIRST: usize = 64 << 10;
/// Size of the test's own socket buffers, small because the machine's memory for TCP (net.ipv4.tcp_mem) is not tested.
const NARROW: u32 = 64 << 10;
/// Deadline; all results together are 8 GB.
const HANG: Duration = Duration::from_secs(300);

/// A memory cgroup with a limit, and one process in it. It is removed when dropped, which must be after the process has
/// ended.
struct Cgroup(PathBuf);

impl Cgroup {
    fn limit(process: u32) -> Self {
        let version_1 = Path::new("/sys/fs/cgroup/memory");
        let root = if version_1.is_dir() {
            version_1
        } else {
            Path::new("/sys/fs/cgroup")
        };
        let cgroup = Self(root.join(format!("pgnorth-test-{process}")));
        fs::create_dir(&cgroup.0).expect("root may make a memory cgroup");
        let limits: &[&str] = if version_1.is_dir() {
            // Version 1 counts a cgroup's sockets only once they have a limit.
            &["memory.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"]
        } else {
            &["memory.max"]
        };
        for limit in limits {
            fs::write(cgroup.0.join(limit), LIMIT.to_string()).expect("the memory controller is enabled");
        }
        fs::write(cgroup.0.join("cgroup.procs"), process.to_string()).unwrap();
        cgroup
    }

    /// Returns the bytes in use, and those of them that are socket buffers. Version 1 counts these apart.
    fn usage(&self) -> (u64, u64) {
        let read = |file: &str| fs::read_to_string(self.0.join(file)).ok();
        let number = |text: String| text.trim().parse::<u64>().unwrap();
        if let Some(sockets) = read("memory.kmem.tcp.usage_in_bytes") {
            let sockets = number(sockets);
            return (number(read("memory.usage_in_bytes").unwrap()) + sockets, sockets);
        }
        let stat = read("memory.stat").unwrap();
        let sockets = stat.lines().find_map(|line| line.strip_prefix("sock ")).unwrap_or("0");
        (number(read("memory.current").unwrap()), number(sockets.to_owned()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Sends a result to every client, as the leader; `sent` counts all of it.
async fn lead(listener: TcpListener, result: Arc<Vec<u8>>, sent: Arc<AtomicUsize>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let (result, sent) = (result.clone(), sent.clone());
        tokio::spawn(async move {
            stream.read_u8().await.unwrap();
            for piece in result.chunks(64 << 10) {
                if stream.write_all(piece).await.is_err() {
                    return;
                }
                sent.fetch_add(piece.len(), Ordering::Relaxed);
            }
        });
    }
}

/// Returns a client that has read the beginning of its result.
async fn stalled(product: &Product, result: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(NARROW).unwrap();
    let mut stream = socket.connect(product.address).await.unwrap();
    stream.write_all(b"?").await.unwrap();
    reads(&mut stream, &result[..READ_FIRST]).await;
    stream
}

async fn reads(stream: &mut TcpStream, expected: &[u8]) {
    let mut buffer = vec![0; 64 << 10];
    let mut at = 0;
    while at < expected.len() {
        let most = buffer.len().min(expected.len() - at);
        let read = stream.read(&mut buffer[..most]).await.unwrap();
        assert!(read > 0, "ended after {at} bytes");
        assert!(buffer[..read] == expected[at..at + read], "differs after {at} bytes");
        at += read;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and needs root: make test-memory"]
async fn a_thousand_stalled_readers_fit_into_the_memory_of_a_pod() {
    let _alone = MANY_FILES.lock().await;
    let readers: usize = std::env::var("PGNORTH_READERS").map_or(1000, |count| count.parse().unwrap());
    let flags = std::env::var("PGNORTH_BUFFERS").map_or(vec![], |size| vec!["--socket-buffers".to_owned(), size]);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let result = Arc::new(Random(7).bytes(RESULT));
    let sent = Arc::new(AtomicUsize::new(0));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(NARROW).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let mut member = FakeMember::start("a").await;
    member.postgres = listener.local_addr().unwrap();
    member.is_primary(1);
    member.lists(&[&member]);
    tokio::spawn(lead(listener, result.clone(), sent.clone()));
    let mut product = Product::start_by_rest(&[&member], &flags).await;
    let cgroup = Cgroup::limit(product.id());

    let mut clients = Vec::new();
    for _ in 0..readers {
        let client = timeout(HANG, stalled(&product, &result)).await;
        clients.push(client.expect("a client gets the beginning of its result"));
    }
    // Stalled clients send nothing for a second; the window closes in several steps.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        sleep(Duration::from_secs(1)).await;
    }
    let (all, sockets) = cgroup.usage();
    println!(
        "{readers} stalled readers: {} MiB, of which socket buffers {} MiB",
        all >> 20,
        sockets >> 20
    );
    product.lives();
    assert!(
        sockets > 0,
        "this kernel does not count sockets: the test shows nothing"
    );
    assert!(all < LIMIT, "{all} bytes of {LIMIT}");

    let mut reading = JoinSet::new();
    for mut client in clients {
        let result = result.clone();
        reading.spawn(async move { reads(&mut client, &result[READ_FIRST..]).await });
    }
    let mut most = (0, 0);
    let finished = timeout(HANG, async {
        loop {
            most = most.max(cgroup.usage());
            tokio::select! {
                done = reading.join_next() => match done {
                    Some(done) => done.unwrap(),
                    None => break,
                },
                () = sleep(Duration::from_millis(50)) => {}
            }
        }
    });
    finished.await.expect("every result is read to its end");
    println!(
        "read to the end: {} MiB at most, of which socket buffers {} MiB",
        most.0 >> 20,
        most.1 >> 20
    );
    product.lives();
    assert!(most.0 < LIMIT, "{} bytes of {LIMIT}", most.0);
    product.ends();
}
