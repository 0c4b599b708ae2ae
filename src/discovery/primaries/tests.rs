//! Tests that compare a further slot of the primary with the decision.

use std::time::Instant;

use super::*;
use crate::ending::Ending;
use crate::leader::observation::{Claim, DcsStatus, Observation, Replication, Tags};
use crate::leader::{Address, BadConnUrl};
use crate::log_limiter::capture::Log;
use crate::slot::{Target, ending};

/// The ports of the poolers of a and b, if they are known.
type Known = [Option<u16>; 2];

/// Returns a view of a and b, whose poolers listen at these ports.
fn view(poolers: Known) -> View {
    let mut view = View::default();
    for (name, port) in ["a", "b"].into_iter().zip(poolers) {
        let status = DcsStatus {
            name: name.into(),
            address: Ok(Address::new(name, 5432).unwrap()),
            proxy_address: port.map(|port| Address::new(name, port).map_err(|_| BadConnUrl::BadAddress)),
            api_url: None,
            role: None,
            state: None,
            timeline: None,
            xlog_location: None,
            tags: Tags::default(),
            replication: Replication::default(),
            citus_group: None,
        };
        let claim = Claim::DcsStatus(status);
        view.record(Observation {
            at: Instant::now(),
            claim,
        });
    }
    view
}

fn postgres(member: &str) -> Server {
    Server {
        member: member.into(),
        address: Address::new(member, 5432).unwrap(),
        timeline: Some(7),
    }
}

/// Returns every decision about a and b.
fn decisions() -> Vec<RoutingState> {
    let of = |member| {
        [
            RoutingState::Route(postgres(member)),
            RoutingState::Hold(Some(postgres(member))),
        ]
    };
    let without = [RoutingState::Hold(None), RoutingState::Fence];
    [of("a"), of("b"), without].concat()
}

fn primary() -> PrimarySlot {
    PrimarySlot::new(Upstream::Proxy, Arc::new(RouteSlot::new("starting")))
}

/// Publishes the decision, and ends the sessions to the former leader.
fn follow(primary: &mut PrimarySlot, view: &View, decided: &RoutingState) {
    if let Some(cut) = primary.follow(view, decided, "because") {
        cut.end.now(ending(decided));
    }
}

/// Checks the slot against the decision, and each session against the slot.
fn check(primary: &PrimarySlot, decided: &RoutingState, poolers: Known, sessions: &[Target], what: &str) {
    let here = primary.slot.snapshot().state();
    let member = |state: &RoutingState| state.leader().map(|leader| leader.member.clone());
    let open = here.open_to().is_some();
    assert!(member(&here).is_none() || member(&here) == member(decided), "{what}");
    assert!(!open || decided.open_to().is_some(), "{what}");
    assert_eq!(here == RoutingState::Fence, *decided == RoutingState::Fence, "{what}");
    if let Some(leader) = decided.leader() {
        let port = poolers[usize::from(leader.member == "b")];
        assert!(
            port.is_none() || here.leader().map(|found| found.address.port) == port,
            "{what}"
        );
        assert!(port.is_none() || open == decided.open_to().is_some(), "{what}");
    }
    for session in sessions {
        let stays = here.leader() == Some(&*session.server);
        assert!(stays || session.ending().is_some(), "{what}: {session:?} has to end");
    }
}

/// Covers every sequence of three decisions, each with every combination of known addresses.
#[test]
fn a_further_slot_of_the_primary_never_differs_from_the_decision_in_more_than_the_address() {
    let known: [Known; 4] = [[None, None], [Some(6432), None], [Some(6432); 2], [Some(6433); 2]];
    let steps: Vec<_> = decisions()
        .into_iter()
        .flat_map(|decided| known.map(|known| (decided.clone(), known)))
        .collect();
    for first in &steps {
        for second in &steps {
            for third in &steps {
                let (mut primary, mut sessions) = (primary(), Vec::new());
                for (decided, poolers) in [first, second, third] {
                    let before = primary.slot.snapshot().state();
                    follow(&mut primary, &view(*poolers), decided);
                    let what = format!("{first:?}, {second:?}, {third:?}");
                    check(&primary, decided, *poolers, &sessions, &what);
                    let here = primary.slot.snapshot().state();
                    if before.leader().is_some() && before.leader() == here.leader() {
                        let here = here.leader();
                        let mut its = sessions
                            .iter()
                            .filter(|session: &&Target| Some(&*session.server) == here);
                        assert!(its.all(|session| session.ending().is_none()), "{what}: the same server");
                    }
                    sessions.extend(primary.slot.snapshot().target(&[]));
                }
            }
        }
    }
}

#[test]
fn an_address_that_is_not_known_any_more_keeps_its_sessions_and_one_that_never_was_holds_clients() {
    let (mut primary, decided) = (primary(), RoutingState::Route(postgres("a")));
    follow(&mut primary, &view([None, None]), &decided);
    assert_eq!(primary.slot.snapshot().state(), RoutingState::Hold(None));
    let reason = primary.slot.snapshot().reason.clone();
    assert!(
        reason.starts_with(
            "because; the leader's address for target=proxy is unknown: member a has published no proxy_url"
        ),
        "{reason}"
    );
    follow(&mut primary, &view([Some(6432), None]), &decided);
    let session = primary.slot.snapshot().target(&[]).unwrap();
    assert_eq!(session.server.to_string(), "a at a:6432");
    assert_eq!(session.server.timeline, Some(7));
    follow(&mut primary, &view([None, None]), &decided);
    assert_eq!(session.ending(), None);
    assert!(primary.slot.snapshot().is_open());
    follow(&mut primary, &view([Some(7000), None]), &decided);
    assert_eq!(session.ending(), Some(Ending::LeaderChanged), "it has another address");
}

#[test]
fn a_decision_that_the_slot_has_is_not_published_again() {
    let (mut primary, decided) = (primary(), RoutingState::Route(postgres("a")));
    let view = view([Some(6432); 2]);
    follow(&mut primary, &view, &decided);
    let snapshot = primary.slot.snapshot();
    follow(&mut primary, &view, &decided);
    assert!(Arc::ptr_eq(&snapshot, &primary.slot.snapshot()));
}

#[test]
fn an_unknown_address_is_logged_once_and_its_end_too() {
    let log = Log::default();
    let _logs_here = log.install();
    let (mut primary, decided) = (primary(), RoutingState::Route(postgres("a")));
    let nobody = RoutingState::Hold(None);
    for (poolers, decided) in [
        ([None; 2], &decided),
        ([None; 2], &decided),
        ([None; 2], &nobody),
        ([Some(6432); 2], &decided),
        ([Some(6432); 2], &decided),
    ] {
        follow(&mut primary, &view(poolers), decided);
        primary.log_problem();
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(
        lines[0].contains("address for this route target is unknown"),
        "{lines:?}"
    );
    assert!(lines[1].contains("is known again"), "{lines:?}");
}
