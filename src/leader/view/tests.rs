//! Tests of the view: the age of the lock, and the members that say that they are primary.

use super::*;
use crate::leader::observation::{Claim, DcsStatus, Lock, NoReport, Observation, Replication, Role, Tags};
use crate::leader::{RoutingState, probing};

const LIFE: Duration = Duration::from_secs(3);
const TTL: Duration = Duration::from_secs(30);

/// A view with claims and times that the test sets.
struct World {
    view: View,
    now: Instant,
    renewals: u32,
}

impl World {
    fn new() -> Self {
        Self {
            view: View::default(),
            now: Instant::now(),
            renewals: 0,
        }
    }

    fn hear(mut self, claim: Claim) -> Self {
        self.view.record(Observation { at: self.now, claim });
        self
    }

    fn after(mut self, seconds: u64) -> Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn lock(mut self, holder: &str) -> Self {
        self.renewals += 1;
        let lock = Lock {
            holder: Some(holder.into()),
            ttl: TTL,
            renewal: [None, Some(self.renewals.to_string()), None],
            written: None,
            renewed: None,
        };
        self.hear(Claim::Lock(ObjectKind::Endpoints, Some(lock)))
    }

    fn pod(self, name: &str, role: &str) -> Self {
        let pod = DcsStatus {
            name: name.into(),
            address: Ok(Address::new("10.0.0.1", 5432).unwrap()),
            proxy_address: None,
            api_url: BaseUrl::parse(&format!("http://{name}:8008")).ok(),
            role: Some(role.into()),
            state: Some("running".into()),
            timeline: Some(1),
            xlog_location: None,
            tags: Tags::default(),
            replication: Replication::default(),
            citus_group: None,
        };
        self.hear(Claim::DcsStatus(pod))
    }

    fn answer(self, member: &str, role: Role) -> Self {
        let report = Report {
            holds_lock: role == Role::Primary,
            role,
            state: "running".into(),
            timeline: Some(1),
            system: None,
            scope: None,
            names_member: true,
            paused: false,
            failsafe_active: false,
            replication: Replication::default(),
        };
        self.hear(Claim::Report(member.into(), Ok(report)))
    }

    fn unreachable(self, member: &str) -> Self {
        self.hear(Claim::Report(
            member.into(),
            Err(NoReport::Unreachable("no answer".into())),
        ))
    }

    fn primaries(&self) -> usize {
        self.view.primaries(self.now, LIFE)
    }
}

fn two_members() -> World {
    World::new().pod("a", "primary").pod("b", "replica")
}

#[test]
fn one_leader_is_one_primary() {
    let world = two_members().lock("a");
    assert_eq!(world.primaries(), 1, "by its pod");
    let world = world.answer("a", Role::Primary);
    assert_eq!(world.primaries(), 1, "by its answer");
    assert_eq!(world.unreachable("a").primaries(), 1, "by its pod again");
}

#[test]
fn the_pod_of_a_dead_leader_is_no_second_primary() {
    let world = two_members().lock("a").answer("a", Role::Primary);
    let world = world.after(40).unreachable("a").lock("b").pod("b", "primary");
    assert_eq!(world.answer("b", Role::Primary).primaries(), 1);
}

#[test]
fn a_member_that_reports_primary_after_the_lock_moved_is_counted_as_a_second_primary() {
    let world = two_members().lock("a").after(10).lock("b").answer("b", Role::Primary);
    let world = world.after(1).pod("b", "primary").pod("a", "replica");
    assert_eq!(world.primaries(), 1);
    assert_eq!(world.after(1).pod("a", "primary").primaries(), 2);
}

#[test]
fn without_a_lock_fresh_answers_alone_count() {
    let world = two_members().answer("a", Role::Primary).answer("b", Role::Primary);
    assert_eq!(world.primaries(), 2);
    let world = world.after(2).answer("b", Role::Primary).after(1);
    assert_eq!(world.primaries(), 1, "a's answer is too old");
    assert_eq!(world.unreachable("b").primaries(), 0);
}

#[test]
fn an_old_answer_of_the_former_leader_does_not_mean_that_its_rest_api_answers() {
    let asked_and_answering =
        |world: &World| probing::asked_and_answering(&world.view, &RoutingState::Hold(None), world.now);
    let world = two_members().lock("a").answer("a", Role::Primary);
    assert_eq!(asked_and_answering(&world), (1, 1));
    let world = world.after(1).lock("b").unreachable("b");
    assert_eq!(asked_and_answering(&world), (1, 0), "only b is asked");
    let world = world.answer("b", Role::Primary).after(60).lock("a");
    assert_eq!(
        asked_and_answering(&world),
        (1, 0),
        "a answered a minute ago, and not since"
    );
}

#[test]
fn a_leader_that_answers_and_does_not_renew_has_an_old_lock() {
    let world = two_members().lock("a").after(20).answer("a", Role::Primary);
    let age = |world: &World| world.now - world.view.renewal_seen(&"a".into()).unwrap();
    assert_eq!(age(&world), Duration::from_secs(20));
    assert_eq!(age(&world.lock("a")), Duration::ZERO);
}

#[test]
fn while_the_api_is_unreachable_the_answer_counts_for_the_lock() {
    let world = two_members().lock("a").after(20).answer("a", Role::Primary).after(1);
    let world = world.hear(Claim::ApiUnreachable(ObjectKind::Endpoints, "refused".into()));
    assert_eq!(
        world.now - world.view.renewal_seen(&"a".into()).unwrap(),
        Duration::from_secs(1)
    );
}
