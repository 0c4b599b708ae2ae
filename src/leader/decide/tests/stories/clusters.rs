//! Answers of several clusters. The followed cluster has scope "pg" and system identifier 7.

use super::*;
use crate::leader::identity::Identity;

impl Story {
    /// Does the same as [`Story::kubernetes`], with the scope in the settings.
    fn scope_named(mut self) -> Self {
        let known = std::mem::replace(&mut self.view, View::of(Some("pg".into()), None));
        let pods = known.members().map(|name| pod(name, "replica")).collect();
        self.observe(Claim::DcsStatuses(pods))
    }

    /// Records the report of a running primary that holds the lock of the cluster with this scope and system
    /// identifier.
    fn leads_in(self, member: &str, scope: &str, system: &str, timeline: u32) -> Self {
        self.answers_in(member, scope, system, report(Role::Primary, "running", timeline))
    }

    fn answers_in(self, member: &str, scope: &str, system: &str, report: Report) -> Self {
        let report = Report {
            scope: Some(scope.into()),
            system: Some(system.into()),
            ..report
        };
        self.observe(Claim::Report(member.into(), Ok(report)))
    }

    /// Records the same report from Patroni before 3.2, which does not send the member's name.
    fn leads_nameless(self, member: &str, scope: Option<&str>, system: Option<&str>) -> Self {
        let report = Report {
            scope: scope.map(str::to_owned),
            system: system.map(str::to_owned),
            names_member: false,
            ..report(Role::Primary, "running", 9)
        };
        self.observe(Claim::Report(member.into(), Ok(report)))
    }

    fn initialized(self, system: &str) -> Self {
        let settings = ClusterSettings {
            system: Some(system.into()),
            ..ClusterSettings::default()
        };
        let claim = Claim::Settings(self.kind, Some(settings));
        self.observe(claim)
    }

    fn seed(self, host: &str, scope: &str, system: &str) -> Self {
        let identity = Identity {
            scope: Some(scope.into()),
            system: Some(system.into()),
        };
        self.observe(Claim::Seed(api_url(host), Some(identity)))
    }

    fn cluster_of(self, scope: &str, system: &str, members: &[&str]) -> Self {
        self.observe(Claim::Cluster(Cluster {
            from: api_url(scope),
            scope: Some(scope.into()),
            system: Some(system.into()),
            ttl: Some(Duration::from_secs(TTL)),
            ..listing(members)
        }))
    }

    fn pod_of_group(self, member: &str, group: u32) -> Self {
        self.observe(Claim::DcsStatus(DcsStatus {
            citus_group: Some(group),
            ..pod(member, "primary")
        }))
    }

    fn in_endpoints(mut self) -> Self {
        self.kind = ObjectKind::Endpoints;
        self
    }
}

pub(super) const ANOTHER_CLUSTER: &[Row] = &[
    (
        23,
        "REST only, a is gone, the other cluster's primary answers → never routed to",
        || {
            Story::a_leads_by_report()
                .unreachable("a")
                .leads_in("b", "zz", "8", 7)
                .must_route("a")
                .after(20.0)
                .leads_in("b", "zz", "8", 7)
                .must_fence()
                .after(60.0)
                .leads_in("b", "zz", "8", 7)
                .must_hold_and_cut()
                .because("ANOTHER CLUSTER answers for b")
        },
    ),
    (
        16,
        "the same scope and another system identifier → another cluster as well",
        || {
            Story::a_leads_by_report()
                .leads_in("b", "pg", "8", 7)
                .must_route("a")
                .because("a says that it is a running primary")
        },
    ),
    (16, "a higher timeline of another cluster does not outdate ours", || {
        Story::a_leads_by_report()
            .leads_in("b", "zz", "8", 7)
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }),
    (
        16,
        "another cluster appears beside the followed one → it is ignored",
        || {
            Story::rest_only()
                .leads_in("a", "pg", "7", 1)
                .answers_in("b", "zz", "8", report(Role::Other, "running", 1))
                .seed("b", "zz", "8")
                .must_route("a")
                .because("a says that it is a running primary")
        },
    ),
    (
        16,
        "the seeds report two clusters before a member is asked → hold, and name both",
        || {
            Story::rest_only()
                .seed("a", "pg", "7")
                .seed("b", "zz", "8")
                .leads_in("a", "pg", "7", 1)
                .must_hold_and_cut()
                .because("scope \"pg\" with system identifier \"7\" and scope \"zz\" with system identifier \"8\"")
                .after(1.0)
                .seed("b", "pg", "7")
                .leads_in("a", "pg", "7", 1)
                .must_route("a")
        },
    ),
    (
        16,
        "the scope is named: the other cluster counts for nothing from the start",
        || {
            Story::rest_only()
                .scope_named()
                .seed("b", "zz", "8")
                .leads_in("b", "zz", "8", 7)
                .must_hold_and_cut()
                .because("ANOTHER CLUSTER")
                .leads_in("a", "pg", "7", 1)
                .must_route("a")
        },
    ),
    (
        13,
        "the scope is named, two system identifiers under it, no lock → hold",
        || {
            Story::rest_only()
                .scope_named()
                .answers_in("b", "pg", "8", report(Role::Other, "running", 1))
                .leads_in("a", "pg", "7", 1)
                .must_hold_and_cut()
                .because("SEVERAL CLUSTERS")
        },
    ),
    (
        12,
        "the lock's holder answers for another cluster → no new client is sent to it, its sessions stay",
        || {
            Story::a_leads()
                .leads_in("a", "zz", "8", 1)
                .must_hold_keeping("a")
                .because("ANOTHER CLUSTER")
                .leads_in("a", "pg", "7", 1)
                .must_route("a")
        },
    ),
    (
        12,
        "the lock moves to b, whose address another cluster's pod of the same names has → held",
        || {
            Story::a_leads()
                .initialized("7")
                .lock("b")
                .leads_in("b", "pg", "8", 1)
                .after(1.0)
                .lock("b")
                .leads_in("b", "pg", "8", 1)
                .must_hold_and_cut()
                .because("system identifier \"8\"")
                .leads_in("b", "pg", "7", 2)
                .must_route("b")
        },
    ),
    (
        12,
        "initialised again under our scope, and the member that reports it renews the watched lock → followed",
        || {
            Story::a_leads()
                .lock("b")
                .leads_in("b", "pg", "8", 1)
                .must_hold_and_cut()
                .after(3.0)
                .lock("b")
                .must_hold_and_cut()
                .leads_in("b", "pg", "8", 1)
                .must_route("b")
        },
    ),
    (10, "… a lock that is not renewed proves nothing", || {
        Story::a_leads()
            .lock("b")
            .leads_in("b", "pg", "8", 1)
            .after(3.0)
            .same_lock("b")
            .leads_in("b", "pg", "8", 1)
            .must_hold_and_cut()
    }),
    (
        12,
        "the config object has a new system identifier → followed, from its lock's holder on",
        || {
            Story::a_leads()
                .initialized("7")
                .initialized("8")
                .must_hold_keeping("a")
                .lock("b")
                .leads_in("b", "pg", "8", 1)
                .must_route("b")
        },
    ),
    (
        16,
        "REST alone, initialised again in place → followed once the former has not answered for a ttl and most report it",
        || {
            Story::a_leads_by_report()
                .leads_in("a", "pg", "8", 1)
                .answers_in("b", "pg", "8", report(Role::Other, "running", 1))
                .must_hold_keeping("a")
                .after(19.0)
                .leads_in("a", "pg", "8", 1)
                .answers_in("b", "pg", "8", report(Role::Other, "running", 1))
                .after(2.0)
                .must_fence()
                .leads_in("a", "pg", "8", 1)
                .leads_in("a", "pg", "8", 1)
                .must_route("a")
        },
    ),
    (
        16,
        "REST alone, initialised again at other addresses → followed through /cluster",
        || {
            Story::a_leads_by_report()
                .unreachable("a")
                .after(21.0)
                .must_fence()
                .seed("s", "pg", "8")
                .cluster_of("pg", "8", &["d", "e"])
                .must_hold_and_cut()
                .leads_in("d", "pg", "8", 1)
                .answers_in("e", "pg", "8", report(Role::Other, "running", 1))
                .leads_in("d", "pg", "8", 1)
                .must_route("d")
        },
    ),
    (
        23,
        "REST alone, ours gone, one of two URLs leads to another cluster of the same scope → never followed",
        || {
            Story::a_leads_by_report()
                .seed("a", "pg", "7")
                .seed("z", "pg", "8")
                .unreachable("a")
                .after(21.0)
                .must_fence()
                .observe(Claim::Seed(api_url("a"), None))
                .seed("z", "pg", "8")
                .cluster_of("pg", "8", &["d", "e"])
                .leads_in("d", "pg", "8", 9)
                .leads_in("d", "pg", "8", 9)
                .must_hold_and_cut()
                .because("ANOTHER CLUSTER")
        },
    ),
    (
        23,
        "one member initialised again, while the others still report ours → not followed",
        || {
            Story::a_leads_by_report()
                .unreachable("a")
                .after(21.0)
                .must_fence()
                .leads_in("b", "pg", "8", 1)
                .leads_in("b", "pg", "8", 1)
                .must_hold_and_cut()
        },
    ),
    (16, "another cluster's /cluster adds no members to ours", || {
        Story::a_leads_by_report()
            .cluster_of("zz", "8", &["d"])
            .leads_in("d", "zz", "8", 7)
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }),
    (
        16,
        "Patroni before 3.2 names no member: scope and system identifier must be ours",
        || {
            Story::a_leads_by_report()
                .unreachable("a")
                .leads_nameless("b", Some("zz"), Some("8"))
                .must_route("a")
                .leads_nameless("b", Some("pg"), Some("8"))
                .must_route("a")
                .leads_nameless("b", Some("pg"), None)
                .must_route("a")
                .leads_nameless("b", None, Some("7"))
                .must_route("a")
                .leads_nameless("b", Some("pg"), Some("7"))
                .must_route("b")
        },
    ),
    (
        13,
        "the bare scope of a Citus cluster → hold, and name the setting",
        || {
            Story::nothing()
                .observe(Claim::Lock(ObjectKind::Endpoints, None))
                .observe(Claim::Lock(ObjectKind::ConfigMap, None))
                .pod_of_group("a", 0)
                .pod_of_group("b", 1)
                .leads_in("b", "pg", "8", 7)
                .must_hold_and_cut()
                .because("--citus-group; groups found: 0, 1")
        },
    ),
];

/// Stories that do not belong to a single rule. Each is named after its symptom.
pub(super) const BESIDE_THE_RULES: &[Row] = &[
    (
        23,
        "one kind of lock is forbidden and the other is absent → this is not \"no leader object\"",
        || {
            Story::kubernetes()
                .observe(Claim::Lock(ObjectKind::ConfigMap, None))
                .observe(Claim::ApiUnreachable(
                    ObjectKind::Endpoints,
                    "endpoints: forbidden".into(),
                ))
                .must_hold_and_cut()
                .because("endpoints: forbidden")
        },
    ),
    (
        12,
        "an old object of the other kind appears late → it never outranks the lock that is renewed",
        || {
            Story::kubernetes()
                .observe(Claim::Lock(ObjectKind::ConfigMap, None))
                .lock("b")
                .lock("a")
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
                .after(1.0)
                .in_config_maps()
                .observe_old_lock("b")
                .must_route("a")
                .in_endpoints()
                .lock("a")
                .must_route("a")
        },
    ),
    (23, "REST alone, a standby cluster → it is named", || {
        Story::rest_only()
            .says("a", Role::StandbyLeader, "running", 1)
            .must_hold_and_cut()
            .because("a leads a standby cluster")
    }),
    (
        12,
        "REST unreachable, the pod's status is not that of a primary → the reason quotes the status",
        || {
            Story::kubernetes()
                .lock("b")
                .lock("a")
                .unreachable("a")
                .after(1.0)
                .pod_status("a", "promoted", 1)
                .must_hold_and_cut()
                .because("its status in the DCS says role promoted, state running; its REST API gives no valid answer")
        },
    ),
];

impl Story {
    /// Records a lock with the oldest possible `renewTime`.
    fn observe_old_lock(self, holder: &str) -> Self {
        let lock = Lock {
            holder: Some(holder.into()),
            ttl: Duration::from_secs(TTL),
            renewal: [None, Some("000000".into()), None],
            written: None,
            renewed: None,
        };
        let claim = Claim::Lock(self.kind, Some(lock));
        self.observe(claim)
    }
}
