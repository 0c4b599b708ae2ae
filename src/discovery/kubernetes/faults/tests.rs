//! Tests of the faults of a watch.

use kube::core::Status;

use super::*;
use crate::log_limiter::capture::Log;

fn forbidden() -> watcher::Error {
    let status = Status::failure(
        "endpoints \"pg\" is forbidden: User \"pgnorth\" cannot list resource",
        "Forbidden",
    );
    watcher::Error::InitialListFailed(kube::Error::Api(status.with_code(403).boxed()))
}

fn refused() -> watcher::Error {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    watcher::Error::InitialListFailed(kube::Error::Service(refused.into()))
}

fn faults() -> Faults {
    Faults::new("endpoints default/pg", "get, list and watch", LOCK_RETRY)
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_restarts_and_forbids_everything_for_a_moment_is_no_lack_of_rights() {
    let log = Log::default();
    let _logs_here = log.install();
    let mut faults = faults();
    faults.answered();
    for _ in 0..3 {
        let Fault { pause, why } = faults.record(&forbidden());
        assert!(why.contains("was allowed before") && !why.contains("grant"), "{why}");
        // The API's own message names verb and resource.
        assert!(why.contains(&root_cause(&forbidden())), "{why}");
        sleep(pause).await;
    }
    faults.answered();
    faults.recovered().await;
    let lines = log.lines();
    assert!(!lines.concat().contains("grant"), "{lines:#?}");
    assert_eq!(lines.len(), 2, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn rights_that_stay_removed_are_one_warning() {
    let log = Log::default();
    let _logs_here = log.install();
    let mut faults = faults();
    faults.answered();
    for _ in 0..100 {
        sleep(faults.record(&forbidden()).pause).await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines[1].contains("grant get, list and watch"), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn two_hundred_pgnorths_that_lost_the_api_together_do_not_ask_it_in_step() {
    let log = Log::default();
    let _logs_here = log.install();
    // The attempts of 200 processes within an hour, counted in intervals of 100 ms.
    let mut tries = vec![0_u32; 36_000];
    for _ in 0..200 {
        let mut faults = faults();
        let mut at = Duration::ZERO;
        while at < Duration::from_secs(3_600) {
            tries[at.as_millis() as usize / 100] += 1;
            at += faults.record(&refused()).pause;
        }
    }
    let most = tries.iter().skip(100).max().unwrap();
    assert!(*most < 40, "{most} of 200 ask within 100 ms");
}
