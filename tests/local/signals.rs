//! Signals: SIGTERM and SIGINT request a shutdown, SIGHUP a reload (`reload.rs`); signals that elsewhere mean "reopen the
//! log" have no effect.

use rustix::process::Signal;

use crate::fake_cluster::{FakeCluster, Product};

#[tokio::test(flavor = "multi_thread")]
async fn signals_without_a_meaning_end_neither_the_process_nor_a_session() {
    let cluster = FakeCluster::start(20).await;
    let mut product = Product::start(&cluster, &[]).await;
    let mut session = product.session().await;
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        product.gets(signal);
        product
            .logs(name, |event| {
                event["fields"]["signal"] == name && event["level"] == "INFO"
            })
            .await;
        session.lives().await;
        product.lives();
    }
}
