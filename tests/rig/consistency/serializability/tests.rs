use super::Fate::{Aborted, Committed, Unknown};
use super::*;

const X: Key = 1;
const Y: Key = 2;
const Z: Key = 3;

fn a(key: Key, value: Value) -> Operation {
    Operation::Append(key, value)
}

fn r(key: Key, values: &[Value]) -> Operation {
    Operation::Read(key, values.to_vec())
}

fn committed(operations: &[Operation]) -> Transaction {
    with(Committed, operations)
}

fn with(fate: Fate, operations: &[Operation]) -> Transaction {
    Transaction {
        operations: operations.to_vec(),
        fate,
    }
}

/// Checks a history whose lists at the end are these.
fn anomalies(transactions: &[Transaction], lists: &[(Key, &[Value])]) -> Vec<Anomaly> {
    let lists = lists.iter().map(|(key, values)| (*key, values.to_vec()));
    check(transactions, &lists.collect())
}

/// Returns the name of the cycle that such a history has.
fn name_of_cycle(transactions: &[Transaction], lists: &[(Key, &[Value])]) -> &'static str {
    match anomalies(transactions, lists).as_slice() {
        [Anomaly::Cycle(edges)] => cycles::name(edges),
        other => panic!("not one cycle: {other:?}"),
    }
}

#[test]
fn transactions_one_after_the_other_have_no_anomaly() {
    let history = [
        committed(&[r(X, &[]), a(X, 1), r(X, &[1])]),
        committed(&[a(Y, 1), r(X, &[1])]),
        with(Aborted, &[a(X, 9), r(Y, &[7])]),
        committed(&[r(Y, &[1]), a(X, 2), a(X, 3), r(X, &[1, 2, 3])]),
    ];
    assert_eq!(anomalies(&history, &[(X, &[1, 2, 3]), (Y, &[1])]), []);
}

#[test]
fn a_transaction_of_unknown_fate_may_or_may_not_have_happened() {
    let history = [with(Unknown, &[a(X, 1), a(Y, 1)]), committed(&[a(X, 2)])];
    assert_eq!(anomalies(&history, &[(X, &[1, 2]), (Y, &[1])]), []);
    assert_eq!(anomalies(&history, &[(X, &[2])]), []);
    // But not by half.
    let half = anomalies(&history, &[(X, &[1, 2])]);
    let lost = Anomaly::Lost {
        transaction: 0,
        key: Y,
        value: 1,
    };
    assert_eq!(half, [lost]);
}

#[test]
fn lost_doubled_and_strange_values_are_found() {
    let history = [committed(&[a(X, 1)]), committed(&[a(X, 2)])];
    let lost = Anomaly::Lost {
        transaction: 1,
        key: X,
        value: 2,
    };
    assert_eq!(anomalies(&history, &[(X, &[1])]), [lost]);
    assert_eq!(
        anomalies(&history, &[(X, &[1, 2, 2])]),
        [Anomaly::Duplicate { key: X, value: 2 }]
    );
    assert_eq!(
        anomalies(&history, &[(X, &[1, 2, 7])]),
        [Anomaly::Unwritten { key: X, value: 7 }]
    );
}

#[test]
fn g1a_a_value_of_an_aborted_transaction_is_seen_by_nobody() {
    let dirty = Anomaly::AbortedRead {
        transaction: 0,
        key: X,
        value: 1,
    };
    let history = [with(Aborted, &[a(X, 1)]), committed(&[r(X, &[1]), a(Y, 1)])];
    assert_eq!(anomalies(&history, &[(Y, &[1])]), std::slice::from_ref(&dirty));
    assert_eq!(anomalies(&history[..1], &[(X, &[1])]), [dirty]);
    // An unknown one that is not there at the end was read nevertheless: its server lost it.
    let unreplicated = [with(Unknown, &[a(X, 1)]), committed(&[r(X, &[1]), a(Y, 1)])];
    assert_eq!(anomalies(&unreplicated, &[(Y, &[1])]).len(), 1);
}

#[test]
fn g1b_no_transaction_is_seen_by_half() {
    let history = [committed(&[a(X, 1), a(X, 2)]), committed(&[r(X, &[1]), a(Y, 1)])];
    let found = anomalies(&history, &[(X, &[1, 2]), (Y, &[1])]);
    let amid = Anomaly::IntermediateRead { transaction: 1, key: X };
    assert!(found.contains(&amid), "{found:?}");
}

#[test]
fn a_transaction_sees_itself() {
    let internal = Anomaly::Internal { transaction: 1, key: X };
    for operations in [&[a(X, 2), r(X, &[1])][..], &[r(X, &[]), a(X, 2), r(X, &[1, 2])]] {
        let history = [committed(&[a(X, 1)]), committed(operations)];
        let found = anomalies(&history, &[(X, &[1, 2])]);
        assert!(found.contains(&internal), "{operations:?}: {found:?}");
    }
}

#[test]
fn a_list_only_grows_at_its_end() {
    let history = [committed(&[a(X, 1)]), committed(&[a(X, 2)]), committed(&[r(X, &[2])])];
    let found = anomalies(&history, &[(X, &[1, 2])]);
    assert_eq!(found, [Anomaly::Order { transaction: 2, key: X }]);
}

#[test]
fn g0_writes_are_in_one_order() {
    let history = [committed(&[a(X, 1), a(Y, 1)]), committed(&[a(X, 2), a(Y, 2)])];
    assert_eq!(name_of_cycle(&history, &[(X, &[1, 2]), (Y, &[2, 1])]), "G0");
}

#[test]
fn g1c_information_does_not_flow_in_a_circle() {
    let history = [committed(&[a(X, 1), r(Y, &[1])]), committed(&[a(Y, 1), r(X, &[1])])];
    assert_eq!(name_of_cycle(&history, &[(X, &[1]), (Y, &[1])]), "G1c");
}

#[test]
fn g_single_a_snapshot_is_whole() {
    // The second one sees one write of the first, and not the other.
    let history = [committed(&[a(X, 1), a(Y, 1)]), committed(&[r(X, &[]), r(Y, &[1])])];
    assert_eq!(name_of_cycle(&history, &[(X, &[1]), (Y, &[1])]), "G-single");
    let lost_update = [committed(&[r(X, &[]), a(X, 1)]), committed(&[r(X, &[]), a(X, 2)])];
    assert_eq!(name_of_cycle(&lost_update, &[(X, &[1, 2])]), "G-single");
}

#[test]
fn g2_write_skew_is_found() {
    let history = [committed(&[r(X, &[]), a(Y, 1)]), committed(&[r(Y, &[]), a(X, 1)])];
    assert_eq!(name_of_cycle(&history, &[(X, &[1]), (Y, &[1])]), "G2");
    let of_three = [
        committed(&[r(X, &[]), a(Y, 1)]),
        committed(&[r(Y, &[]), a(Z, 1)]),
        committed(&[r(Z, &[]), a(X, 1)]),
        committed(&[r(X, &[1]), r(Y, &[1]), r(Z, &[1])]),
    ];
    assert_eq!(name_of_cycle(&of_three, &[(X, &[1]), (Y, &[1]), (Z, &[1])]), "G2");
}

#[test]
fn reads_of_aborted_transactions_count_for_nothing() {
    let history = [
        committed(&[r(X, &[]), a(Y, 1)]),
        with(Aborted, &[r(Y, &[]), a(X, 1)]),
        with(Unknown, &[r(Y, &[]), a(X, 2)]),
    ];
    assert_eq!(anomalies(&history, &[(Y, &[1])]), []);
}
