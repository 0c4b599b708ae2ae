//! A table of stories. Each row is a sequence of observations with the decisions that must follow from them.

mod clusters;
mod evidence;
mod lock;
mod naming;
mod operator;
mod race_backoff;
mod reports;

use std::time::{Duration, Instant, SystemTime};

use clusters::{ANOTHER_CLUSTER, BESIDE_THE_RULES};
use evidence::EVIDENCE;
use lock::{SWITCHOVERS, WITH_THE_LOCK};
use naming::{NAMED_AGAIN, NAMED_BY_OTHERS};
use operator::HELD_BY_AN_OPERATOR;
use race_backoff::RACE_BACKOFF;
use reports::{API_SILENT, REST_ONLY};

use super::*;
use crate::leader::observation::{
    Announcement, Claim, Cluster, ClusterMember, ClusterSettings, DcsStatus, Lock, NamedLeader, NoReport, ObjectKind,
    Observation, OperatorHold, Replication, Tags,
};
use crate::leader::{Address, BaseUrl};

const TTL: u64 = 20;
const HOUR: Duration = Duration::from_secs(3600);

/// A story about members a, b and c, whose addresses are 10.0.0.1, .2 and .3.
pub(super) struct Story {
    begin: Instant,
    now: Instant,
    view: View,
    current: Option<Server>,
    renewals: u64,
    written: Option<SystemTime>,
    reason: String,
    /// The numbers of the rules that have decided so far.
    pub(super) rules: Vec<usize>,
    kind: ObjectKind,
}

pub(super) fn leader(member: &str) -> Server {
    Server {
        member: member.into(),
        address: address(member),
        timeline: None,
    }
}

fn address(member: &str) -> Address {
    let last = member.bytes().next().unwrap() - b'a' + 1;
    Address::new(&format!("10.0.0.{last}"), 5432).unwrap()
}

pub(super) fn policy() -> Policy {
    Policy {
        switchover_hold: Duration::from_secs(10),
        report_life: Duration::from_secs(3),
    }
}

pub(super) fn report(role: Role, state: &str, timeline: u32) -> Report {
    Report {
        holds_lock: role == Role::Primary && state == "running",
        role,
        state: state.into(),
        timeline: Some(timeline),
        system: Some("7".into()),
        scope: Some("pg".into()),
        names_member: true,
        paused: false,
        failsafe_active: false,
        replication: Replication::default(),
    }
}

impl Story {
    /// Returns a story in which only the three pods are known.
    fn kubernetes() -> Self {
        let mut story = Self::nothing();
        let pods = ["a", "b", "c"].map(|name| pod(name, "replica")).to_vec();
        story.hear(Claim::DcsStatuses(pods));
        story
    }

    /// Returns a story without Kubernetes, in which only the three rows of `/cluster` are known.
    fn rest_only() -> Self {
        let mut story = Self::nothing();
        story.cluster(None);
        story
    }

    fn nothing() -> Self {
        let begin = Instant::now();
        Self {
            begin,
            now: begin,
            view: View::default(),
            current: None,
            renewals: 0,
            written: None,
            reason: String::new(),
            rules: Vec::new(),
            kind: ObjectKind::Endpoints,
        }
    }

    /// Returns a story in which a has led on timeline 1 for ten seconds.
    fn a_leads() -> Self {
        Self::kubernetes()
            .lock("a")
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }

    /// Returns a story without Kubernetes, in which a reports that it leads on timeline 1.
    fn a_leads_by_report() -> Self {
        Self::rest_only()
            .says("a", Role::Primary, "running", 1)
            .says("b", Role::Other, "running", 1)
            .must_route("a")
    }

    pub(super) fn hear(&mut self, claim: Claim) {
        self.view.record(Observation { at: self.now, claim });
    }

    fn observe(mut self, claim: Claim) -> Self {
        self.hear(claim);
        self
    }

    fn after(mut self, seconds: f64) -> Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    fn in_config_maps(mut self) -> Self {
        self.kind = ObjectKind::ConfigMap;
        self
    }

    fn lock(self, holder: &str) -> Self {
        self.lock_late(holder, 0.0)
    }

    /// Records a lock that was written `seconds` ago.
    fn lock_late(self, holder: &str, seconds: f64) -> Self {
        let since_begin = self.now - self.begin;
        let written = SystemTime::UNIX_EPOCH + HOUR + since_begin - Duration::from_secs_f64(seconds);
        self.lock_written(holder, Some(written))
    }

    /// Records a lock with this `renewTime`; `None` for one that cannot be parsed.
    fn lock_written(mut self, holder: &str, written: Option<SystemTime>) -> Self {
        self.renewals += 1;
        self.written = written;
        let lock = self.lock_now(Some(holder));
        self.observe(lock)
    }

    fn released(mut self) -> Self {
        self.renewals += 1;
        let lock = self.lock_now(None);
        self.observe(lock)
    }

    /// Records the same lock again, without a renewal.
    fn same_lock(self, holder: &str) -> Self {
        let lock = self.lock_now(Some(holder));
        self.observe(lock)
    }

    fn lock_now(&self, holder: Option<&str>) -> Claim {
        let renewal = [None, Some(format!("{:06}", self.renewals)), None];
        Claim::Lock(
            self.kind,
            Some(Lock {
                holder: holder.map(MemberName::from),
                ttl: Duration::from_secs(TTL),
                renewal,
                written: self.written,
                renewed: None,
            }),
        )
    }

    fn api_unreachable(self) -> Self {
        let claim = Claim::ApiUnreachable(self.kind, "connection refused".into());
        self.observe(claim)
    }

    fn says(self, member: &str, role: Role, state: &str, timeline: u32) -> Self {
        self.observe(Claim::Report(member.into(), Ok(report(role, state, timeline))))
    }

    fn says_without_lock(self, member: &str, timeline: u32) -> Self {
        let report = Report {
            holds_lock: false,
            ..report(Role::Primary, "running", timeline)
        };
        self.observe(Claim::Report(member.into(), Ok(report)))
    }

    fn says_in_pause(self, member: &str, role: Role, holds_lock: bool) -> Self {
        let report = Report {
            holds_lock,
            paused: true,
            ..report(role, "running", 1)
        };
        self.observe(Claim::Report(member.into(), Ok(report)))
    }

    fn vouched_in_failsafe(self, member: &str) -> Self {
        let report = Report {
            failsafe_active: true,
            ..report(Role::Primary, "running", 1)
        };
        self.observe(Claim::Report(member.into(), Ok(report)))
    }

    fn unreachable(self, member: &str) -> Self {
        self.observe(Claim::Report(
            member.into(),
            Err(NoReport::Unreachable("no answer within 1 s".into())),
        ))
    }

    /// Records that the member's own `/cluster` names `leader` as running on timeline 1, and that the member answers
    /// `/primary` as a replica.
    fn names(self, member: &str, leader: Option<&str>) -> Self {
        self.names_running(member, leader, Some(1))
    }

    fn names_running(self, member: &str, leader: Option<&str>, running_on: Option<u32>) -> Self {
        self.says(member, Role::Other, "running", 1)
            .names_silently(member, leader, running_on)
    }

    /// Does the same as [`Story::names_running`], but without an answer to `/primary`.
    fn names_silently(self, member: &str, leader: Option<&str>, running_on: Option<u32>) -> Self {
        let claim = Claim::NamedLeader {
            by: member.into(),
            asked: self.now,
            leader: leader.map(|leader| NamedLeader {
                member: leader.into(),
                running_on,
            }),
        };
        self.observe(claim)
    }

    fn pod_status(self, member: &str, role: &str, timeline: u32) -> Self {
        self.observe(Claim::DcsStatus(DcsStatus {
            timeline: Some(timeline),
            ..pod(member, role)
        }))
    }

    /// Records a change of the WAL position in the pod's status.
    fn wrote_wal(self, member: &str, role: &str) -> Self {
        self.observe(Claim::DcsStatus(DcsStatus {
            xlog_location: Some(67_108_960),
            ..pod(member, role)
        }))
    }

    fn announced(self, leader: Option<&str>, candidate: Option<&str>, starts_in: Option<f64>) -> Self {
        let starts = starts_in.map(|seconds| self.now + Duration::from_secs_f64(seconds));
        let announcement = Announcement {
            leader: leader.map(MemberName::from),
            candidate: candidate.map(MemberName::from),
            scheduled_at: starts.map(|_| "later".to_owned()),
            starts,
        };
        let claim = Claim::Announcement(self.kind, Some(announcement));
        self.observe(claim)
    }

    fn announcement_gone(self) -> Self {
        let claim = Claim::Announcement(self.kind, None);
        self.observe(claim)
    }

    fn configured(self, paused: bool, standby_cluster: bool) -> Self {
        let settings = ClusterSettings {
            paused,
            standby_cluster,
            ..ClusterSettings::default()
        };
        let claim = Claim::Settings(self.kind, Some(settings));
        self.observe(claim)
    }

    fn race_backoff(self, seconds: u64) -> Self {
        let settings = ClusterSettings {
            race_backoff: Duration::from_secs(seconds),
            ..ClusterSettings::default()
        };
        let claim = Claim::Settings(self.kind, Some(settings));
        self.observe(claim)
    }

    fn held_by_operator(self, seconds: u64) -> Self {
        let wall = SystemTime::UNIX_EPOCH + HOUR;
        let hold = OperatorHold {
            since: wall,
            until: wall + Duration::from_secs(seconds),
            ends: self.now + Duration::from_secs(seconds),
        };
        self.observe(Claim::Held(Some(hold)))
    }

    fn released_by_operator(self) -> Self {
        self.observe(Claim::Held(None))
    }

    /// Does the same as [`Story::pause`], with a `/cluster` that names `leader` as the lock's holder.
    fn paused_and_led_by(mut self, leader: &str) -> Self {
        self.pause_with(Some(leader.into()));
        self
    }

    fn cluster(&mut self, switchover: Option<Announcement>) {
        self.hear(Claim::Cluster(Cluster {
            switchover,
            ttl: Some(Duration::from_secs(TTL)),
            ..listing(&["a", "b", "c"])
        }));
    }

    fn pause(&mut self) {
        self.pause_with(None);
    }

    fn pause_with(&mut self, leader: Option<MemberName>) {
        let members: Vec<&str> = self.view.members().map(|name| name.as_str()).collect();
        let cluster = Cluster {
            leader,
            paused: true,
            ..listing(&members)
        };
        self.hear(Claim::Cluster(cluster));
    }

    pub(super) fn decision(&self) -> Decision {
        decide(&self.view, self.current.as_ref(), self.now, &policy())
    }

    fn must(mut self, expected: &RoutingState) -> Self {
        let decision = self.decision();
        let second = (self.now - self.begin).as_secs_f64();
        assert_eq!(decision.state, *expected, "at second {second}: {}", decision.reason);
        assert!(
            decision.recheck_at.is_none_or(|at| self.now < at),
            "at second {second}: recheck in the past"
        );
        self.current = decision.state.leader().cloned();
        self.reason = decision.why();
        self.rules.push(decision.rule);
        self
    }

    fn must_route(self, member: &str) -> Self {
        self.must(&RoutingState::Route(leader(member)))
    }

    fn must_hold_keeping(self, member: &str) -> Self {
        self.must(&RoutingState::Hold(Some(leader(member))))
    }

    fn must_hold_and_cut(self) -> Self {
        self.must(&RoutingState::Hold(None))
    }

    fn must_fence(self) -> Self {
        self.must(&RoutingState::Fence)
    }

    fn because(self, words: &str) -> Self {
        assert!(self.reason.contains(words), "{:?} does not say {words:?}", self.reason);
        self
    }
}

/// Returns the base URL of a member's REST API.
pub(super) fn api_url(name: &str) -> BaseUrl {
    BaseUrl::parse(&format!("http://{name}:8008")).unwrap()
}

/// Returns an answer to `/cluster` that names these members and nothing else.
pub(super) fn listing(members: &[&str]) -> Cluster {
    let row = |name: &&str| ClusterMember {
        name: (*name).into(),
        address: Some(address(name)),
        api_url: Some(api_url(name)),
        condition: Default::default(),
    };
    Cluster {
        from: api_url("a"),
        system: None,
        scope: None,
        members: members.iter().map(row).collect(),
        leader: None,
        paused: false,
        switchover: None,
        ttl: None,
        race_backoff: None,
    }
}

fn pod(name: &str, role: &str) -> DcsStatus {
    DcsStatus {
        name: name.into(),
        address: Ok(address(name)),
        proxy_address: None,
        api_url: Some(api_url(name)),
        role: Some(role.into()),
        state: Some("running".into()),
        timeline: Some(1),
        xlog_location: None,
        tags: Tags::default(),
        replication: Replication::default(),
        citus_group: None,
    }
}

/// The number of the rule that makes the last decision, the title, and the story.
type Row = (usize, &'static str, fn() -> Story);

pub(super) fn rows() -> Vec<Row> {
    [
        WITH_THE_LOCK,
        SWITCHOVERS,
        EVIDENCE,
        API_SILENT,
        REST_ONLY,
        NAMED_BY_OTHERS,
        NAMED_AGAIN,
        RACE_BACKOFF,
        HELD_BY_AN_OPERATOR,
        ANOTHER_CLUSTER,
        BESIDE_THE_RULES,
    ]
    .concat()
}

#[test]
fn the_rules() {
    for (rule, name, story) in rows() {
        eprintln!("{name}");
        let story = story();
        assert_eq!(story.rules.last(), Some(&rule), "{name}: ended by another rule");
        let again = story.decision();
        assert_eq!(
            again.state.leader(),
            story.current.as_ref(),
            "{name}: unchanged facts, another decision"
        );
    }
}
