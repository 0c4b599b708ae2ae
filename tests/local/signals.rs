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

#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_the_sessions_and_the_log_says_so() {
    let cluster = FakeCluster::start(20).await;
    for lame_duck in ["0s", "1h"] {
        let mut product = Product::start(&cluster, &["--lame-duck", lame_duck, "--drain", "1h"]).await;
        let session = product.session().await;
        product.gets(Signal::TERM);
        let phase = match lame_duck {
            "0s" => "no longer accepting clients",
            _ => "still accepting clients",
        };
        product.tells("INFO", &[phase]).await;
        product.gets(Signal::TERM);
        assert_eq!(product.ended().await, Some(0));
        let forced = product
            .logs("the sessions that it ended", |event| {
                let message = event["fields"]["message"].as_str().unwrap_or_default();
                event["level"] == "WARN" && message.contains("shutdown was requested again")
            })
            .await;
        assert_eq!(forced["fields"]["sessions"], 1, "{forced}");
        let log = product.log();
        assert!(!log.contains("every session finished"), "{log}");
        assert!(!log.contains("may finish") || lame_duck == "0s", "{log}");
        session.ends().await;
    }
}
