//! Tests of the claims that follow from changes of Patroni's keys, and of the decisions on these claims.

use super::*;
use crate::leader::decide::{Decision, Policy, decide};
use crate::leader::observation::{ClusterSettings, NoReport, Observation, Replication, Report, Role, Standby};
use crate::leader::reason::Reason;
use crate::leader::view::View;
use crate::leader::{RoutingState, Server};

const PREFIX: &str = "/service/demo/";
const TTL: i64 = 30;
const CONFIG: &str = r#"{"ttl":30,"loop_wait":10}"#;

/// etcd with the keys of a scope, the source's state, and the decisions that follow.
struct World {
    now: Instant,
    revision: i64,
    tracked: Tracked,
    view: View,
    decision: Decision,
    claims: Vec<Claim>,
    /// True once a fence was decided on, even if only for a moment.
    fenced: bool,
}

impl World {
    /// Returns a world with members a and b. a holds the lock with lease 1 and reports that it is a running primary.
    fn new() -> Self {
        let mut world = Self {
            now: Instant::now(),
            revision: 10,
            tracked: Tracked::new(PREFIX, None),
            view: View::of(Some("demo".into()), None),
            decision: Decision::starting(),
            claims: Vec::new(),
            fenced: false,
        };
        world.hear(vec![Claim::Watching(ObjectKind::EtcdKey)]);
        let keys = world.healthy();
        world.list(keys, 29);
        world.report("a", true)
    }

    fn healthy(&self) -> Vec<KeyValue> {
        vec![
            key("config", CONFIG, 2, 0),
            key("initialize", "7", 1, 0),
            key("leader", "a", 5, 1),
            key("members/a", &member("10.0.0.1"), 6, 1),
            key("members/b", &member("10.0.0.2"), 7, 2),
        ]
    }

    /// Lists the keys, with `left` seconds remaining of the leader key's lease.
    fn list(&mut self, keys: Vec<KeyValue>, left: i64) {
        let is_leader = |key: &&KeyValue| key.key == format!("{PREFIX}leader");
        let lease = keys.iter().find(is_leader).map(|key| CheckedLease {
            id: key.lease,
            time: LeaseTime { left, granted: TTL },
            sent: self.now,
            answered: self.now,
        });
        let listing = Listing {
            revision: self.revision,
            keys,
        };
        let claims = self.tracked.replace(CheckedListing { listing, lease }, self.now);
        self.hear(claims);
    }

    fn change(&mut self, changes: Vec<Change>) {
        let claims = self.tracked.apply(changes, self.now);
        self.hear(claims);
    }

    fn put(&mut self, path: &str, value: &str, lease: i64) {
        self.revision += 1;
        self.change(vec![Change::Put(key(path, value, self.revision, lease))]);
    }

    /// Deletes keys in one revision, as the end of a lease does.
    fn delete(&mut self, paths: &[&str]) {
        self.revision += 1;
        let gone = |path: &&str| Change::Deleted(key(path, "", self.revision, 0));
        self.change(paths.iter().map(gone).collect());
    }

    /// Records etcd's answer that `left` seconds of the lease remain.
    fn lease_left(&mut self, id: i64, left: i64) {
        let time = LeaseTime { left, granted: TTL };
        let claims = self.tracked.record_lease(id, time, self.now, self.now);
        self.hear(claims);
    }

    fn after(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.decide();
    }

    fn report(mut self, member: &str, holds_lock: bool) -> Self {
        self.hear(vec![Claim::Report(member.into(), Ok(report(holds_lock)))]);
        self
    }

    fn hear(&mut self, claims: Vec<Claim>) {
        for claim in claims {
            self.claims.push(claim.clone());
            self.view.record(Observation { at: self.now, claim });
            self.decide();
        }
    }

    fn decide(&mut self) {
        let policy = Policy {
            switchover_hold: Duration::from_secs(10),
            report_life: Duration::from_secs(3),
        };
        let current: Option<Server> = self.decision.state.leader().cloned();
        self.decision = decide(&self.view, current.as_ref(), self.now, &policy);
        self.fenced |= self.decision.state == RoutingState::Fence;
    }

    fn state(&self) -> String {
        match &self.decision.state {
            RoutingState::Route(leader) => format!("route {}", leader.member),
            RoutingState::Hold(Some(leader)) => format!("hold {}", leader.member),
            RoutingState::Hold(None) => "hold".into(),
            RoutingState::Fence => "fence".into(),
        }
    }

    fn knows(&self, member: &str) -> bool {
        self.view.members().any(|known| **known == *member)
    }
}

fn key(path: &str, value: &str, mod_revision: i64, lease: i64) -> KeyValue {
    KeyValue {
        key: format!("{PREFIX}{path}"),
        value: value.into(),
        mod_revision,
        lease,
    }
}

fn member(ip: &str) -> String {
    format!(r#"{{"conn_url":"postgres://{ip}:5432/postgres","api_url":"http://{ip}:8008/patroni","state":"running"}}"#)
}

fn report(holds_lock: bool) -> Report {
    Report {
        holds_lock,
        role: Role::Primary,
        state: "running".into(),
        timeline: Some(1),
        system: Some("7".into()),
        scope: Some("demo".into()),
        names_member: true,
        paused: false,
        failsafe_active: false,
        replication: Replication::default(),
    }
}

#[test]
fn a_holder_that_says_it_is_primary_is_routed_to() {
    let world = World::new();
    assert_eq!(world.state(), "route a");
    assert!(matches!(world.decision.reason, Reason::LockAndReport { .. }));
    assert_eq!(world.view.ttl(), Duration::from_secs(30));
    let settings = world.claims.iter().find_map(|claim| match claim {
        Claim::Settings(ObjectKind::EtcdKey, settings) => settings.clone(),
        _ => None,
    });
    let expected = ClusterSettings {
        system: Some("7".into()),
        ..ClusterSettings::default()
    };
    assert_eq!(settings, Some(expected));
}

#[test]
fn the_synchronous_standby_is_followed_by_its_key() {
    let mut world = World::new();
    let standby = |world: &World| world.view.recorded_standby(&"b".into(), Duration::ZERO, world.now);
    assert_eq!(standby(&world), Some(Standby::Async), "synchronous_mode is off");
    world.put("config", r#"{"ttl":30,"loop_wait":10,"synchronous_mode":true}"#, 0);
    world.put("sync", r#"{"leader":"a","sync_standby":"b","quorum":0}"#, 0);
    assert_eq!(standby(&world), Some(Standby::Sync));
    world.put("config", r#"{"ttl":30,"loop_wait":10,"synchronous_mode":"quorum"}"#, 0);
    assert_eq!(standby(&world), Some(Standby::Quorum));
    world.put("sync", r#"{"leader":"a","sync_standby":"c","quorum":0}"#, 0);
    assert_eq!(standby(&world), Some(Standby::Async));
    world.delete(&["sync"]);
    assert_eq!(standby(&world), Some(Standby::Async));
}

#[test]
fn a_switchover_is_seen_coming_and_the_lock_moves() {
    let mut world = World::new();
    world.put("failover", r#"{"leader":"a","member":"b"}"#, 0);
    assert_eq!(world.state(), "hold a");
    assert!(matches!(world.decision.reason, Reason::SwitchoverAnnounced { .. }));
    world.delete(&["leader"]);
    assert_eq!(world.state(), "hold", "released, and not expired");
    assert!(matches!(world.decision.reason, Reason::Released));
    world.put("leader", "b", 2);
    world.put("failover", "{}", 0);
    world.lease_left(2, 25);
    assert_eq!(world.state(), "hold");
    let world = world.report("b", true);
    assert_eq!(world.state(), "route b");
}

#[test]
fn a_lock_whose_renewals_stop_expires_as_etcd_counts_it() {
    let mut world = World::new();
    world.after(20.0);
    world.lease_left(1, 9);
    assert_eq!(world.state(), "route a");
    // 29 s were left at the start, rounded down: between 29 and 30 s.
    world.after(8.6);
    assert_eq!(world.state(), "hold a", "{:?}", world.decision.reason);
    world.after(0.5);
    assert_eq!(world.state(), "fence", "{:?}", world.decision.reason);
}

#[test]
fn renewals_keep_the_lock() {
    let mut world = World::new();
    for _ in 0..100 {
        world.after(10.0);
        world.lease_left(1, 29);
        assert_eq!(world.state(), "route a");
    }
    let view = world.view.lock().unwrap();
    assert!(view.renewed_throughout().is_some(), "renewed for a whole ttl");
}

#[test]
fn a_lock_that_expired_at_etcd_is_not_a_lock_that_was_released() {
    let mut world = World::new();
    world.after(29.5);
    world.delete(&["leader", "members/a"]);
    assert_eq!(world.state(), "fence");
    assert!(
        matches!(world.decision.reason, Reason::LockExpired { .. }),
        "{:?}",
        world.decision.reason
    );
}

#[test]
fn patroni_stopped_in_pause_loses_its_key_and_no_session() {
    let mut world = World::new();
    world.put("config", r#"{"ttl":30,"pause":true}"#, 0);
    world.after(29.5);
    world.delete(&["leader", "members/a"]);
    world.hear(vec![Claim::Report(
        "a".into(),
        Err(NoReport::Unreachable("connection refused".into())),
    )]);
    assert_eq!(world.state(), "route a");
    assert!(
        matches!(world.decision.reason, Reason::ExpiredInPause { .. }),
        "{:?}",
        world.decision.reason
    );
}

#[test]
fn a_leader_in_failsafe_mode_is_kept_although_every_key_with_a_lease_expires() {
    let mut world = World::new();
    world.after(10.0);
    // The replica's lease ends first.
    world.delete(&["members/b"]);
    assert!(world.knows("b"), "its address is needed to ask it");
    world.after(19.0);
    let failsafe = Report {
        failsafe_active: true,
        ..report(true)
    };
    world.hear(vec![Claim::Report("a".into(), Ok(failsafe))]);
    world.after(0.5);
    world.delete(&["leader", "members/a"]);
    assert_eq!(world.state(), "route a");
    assert!(
        matches!(world.decision.reason, Reason::Failsafe { .. }),
        "{:?}",
        world.decision.reason
    );
    assert!(world.knows("a") && world.knows("b"));
    // A listing after a lost connection shows the same.
    let keys = vec![key("config", CONFIG, 2, 0), key("initialize", "7", 1, 0)];
    world.list(keys, 0);
    assert_eq!(world.state(), "route a");
}

#[test]
fn a_member_whose_key_is_gone_is_forgotten_once_the_lock_is_renewed() {
    let mut world = World::new();
    world.delete(&["members/b"]);
    world.lease_left(1, 29);
    assert!(world.knows("b"), "the same renewal as before");
    world.after(10.0);
    world.lease_left(1, 29);
    assert!(!world.knows("b") && world.knows("a"));
    world.put("members/b", &member("10.0.0.2"), 3);
    assert!(world.knows("b"));
}

#[test]
fn a_scope_without_a_leader_key_is_left_to_the_members_answers() {
    let mut world = World::new();
    world.tracked = Tracked::new(PREFIX, None);
    world.view = View::of(Some("demo".into()), None);
    world.decision = Decision::starting();
    let keys = world.healthy().into_iter().filter(|key| !key.key.ends_with("leader"));
    let keys = keys.collect();
    world.list(keys, 0);
    assert_eq!(world.state(), "hold");
    assert!(
        world.decision.why().contains("etcd has no leader key"),
        "{}",
        world.decision.why()
    );
    let world = world.report("a", true);
    assert_eq!(world.state(), "route a");
}

#[test]
fn an_etcd_that_does_not_answer_is_no_evidence_against_the_leader() {
    let mut world = World::new();
    world.after(20.0);
    world.hear(vec![Claim::ApiUnreachable(ObjectKind::EtcdKey, "no leader".into())]);
    for _ in 0..60 {
        world.after(1.0);
        world = world.report("a", true);
        assert_eq!(world.state(), "route a");
    }
    assert!(
        world.decision.why().contains("because etcd cannot be read"),
        "{}",
        world.decision.why()
    );
    // Its lease was extended by the new leader of etcd.
    world.lease_left(1, 29);
    assert_eq!(world.state(), "route a");
}

#[test]
fn a_pgnorth_that_was_cut_off_from_etcd_for_longer_than_ttl_fences_only_if_the_lease_has_expired() {
    for (left, state) in [(25, "route a"), (0, "fence")] {
        let mut world = World::new();
        world.after(20.0);
        world.hear(vec![Claim::ApiUnreachable(ObjectKind::EtcdKey, "refused".into())]);
        for _ in 0..60 {
            world.after(1.0);
            world = world.report("a", true);
        }
        world.claims.clear();
        let keys = world.healthy();
        // A decision follows each claim on the way, not only the last one.
        world.list(keys, left);
        assert_eq!(world.state(), state, "{:?}", world.decision.reason);
        assert_eq!(world.fenced, state == "fence", "{:?}", world.claims);
    }
}

#[test]
fn a_listing_of_keys_shows_whether_the_watch_has_reported_everything() {
    let mut world = World::new();
    let listing = |revision, keys| Listing { revision, keys };
    let known = world.healthy();
    assert!(!world.tracked.is_behind(&listing(12, known.clone())));
    let mut changed = known.clone();
    changed[2].mod_revision = 11;
    assert!(world.tracked.is_behind(&listing(12, changed)));
    assert!(world.tracked.is_behind(&listing(12, known[1..].to_vec())));
    // The watch is ahead of a listing that was requested before the change.
    world.revision = 20;
    world.put("status", "{}", 0);
    assert!(!world.tracked.is_behind(&listing(12, known)));
}

#[test]
fn a_key_without_a_lease_is_renewed_by_being_there() {
    let mut world = World::new();
    world.put("leader", "a", 0);
    for _ in 0..10 {
        world.after(10.0);
        world.lease_left(0, 0);
        world = world.report("a", true);
        assert_eq!(world.state(), "route a");
    }
}

#[test]
fn texts_that_cannot_be_used_are_reported_once() {
    let mut world = World::new();
    world.put("config", "{", 0);
    world.put("failover", "secret", 0);
    let problems = world.tracked.take_problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(
        problems[0].starts_with("key /service/demo/config is not the JSON"),
        "{problems:?}"
    );
    assert!(!problems.concat().contains("secret"));
    world.put("failover", "secret", 0);
    assert_eq!(world.tracked.take_problems().len(), 0);
}

#[test]
fn members_of_a_citus_cluster_name_their_groups() {
    let mut world = World::new();
    world.put("1/members/w", &member("10.0.0.9"), 9);
    assert_eq!(world.view.groups_not_named(), [1]);
}
