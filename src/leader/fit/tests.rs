//! The rules of fitness as rows: what is known about member m, and what the routes make of it. The leader is l.

use std::time::{Duration, Instant};

use super::{AVOIDED_FOR, Fitness, LAST_RULE, RULES, Verdict, fit};
use crate::leader::observation::{
    Claim, ClusterSettings, Lock, NoReport, ObjectKind, Observation, Pod, Report, Role, Tags,
};
use crate::leader::view::View;
use crate::leader::{Address, BaseUrl, Leader, RoutingState};
use crate::route::{Conditions, RouteKind};

/// The default ttl of the lock.
const TTL: Duration = Duration::from_secs(30);

/// A cluster in Kubernetes: l leads, m is a running replica, both on timeline 2.
struct Story {
    view: View,
    begin: Instant,
    now: Instant,
    primary: RoutingState,
}

impl Story {
    fn healthy() -> Self {
        let now = Instant::now();
        let mut story = Self {
            view: View::default(),
            begin: now,
            now,
            primary: RoutingState::Route(leader("l")),
        };
        story.hear(Claim::Watching(ObjectKind::Endpoints));
        story.lock("l");
        story.hear(Claim::Settings(ObjectKind::Endpoints, Some(ClusterSettings::default())));
        story.hear(Claim::Pods(vec![
            pod("l", "primary", "running"),
            pod("m", "replica", "running"),
        ]));
        story.hear(Claim::Report("l".into(), Ok(report(Role::Primary, "running", 2))));
        story
    }

    fn hear(&mut self, claim: Claim) {
        self.view.record(Observation { at: self.now, claim });
    }

    fn lock(&mut self, holder: &str) {
        let lock = Lock {
            holder: Some(holder.into()),
            ttl: TTL,
            renewal: [None, Some(format!("{:?}", self.now)), None],
            written: None,
            renewed: None,
        };
        self.hear(Claim::Lock(ObjectKind::Endpoints, Some(lock)));
    }

    fn pod(&mut self, pod: Pod) {
        self.hear(Claim::Pod(pod));
    }

    fn report(&mut self, member: &str, report: Report) {
        self.hear(Claim::Report(member.into(), Ok(report)));
    }

    fn silent(&mut self, member: &str) {
        self.hear(Claim::Report(
            member.into(),
            Err(NoReport::Unreachable("no answer within 1 s".into())),
        ));
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    fn route(&self, kind: RouteKind) -> Fitness {
        fit(&self.view, &self.primary, &Conditions { kind }, self.now)
    }

    /// Returns what a route makes of a member: the treatment, and the rule.
    fn of(&self, kind: RouteKind, member: &str) -> String {
        let fitness = self.route(kind);
        let Some(judged) = fitness.members.iter().find(|judged| judged.member == member) else {
            return "gone".to_owned();
        };
        match &judged.verdict {
            Verdict::Fit(rank) => format!("fit {rank}, rule {}", judged.rule),
            Verdict::Closed(why) => format!("closed, rule {}: {why}", judged.rule),
            Verdict::Out(why) => format!("out, rule {}: {why}", judged.rule),
        }
    }
}

fn leader(name: &str) -> Leader {
    Leader {
        member: name.into(),
        address: Address::new(name, 5432).unwrap(),
        timeline: Some(2),
    }
}

fn pod(name: &str, role: &str, state: &str) -> Pod {
    Pod {
        name: name.into(),
        address: Ok(Address::new(name, 5432).unwrap()),
        api_url: BaseUrl::parse(&format!("http://{name}:8008")).ok(),
        role: Some(role.into()),
        state: Some(state.into()),
        timeline: Some(2),
        xlog_location: None,
        tags: Tags::default(),
        citus_group: None,
    }
}

fn report(role: Role, state: &str, timeline: u32) -> Report {
    Report {
        holds_lock: role == Role::Primary,
        role,
        state: state.into(),
        timeline: Some(timeline),
        system: Some("7".into()),
        scope: None,
        names_member: true,
        paused: false,
        failsafe_active: false,
    }
}

/// A row: what happens, and what becomes of m on a route to replicas and on one for reads.
type Row = (&'static str, fn(&mut Story), &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("m is a running replica", |_| {}, "fit 0, rule 11", "fit 0, rule 11"),
    ("its REST API does not answer, for an hour", |s| { s.silent("m"); s.wait(120 * TTL); }, "fit 0, rule 11", "fit 0, rule 11"),
    ("the Kubernetes API does not answer", |s| s.hear(Claim::ApiUnreachable(ObjectKind::Endpoints, "timeout".into())), "fit 0, rule 11", "fit 0, rule 11"),
    ("the proxy could not reach it", |s| s.hear(Claim::LeaderFailure("m".into())), "fit 8, rule 11", "fit 8, rule 11"),
    ("the proxy could not reach it a while ago", |s| { s.hear(Claim::LeaderFailure("m".into())); s.wait(AVOIDED_FOR); }, "fit 0, rule 11", "fit 0, rule 11"),
    ("its pod is gone", |s| s.hear(Claim::PodGone("m".into())), "gone", "gone"),
    ("its pod has no address", |s| s.hear(no_address()), "closed, rule 1", "closed, rule 1"),
    ("it is promoted, and clients of the primary go to it", |s| { s.lock("m"); s.report("m", report(Role::Primary, "running", 3)); s.primary = RoutingState::Route(leader("m")); }, "out, rule 3: is the primary", "fit 0, rule 3"),
    ("it is the primary, and a switchover is announced", |s| s.primary = RoutingState::Hold(Some(leader("m"))), "out, rule 3", "closed, rule 3"),
    ("the lock has moved to it, and it is still in recovery", |s| { s.lock("m"); s.primary = RoutingState::Hold(None); }, "closed, rule 5: holds the leader lock", "closed, rule 5"),
    ("it says primary, and the lock is another's", |s| s.report("m", report(Role::Primary, "running", 2)), "out, rule 4", "out, rule 4"),
    ("it was the primary until its lock expired", |s| { s.pod(pod("m", "primary", "running")); s.lock("m"); s.primary = RoutingState::Fence; }, "out, rule 4", "out, rule 4"),
    ("it is demoted and starts", |s| s.pod(pod("m", "demoted", "starting")), "out, rule 7: is not running (state starting)", "out, rule 7"),
    ("its PostgreSQL has crashed", |s| s.pod(pod("m", "replica", "crashed")), "out, rule 7: is not running (state crashed)", "out, rule 7"),
    ("it says crashed, and its pod not yet", |s| s.report("m", report(Role::Replica, "crashed", 2)), "out, rule 7", "out, rule 7"),
    ("it is copied from the leader", |s| s.pod(pod("m", "uninitialized", "creating replica")), "out, rule 7", "out, rule 7"),
    ("it is demoted and runs", |s| s.pod(pod("m", "demoted", "running")), "out, rule 8: is no replica (role demoted)", "out, rule 8"),
    ("it leads a standby cluster", |s| { s.lock("m"); s.pod(pod("m", "standby_leader", "running")); s.primary = RoutingState::Hold(None); }, "out, rule 8", "fit 0, rule 11"),
    ("the leader was just promoted to timeline 3", |s| s.report("l", report(Role::Primary, "running", 3)), "fit 0, rule 11", "fit 0, rule 11"),
    ("it has not followed the leader to timeline 3 for a ttl", |s| { s.report("l", report(Role::Primary, "running", 3)); s.wait(TTL); }, "out, rule 9: is on timeline 2, and the leader has been on timeline 3", "out, rule 9"),
    ("an operator has set noloadbalance", |s| s.pod(tagged("noloadbalance", "true")), "closed, rule 10", "closed, rule 10"),
    ("noloadbalance is off", |s| s.pod(tagged("noloadbalance", "false")), "fit 0, rule 11", "fit 0, rule 11"),
    ("its pod has no status yet", |s| s.pod(Pod { role: None, state: None, ..pod("m", "", "") }), "closed, rule 6", "closed, rule 6"),
];

fn tagged(name: &str, value: &str) -> Pod {
    Pod {
        tags: [(name.to_owned(), value.to_owned())].into_iter().collect(),
        ..pod("m", "replica", "running")
    }
}

fn no_address() -> Claim {
    let address = crate::leader::UnknownAddress::NotInPod("m".into());
    Claim::Pod(Pod {
        address: Err(address),
        ..pod("m", "replica", "running")
    })
}

#[test]
fn each_row_of_the_table_holds() {
    for (what, happens, replica, read_only) in ROWS {
        let mut story = Story::healthy();
        story.wait(Duration::from_secs(1));
        happens(&mut story);
        for (kind, expected) in [(RouteKind::Replica, replica), (RouteKind::ReadOnly, read_only)] {
            let found = story.of(kind, "m");
            assert!(
                found.starts_with(expected),
                "{what}; {kind}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn every_rule_has_a_row() {
    for rule in 1..=RULES.len() + 1 {
        let named = |(_, _, replica, read_only): &Row| {
            [replica, read_only].iter().any(|text| {
                text.split([':', '—'])
                    .next()
                    .is_some_and(|head| head.ends_with(&format!("rule {rule}")))
            })
        };
        // Rule 2 is in `another_cluster_answers_at_its_address`.
        assert!(rule == 2 || ROWS.iter().any(named), "rule {rule}");
    }
}

#[test]
fn another_cluster_answers_at_its_address() {
    let mut story = Story::healthy();
    let theirs = Report {
        system: Some("8".into()),
        ..report(Role::Replica, "running", 2)
    };
    story.report("m", theirs);
    assert!(
        story.of(RouteKind::Replica, "m").starts_with("closed, rule 2"),
        "{}",
        story.of(RouteKind::Replica, "m")
    );
}

#[test]
fn the_leader_takes_reads_beside_replicas_and_not_in_their_place() {
    let story = Story::healthy();
    assert_eq!(story.of(RouteKind::ReadOnly, "l"), "fit 0, rule 3");
    assert!(story.of(RouteKind::Replica, "l").starts_with("out, rule 3"));
    assert_eq!(
        story.route(RouteKind::Replica).why(RouteKind::Replica),
        "fit for the route replica: m"
    );
}

#[test]
fn what_time_alone_changes_is_decided_again_at_that_time() {
    let mut story = Story::healthy();
    story.hear(Claim::LeaderFailure("m".into()));
    assert_eq!(
        story.route(RouteKind::Replica).recheck_at,
        Some(story.begin + AVOIDED_FOR)
    );
    story.wait(AVOIDED_FOR);
    assert_eq!(
        story.route(RouteKind::Replica).recheck_at,
        Some(story.begin + TTL),
        "the ttl since the timeline was seen"
    );
    story.wait(TTL);
    assert_eq!(story.route(RouteKind::Replica).recheck_at, None);
}

#[test]
fn without_a_member_the_reason_says_so() {
    let mut story = Story::healthy();
    story.hear(Claim::Pods(Vec::new()));
    let why = story.route(RouteKind::Replica).why(RouteKind::Replica);
    assert_eq!(why, "no member is fit for the route replica: no member is known");
}

#[test]
fn the_documents_have_the_rules_in_this_order() {
    let page = include_str!("../../../docs/concepts/routes.md");
    let titles = RULES.iter().map(|(title, _)| *title).chain([LAST_RULE]);
    for (number, title) in (1..).zip(titles) {
        let row = format!("| {number} | {title}");
        assert!(page.contains(&row), "docs/concepts/routes.md has no row {row:?}");
    }
}
