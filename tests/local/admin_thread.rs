//! The admin port has a thread of its own: its readers take no time from the thread that follows the leader.

use std::collections::HashMap;
use std::fs;

use tokio::task::JoinSet;

use crate::fake_cluster::{FakeCluster, Product};
use crate::status::Events;

/// Limit of connected readers.
const READERS: usize = 64;
const REQUESTS: usize = 30;

/// Returns the CPU time of each thread by its name, in nanoseconds. The first thread is the control thread, and has the
/// program's name.
fn cpu_times(process: u32) -> HashMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let read = |path: &std::path::Path, file: &str| fs::read_to_string(path.join(file)).unwrap();
    let time = |thread: fs::DirEntry| {
        let path = thread.path();
        let on_cpu = read(&path, "schedstat").split(' ').next().unwrap().parse().unwrap();
        (read(&path, "comm").trim().to_owned(), on_cpu)
    };
    threads.map(|thread| time(thread.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_busy_readers_take_no_time_from_discovery() {
    let cluster = FakeCluster::start(20).await;
    let product = Product::start(&cluster, &[]).await;
    product.session().await;
    let before = cpu_times(product.id());
    let mut stream = Events::open(product.admin).await.unwrap();
    let mut readers = JoinSet::new();
    let product = std::sync::Arc::new(product);
    for _ in 1..READERS {
        let product = product.clone();
        readers.spawn(async move {
            for path in ["/status", "/metrics", "/failovers"].iter().cycle().take(REQUESTS) {
                assert_eq!(product.page(path).await.0, 200);
            }
        });
    }
    readers.join_all().await;
    stream.next().await.unwrap();
    let after = cpu_times(product.id());
    let spent = |thread: &str| after[thread] - before.get(thread).copied().unwrap_or(0);
    let (control, admin) = (spent("pgnorth"), spent("admin"));
    println!(
        "control thread {} ms, admin thread {} ms",
        control / 1_000_000,
        admin / 1_000_000
    );
    // Meanwhile the control thread follows the fake cluster.
    assert!(
        4 * control < admin,
        "control thread {control} ns, admin thread {admin} ns"
    );
}
