//! Decisions while no lock is watched, a's REST API hangs, and the other members name the leader.

use super::*;

/// Repeats `then` every second until this number of seconds after a's last answer.
fn each_second(until: u64, then: impl Fn(Story) -> Story) -> Story {
    let story = Story::a_leads_by_report().unreachable("a");
    (0..until).fold(story, |story, _| then(story.after(1.0)))
}

fn both_name_a(story: Story) -> Story {
    story.names("b", Some("a")).names("c", Some("a"))
}

pub(super) const NAMED_BY_OTHERS: &[Row] = &[
    (17, "b and c name a → keep routing, beyond ttl", || {
        each_second(100, |story| both_name_a(story).must_route("a")).because("a majority of the members names it")
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
                    .names_silently("c", Some("a"), Some(1))
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
        23,
        "a new process does not trust b and c: a has not reported that it is writable",
        || both_name_a(Story::rest_only().unreachable("a")).must_hold_and_cut(),
    ),
];

/// Returns a story in which b and c did not answer for this number of seconds, and a's sessions ended.
fn fenced_for(seconds: f64) -> Story {
    each_second(22, both_name_a)
        .must_route("a")
        .after(1.5)
        .must_fence()
        .after(seconds - 1.5)
        .must_hold_and_cut()
}

/// Repeats `then` every second for this number of seconds, during which clients must wait.
fn held_each_second(story: Story, seconds: u64, then: impl Fn(Story) -> Story) -> Story {
    (0..seconds).fold(story, |story, _| then(story.after(1.0)).must_hold_and_cut())
}

fn both_name_a_running(story: Story, running_on: Option<u32>) -> Story {
    story
        .names_running("b", Some("a"), running_on)
        .names_running("c", Some("a"), running_on)
}

pub(super) const NAMED_AGAIN: &[Row] = &[
    (22, "b's and c's answers come late → fence, and route again", || {
        both_name_a(fenced_for(1.7))
            .must_route("a")
            .because("every other member names it as the lock holder")
    }),
    (
        17,
        "the same, and they name a for another minute → keep routing",
        || {
            let story = both_name_a(fenced_for(1.7)).must_route("a");
            (0..60).fold(story, |story, _| both_name_a(story.after(1.0)).must_route("a"))
        },
    ),
    (23, "c alone names a again → hold", || {
        fenced_for(1.7).names("c", Some("a")).must_hold_and_cut()
    }),
    (22, "they break off for longer → route after a whole ttl", || {
        held_each_second(both_name_a(fenced_for(3.0)).must_hold_and_cut(), 19, both_name_a)
            .after(1.0)
            .names("b", Some("a"))
            .names("c", Some("a"))
            .must_route("a")
    }),
    (22, "c named b in between → route after a whole ttl", || {
        let story = fenced_for(1.7)
            .names("c", Some("b"))
            .names("b", Some("a"))
            .must_hold_and_cut();
        held_each_second(story, 20, both_name_a)
            .after(1.0)
            .names("b", Some("a"))
            .names("c", Some("a"))
            .must_route("a")
    }),
    (23, "a's key is gone, and they name none → hold", || {
        held_each_second(fenced_for(1.7), 60, |story| story.names("b", None).names("c", None))
    }),
    (
        23,
        "a is on another timeline: it was demoted meanwhile → hold",
        || held_each_second(fenced_for(1.7), 60, |story| both_name_a_running(story, Some(2))),
    ),
    (23, "a is not running → hold", || {
        held_each_second(fenced_for(1.7), 60, |story| both_name_a_running(story, None))
    }),
    (23, "b was promoted without Patroni → hold", || {
        held_each_second(fenced_for(1.7), 60, |story| {
            both_name_a(story).says_without_lock("b", 1)
        })
    }),
    (
        23,
        "another leader was on a newer timeline, and a is named on its old one → hold",
        || {
            let story = fenced_for(1.7).says("b", Role::Primary, "running", 2).must_route("b");
            let story = story.unreachable("b").after(20.0).must_fence();
            held_each_second(story, 60, both_name_a)
        },
    ),
    (23, "/cluster names b since a's last answer → hold", || {
        let story = fenced_for(1.7).observe(Claim::Cluster(Cluster {
            leader: Some("b".into()),
            ..listing(&["a", "b", "c"])
        }));
        held_each_second(story, 60, both_name_a)
    }),
    (23, "a said that it stops, then hangs → hold", || {
        let story = Story::a_leads_by_report()
            .says("a", Role::Primary, "stopping", 1)
            .unreachable("a");
        let story = (0..20).fold(story, |story, _| both_name_a(story.after(1.0)));
        held_each_second(story.must_fence(), 60, both_name_a)
    }),
    (
        22,
        "the API is unreachable, and a held the lock → route after a whole ttl",
        || {
            let story = Story::a_leads()
                .api_unreachable()
                .unreachable("a")
                .after(20.0)
                .must_fence();
            held_each_second(story, 20, both_name_a)
                .after(1.0)
                .names("b", Some("a"))
                .names("c", Some("a"))
                .must_route("a")
        },
    ),
    (
        23,
        "the API is unreachable, and the lock had moved to b → hold",
        || {
            let story = Story::a_leads()
                .lock("b")
                .must_hold_and_cut()
                .api_unreachable()
                .unreachable("a");
            held_each_second(story, 60, both_name_a)
        },
    ),
];
