//! The rules of fitness as rows: the facts about member m, and the outcome for m on routes. The leader is l.

use std::time::{Duration, Instant};

use super::{AVOIDED_FOR, Fitness, LAG_LIFE, LAST_RULE, Outcome, RULES, fit};
use crate::leader::observation::{
    Claim, ClusterSettings, DcsStatus, Lock, NoReport, ObjectKind, Observation, Replication, Report, Role, Standby,
    Tags,
};
use crate::leader::synchronous::SyncState;
use crate::leader::view::View;
use crate::leader::{Address, BaseUrl, RoutingState, Server};
use crate::route::{Conditions, RouteKind, Upstream};

/// The default ttl of the lock.
const TTL: Duration = Duration::from_secs(30);

/// A story about a cluster in Kubernetes: l leads, m is a running replica, and both are on timeline 2.
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
        story.hear(Claim::DcsStatuses(vec![
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

    fn pod(&mut self, pod: DcsStatus) {
        self.hear(Claim::DcsStatus(pod));
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
        self.under(&Conditions::of(kind))
    }

    fn under(&self, conditions: &Conditions) -> Fitness {
        self.at(conditions, Upstream::Postgres)
    }

    fn at(&self, conditions: &Conditions, upstream: Upstream) -> Fitness {
        fit(&self.view, &self.primary, conditions, upstream, self.now)
    }

    /// Returns the outcome for a member on a route, and the rule that decided.
    fn of(&self, kind: RouteKind, member: &str) -> String {
        self.of_under(&Conditions::of(kind), member)
    }

    fn of_under(&self, conditions: &Conditions, member: &str) -> String {
        let fitness = self.under(conditions);
        let Some(judged) = fitness.members.iter().find(|judged| judged.member == member) else {
            return "gone".to_owned();
        };
        match &judged.outcome {
            Outcome::Fit(rank) => format!("fit {rank}, rule {}", judged.rule),
            Outcome::Closed(why) => format!("closed, rule {}: {why}", judged.rule),
            Outcome::Out(why) => format!("out, rule {}: {why}", judged.rule),
        }
    }
}

fn leader(name: &str) -> Server {
    Server {
        member: name.into(),
        address: Address::new(name, 5432).unwrap(),
        timeline: Some(2),
    }
}

fn pod(name: &str, role: &str, state: &str) -> DcsStatus {
    DcsStatus {
        name: name.into(),
        address: Ok(Address::new(name, 5432).unwrap()),
        proxy_address: None,
        api_url: BaseUrl::parse(&format!("http://{name}:8008")).ok(),
        role: Some(role.into()),
        state: Some(state.into()),
        timeline: Some(2),
        xlog_location: None,
        tags: Tags::default(),
        replication: Replication::default(),
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
        replication: Replication::default(),
    }
}

/// A row: the title, the events, and the outcome for m on a route to replicas and on a read-only route.
type Row = (&'static str, fn(&mut Story), &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("m is a running replica", |_| {}, "fit 0, rule 17", "fit 0, rule 17"),
    ("its REST API does not answer, for an hour", |s| { s.silent("m"); s.wait(120 * TTL); }, "fit 0, rule 17", "fit 0, rule 17"),
    ("the Kubernetes API does not answer", |s| s.hear(Claim::ApiUnreachable(ObjectKind::Endpoints, "timeout".into())), "fit 0, rule 17", "fit 0, rule 17"),
    ("the proxy could not reach it", |s| s.hear(Claim::LeaderFailure("m".into())), "fit 8, rule 17", "fit 8, rule 17"),
    ("the proxy could not reach it a while ago", |s| { s.hear(Claim::LeaderFailure("m".into())); s.wait(AVOIDED_FOR); }, "fit 0, rule 17", "fit 0, rule 17"),
    ("its pod is gone", |s| s.hear(Claim::DcsStatusGone("m".into())), "gone", "gone"),
    ("its pod has no address", |s| s.hear(no_address()), "closed, rule 1", "closed, rule 1"),
    ("it is promoted, and clients of the primary go to it", |s| { s.lock("m"); s.report("m", report(Role::Primary, "running", 3)); s.primary = RoutingState::Route(leader("m")); }, "out, rule 3: is the primary", "fit 0, rule 3"),
    ("it is the primary, and a switchover is announced", |s| s.primary = RoutingState::Hold(Some(leader("m"))), "out, rule 3", "closed, rule 3"),
    ("the lock has moved to it, and it is still in recovery", |s| { s.lock("m"); s.primary = RoutingState::Hold(None); }, "closed, rule 6: holds the leader lock", "closed, rule 6"),
    ("it says primary, and another member holds the lock", |s| s.report("m", report(Role::Primary, "running", 2)), "out, rule 4", "out, rule 4"),
    ("it was the primary until its lock expired", |s| { s.pod(pod("m", "primary", "running")); s.lock("m"); s.primary = RoutingState::Fence; }, "out, rule 4", "out, rule 4"),
    ("it is demoted and starts", |s| s.pod(pod("m", "demoted", "starting")), "out, rule 8: is not running (state starting)", "out, rule 8"),
    ("its PostgreSQL has crashed", |s| s.pod(pod("m", "replica", "crashed")), "out, rule 8: is not running (state crashed)", "out, rule 8"),
    ("it says crashed, and its pod does not yet", |s| s.report("m", report(Role::Replica, "crashed", 2)), "out, rule 8", "out, rule 8"),
    ("it is copied from the leader", |s| s.pod(pod("m", "uninitialized", "creating replica")), "out, rule 8", "out, rule 8"),
    ("it is demoted and runs", |s| s.pod(pod("m", "demoted", "running")), "out, rule 9: is not a replica (role demoted)", "out, rule 9"),
    ("it leads a standby cluster", |s| { s.lock("m"); s.pod(pod("m", "standby_leader", "running")); s.primary = RoutingState::Hold(None); }, "out, rule 9", "fit 0, rule 17"),
    ("the leader was just promoted to timeline 3", |s| s.report("l", report(Role::Primary, "running", 3)), "fit 0, rule 17", "fit 0, rule 17"),
    ("it has not followed the leader to timeline 3 for a ttl", |s| { s.report("l", report(Role::Primary, "running", 3)); s.wait(TTL); }, "out, rule 10: is on timeline 2, and the leader has been on timeline 3", "out, rule 10"),
    ("an operator has set noloadbalance", |s| s.pod(tagged("noloadbalance", "true")), "closed, rule 11", "closed, rule 11"),
    ("noloadbalance is off", |s| s.pod(tagged("noloadbalance", "false")), "fit 0, rule 17", "fit 0, rule 17"),
    ("its pod has no status yet", |s| s.pod(DcsStatus { role: None, state: None, ..pod("m", "", "") }), "closed, rule 7", "closed, rule 7"),
];

#[test]
fn a_pooler_that_could_not_be_reached_is_avoided_on_routes_to_it_alone() {
    let mut story = Story::healthy();
    story.hear(Claim::PoolerFailure("m".into(), Upstream::Port(6432)));
    for (target, rank) in [
        (Upstream::Port(6432), 8),
        (Upstream::Postgres, 0),
        (Upstream::Port(6433), 0),
    ] {
        let fitness = story.at(&Conditions::of(RouteKind::Replica), target);
        assert_eq!(fitness.members[1].outcome, Outcome::Fit(rank), "{target}");
    }
    story.wait(AVOIDED_FOR);
    let fitness = story.at(&Conditions::of(RouteKind::Replica), Upstream::Port(6432));
    assert_eq!(fitness.members[1].outcome, Outcome::Fit(0));
}

#[test]
fn a_member_needs_an_address_at_the_target_of_the_route() {
    let mut story = Story::healthy();
    let pooler = Address::new("m", 6432).unwrap();
    story.pod(DcsStatus {
        proxy_address: Some(Ok(pooler)),
        ..pod("m", "replica", "running")
    });
    for (target, address_of_m, outcome_of_l) in [
        (Upstream::Postgres, "m:5432", "fit"),
        (Upstream::Port(7000), "m:7000", "fit"),
        // l has not published a proxy_url.
        (Upstream::Proxy, "m:6432", "closed"),
    ] {
        let fitness = story.at(&Conditions::of(RouteKind::ReadOnly), target);
        let [l, m] = &fitness.members[..] else {
            panic!("{fitness:?}")
        };
        let address = m.server.as_ref().map(|server| server.address.to_string());
        assert_eq!(address.as_deref(), Some(address_of_m), "{target}");
        assert!(matches!(m.outcome, Outcome::Fit(0)), "{target}: {m:?}");
        let outcome = match &l.outcome {
            Outcome::Fit(_) => "fit",
            Outcome::Closed(_) => "closed",
            Outcome::Out(_) => "out",
        };
        assert_eq!(outcome, outcome_of_l, "{target}: {l:?}");
    }
}

fn tagged(name: &str, value: &str) -> DcsStatus {
    DcsStatus {
        tags: [(name.to_owned(), value.to_owned())].into_iter().collect(),
        ..pod("m", "replica", "running")
    }
}

fn no_address() -> Claim {
    let address = crate::leader::UnknownAddress::NotInPod("m".into());
    Claim::DcsStatus(DcsStatus {
        address: Err(address),
        ..pod("m", "replica", "running")
    })
}

/// A row: the title, the route's conditions, the events, and the outcome for m.
type KeyRow = (&'static str, fn(&mut Conditions), fn(&mut Story), &'static str);

const MB: u64 = 1 << 20;

#[rustfmt::skip]
const KEY_ROWS: &[KeyRow] = &[
    ("no position of m is known", |c| c.max_lag = Some(16 * MB), |s| s.leads_at(100), "closed, rule 15: has an unknown lag"),
    ("no position of the leader is known", |c| c.max_lag = Some(16 * MB), |s| s.replays(100), "closed, rule 15"),
    ("m is as far as allowed", |c| c.max_lag = Some(16 * MB), |s| { s.leads_at(100); s.replays(84); }, "fit 0, rule 17"),
    ("m is a byte further behind", |c| c.max_lag = Some(16 * MB - 1), |s| { s.leads_at(100); s.replays(84); }, "closed, rule 16: is more than 16777215B behind"),
    ("m lags, and lagging members are cut", |c| { c.max_lag = Some(8 * MB); c.cut_lagging = true; }, |s| { s.leads_at(100); s.replays(84); }, "out, rule 16: is more than 8MB behind"),
    ("the leader has written since m answered", |c| c.max_lag = Some(16 * MB), |s| { s.leads_at(100); s.replays(99); s.wait(SECOND); s.leads_at(190); }, "fit 0, rule 17"),
    ("m has not answered since, for long", |c| c.max_lag = Some(16 * MB), |s| { s.leads_at(100); s.replays(99); s.wait(SECOND); s.leads_at(190); s.wait(LAG_LIFE); }, "closed, rule 15"),
    ("m has not answered for long, and nothing was written", |c| c.max_lag = Some(16 * MB), |s| { s.leads_at(100); s.replays(99); s.wait(LAG_LIFE); s.leads_at(100); s.silent("m"); }, "fit 0, rule 17"),
    ("the leader has not answered for a ttl", |c| c.max_lag = Some(16 * MB), |s| { s.leads_at(100); s.replays(99); s.wait(TTL); }, "closed, rule 15"),
    ("m's pod reports its position", |c| c.max_lag = Some(16 * MB), |s| { s.leads_at(100); s.pod(replaying(90 * MB)); }, "fit 0, rule 17"),
    ("m reports that it streams", |c| c.streaming = true, |s| s.report("m", Report { replication: Replication { state: Some("streaming".into()), ..Replication::default() }, ..report(Role::Replica, "running", 2) }), "fit 0, rule 17"),
    ("the leader reports that m streams", |c| c.streaming = true, |s| s.report("l", Report { replication: Replication { streaming: vec!["m".into()], ..Replication::default() }, ..report(Role::Primary, "running", 2) }), "fit 0, rule 17"),
    ("m reads from the archive", |c| c.streaming = true, |_| {}, "closed, rule 14: does not stream"),
    ("m has the route's tag", |c| c.tags = one_tag("dc", "a"), |s| s.pod(tagged("dc", "a")), "fit 0, rule 17"),
    ("m has it with another value", |c| c.tags = one_tag("dc", "a"), |s| s.pod(tagged("dc", "b")), "closed, rule 12: does not have the tag dc=a"),
    ("m has a preferred tag", |c| c.prefer = one_tag("dc", "a"), |s| s.pod(tagged("dc", "a")), "fit 0, rule 17"),
    ("m lacks a preferred tag", |c| c.prefer = one_tag("dc", "a"), |_| {}, "fit 1, rule 17"),
    ("m is a synchronous standby", |c| c.kind = RouteKind::Sync, |s| s.is_standby(Standby::Sync), "fit 0, rule 17"),
    ("m is no longer a synchronous standby", |c| c.kind = RouteKind::Sync, |s| { s.is_standby(Standby::Sync); s.is_standby(Standby::Async); }, "out, rule 13: is not a synchronous standby"),
    ("m was a synchronous standby in its last answer", |c| c.kind = RouteKind::Sync, |s| { s.is_standby(Standby::Sync); s.silent("m"); s.wait(LAG_LIFE - SECOND); }, "fit 0, rule 17"),
    ("m was a synchronous standby, and has not answered for long", |c| c.kind = RouteKind::Sync, |s| { s.is_standby(Standby::Sync); s.silent("m"); s.wait(LAG_LIFE); }, "closed, rule 13: may or may not be a synchronous standby"),
    ("m is a standby of a quorum", |c| c.kind = RouteKind::Quorum, |s| s.is_standby(Standby::Quorum), "fit 0, rule 17"),
    ("m is asynchronous", |c| c.kind = RouteKind::Async, |s| s.is_standby(Standby::Async), "fit 0, rule 17"),
    ("m has become synchronous", |c| c.kind = RouteKind::Async, |s| s.is_standby(Standby::Sync), "closed, rule 13: is a synchronous standby"),
    ("the DCS says that m is a synchronous standby, and m not yet", |c| c.kind = RouteKind::Sync, |s| { s.is_standby(Standby::Async); s.record(Some(Standby::Sync), "m"); }, "fit 0, rule 17"),
    ("the DCS says that m is no longer a synchronous standby, and m not yet", |c| c.kind = RouteKind::Sync, |s| { s.is_standby(Standby::Sync); s.record(Some(Standby::Sync), "n"); }, "out, rule 13: is not a synchronous standby"),
    ("the DCS says that m is a standby of a quorum", |c| c.kind = RouteKind::Quorum, |s| s.record(Some(Standby::Quorum), "m,n"), "fit 0, rule 17"),
    ("the DCS says that another member is the synchronous standby", |c| c.kind = RouteKind::Async, |s| s.record(Some(Standby::Sync), "n"), "fit 0, rule 17"),
    ("synchronous_mode is off, and the record is not removed yet", |c| c.kind = RouteKind::Async, |s| s.record(None, "m"), "fit 0, rule 17"),
    ("the record was never read", |c| c.kind = RouteKind::Sync, |s| s.hear(Claim::Synchronous(ObjectKind::Endpoints, None)), "closed, rule 13: may or may not be a synchronous standby"),
    ("the record cannot be read, and m says that it is asynchronous", |c| c.kind = RouteKind::Sync, |s| { s.record(Some(Standby::Sync), "m"); s.hear(Claim::Synchronous(ObjectKind::Endpoints, None)); s.is_standby(Standby::Async); }, "out, rule 13"),
    ("the record cannot be read, and m has not reported its kind of standby", |c| c.kind = RouteKind::Sync, |s| { s.record(Some(Standby::Sync), "m"); s.hear(Claim::Synchronous(ObjectKind::Endpoints, None)); s.wait(LAG_LIFE - SECOND); }, "fit 0, rule 17"),
    ("the record has not been readable for long", |c| c.kind = RouteKind::Sync, |s| { s.record(Some(Standby::Sync), "m"); s.hear(Claim::Synchronous(ObjectKind::Endpoints, None)); s.wait(LAG_LIFE); }, "closed, rule 13: may or may not be a synchronous standby"),
    ("the Kubernetes API has not answered for long", |c| c.kind = RouteKind::Sync, |s| { s.record(Some(Standby::Sync), "m"); s.hear(Claim::ApiUnreachable(ObjectKind::Endpoints, "timeout".into())); s.wait(LAG_LIFE); }, "closed, rule 13: may or may not be a synchronous standby"),
    ("m is the primary, which may stand in", |c| c.fallback = true, |s| s.primary = RoutingState::Route(leader("m")), "fit 4, rule 3"),
    ("m is the primary, which stands in and is held", |c| c.fallback = true, |s| s.primary = RoutingState::Hold(Some(leader("m"))), "closed, rule 3"),
    ("m is the leader", |c| c.kind = RouteKind::Leader, |s| s.primary = RoutingState::Route(leader("m")), "fit 0, rule 3"),
    ("m is a replica", |c| c.kind = RouteKind::Leader, |_| {}, "out, rule 5: is not a running leader"),
    ("m leads a standby cluster", |c| c.kind = RouteKind::Leader, |s| { s.pod(pod("m", "standby_leader", "running")); s.primary = RoutingState::Hold(None); }, "fit 0, rule 5"),
    ("m leads a standby cluster, which the route is for", |c| c.kind = RouteKind::StandbyLeader, |s| { s.pod(pod("m", "standby_leader", "running")); s.primary = RoutingState::Hold(None); }, "fit 0, rule 5"),
    ("m's cluster is promoted", |c| c.kind = RouteKind::StandbyLeader, |s| s.primary = RoutingState::Route(leader("m")), "out, rule 3"),
];

const SECOND: Duration = Duration::from_secs(1);

impl Story {
    /// Records the leader's position, in MB.
    fn leads_at(&mut self, position: u64) {
        let replication = Replication {
            location: Some(position * MB),
            ..Replication::default()
        };
        let report = report(Role::Primary, "running", 2);
        self.report("l", Report { replication, ..report });
    }

    /// Records the position up to which m has replayed, in MB.
    fn replays(&mut self, position: u64) {
        let replication = Replication {
            replayed: Some(position * MB),
            ..Replication::default()
        };
        let report = report(Role::Replica, "running", 2);
        self.report("m", Report { replication, ..report });
    }

    /// Records the synchronous standbys in the DCS, with Patroni's setting `synchronous_mode`.
    fn record(&mut self, synchronous: Option<Standby>, standbys: &str) {
        let settings = ClusterSettings {
            synchronous,
            ..ClusterSettings::default()
        };
        self.hear(Claim::Settings(ObjectKind::Endpoints, Some(settings)));
        let state = SyncState::new(Some("l"), Some(standbys));
        self.hear(Claim::Synchronous(ObjectKind::Endpoints, Some(state)));
    }

    fn is_standby(&mut self, standby: Standby) {
        let replication = Replication {
            standby: Some(standby),
            ..Replication::default()
        };
        let report = report(Role::Replica, "running", 2);
        self.report("m", Report { replication, ..report });
    }
}

fn replaying(position: u64) -> DcsStatus {
    let replication = Replication {
        replayed: Some(position),
        ..Replication::default()
    };
    DcsStatus {
        replication,
        ..pod("m", "replica", "running")
    }
}

fn one_tag(name: &str, value: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), value.to_owned())]
}

#[test]
fn each_key_of_a_route_holds() {
    for (what, sets, happens, expected) in KEY_ROWS {
        let mut story = Story::healthy();
        story.wait(SECOND);
        happens(&mut story);
        let mut conditions = Conditions::of(RouteKind::Replica);
        sets(&mut conditions);
        let found = story.of_under(&conditions, "m");
        assert!(found.starts_with(expected), "{what}: {found}, expected {expected}");
    }
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
        let of_a_key = |(_, _, _, text): &KeyRow| {
            text.split(':')
                .next()
                .is_some_and(|head| head.ends_with(&format!("rule {rule}")))
        };
        assert!(
            rule == 2 || ROWS.iter().any(named) || KEY_ROWS.iter().any(of_a_key),
            "rule {rule}"
        );
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
fn a_record_that_cannot_be_read_is_decided_again_when_it_no_longer_counts() {
    let mut story = Story::healthy();
    story.wait(TTL);
    story.record(Some(Standby::Sync), "m");
    assert_eq!(story.route(RouteKind::Sync).recheck_at, None);
    story.hear(Claim::Synchronous(ObjectKind::Endpoints, None));
    let lost = story.now;
    assert_eq!(story.route(RouteKind::Sync).recheck_at, Some(lost + LAG_LIFE));
    assert_eq!(story.route(RouteKind::Replica).recheck_at, None);
}

#[test]
fn without_a_member_the_reason_says_so() {
    let mut story = Story::healthy();
    story.hear(Claim::DcsStatuses(Vec::new()));
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
