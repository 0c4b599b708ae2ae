//! `primary_race_backoff`: standbys postpone the race for a lost lock while the leader writes. Patroni has this setting
//! on its branch `master`, but not in 4.1.5; these stories follow `master`.

use super::*;

/// Returns a story in which a has not answered for its whole ttl of 20 s, and the race may be postponed for a minute.
fn a_unreachable_for_ttl() -> Story {
    Story::a_leads()
        .race_backoff(60)
        .unreachable("a")
        .after(19.5)
        .must_hold_keeping("a")
        .because("about to expire")
        .after(0.5)
        .must_hold_keeping("a")
        .because("postpone the race for the lock for up to 60 s")
}

/// Returns the same story without Kubernetes.
fn a_unreachable_by_rest() -> Story {
    let cluster = Cluster {
        ttl: Some(Duration::from_secs(TTL)),
        race_backoff: Some(Duration::from_secs(60)),
        ..listing(&["a", "b", "c"])
    };
    Story::a_leads_by_report()
        .observe(Claim::Cluster(cluster))
        .unreachable("a")
        .after(19.9)
        .must_route("a")
        .after(0.1)
        .must_hold_keeping("a")
        .because("primary_race_backoff")
}

pub(super) const RACE_BACKOFF: &[Row] = &[
    (
        8,
        "ttl over → hold, keep sessions for the backoff, then fence",
        || {
            a_unreachable_for_ttl()
                .after(59.9)
                .must_hold_keeping("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (12, "a renews in the meantime → route, and no session ended", || {
        a_unreachable_for_ttl().after(30.0).lock("a").must_route("a")
    }),
    (12, "b takes the lock in the meantime → sessions of a end", || {
        a_unreachable_for_ttl().after(30.0).lock("b").must_hold_and_cut()
    }),
    (8, "a says in the meantime that it is not a primary → fence", || {
        a_unreachable_for_ttl()
            .after(30.0)
            .says("a", Role::Other, "running", 1)
            .must_fence()
    }),
    (
        8,
        "a failover to b is requested, which is not postponed → fence at ttl",
        || {
            Story::a_leads()
                .race_backoff(60)
                .after(19.9)
                .announced(None, Some("b"), None)
                .after(0.1)
                .must_fence()
        },
    ),
    (8, "a member that was not routed to before gets no client", || {
        Story::kubernetes().race_backoff(60).lock("a").after(20.0).must_fence()
    }),
    (19, "the API is unreachable, too → sessions stay as long", || {
        a_unreachable_for_ttl()
            .api_unreachable()
            .after(59.9)
            .must_hold_keeping("a")
            .after(0.1)
            .must_fence()
    }),
    (
        16,
        "the API is unreachable, too, and only b says that it is primary → route to b",
        || {
            a_unreachable_for_ttl()
                .api_unreachable()
                .after(30.0)
                .says("b", Role::Primary, "running", 2)
                .must_route("b")
        },
    ),
    (19, "REST alone: a unreachable → the same", || {
        a_unreachable_by_rest()
            .after(59.9)
            .must_hold_keeping("a")
            .after(0.1)
            .must_fence()
    }),
    (
        18,
        "REST alone: b answers as a replica → the race is still postponed",
        || {
            a_unreachable_by_rest()
                .after(10.0)
                .says("b", Role::Other, "running", 1)
                .must_hold_keeping("a")
        },
    ),
    (
        19,
        "REST alone: b holds the lock, before it is promoted → fence",
        || {
            let b_holds_it = Report {
                holds_lock: true,
                ..report(Role::Other, "running", 1)
            };
            a_unreachable_by_rest()
                .after(10.0)
                .observe(Claim::Report("b".into(), Ok(b_holds_it)))
                .must_fence()
        },
    ),
];
