//! Decisions without a lock, because the API is unreachable or has no leader object, or because Kubernetes is not used.

use super::*;

pub(super) const API_SILENT: &[Row] = &[
    (16, "API unreachable, a vouches → route", || {
        Story::a_leads()
            .after(1.0)
            .api_unreachable()
            .must_route("a")
            .after(60.0)
            .vouched_in_failsafe("a")
            .must_route("a")
    }),
    (
        19,
        "API unreachable, REST unreachable → keep for ttl after the last evidence, then fence",
        || {
            Story::a_leads()
                .api_unreachable()
                .after(1.0)
                .unreachable("a")
                .must_route("a")
                .after(18.9)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (
        16,
        "API unreachable just after the lock moved to b → a's earlier answer proves nothing",
        || {
            Story::a_leads()
                .lock("b")
                .must_hold_and_cut()
                .after(0.5)
                .says("b", Role::Other, "running", 1)
                .says("a", Role::Primary, "running", 1)
                .after(0.5)
                .released()
                .after(0.5)
                .api_unreachable()
                .must_hold_and_cut()
                .says("b", Role::Primary, "running", 2)
                .must_route("b")
        },
    ),
    (
        19,
        "paused when the API became unreachable, a unreachable → kept only while a member reports the pause",
        || {
            Story::a_leads()
                .configured(true, false)
                .api_unreachable()
                .unreachable("a")
                .after(30.0)
                .says_in_pause("b", Role::Other, false)
                .must_route("a")
                .because("paused")
                .after(3.0)
                .must_fence()
        },
    ),
    (20, "API unreachable, a demotes itself → hold", || {
        Story::a_leads()
            .api_unreachable()
            .says("a", Role::Other, "running", 1)
            .must_hold_keeping("a")
    }),
    (16, "API unreachable, b was promoted → route to b", || {
        Story::a_leads()
            .api_unreachable()
            .after(30.0)
            .unreachable("a")
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
    }),
    (
        8,
        "the API returns after a long outage: the ttl continues from where it stood",
        || {
            Story::a_leads()
                .after(3.0)
                .api_unreachable()
                .after(60.0)
                .vouched_in_failsafe("a")
                .must_route("a")
                .after(1.0)
                .same_lock("a")
                .says_without_lock("a", 1)
                .must_route("a")
                .after(16.9)
                .must_route("a")
                .after(0.2)
                .must_fence()
        },
    ),
    (5, "lock old, but a vouches in failsafe mode → route", || {
        Story::a_leads()
            .after(19.0)
            .vouched_in_failsafe("a")
            .after(2.0)
            .must_route("a")
            .because("failsafe")
    }),
    (12, "verified in the last moment of its ttl → gets no client", || {
        Story::kubernetes()
            .lock("a")
            .after(19.6)
            .says("a", Role::Primary, "running", 1)
            .must_hold_and_cut()
            .lock("a")
            .must_route("a")
    }),
    (
        8,
        "a vouched before its last renewal: that does not outlive the lock → margin before expiry",
        || {
            Story::a_leads()
                .vouched_in_failsafe("a")
                .after(0.3)
                .lock("a")
                .unreachable("a")
                .after(19.6)
                .must_hold_keeping("a")
                .after(0.4)
                .must_fence()
        },
    ),
    (
        8,
        "a renewed after failsafe mode and says so before the watch does → route",
        || {
            Story::a_leads()
                .after(18.0)
                .vouched_in_failsafe("a")
                .after(2.0)
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
                .after(17.9)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (8, "a vouched, then lost the lock → fence", || {
        Story::a_leads()
            .after(18.0)
            .vouched_in_failsafe("a")
            .after(2.0)
            .says_without_lock("a", 1)
            .must_fence()
    }),
    (
        8,
        "a vouched once and became unreachable for a whole ttl → fence",
        || {
            Story::a_leads()
                .after(19.0)
                .vouched_in_failsafe("a")
                .after(20.0)
                .must_fence()
        },
    ),
];

pub(super) const REST_ONLY: &[Row] = &[
    (16, "one member says primary → route", || {
        Story::a_leads_by_report().because("a says that it is a running primary")
    }),
    (23, "no member says primary → hold", || {
        Story::rest_only()
            .says("a", Role::Other, "running", 1)
            .must_hold_and_cut()
            .because("no member says")
    }),
    (
        19,
        "a becomes unreachable → keep for ttl after its last answer, then fence",
        || {
            Story::a_leads_by_report()
                .after(1.0)
                .unreachable("a")
                .must_route("a")
                .after(18.9)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (
        19,
        "a unreachable, and gone from /cluster → fence at the same time",
        || {
            let mut story = Story::a_leads_by_report().after(1.0).unreachable("a");
            story.hear(Claim::Cluster(Cluster {
                ttl: Some(Duration::from_secs(TTL)),
                ..listing(&["b"])
            }));
            story
                .must_route("a")
                .after(18.9)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (21, "paused, a unreachable for long → keep routing", || {
        let mut story = Story::a_leads_by_report();
        story.pause();
        story.unreachable("a").after(60.0).must_route("a").because("paused")
    }),
    (
        19,
        "paused, a unreachable, and /cluster names b as leader → fence once a's lock has expired",
        || {
            Story::a_leads_by_report()
                .paused_and_led_by("a")
                .unreachable("a")
                .after(19.0)
                .paused_and_led_by("b")
                .must_route("a")
                .after(1.0)
                .must_fence()
        },
    ),
    (
        21,
        "paused, and a has answered since /cluster named b → keep routing",
        || {
            Story::a_leads_by_report()
                .paused_and_led_by("b")
                .after(1.0)
                .says_in_pause("a", Role::Primary, true)
                .unreachable("a")
                .after(60.0)
                .must_route("a")
                .paused_and_led_by("a")
                .must_route("a")
        },
    ),
    (16, "a unreachable, b says primary → route to b", || {
        Story::a_leads_by_report()
            .after(1.0)
            .unreachable("a")
            .after(2.0)
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
    }),
    (16, "two say primary → the higher timeline", || {
        Story::a_leads_by_report()
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
            .because("several members")
    }),
    (14, "two say primary on one timeline → fence and alert", || {
        Story::a_leads_by_report()
            .says("b", Role::Primary, "running", 1)
            .must_fence()
            .because("SPLIT BRAIN")
    }),
    (
        16,
        "one promoted by hand, without the lock → the lock's holder stays",
        || Story::a_leads_by_report().says_without_lock("b", 9).must_route("a"),
    ),
    (
        21,
        "a unreachable, b promoted by hand without the lock → a is kept",
        || {
            Story::a_leads_by_report()
                .unreachable("a")
                .says_without_lock("b", 9)
                .must_route("a")
        },
    ),
    (
        16,
        "a wakes without the lock: its sessions stay, no new client is sent to it",
        || {
            Story::a_leads_by_report()
                .unreachable("a")
                .after(15.0)
                .must_route("a")
                .says_without_lock("a", 1)
                .must_hold_keeping("a")
                .because("does not hold the lock")
                .unreachable("a")
                .must_hold_keeping("a")
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
        },
    ),
    (
        23,
        "a left behind as a primary in pause, b is being promoted → no member gets a's clients",
        || {
            Story::rest_only()
                .says_in_pause("a", Role::Primary, false)
                .must_route("a")
                .after(1.0)
                .unreachable("a")
                .after(20.0)
                .must_fence()
                .says_in_pause("b", Role::Other, true)
                .says_in_pause("a", Role::Primary, false)
                .must_hold_and_cut()
                .because("no member says")
        },
    ),
    (
        19,
        "a stops and becomes unreachable → keep for ttl after its last answer, then fence",
        || {
            Story::a_leads_by_report()
                .says("a", Role::Primary, "stopping", 1)
                .after(1.0)
                .unreachable("a")
                .must_hold_keeping("a")
                .after(18.9)
                .must_hold_keeping("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (20, "a stops → hold, keep its sessions", || {
        Story::a_leads_by_report()
            .says("a", Role::Primary, "stopping", 1)
            .must_hold_keeping("a")
    }),
    (15, "a scheduled switchover holds at its time", || {
        let mut story = Story::a_leads_by_report();
        let starts = Some(story.now + Duration::from_secs(1));
        story.cluster(Some(Announcement {
            leader: Some("a".into()),
            candidate: None,
            scheduled_at: Some("later".to_owned()),
            starts,
        }));
        story.must_route("a").after(1.0).must_hold_keeping("a")
    }),
];
