//! The slot: which sessions a decision keeps, ends and begins.

use super::*;
use crate::leader::Address;

fn leader(member: &str) -> Server {
    Server {
        member: member.into(),
        address: Address::new("10.0.0.7", 5432).unwrap(),
        timeline: None,
    }
}

#[tokio::test]
async fn a_hold_keeps_the_sessions_of_its_leader() {
    let slot = RouteSlot::new("starting");
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    let target = slot.target(&[]).await;
    slot.publish(RoutingState::Hold(Some(leader("a"))), "switchover".into());
    assert_eq!(target.ending(), None);
    assert!(slot.snapshot().target(&[]).is_none(), "a hold admits no client");
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    assert_eq!(target.ending(), None);
    slot.publish(RoutingState::Route(leader("b")), "b leads".into());
    target.ended().await;
    assert_eq!(target.ending(), Some(Ending::LeaderChanged));
}

#[tokio::test]
async fn a_fence_ends_sessions_and_a_waiting_client_sees_the_next_leader() {
    let slot = Arc::new(RouteSlot::new("starting"));
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    let target = slot.target(&[]).await;
    slot.publish(RoutingState::Fence, "the lock has expired".into());
    target.ended().await;
    assert_eq!(target.ending(), Some(Ending::Fenced));
    let waiting = tokio::spawn({
        let slot = slot.clone();
        async move { slot.target(&[]).await.server.member.clone() }
    });
    slot.publish(RoutingState::Route(leader("b")), "b leads".into());
    assert_eq!(waiting.await.unwrap(), "b");
}

#[test]
fn without_a_former_leader_there_is_nothing_to_cut() {
    let slot = RouteSlot::new("starting");
    let cut = slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    assert!(cut.is_none(), "{cut:?}");
    assert!(
        slot.publish(RoutingState::Fence, "the lock has expired".into())
            .is_some()
    );
    let cut = slot.publish(RoutingState::Route(leader("b")), "b leads".into());
    assert!(cut.is_none(), "{cut:?}");
}

#[test]
fn a_new_epoch_of_the_same_leader_ends_earlier_sessions_alone() {
    let slot = RouteSlot::new("starting");
    assert!(slot.renew(|_| true).is_empty(), "there is no leader");
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    let (before, then) = (slot.snapshot().target(&[]).unwrap(), slot.snapshot());
    let cut = slot.renew(|_| true).pop().unwrap();
    let after = slot.snapshot().target(&[]).unwrap();
    cut.end.now(Ending::CutByOperator);
    assert_eq!(before.ending(), Some(Ending::CutByOperator));
    assert_eq!((after.ending(), &*after.server), (None, &leader("a")));
    let snapshot = slot.snapshot();
    assert_eq!(
        (snapshot.state(), &snapshot.reason, snapshot.since, snapshot.state_since),
        (then.state(), &then.reason, then.since, then.state_since)
    );
}

#[test]
fn a_leader_that_returns_after_a_fence_begins_a_new_epoch() {
    let slot = RouteSlot::new("starting");
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    let before = slot.snapshot().target(&[]).unwrap();
    slot.publish(RoutingState::Fence, "the lock has expired".into());
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    let after = slot.snapshot().target(&[]).unwrap();
    assert_eq!(before.ending(), Some(Ending::Fenced));
    assert_eq!(after.ending(), None);
}

fn usable(member: &str, open: bool) -> Usable {
    Usable {
        server: leader(member),
        open,
        rank: 0,
    }
}

fn names(cuts: &[Cut]) -> Vec<&str> {
    cuts.iter().map(|cut| &*cut.server.member).collect()
}

#[test]
fn a_member_that_is_no_longer_fit_ends_exactly_its_own_sessions() {
    let slot = RouteSlot::new("starting");
    let cuts = slot.share(vec![usable("a", true), usable("b", true)], "both are fit".into());
    assert!(cuts.is_empty(), "{cuts:?}");
    let first = slot.snapshot().target(&[]).unwrap();
    let second = slot.snapshot().target(&[]).unwrap();
    assert_ne!(first.server, second.server, "each has one session");
    let cuts = slot.share(vec![usable("b", true)], "a was promoted".into());
    assert_eq!(names(&cuts), ["a"]);
    cuts.iter().for_each(|cut| cut.end.now(Ending::MemberUnfit));
    for target in [first, second] {
        let expected = (*target.server.member == *"a").then_some(Ending::MemberUnfit);
        assert_eq!(target.ending(), expected, "{}", target.server);
    }
}

#[test]
fn a_member_that_is_closed_keeps_its_sessions_and_gets_no_more() {
    let slot = RouteSlot::new("starting");
    let open = vec![usable("a", true), usable("b", false)];
    let cuts = slot.share(vec![usable("a", true), usable("b", true)], "both are fit".into());
    assert!(cuts.is_empty());
    let targets: Vec<_> = (0..2).map(|_| slot.snapshot().target(&[]).unwrap()).collect();
    assert!(slot.share(open, "b lags".into()).is_empty());
    assert!(targets.iter().all(|target| target.ending().is_none()));
    let next: Vec<_> = (0..3).map(|_| slot.snapshot().target(&[]).unwrap()).collect();
    assert!(next.iter().all(|target| *target.server.member == *"a"), "{next:?}");
    let sessions: Vec<_> = slot.snapshot().members().iter().map(SlotMember::sessions).collect();
    assert_eq!(sessions, [4, 1]);
    drop(next);
    let sessions: Vec<_> = slot.snapshot().members().iter().map(SlotMember::sessions).collect();
    assert_eq!(sessions, [1, 1], "a session that is over no longer counts");
}

#[test]
fn a_client_whose_dial_failed_gets_the_next_member() {
    let slot = RouteSlot::new("starting");
    let _none = slot.share(vec![usable("a", true), usable("b", true)], "both are fit".into());
    let tried = [Arc::new(leader("a"))];
    let snapshot = slot.snapshot();
    assert!((0..9).all(|_| *snapshot.target(&tried).unwrap().server == leader("b")));
    let all = [Arc::new(leader("a")), Arc::new(leader("b"))];
    assert!(
        !snapshot.has_untried(&all) && snapshot.target(&all).is_some(),
        "then from the beginning"
    );
}

#[tokio::test]
async fn a_client_waits_while_no_member_is_fit() {
    let slot = Arc::new(RouteSlot::new("starting"));
    let _none = slot.share(vec![usable("a", false)], "a lags".into());
    let waiting = tokio::spawn({
        let slot = slot.clone();
        async move { slot.target(&[]).await.server.member.clone() }
    });
    let cuts = slot.share(vec![usable("b", true)], "b is fit".into());
    assert_eq!(names(&cuts), ["a"]);
    assert_eq!(waiting.await.unwrap(), "b");
}

#[test]
fn the_ends_of_all_routes_are_reported_through_one_channel() {
    let slot = RouteSlot::new("starting");
    let other = slot.beside("starting");
    let mut ends = slot.endings();
    let _none = other.share(vec![usable("a", true)], "a is fit".into());
    assert!(!ends.has_changed().unwrap());
    other
        .share(Vec::new(), "none is fit".into())
        .pop()
        .unwrap()
        .end
        .now(Ending::MemberUnfit);
    assert!(ends.has_changed().unwrap());
    ends.mark_unchanged();
}
