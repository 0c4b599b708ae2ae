//! No watched lock, a's REST API hangs, and the other members name the leader.

use super::*;

/// Repeats `then` each second until this number of seconds after a's last answer.
fn each_second(until: u64, then: impl Fn(Story) -> Story) -> Story {
    let story = Story::a_leads_by_report().unreachable("a");
    (0..until).fold(story, |story, _| then(story.after(1.0)))
}

fn both_name_a(story: Story) -> Story {
    story.names("b", Some("a")).names("c", Some("a"))
}

pub(super) const NAMED_BY_OTHERS: &[Row] = &[
    (17, "b and c name a → go on, beyond ttl", || {
        each_second(100, |story| both_name_a(story).must_route("a")).because("a majority of the members says")
    }),
    (
        19,
        "b and c name a until its key expires → fence with the first that names none",
        || {
            each_second(20, both_name_a)
                .must_route("a")
                .after(0.3)
                .names("c", None)
                .must_fence()
        },
    ),
    (
        19,
        "b takes the lock, and says so before it is promoted → fence",
        || {
            let b_holds_it = Report {
                holds_lock: true,
                ..report(Role::Other, "running", 1)
            };
            each_second(20, both_name_a)
                .must_route("a")
                .after(0.1)
                .observe(Claim::Report("b".into(), Ok(b_holds_it)))
                .must_fence()
        },
    ),
    (
        19,
        "b and c name a, and become unreachable → fence 1.5 s after their last answer",
        || {
            each_second(22, both_name_a)
                .unreachable("b")
                .unreachable("c")
                .after(1.4)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (
        19,
        "frozen: its key is gone before its last answer is a ttl old → fence then",
        || {
            let story = each_second(18, both_name_a);
            let story = (0..2).fold(story, |story, _| {
                story.must_route("a").after(0.9).names("b", None).names("c", None)
            });
            story.must_route("a").after(0.2).must_fence()
        },
    ),
    (19, "b alone names a, c does not answer → fence at ttl", || {
        each_second(19, |story| story.names("b", Some("a")).unreachable("c").must_route("a"))
            .after(1.0)
            .names("b", Some("a"))
            .must_fence()
    }),
    (
        19,
        "b on a cut-off etcd server names a, c names none → fence at ttl",
        || {
            each_second(19, |story| story.names("b", Some("a")).names("c", None).must_route("a"))
                .after(1.0)
                .names("b", Some("a"))
                .must_fence()
        },
    ),
    (
        19,
        "b on a cut-off etcd server names a, c names b → fence at ttl",
        || each_second(20, |story| story.names("b", Some("a")).names("c", Some("b"))).must_fence(),
    ),
    (
        19,
        "c's address leads to b, which names a twice → fence at ttl",
        || {
            each_second(20, |story| {
                story
                    .names("b", Some("a"))
                    .unreachable("c")
                    .observe(Claim::NamedLeader("c".into(), Some("a".into())))
            })
            .must_fence()
        },
    ),
    (
        19,
        "a said that it stops, then hangs; b and c name it → fence at ttl",
        || {
            let story = Story::a_leads_by_report()
                .says("a", Role::Primary, "stopping", 1)
                .unreachable("a");
            (0..20)
                .fold(story, |story, _| both_name_a(story.after(1.0)))
                .must_fence()
        },
    ),
    (
        19,
        "a said that it stops, with the lock, then hangs; b and c name it → fence at ttl",
        || {
            let stopping = Report {
                holds_lock: true,
                ..report(Role::Primary, "stopping", 1)
            };
            let story = Story::a_leads_by_report()
                .observe(Claim::Report("a".into(), Ok(stopping)))
                .unreachable("a");
            (0..20)
                .fold(story, |story, _| both_name_a(story.after(1.0)))
                .must_fence()
        },
    ),
    (
        22,
        "a new process does not take b's and c's word: a has not said that it is writable",
        || both_name_a(Story::rest_only().unreachable("a")).must_hold_and_cut(),
    ),
];
