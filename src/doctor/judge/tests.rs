//! Tables of defects, each with the line that must report it.

mod sources;

use std::time::{Duration, SystemTime};

use super::*;
use crate::config::{Job, Settings};
use crate::discovery::patroni::TlsProblem;
use crate::doctor::check::Level;
use crate::doctor::facts::{
    Capacity, Config, EtcdFacts, EtcdFailure, Greeting, LeaderObject, Member, MemberServer, Publisher, Renewal, Rest,
    RestFailure, Seed, Service,
};
use crate::leader::observation::{ClusterSettings, Lock, ObjectKind, Replication, Report, Role, Standby};
use crate::leader::{Address, BaseUrl, MemberName};
use crate::route::Upstream;

fn url(text: &str) -> BaseUrl {
    BaseUrl::parse(text).unwrap()
}

fn settings(flags: &str) -> Doctor {
    let line = format!("pgnorth doctor --scope demo {flags}");
    match Settings::read(line.split_whitespace().map(Into::into), |_| None)
        .unwrap()
        .job
    {
        Job::Doctor(doctor) => doctor,
        other => panic!("{other:?}"),
    }
}

fn lock(holder: Option<&str>, written: u64) -> LeaderObject {
    let lock = Lock {
        holder: holder.map(MemberName::from),
        ttl: Duration::from_secs(30),
        renewal: [None, Some(written.to_string()), None],
        written: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(written)),
        renewed: None,
    };
    LeaderObject::Lock(lock, None)
}

fn report(role: Role, timeline: u32) -> Report {
    Report {
        holds_lock: role == Role::Primary,
        role,
        state: "running".into(),
        timeline: Some(timeline),
        system: Some("7".into()),
        scope: Some("demo".into()),
        names_member: true,
        paused: false,
        failsafe_active: false,
        replication: Replication::default(),
    }
}

fn server(upstream: Upstream, port: u16) -> MemberServer {
    MemberServer {
        upstream,
        address: Ok(Address::new("10.0.0.7", port).unwrap()),
        greeting: Ok(Greeting::Tls),
    }
}

fn member(name: &str, role: Role) -> Member {
    Member {
        name: name.into(),
        servers: vec![server(Upstream::Postgres, 5432)],
        malformed: None,
        rest: Rest::Answered {
            url: url(&format!("http://{name}:8008")),
            report: report(role, 3),
        },
    }
}

fn silent(tls: Option<TlsProblem>) -> Rest {
    Rest::Failed {
        url: url("https://demo-0:8008"),
        failure: RestFailure {
            why: "the words of the error".into(),
            tls,
        },
    }
}

fn service(name: &str, has_selector: bool, has_patroni_endpoints: bool) -> Service {
    Service {
        name: name.into(),
        has_selector,
        has_patroni_endpoints,
    }
}

/// Returns a cluster without defects: demo-0 leads with the lock in Endpoints, and demo-1 follows.
fn healthy(settings: &Doctor) -> Facts {
    let api = Api {
        namespace: "db".into(),
        scope: "demo".into(),
        selector: "cluster-name=demo".into(),
        version: Ok("v1.33.0".into()),
        rights: rights::needed(settings)
            .into_iter()
            .map(|right| (right, Ok(true)))
            .collect(),
        leaders: vec![
            (ObjectKind::Endpoints, Ok(lock(Some("demo-0"), 5))),
            (ObjectKind::ConfigMap, Ok(LeaderObject::Absent)),
        ],
        scopes: Vec::new(),
        config: Ok(Some(Config {
            settings: ClusterSettings {
                paused: false,
                ..ClusterSettings::default()
            },
            loop_wait: Some(Duration::from_secs(10)),
            failsafe: false,
        })),
        renewal: Ok(Renewal::Renewed {
            after: Duration::from_secs(4),
            ahead: Some(0.1),
        }),
        pods: Ok(vec!["demo-0".into(), "demo-1".into()]),
        holder_labels: None,
        services: Ok(vec![
            service("demo", false, true),
            service("postgres-primary", true, false),
        ]),
        published: None,
        ahead: Ok(-0.2),
    };
    Facts {
        api: Some(Ok(api)),
        etcd: None,
        seeds: Vec::new(),
        members: vec![member("demo-0", Role::Primary), member("demo-1", Role::Other)],
        tls_files: None,
        admin_token: Some(Ok(())),
        refusal_certificate: Some(Ok(())),
        publisher: None,
        capacity: Capacity {
            sessions: 100_000,
            files: 1_000_000,
            ports: Some(28_232),
        },
    }
}

fn api(facts: &mut Facts) -> &mut Api {
    facts.api.as_mut().unwrap().as_mut().unwrap()
}

/// Takes away the right with this title, such as `get endpoints`.
fn take(facts: &mut Facts, title: &str) {
    let mut taken = 0;
    for (right, result) in &mut api(facts).rights {
        if format!("{} {}", right.verb, right.resource) == title {
            *result = Ok(false);
            taken += 1;
        }
    }
    assert_eq!(taken, 1, "{title}");
}

/// Moves the lock to ConfigMaps. The Endpoints with the scope's name are then not Patroni's.
fn in_config_maps(facts: &mut Facts) {
    let api = api(facts);
    api.leaders[0].1 = Ok(LeaderObject::Foreign);
    api.leaders[1].1 = Ok(lock(Some("demo-0"), 5));
}

#[test]
fn a_healthy_cluster_is_ok_in_every_line() {
    for flags in ["", "--service postgres-primary --endpoints --lease pgnorth-publish"] {
        let settings = settings(flags);
        let mut facts = healthy(&settings);
        if !flags.is_empty() {
            api(&mut facts).published = Some(("postgres-primary".into(), Ok(())));
        }
        let checks = everything(&settings, &facts);
        assert!(checks.len() >= 14, "{checks:#?}");
        let titles: std::collections::BTreeSet<_> = checks.iter().map(|check| &check.what).collect();
        assert_eq!(titles.len(), checks.len(), "a check is listed twice: {checks:#?}");
        for check in checks {
            assert_eq!(check.level, Level::Ok, "{check}");
            assert_eq!(check.fix, None, "{check}");
        }
    }
}

type Row = (&'static str, fn(&mut Facts), Level, &'static str);

/// Name, defect, level, and a part of the only line that is not ok.
#[rustfmt::skip]
const ROWS: [Row; 51] = [
    ("a right of the lock's kind: get", |f| take(f, "get endpoints"), Level::Fail, "right to get endpoints — not granted in namespace db: an overdue renewal of the lock counts as an unreachable API, so a fence may come late"),
    ("a right of the lock's kind: list", |f| take(f, "list endpoints"), Level::Fail, "grant verb list on endpoints"),
    ("list of pods", |f| take(f, "list pods"), Level::Fail, "every client is held"),
    ("watch of pods", |f| take(f, "watch pods"), Level::Warn, "twice a second"),
    ("rights unknown", |f| api(f).rights[0].1 = Err("it broke".into()), Level::Warn, "right to get endpoints — not checked: it broke"),
    ("no leader object", |f| { api(f).leaders[0].1 = Ok(LeaderObject::Absent); api(f).scopes = vec!["other".into()] }, Level::Fail, "there is neither endpoints db/demo nor configmap db/demo-leader — --scope must be Patroni's scope; leader objects in namespace db have the scopes: other"),
    ("no leader object of any scope", |f| api(f).leaders[0].1 = Ok(LeaderObject::Absent), Level::Fail, "use --etcd (etcd) or --patroni (Consul, ZooKeeper) instead"),
    ("Endpoints that are not Patroni's", |f| api(f).leaders[0].1 = Ok(LeaderObject::Foreign), Level::Fail, "endpoints db/demo exists, but without Patroni's annotations"),
    ("a released lock", |f| api(f).leaders[0].1 = Ok(lock(None, 5)), Level::Fail, "no member holds the lock"),
    ("both kinds", |f| api(f).leaders[1].1 = Ok(lock(Some("demo-9"), 4)), Level::Warn, "both kinds have a lock"),
    ("one kind forbidden", |f| api(f).leaders[1].1 = Err("it is forbidden".into()), Level::Warn, "leader object, configmap db/demo-leader — not checked: it is forbidden"),
    ("an odd ttl", |f| if let Ok(LeaderObject::Lock(_, problem)) = &mut api(f).leaders[0].1 { *problem = Some("annotation `ttl` is odd".into()) }, Level::Warn, "annotation `ttl` is odd"),
    ("no renewal", |f| api(f).renewal = Ok(Renewal::Missing(Duration::from_secs(13))), Level::Fail, "lock is renewed — no renewal within 13s (Patroni's loop_wait and a few seconds) — check Patroni on demo-0"),
    ("no watch", |f| api(f).renewal = Err("its watch failed".into()), Level::Warn, "lock is renewed — not checked: its watch failed"),
    ("pause", |f| if let Ok(Some(config)) = &mut api(f).config { config.settings.paused = true }, Level::Warn, "patronictl resume"),
    ("a standby cluster", |f| if let Ok(Some(config)) = &mut api(f).config { config.settings.standby_cluster = true }, Level::Fail, "accepts no writes"),
    ("failsafe mode, and no --patroni", failsafe, Level::Warn, "--patroni http://demo-0:8008,http://demo-1:8008"),
    ("no configuration", |f| api(f).config = Ok(None), Level::Warn, "no object demo-config has it"),
    ("configuration forbidden", |f| api(f).config = Err("it is forbidden".into()), Level::Warn, "Patroni's configuration — not checked: it is forbidden"),
    ("no pods", |f| api(f).pods = Ok(Vec::new()), Level::Fail, "0 pods in namespace db with cluster-name=demo; demo-0, which holds the lock, is not among them"),
    ("another selector", |f| { api(f).pods = Ok(vec!["x-0".into()]); api(f).holder_labels = Some([("app", "pg"), ("cluster", "demo")].map(|(l, v)| (l.into(), v.into())).into()) }, Level::Fail, "--selector cluster=demo"),
    ("another selector, no label with the scope", |f| { api(f).pods = Ok(vec![]); api(f).holder_labels = Some([("app", "pg"), ("no", "1")].map(|(l, v)| (l.into(), v.into())).into()) }, Level::Fail, "the labels of demo-0: app=pg,no=1"),
    ("pods forbidden", |f| api(f).pods = Err("it is forbidden".into()), Level::Warn, "pods — not checked: it is forbidden"),
    ("a Service named like the scope", |f| api(f).services = Ok(vec![service("demo", true, false)]), Level::Fail, "service db/demo — it has a selector, and Patroni keeps its lock in the Endpoints with the same name"),
    ("a Service with Patroni's Endpoints", |f| api(f).services = Ok(vec![service("other", true, true)]), Level::Warn, "service db/other — it has a selector, and Patroni may keep its state in the Endpoints with the same name"),
    ("a Service named like the configuration", |f| api(f).services = Ok(vec![service("demo-config", true, false)]), Level::Fail, "keeps its configuration"),
    ("Services forbidden", |f| api(f).services = Err("it is forbidden".into()), Level::Warn, "names of Services — not checked: it is forbidden"),
    ("publish is refused", |f| api(f).published = Some(("p".into(), Err("it has two ports".into()))), Level::Fail, "service db/p — it has two ports"),
    ("the API's clock", |f| api(f).ahead = Ok(7.4), Level::Warn, "clock of the Kubernetes API — 7 s ahead of this host's"),
    ("the leader's clock", |f| api(f).renewal = Ok(Renewal::Renewed { after: Duration::ZERO, ahead: Some(-61.0) }), Level::Warn, "clock of demo-0 — 61 s behind this host's"),
    ("no date", |f| api(f).ahead = Err("its answers have no Date header".into()), Level::Warn, "not checked: its answers have no Date header"),
    ("TLS files", |f| f.tls_files = Some("/ca.crt: no such file".into()), Level::Fail, "TLS files — /ca.crt: no such file"),
    ("no token", |f| f.admin_token = Some(Err("/token: it is empty".into())), Level::Warn, "token for operator commands — /token: it is empty; operator commands are rejected"),
    ("no certificate for refusals", |f| f.refusal_certificate = Some(Err("/tls.crt: No such file".into())), Level::Fail, "certificate for refusals — /tls.crt: No such file; the proxy does not start"),
    ("the leader out of reach", |f| f.members[0].servers[0].greeting = Err("no answer within 1s".into()), Level::Fail, "demo-0, PostgreSQL — cannot connect to 10.0.0.7:5432: no answer within 1s; this is the leader"),
    ("a replica out of reach", |f| f.members[1].servers[0].greeting = Err("connection refused".into()), Level::Warn, "demo-1, PostgreSQL — cannot connect"),
    ("the leader's pooler out of reach", |f| { f.members[0].servers.push(server(Upstream::Port(6432), 6432)); f.members[0].servers[1].greeting = Err("connection refused".into()); }, Level::Fail, "demo-0, pooler at port 6432 — cannot connect to 10.0.0.7:6432: connection refused; this is the leader"),
    ("a pooler without an address", |f| { f.members[1].servers.push(server(Upstream::Proxy, 6432)); f.members[1].servers[1].address = Err("member demo-1 has published no proxy_url".into()); }, Level::Warn, "demo-1, pooler at proxy_url — member demo-1 has published no proxy_url"),
    ("no PostgreSQL there", |f| f.members[0].servers[0].greeting = Ok(Greeting::Foreign), Level::Fail, "does not answer like PostgreSQL"),
    ("a bad conn_url", |f| f.members[1].servers[0].address = Err("pod demo-1: annotation `status` has a conn_url that is not a URL".into()), Level::Fail, "has a conn_url that is not a URL"),
    ("a bad api_url", |f| f.members[1].malformed = Some("annotation `status` has an api_url that is not a URL".into()), Level::Warn, "has an api_url that is not a URL"),
    ("the leader is not a primary", |f| f.members[0].rest = Rest::Answered { url: url("http://u:8008"), report: report(Role::Other, 3) }, Level::Fail, "this member holds the lock: clients are held"),
    ("another member is primary", |f| f.members[1].rest = Rest::Answered { url: url("http://u:8008"), report: report(Role::Primary, 3) }, Level::Fail, "http://u:8008 reports: primary, running, timeline 3, but demo-0 holds the lock"),
    ("a replica left behind", |f| f.members[1].rest = Rest::Answered { url: url("http://u:8008"), report: report(Role::Other, 2) }, Level::Warn, "but the leader is on timeline 3"),
    ("the bare scope of a Citus cluster", |f| { api(f).leaders[0].1 = Ok(LeaderObject::Absent); api(f).scopes = vec!["demo-1".into(), "demo-0".into(), "other-0".into()] }, Level::Fail, "add --citus-group with one of its groups (0, 1)"),
    ("a member's address is another cluster's", |f| f.members[1].rest = Rest::Answered { url: url("http://u:8008"), report: Report { scope: Some("zz".into()), ..report(Role::Primary, 3) } }, Level::Fail, "a different cluster answers there: its scope is zz, not demo"),
    ("the leader's address is another cluster's of the same scope", |f| { api(f).config.as_mut().unwrap().as_mut().unwrap().settings.system = Some("9".into()); f.members.truncate(1) }, Level::Fail, "its system identifier is 7, not 9"),
    ("another system", |f| f.members[1].rest = Rest::Answered { url: url("http://u:8008"), report: Report { system: Some("8".into()), ..report(Role::Other, 3) } }, Level::Fail, "system identifier 8 is not the leader's 7"),
    ("a replica that starts", |f| f.members[1].rest = Rest::Answered { url: url("http://u:8008"), report: Report { state: "starting".into(), ..report(Role::Other, 3) } }, Level::Warn, "cannot take over now"),
    ("a silent REST API", |f| f.members[0].rest = silent(None), Level::Fail, "gives no usable answer: the words of the error; this is the leader"),
    ("no api_url", |f| f.members[1].rest = Rest::NotAsked("the member has published no api_url".into()), Level::Warn, "not checked: the member has published no api_url"),
];

#[test]
fn a_limit_of_sessions_that_was_given_and_does_not_fit_is_a_warning() {
    let settings = settings("--max-sessions 10000");
    let mut facts = healthy(&settings);
    facts.capacity = Capacity {
        sessions: 400,
        files: 1024,
        ports: Some(5000),
    };
    let checks = everything(&settings, &facts);
    for part in [
        "a hard limit of 1024 open files here allows 400 sessions, not 10000",
        "5000 local ports for connections to one leader here, too few for 10000 sessions",
    ] {
        let check = checks.iter().find(|check| check.to_string().contains(part));
        assert_eq!(check.map(|check| check.level), Some(Level::Warn), "{part}");
    }
    let default = everything(&self::settings(""), &facts);
    for part in ["1024 open files here; 400 sessions fit", "; 5000 sessions fit"] {
        let check = default.iter().find(|check| check.to_string().contains(part));
        assert_eq!(check.map(|check| check.level), Some(Level::Ok), "{part}");
    }
}

fn failsafe(facts: &mut Facts) {
    if let Ok(Some(config)) = &mut api(facts).config {
        config.failsafe = true;
    }
}

#[test]
fn a_problem_fails_one_line_and_the_others_stay_ok() {
    let settings = settings("");
    for (name, broken, level, words) in ROWS {
        let mut facts = healthy(&settings);
        broken(&mut facts);
        let result: Vec<_> = everything(&settings, &facts)
            .into_iter()
            .filter(|check| check.level != Level::Ok)
            .collect();
        let fits = |check: &Check| check.level == level && check.to_string().contains(words);
        assert!(result.iter().any(fits), "{name}: {result:#?}");
        let not_checked = |check: &Check| check.found.starts_with("not checked: ");
        for check in result.iter().filter(|check| !fits(check)) {
            // Without a lock, its ttl is unknown, and no member is its holder.
            assert!(
                not_checked(check) || check.found.contains("no member holds the lock"),
                "{name}: {check}"
            );
        }
        for check in result {
            assert!(
                not_checked(&check) || check.fix.is_some_and(|fix| fix.len() > 10),
                "{name}: {}",
                check.what
            );
        }
    }
}

/// Regression: clients were refused at 30 s, just before a failover at Patroni's default ttl was over.
#[test]
fn the_default_hold_outlasts_a_failover_at_the_default_ttl() {
    let hold = settings("").proxy.hold;
    let check = lock::hold(hold, Some(Duration::from_secs(30)));
    assert_eq!((check.level, check.found.as_str()), (Level::Ok, "hold 1m, ttl 30s"));
}

#[test]
fn hold_against_ttl() {
    for (hold, ttl, level) in [
        (60, 30, Level::Ok),
        (35, 30, Level::Ok),
        (34, 30, Level::Warn),
        (30, 30, Level::Warn),
        (29, 30, Level::Fail),
        (0, 30, Level::Warn),
    ] {
        let check = lock::hold(Duration::from_secs(hold), Some(Duration::from_secs(ttl)));
        assert_eq!(check.level, level, "{check}");
        assert_eq!(
            check.fix.is_some_and(|fix| fix.contains("--hold 40s")),
            level != Level::Ok
        );
    }
    assert!(lock::hold(Duration::ZERO, None).found.starts_with("not checked"));
}

#[test]
fn a_route_without_a_member_that_suits_is_a_warning() {
    let route = |kind: &str| settings(&format!("--route [::]:5001={kind}"));
    let line = |kind: &str, facts: &Facts| {
        let settings = route(kind);
        let checks = everything(&settings, facts);
        let found = checks
            .iter()
            .find(|check| check.what == format!("route {kind} on [::]:5001"));
        found.map(|check| (check.level, check.found.clone()))
    };
    let mut facts = healthy(&settings(""));
    let is = |facts: &mut Facts, standby: Standby| {
        facts.members[1] = member("demo-1", Role::Replica);
        if let Rest::Answered { report, .. } = &mut facts.members[1].rest {
            report.replication.standby = Some(standby);
        }
    };
    assert_eq!(
        line("replica", &facts).unwrap().0,
        Level::Warn,
        "demo-1 is not a replica"
    );
    is(&mut facts, Standby::Async);
    assert_eq!(line("replica", &facts).unwrap(), (Level::Ok, "demo-1".to_owned()));
    assert_eq!(
        line("read-only", &facts).unwrap(),
        (Level::Ok, "demo-0, demo-1".to_owned())
    );
    assert_eq!(line("sync", &facts).unwrap().0, Level::Warn, "demo-1 is asynchronous");
    is(&mut facts, Standby::Sync);
    assert_eq!(line("sync", &facts).unwrap(), (Level::Ok, "demo-1".to_owned()));
    assert_eq!(line("async", &facts).unwrap().0, Level::Warn, "demo-1 is synchronous");
    assert_eq!(line("leader", &facts), None, "the checks of the lock say it");
}
