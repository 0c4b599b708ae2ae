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

fn usable(member: &str, open: bool) -> UsableMember {
    UsableMember {
        server: leader(member),
        open,
        rank: 0,
    }
}

fn names(cuts: &[SessionsToEnd]) -> Vec<&str> {
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

#[test]
fn the_slot_shows_each_state_as_it_was_published() {
    let slot = RouteSlot::new("starting");
    let a = || leader("a");
    let states = [
        RoutingState::Hold(None),
        RoutingState::Route(a()),
        RoutingState::Hold(Some(a())),
        RoutingState::Fence,
        RoutingState::Hold(None),
    ];
    for state in states {
        slot.publish(state.clone(), "a reason".into());
        let snapshot = slot.snapshot();
        assert_eq!(snapshot.state(), state);
        assert_eq!(snapshot.is_open(), matches!(state, RoutingState::Route(_)), "{state:?}");
        assert_eq!(snapshot.reason, "a reason");
    }
}

/// Publishes `state`. Returns true if `since` changed, and true if `state_since` changed.
fn changes(slot: &RouteSlot, state: RoutingState) -> (bool, bool) {
    let old = slot.snapshot();
    // Both clocks may be too coarse to tell two decisions apart.
    std::thread::sleep(std::time::Duration::from_millis(2));
    slot.publish(state, "a reason".into());
    let new = slot.snapshot();
    (new.since != old.since, new.state_since != old.state_since)
}

#[test]
fn a_leader_has_been_there_since_it_led_and_a_state_since_it_began() {
    let slot = RouteSlot::new("starting");
    let route = |member| RoutingState::Route(leader(member));
    let hold = |member| RoutingState::Hold(Some(leader(member)));
    let rows = [
        ("the first leader", route("a"), (true, true)),
        ("a new reason", route("a"), (false, false)),
        ("a hold keeps its leader", hold("a"), (false, true)),
        ("the same hold", hold("a"), (false, false)),
        ("the leader's return", route("a"), (false, true)),
        ("another leader", route("b"), (true, true)),
        ("no leader", RoutingState::Hold(None), (true, true)),
        ("still none", RoutingState::Hold(None), (false, false)),
        ("the fence of none", RoutingState::Fence, (false, true)),
        ("the same fence", RoutingState::Fence, (false, false)),
        ("the end of the fence", RoutingState::Hold(None), (false, true)),
    ];
    for (what, state, expected) in rows {
        assert_eq!(changes(&slot, state), expected, "{what}: (since, state_since) changed");
    }
}

#[tokio::test]
async fn a_wait_for_the_close_of_a_member_ends_when_it_closes() {
    let slot = RouteSlot::new("starting");
    let b = leader("b");
    slot.closed(&b).await;
    let _none = slot.share(vec![usable("a", true), usable("b", true)], "both are fit".into());
    let closed = slot.closed(&b);
    tokio::pin!(closed);
    assert!(futures_util::poll!(&mut closed).is_pending());
    let _none = slot.share(vec![usable("a", false), usable("b", true)], "a lags".into());
    assert!(futures_util::poll!(&mut closed).is_pending(), "another member closed");
    let _none = slot.share(vec![usable("a", true), usable("b", false)], "b lags".into());
    closed.await;
}

#[test]
fn of_two_members_one_is_renewed_and_the_other_keeps_its_sessions() {
    let slot = RouteSlot::new("starting");
    let _none = slot.share(vec![usable("a", true), usable("b", true)], "both are fit".into());
    let (one, other) = (
        slot.snapshot().target(&[]).unwrap(),
        slot.snapshot().target(&[]).unwrap(),
    );
    let cuts = slot.renew(|leader| *leader.member == *"a");
    assert_eq!(names(&cuts), ["a"]);
    cuts.iter().for_each(|cut| cut.end.now(Ending::CutByOperator));
    let (a, b) = if *one.server.member == *"a" {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!((a.ending(), b.ending()), (Some(Ending::CutByOperator), None));
    assert_eq!(names_of(&slot), ["a", "b"]);
}

fn names_of(slot: &RouteSlot) -> Vec<String> {
    let snapshot = slot.snapshot();
    snapshot
        .members()
        .iter()
        .map(|place| place.server.member.to_string())
        .collect()
}

#[test]
fn a_route_has_others_only_if_they_are_open_and_untried() {
    let slot = RouteSlot::new("starting");
    let _none = slot.share(
        vec![usable("a", true), usable("b", false), usable("c", true)],
        "b lags".into(),
    );
    let snapshot = slot.snapshot();
    let [a, b, c] = ["a", "b", "c"].map(|member| Arc::new(leader(member)));
    assert!(snapshot.has_others(&[], &a), "c");
    assert!(!snapshot.has_others(std::slice::from_ref(&c), &a), "b is closed");
    assert!(snapshot.has_others(std::slice::from_ref(&c), &b), "a");
    assert!(!snapshot.has_others(&[a.clone(), c.clone()], &b));
    assert!(!snapshot.has_untried(&[a.clone(), c.clone()]), "b is closed");
    assert!(snapshot.has_untried(&[a, b]));
}

#[test]
fn a_member_that_reopens_beside_others_grows_again_and_one_that_stays_open_goes_on() {
    let slot = RouteSlot::new("starting");
    let both = || vec![usable("a", true), usable("b", true)];
    let grows = |slot: &RouteSlot| -> Vec<bool> {
        let snapshot = slot.snapshot();
        snapshot
            .members()
            .iter()
            .map(|place| place.grows_from.is_some())
            .collect()
    };
    let _none = slot.share(both(), "both are fit".into());
    assert_eq!(grows(&slot), [false, false], "they are found one after the other");
    let settled = |slot: &RouteSlot| {
        let old = slot.snapshot();
        let since = Instant::now().checked_sub(SETTLING).unwrap();
        let members = old.members.iter().map(|place| SlotMember {
            server: place.server.clone(),
            epoch: place.epoch.clone(),
            ..*place
        });
        let settled = RouteSnapshot {
            state_since: since,
            reason: old.reason.clone(),
            members: members.collect(),
            turn: old.turn.clone(),
            superseded: CancellationToken::new(),
            ..*old
        };
        slot.swap(&old, settled);
    };
    let _none = slot.share(vec![usable("a", true), usable("b", false)], "b lags".into());
    let _none = slot.share(both(), "both are fit".into());
    assert_eq!(
        grows(&slot),
        [false, false],
        "not within the first seconds of the route"
    );
    let _none = slot.share(vec![usable("a", true), usable("b", false)], "b lags".into());
    settled(&slot);
    let _none = slot.share(both(), "both are fit".into());
    assert_eq!(grows(&slot), [false, true]);
    let before = slot.snapshot().members()[1].grows_from;
    let _none = slot.share(both(), "both are fit".into());
    assert_eq!(slot.snapshot().members()[1].grows_from, before, "it goes on growing");
}

#[tokio::test]
async fn a_cut_is_done_when_its_last_session_is_gone() {
    let slot = RouteSlot::new("starting");
    slot.publish(RoutingState::Route(leader("a")), "a leads".into());
    let target = slot.target(&[]).await;
    let cut = slot
        .publish(RoutingState::Fence, "the lock has expired".into())
        .unwrap();
    let done = cut.done();
    tokio::pin!(done);
    assert!(futures_util::poll!(&mut done).is_pending(), "a session is left");
    drop(target);
    done.await;
}
