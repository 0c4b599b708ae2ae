//! Decisions while the lock is watched, and announced switchovers.

use super::*;

pub(super) const WITH_THE_LOCK: &[Row] = &[
    (23, "no observation → hold, with this reason", || {
        Story::nothing()
            .must_hold_and_cut()
            .because("no member of the cluster has answered yet")
    }),
    (12, "lock names a, a says primary and running → route", || {
        Story::a_leads().because("holds the leader lock")
    }),
    (12, "lock names a, a has not answered → hold", || {
        Story::kubernetes()
            .lock("a")
            .must_hold_and_cut()
            .because("has not confirmed")
    }),
    (
        12,
        "lock names a, a answers 200 but is still in recovery → hold",
        || {
            Story::kubernetes()
                .lock("a")
                .says("a", Role::Other, "running", 1)
                .must_hold_and_cut()
        },
    ),
    (
        12,
        "lock moved to b → sessions of a end at once; b verified → route",
        || {
            Story::a_leads()
                .after(5.0)
                .lock("b")
                .must_hold_and_cut()
                .says("b", Role::Other, "running", 1)
                .must_hold_and_cut()
                .says("b", Role::Primary, "running", 2)
                .must_route("b")
        },
    ),
    (12, "b's word from before it held the lock proves nothing", || {
        Story::a_leads()
            .says("b", Role::Primary, "running", 2)
            .after(1.0)
            .lock("b")
            .must_hold_and_cut()
            .because("it has not answered since it took the lock")
    }),
    (12, "b on a lower timeline than one already seen → hold", || {
        Story::kubernetes()
            .lock("a")
            .says("a", Role::Primary, "running", 5)
            .must_route("a")
            .lock("b")
            .says("b", Role::Primary, "running", 4)
            .must_hold_and_cut()
            .because("timeline 4, and a leader was seen on timeline 5")
    }),
    (12, "a's REST hangs while the lock is renewed → keep routing", || {
        Story::a_leads()
            .after(2.0)
            .unreachable("a")
            .must_route("a")
            .after(8.0)
            .lock("a")
            .unreachable("a")
            .must_route("a")
            .after(19.0)
            .must_route("a")
            .because("which has not expired")
    }),
    (
        12,
        "a stops → hold, keep its sessions, also if it becomes unreachable then",
        || {
            Story::a_leads()
                .says("a", Role::Primary, "stopping", 1)
                .must_hold_keeping("a")
                .unreachable("a")
                .must_hold_keeping("a")
        },
    ),
    (12, "a crashed and recovers in place → hold, then route", || {
        Story::a_leads()
            .says("a", Role::Primary, "starting", 1)
            .must_hold_keeping("a")
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }),
    (
        8,
        "lock not renewed for ttl → fence, and not a moment earlier",
        || {
            Story::a_leads()
                .after(19.4)
                .must_route("a")
                .after(0.1)
                .must_hold_keeping("a")
                .because("about to expire")
                .after(0.49)
                .must_hold_keeping("a")
                .after(0.01)
                .must_fence()
                .because("20 s (its ttl)")
        },
    ),
    (
        8,
        "a renewal that came 0.6 s late → fence so much earlier: ttl after it was written",
        || {
            Story::a_leads()
                .after(3.6)
                .lock_late("a", 0.6)
                .after(18.8)
                .must_route("a")
                .after(0.1)
                .must_hold_keeping("a")
                .after(0.49)
                .must_hold_keeping("a")
                .after(0.01)
                .must_fence()
        },
    ),
    (
        8,
        "a's clock is set back by 2 s → fence a second early, no more",
        || {
            Story::a_leads()
                .after(3.0)
                .lock_late("a", 2.0)
                .after(18.9)
                .must_hold_keeping("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (12, "a's clock is set back while it renews → keep routing", || {
        let renews = |story: Story| story.after(18.4).must_route("a").lock_late("a", 17.0).must_route("a");
        (0..20).fold(Story::a_leads(), |story, _| renews(story))
    }),
    (
        8,
        "a renewal without a time that can be read counts from its arrival",
        || {
            Story::a_leads()
                .after(3.0)
                .lock_written("a", None)
                .after(19.4)
                .must_route("a")
                .after(0.6)
                .must_fence()
        },
    ),
    (8, "b's clock is 2 s behind a's: that is no delay", || {
        Story::a_leads()
            .after(3.0)
            .lock_late("b", 2.0)
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
            .after(19.4)
            .must_route("b")
            .after(0.6)
            .must_fence()
    }),
    (
        19,
        "the API becomes unreachable after a late renewal → that ttl, too, counts from when it was written",
        || {
            Story::a_leads()
                .after(3.6)
                .lock_late("a", 0.6)
                .api_unreachable()
                .unreachable("a")
                .after(19.3)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (8, "the API shows the old lock again → that renews nothing", || {
        Story::a_leads().after(15.0).same_lock("a").after(5.0).must_fence()
    }),
    (12, "a fenced leader that renews must be verified again", || {
        Story::a_leads()
            .after(20.0)
            .must_fence()
            .lock("a")
            .unreachable("a")
            .must_hold_and_cut()
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }),
    (2, "lock released → hold, sessions end", || {
        Story::a_leads().released().must_hold_and_cut().because("released")
    }),
    (
        2,
        "lock released in pause, a still primary → hold, sessions stay",
        || {
            Story::a_leads()
                .configured(true, false)
                .released()
                .must_hold_keeping("a")
        },
    ),
    (
        6,
        "lock not renewed in pause → keep routing; a stops → hold",
        || {
            Story::a_leads()
                .configured(true, false)
                .after(60.0)
                .must_route("a")
                .says("a", Role::Primary, "stopped", 1)
                .must_hold_keeping("a")
        },
    ),
    (12, "lock moved in pause → sessions of a end", || {
        Story::a_leads().configured(true, false).lock("b").must_hold_and_cut()
    }),
    (3, "a standby cluster's leader is no primary", || {
        Story::kubernetes()
            .configured(false, true)
            .lock("a")
            .says("a", Role::Primary, "running", 1)
            .must_hold_and_cut()
            .because("standby cluster")
    }),
    (12, "a says standby_leader → hold", || {
        Story::kubernetes()
            .lock("a")
            .says("a", Role::StandbyLeader, "running", 1)
            .must_hold_and_cut()
    }),
    (4, "lock names a pod that is not there → hold, and say so", || {
        Story::nothing()
            .lock("z")
            .must_hold_and_cut()
            .because("neither the DCS nor /cluster has an address of z")
    }),
    (12, "a's pod is gone while it renews the lock → keep routing", || {
        Story::a_leads()
            .observe(Claim::DcsStatusGone("a".into()))
            .must_route("a")
    }),
    (12, "a came back at another address → verify it there", || {
        let moved = DcsStatus {
            address: Ok(Address::new("10.0.0.9", 5432).unwrap()),
            ..pod("a", "primary")
        };
        Story::a_leads().observe(Claim::DcsStatus(moved)).must_hold_and_cut()
    }),
    (
        12,
        "b's REST can't be reached, but its pod says primary since it holds the lock → route",
        || {
            Story::a_leads()
                .after(1.0)
                .lock("b")
                .unreachable("b")
                .must_hold_and_cut()
                .after(1.0)
                .pod_status("b", "primary", 2)
                .must_route("b")
                .because("status in the DCS")
        },
    ),
    (12, "an old pod status proves nothing", || {
        Story::a_leads()
            .pod_status("b", "primary", 2)
            .after(1.0)
            .lock("b")
            .unreachable("b")
            .must_hold_and_cut()
    }),
    (12, "both kinds of object: the one renewed last is believed", || {
        Story::kubernetes()
            .lock("b")
            .in_config_maps()
            .lock("a")
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
            .after(5.0)
            .lock("a")
            .must_route("a")
    }),
];

pub(super) const SWITCHOVERS: &[Row] = &[
    (12, "announced → hold, keep sessions; aborted → release", || {
        Story::a_leads()
            .announced(Some("a"), Some("b"), None)
            .must_hold_keeping("a")
            .because("from a to b")
            .after(1.0)
            .announcement_gone()
            .must_route("a")
    }),
    (11, "announced without a name → hold", || {
        Story::a_leads().announced(None, Some("b"), None).must_hold_keeping("a")
    }),
    (12, "announced for another member → route", || {
        Story::a_leads().announced(Some("c"), Some("b"), None).must_route("a")
    }),
    (12, "the candidate leads already → route", || {
        Story::a_leads().announced(None, Some("a"), None).must_route("a")
    }),
    (
        12,
        "announced, and nothing happens for switchover-hold → route until it stops",
        || {
            Story::a_leads()
                .announced(Some("a"), Some("b"), None)
                .must_hold_keeping("a")
                .after(9.9)
                .must_hold_keeping("a")
                .after(0.1)
                .must_route("a")
                .says("a", Role::Primary, "stopping", 1)
                .must_hold_keeping("a")
        },
    ),
    (11, "scheduled for later → route until then", || {
        Story::a_leads()
            .announced(Some("a"), Some("b"), Some(5.0))
            .must_route("a")
            .after(5.0)
            .must_hold_keeping("a")
    }),
    (12, "a whole switchover, as measured", || {
        Story::a_leads()
            .after(0.24)
            .announced(Some("a"), Some("b"), None)
            .must_hold_keeping("a")
            .after(0.19)
            .says("a", Role::Primary, "stopping", 1)
            .must_hold_keeping("a")
            .after(2.0)
            .says("a", Role::Other, "stopping", 1)
            .must_hold_keeping("a")
            .released()
            .must_hold_and_cut()
            .lock("b")
            .must_hold_and_cut()
            .says("b", Role::Other, "running", 1)
            .must_hold_and_cut()
            .announcement_gone()
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
    }),
];
