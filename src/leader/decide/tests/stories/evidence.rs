//! The age of a pod's status while the member's REST API stays unreachable, and clusters that went back to an older
//! timeline.

use super::*;

/// Renews the lock every three seconds as Patroni does, and calls `also` after each renewal.
fn renewing(story: Story, holder: &str, seconds: u64, also: impl Fn(Story) -> Story) -> Story {
    (0..seconds.div_ceil(3)).fold(story, |story, _| also(story.after(3.0).lock(holder)))
}

/// Returns a story in which a's REST API has failed, and the lock has expired during an outage of the API.
fn a_fenced_and_unreachable() -> Story {
    Story::nothing()
        .observe(Claim::DcsStatuses(vec![pod("a", "primary"), pod("b", "replica")]))
        .lock("a")
        .says("a", Role::Primary, "running", 1)
        .must_route("a")
        .after(1.0)
        .unreachable("a")
        .after(20.0)
        .must_fence()
}

/// Returns a story in which the API has been asked, and the members answer first.
fn asked() -> Story {
    Story::rest_only()
        .observe(Claim::Watching(ObjectKind::Endpoints))
        .observe(Claim::Watching(ObjectKind::ConfigMap))
        .says("a", Role::Primary, "running", 1)
        .must_hold_and_cut()
        .because("has not yet reported")
        .observe(Claim::Lock(ObjectKind::Endpoints, None))
        .must_hold_and_cut()
}

pub(super) const EVIDENCE: &[Row] = &[
    (
        12,
        "a says primary, one kind of leader object is unread → hold; then that one names b → still",
        || {
            asked()
                .in_config_maps()
                .lock("b")
                .must_hold_and_cut()
                .because("b holds")
        },
    ),
    (
        16,
        "both kinds are read, and there is no leader object → route by REST",
        || {
            asked()
                .observe(Claim::Lock(ObjectKind::ConfigMap, None))
                .must_route("a")
                .because("no leader object")
        },
    ),
    (16, "one kind is read, the other is an error → route by REST", || {
        asked().in_config_maps().api_unreachable().must_route("a")
    }),
    (16, "both kinds are errors → route by REST", || {
        Story::rest_only()
            .observe(Claim::Watching(ObjectKind::Endpoints))
            .observe(Claim::Watching(ObjectKind::ConfigMap))
            .says("a", Role::Primary, "running", 1)
            .api_unreachable()
            .must_hold_and_cut()
            .in_config_maps()
            .api_unreachable()
            .must_route("a")
            .because("cannot be read")
    }),
    (
        12,
        "REST died, the lock expired, a renews again and writes its pod's status → route",
        || {
            a_fenced_and_unreachable()
                .after(10.0)
                .lock("a")
                .unreachable("a")
                .must_hold_and_cut()
                .because("has not confirmed")
                .after(0.1)
                .wrote_wal("a", "primary")
                .must_route("a")
                .because("its status in the DCS says that it is a running primary")
        },
    ),
    (
        12,
        "REST died, the lock expired, a renews again and writes nothing, since it idles → route after a ttl of renewals",
        || {
            let story = a_fenced_and_unreachable().after(10.0).lock("a").unreachable("a");
            let story = renewing(story, "a", 18, |story| story.unreachable("a").must_hold_and_cut());
            renewing(story, "a", 3, |story| story.must_route("a"))
        },
    ),
    (
        12,
        "REST never reachable, pods are listed before the lock is taken → route after a ttl of renewals",
        || {
            let story = Story::nothing()
                .observe(Claim::Lock(ObjectKind::Endpoints, None))
                .observe(Claim::DcsStatuses(vec![pod("a", "primary"), pod("b", "replica")]))
                .after(1.0)
                .lock("a")
                .unreachable("a")
                .must_hold_and_cut();
            renewing(story, "a", 21, |story| story.unreachable("a")).must_route("a")
        },
    ),
    (
        12,
        "the pod of a dead leader is listed again, unchanged → that is no evidence",
        || {
            a_fenced_and_unreachable()
                .after(1.0)
                .observe(Claim::DcsStatuses(vec![pod("a", "primary"), pod("b", "replica")]))
                .same_lock("a")
                .must_fence()
                .lock("a")
                .must_hold_and_cut()
        },
    ),
    (
        12,
        "a new pod has an unknown age: listed after the lock moved → not before a ttl of renewals",
        || {
            let story = Story::a_leads()
                .observe(Claim::DcsStatusGone("b".into()))
                .lock("b")
                .unreachable("b")
                .after(1.0)
                .pod_status("b", "primary", 2)
                .must_hold_and_cut();
            renewing(story, "b", 24, |story| story.unreachable("b")).must_route("b")
        },
    ),
    (
        12,
        "a says that it stops and becomes unreachable; its pod still says primary → held until it has renewed for a ttl",
        || {
            let story = Story::nothing()
                .observe(Claim::DcsStatuses(vec![pod("a", "primary"), pod("b", "replica")]))
                .lock("a")
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
                .says("a", Role::Primary, "stopping", 1)
                .unreachable("a")
                .must_hold_keeping("a");
            let story = renewing(story, "a", 21, |story| story.must_hold_keeping("a"));
            renewing(story, "a", 3, |story| story.must_route("a"))
        },
    ),
    (
        12,
        "restored onto a lower timeline → held until the lock was renewed for a ttl, then route, also without the API",
        || {
            let restored = |story: Story| story.says("b", Role::Primary, "running", 3);
            let story = Story::kubernetes()
                .lock("a")
                .says("a", Role::Primary, "running", 5)
                .must_route("a")
                .after(1.0)
                .lock("b");
            let story = restored(story)
                .must_hold_and_cut()
                .because("timeline 3, and a leader was seen on timeline 5")
                .because("clients go to b once it has renewed the leader lock for a whole ttl");
            let story = renewing(story, "b", 18, |story| restored(story).must_hold_and_cut());
            renewing(story, "b", 3, |story| restored(story).must_route("b"))
                .api_unreachable()
                .after(1.0)
                .says("b", Role::Primary, "running", 3)
                .must_route("b")
                .lock("c")
                .says("c", Role::Primary, "running", 4)
                .must_route("c")
        },
    ),
    (
        12,
        "restored onto a lower timeline, REST unreachable → by its pod, once the lock was renewed for a ttl",
        || {
            let story = Story::kubernetes()
                .lock("a")
                .says("a", Role::Primary, "running", 5)
                .must_route("a")
                .after(1.0)
                .lock("b")
                .unreachable("b")
                .pod_status("b", "primary", 3)
                .must_hold_and_cut()
                .because("timeline 3, and a leader was seen on timeline 5");
            renewing(story, "b", 21, |story| story.unreachable("b")).must_route("b")
        },
    ),
    (
        16,
        "a lower timeline, and no lock is watched → hold, and the reason says what to do",
        || {
            Story::rest_only()
                .says("a", Role::Primary, "running", 5)
                .must_route("a")
                .after(60.0)
                .says("b", Role::Primary, "running", 3)
                .must_hold_and_cut()
                .because("timeline 3, and a leader was seen on timeline 5")
                .because("if the cluster was restored onto timeline 3 on purpose, restart pgnorth")
        },
    ),
];
