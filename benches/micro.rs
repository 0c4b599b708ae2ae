//! `cargo bench --bench micro`: the cost of each event and each session apart from moving bytes: the decision, parsing,
//! reading the slot.

use std::time::{Duration, Instant, SystemTime};

use divan::{Bencher, black_box};
use hyper::StatusCode;
use hyper::body::Bytes;
use pgnorth::discovery::kubernetes::annotations::{self, Annotations};
use pgnorth::discovery::patroni::Answer;
use pgnorth::discovery::patroni::answers::{read_cluster, read_report};
use pgnorth::leader::decide::{Decision, Policy, decide};
use pgnorth::leader::observation::{Claim, Lock, ObjectKind, Observation, Replication, Report, Role};
use pgnorth::leader::view::View;
use pgnorth::leader::{Address, BaseUrl, RoutingState, Server};
use pgnorth::slot::RouteSlot;
use serde_json::{Value, json};

const MEMBERS: [&str; 3] = ["demo-0", "demo-1", "demo-2"];
const TTL: Duration = Duration::from_secs(30);

fn base_url() -> BaseUrl {
    BaseUrl::parse("http://10.244.0.10:8008").expect("a URL")
}

fn main() {
    divan::main();
}

mod deciding {
    use super::*;

    /// The steady state with Kubernetes: the lock is fresh, and its holder reports that it is a primary.
    #[divan::bench]
    fn by_the_lock(bencher: Bencher) {
        let now = Instant::now();
        let mut view = with_reports(now);
        view.record(Observation {
            at: now,
            claim: Claim::Lock(ObjectKind::Endpoints, Some(lock())),
        });
        routes(bencher, &view, now);
    }

    /// The steady state without Kubernetes: three members answer, and the lock is not watched.
    #[divan::bench]
    fn by_reports_alone(bencher: Bencher) {
        let now = Instant::now();
        routes(bencher, &with_reports(now), now);
    }

    /// An event of a watch; most are renewals of the lock.
    #[divan::bench]
    fn recording_a_renewal(bencher: Bencher) {
        let now = Instant::now();
        let mut view = with_reports(now);
        let mut renewals = 0_u64;
        bencher.bench_local(|| {
            renewals += 1;
            let renewal = [None, Some(renewals.to_string()), None];
            view.record(Observation {
                at: now,
                claim: Claim::Lock(ObjectKind::Endpoints, Some(Lock { renewal, ..lock() })),
            });
        });
    }

    fn routes(bencher: Bencher, view: &View, now: Instant) {
        let policy = Policy {
            switchover_hold: Duration::from_secs(10),
            report_life: Duration::from_secs(3),
        };
        let current = leader();
        let decision = || -> Decision { decide(black_box(view), Some(black_box(&current)), now, &policy) };
        assert_eq!(decision().state.leader(), Some(&current), "{:?}", decision());
        bencher.bench(decision);
    }

    fn with_reports(now: Instant) -> View {
        let mut view = View::default();
        let (cluster, problems) = read_cluster(&base_url(), &cluster()).expect("a cluster");
        assert_eq!(problems, []);
        view.record(Observation {
            at: now,
            claim: Claim::Cluster(cluster),
        });
        for member in MEMBERS {
            let claim = Claim::Report(member.into(), Ok(said_by(member)));
            view.record(Observation { at: now, claim });
        }
        view
    }

    fn said_by(member: &str) -> Report {
        let leads = member == MEMBERS[0];
        Report {
            holds_lock: leads,
            role: if leads { Role::Primary } else { Role::Other },
            state: "running".into(),
            timeline: Some(7),
            system: Some("7440000000000000000".into()),
            scope: Some("demo".into()),
            names_member: true,
            paused: false,
            failsafe_active: false,
            replication: Replication::default(),
        }
    }

    fn lock() -> Lock {
        Lock {
            holder: Some(MEMBERS[0].into()),
            ttl: TTL,
            renewal: [None, None, None],
            written: None,
            renewed: None,
        }
    }
}

mod parsing {
    use super::*;

    #[divan::bench]
    fn primary(bencher: Bencher) {
        let answer = answer(&json!({
            "state": "running", "postmaster_start_time": "2026-11-20 08:17:30.309000+00:00", "role": "primary", "server_version": 150018,
            "xlog": {"location": 67108864}, "timeline": 7, "dcs_last_seen": 1795162649, "database_system_identifier": "7440000000000000000",
            "replication": [{"usename": "replicator", "application_name": "demo-1", "client_addr": "10.244.0.11", "state": "streaming",
                "sync_state": "async", "sync_priority": 0}],
            "patroni": {"version": "4.1.5", "scope": "demo", "name": "demo-0"},
        }));
        let member = MEMBERS[0].into();
        bencher.bench(|| read_report(&member, black_box(&answer)).expect("a report"));
    }

    #[divan::bench]
    fn a_cluster_of_three(bencher: Bencher) {
        let (url, answer) = (base_url(), cluster());
        bencher.bench(|| read_cluster(&url, black_box(&answer)).expect("a cluster"));
    }

    #[divan::bench]
    fn the_lock_of_an_object(bencher: Bencher) {
        let annotations = annotations(&[
            ("acquireTime", "2026-11-20T08:17:30.309000+00:00"),
            ("leader", MEMBERS[0]),
            ("optime", "67108864"),
            ("renewTime", "2026-11-20T08:18:30.309000+00:00"),
            ("transitions", "6"),
            ("ttl", "30"),
        ]);
        assert!(annotations::lock(&annotations).0.is_some());
        bencher.bench(|| annotations::lock(black_box(&annotations)));
    }

    #[divan::bench]
    fn the_status_of_a_pod(bencher: Bencher) {
        let status = json!({
            "conn_url": "postgres://10.244.0.10:5432/postgres", "api_url": "http://10.244.0.10:8008/patroni", "state": "running",
            "role": "primary", "version": "4.1.5", "xlog_location": 67108864, "timeline": 7,
        });
        let annotations = annotations(&[("status", &status.to_string())]);
        bencher.bench(|| annotations::dcs_status(MEMBERS[0], black_box(&annotations), Some("10.244.0.10")));
    }

    #[divan::bench]
    fn an_announced_switchover(bencher: Bencher) {
        let annotations = annotations(&[("leader", MEMBERS[0]), ("member", MEMBERS[1])]);
        let (now, wall) = (Instant::now(), SystemTime::now());
        bencher.bench(|| annotations::announcement(black_box(&annotations), now, wall));
    }

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }
}

mod slot {
    use super::*;

    /// Once for each session: the leader, and the signal that ends the session.
    #[divan::bench(threads = [1, 2])]
    fn taking_a_lease(bencher: Bencher) {
        let slot = routing();
        bencher.bench(|| slot.snapshot().target(&[]));
    }

    /// Reads the slot only, as the admin pages do.
    #[divan::bench(threads = [1, 2])]
    fn reading_the_term(bencher: Bencher) {
        let slot = routing();
        bencher.bench(|| slot.snapshot());
    }

    /// A change of leader with this number of sessions to end.
    #[divan::bench(args = [0, 100, 10_000])]
    fn a_change_of_leader(bencher: Bencher, sessions: usize) {
        let prepare = || {
            let slot = routing();
            let leases: Vec<_> = (0..sessions).filter_map(|_| slot.snapshot().target(&[])).collect();
            (slot, leases)
        };
        bencher.with_inputs(prepare).bench_local_values(|(slot, leases)| {
            let cut = slot.publish(RoutingState::Fence, "the lock expired".to_owned());
            (slot, leases, cut)
        });
    }

    fn routing() -> RouteSlot {
        let slot = RouteSlot::new("starting");
        let _none_before = slot.publish(RoutingState::Route(leader()), "demo-0 leads".to_owned());
        slot
    }
}

fn leader() -> Server {
    Server {
        member: MEMBERS[0].into(),
        address: Address::new("10.244.0.10", 5432).expect("an address"),
        timeline: Some(7),
    }
}

fn cluster() -> Answer {
    let members = MEMBERS.iter().zip(10..).map(|(name, host)| {
        json!({
            "name": name, "role": if *name == MEMBERS[0] { "leader" } else { "replica" }, "state": "running", "timeline": 7, "lag": 0,
            "api_url": format!("http://10.244.0.{host}:8008/patroni"), "host": format!("10.244.0.{host}"), "port": 5432,
        })
    });
    answer(&json!({"members": members.collect::<Vec<_>>(), "scope": "demo"}))
}

fn answer(body: &Value) -> Answer {
    Answer {
        status: StatusCode::OK,
        body: Bytes::from(body.to_string()),
    }
}
