//! Tests of the records of changes of leader.

use super::*;
use crate::leader::Address;

const TTL: Duration = Duration::from_secs(20);

fn leader(member: &str) -> Server {
    Server {
        member: member.into(),
        address: Address::new("10.0.0.7", 5432).unwrap(),
        timeline: Some(2),
    }
}

#[test]
fn a_change_is_one_record_with_its_phases() {
    let recorder = Recorder::new(Arc::new(Metrics::new()));
    let now = Instant::now();
    let at = |ms| now + Duration::from_millis(ms);
    recorder.sign(at(0), "a stops", false, TTL);
    recorder.sign(at(100), "the lock was released", true, TTL);
    recorder.lock_moved(at(2_000), &"b".into());
    recorder.sessions_cut(7, Duration::from_millis(3));
    let trouble = recorder.trouble(at(2_050)).unwrap();
    assert_eq!(
        (trouble.for_seconds, trouble.lock_moved_after_seconds),
        (2.05, Some(2.0))
    );
    assert_eq!((trouble.sessions_cut, trouble.holding), (7, true));
    recorder.writable(at(2_100), &leader("a"), &leader("b"), Duration::ZERO, true);
    recorder.session(&leader("b"), Duration::from_secs(3_600));
    recorder.session(&leader("b"), Duration::ZERO);
    recorder.session(&leader("b"), Duration::from_secs(3_600));
    let [record] = &recorder.failovers()[..] else {
        panic!("one record")
    };
    assert_eq!(record.first_sign, "a stops");
    assert_eq!(record.lock_moved_after_seconds, Some(2.0));
    assert_eq!(record.writable_after_seconds, 2.1);
    assert_eq!(
        (record.sessions_cut, record.sessions_cut_in_seconds),
        (Some(7), Some(0.003))
    );
    assert_eq!(
        (record.clients_held, record.longest_hold_seconds),
        (Some(1), Some(3_600.0))
    );
    assert!(record.first_session_after_seconds.is_some());
    assert!(recorder.trouble(now).is_none(), "it is over");
}

#[test]
fn a_client_that_an_operator_holds_is_not_counted_as_held_by_the_change() {
    let recorder = Recorder::new(Arc::new(Metrics::new()));
    recorder.sign(Instant::now(), "the lock moved", true, TTL);
    recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, false);
    recorder.all_is_well();
    recorder.session(&leader("b"), Duration::from_secs(3_600));
    let failover = &recorder.failovers()[0];
    assert_eq!((failover.from.as_str(), failover.to.as_str()), ("a", "b"));
    assert_eq!(
        (failover.first_session_after_seconds, failover.clients_held),
        (None, Some(0))
    );
}

#[test]
fn a_later_session_is_not_the_first_session_of_a_change_that_held_no_client() {
    let recorder = Recorder::new(Arc::new(Metrics::new()));
    recorder.sign(Instant::now(), "the lock moved", true, TTL);
    recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, true);
    recorder.session(&leader("b"), Duration::ZERO);
    let failover = &recorder.failovers()[0];
    assert_eq!(
        (failover.first_session_after_seconds, failover.clients_held),
        (None, Some(0))
    );
}

#[test]
fn a_short_fault_of_the_same_leader_leaves_no_record() {
    let recorder = Recorder::new(Arc::new(Metrics::new()));
    recorder.sign(Instant::now(), "a does not answer", false, TTL);
    recorder.all_is_well();
    recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, true);
    assert!(recorder.failovers().is_empty());
}

#[test]
fn an_earlier_fault_that_held_no_client_is_not_the_first_sign() {
    let recorder = Recorder::new(Arc::new(Metrics::new()));
    let now = Instant::now();
    recorder.sign(now, "its REST API is unreachable", false, TTL);
    recorder.sign(now + 100 * TTL, "a stops", true, TTL);
    recorder.writable(now + 101 * TTL, &leader("a"), &leader("b"), Duration::ZERO, true);
    let record = &recorder.failovers()[0];
    assert_eq!(
        (record.first_sign.as_str(), record.writable_after_seconds),
        ("a stops", 20.0)
    );
}

#[test]
fn the_oldest_records_go() {
    let recorder = Recorder::new(Arc::new(Metrics::new()));
    for n in 0..=KEPT {
        recorder.sign(Instant::now(), &n.to_string(), true, TTL);
        recorder.writable(Instant::now(), &leader("a"), &leader("b"), Duration::ZERO, true);
    }
    let kept = recorder.failovers();
    assert_eq!((kept.len(), kept[0].first_sign.as_str()), (KEPT, "100"));
}
