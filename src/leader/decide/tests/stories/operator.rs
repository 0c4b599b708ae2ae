//! Decisions during an operator's hold.

use super::*;

pub(super) const HELD_BY_AN_OPERATOR: &[Row] = &[
    (
        12,
        "an operator holds → hold, keep sessions, say so; released → route",
        || {
            Story::a_leads()
            .held_by_operator(60)
            .must_hold_keeping("a")
            .because(
                "held by an operator since 1970-01-01T01:00:00Z, through POST /hold, until 1970-01-01T01:01:00Z at the latest; a holds the leader lock",
            )
            .after(5.0)
            .lock("a")
            .must_hold_keeping("a")
            .released_by_operator()
            .must_route("a")
        },
    ),
    (12, "no release → route when the hold ends, and not earlier", || {
        Story::a_leads()
            .held_by_operator(10)
            .after(9.9)
            .must_hold_keeping("a")
            .after(0.2)
            .must_route("a")
    }),
    (
        12,
        "lock moves to b during the hold → sessions of a end, b verified → still hold; released → route to b",
        || {
            Story::a_leads()
                .held_by_operator(60)
                .must_hold_keeping("a")
                .lock("b")
                .must_hold_and_cut()
                .because("also held by an operator")
                .says("b", Role::Primary, "running", 2)
                .must_hold_keeping("b")
                .after(5.0)
                .lock("b")
                .unreachable("b")
                .must_hold_keeping("b")
                .released_by_operator()
                .must_route("b")
        },
    ),
    (
        12,
        "lock expires during the hold → fence, and hold on when a is back",
        || {
            Story::a_leads()
                .held_by_operator(60)
                .after(21.0)
                .must_fence()
                .because("also held by an operator")
                .lock("a")
                .says("a", Role::Primary, "running", 1)
                .must_hold_keeping("a")
        },
    ),
    (
        12,
        "a stops during the hold → hold for that, until it runs again and is released",
        || {
            Story::a_leads()
                .held_by_operator(60)
                .says("a", Role::Primary, "stopping", 1)
                .must_hold_keeping("a")
                .because("a is not ready for writes")
                .released_by_operator()
                .must_hold_keeping("a")
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
        },
    ),
    (12, "held before anybody leads → hold on when a is found", || {
        Story::kubernetes()
            .held_by_operator(60)
            .must_hold_and_cut()
            .lock("a")
            .says("a", Role::Primary, "running", 1)
            .must_hold_keeping("a")
            .released_by_operator()
            .must_route("a")
    }),
    (
        16,
        "no lock is watched, b becomes the leader during the hold → sessions of a end",
        || {
            Story::a_leads_by_report()
                .held_by_operator(60)
                .must_hold_keeping("a")
                .says("a", Role::Other, "running", 1)
                .says("b", Role::Primary, "running", 2)
                .must_hold_keeping("b")
                .released_by_operator()
                .must_route("b")
        },
    ),
];
