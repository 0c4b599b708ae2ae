//! The rules as a table: each row is a story, told second by second, and what must come of it.

use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::leader::Address;
use crate::leader::observation::{
    Announcement, Claim, Cluster, ClusterMember, ClusterSettings, Lock, ObjectKind, Observation, OperatorHold, Pod,
};

const TTL: u64 = 20;
const HOUR: Duration = Duration::from_secs(3600);

/// A story about members a, b and c, which live at 10.0.0.1, .2 and .3.
pub(super) struct Story {
    begin: Instant,
    now: Instant,
    view: View,
    current: Option<Leader>,
    renewals: u64,
    written: Option<SystemTime>,
    reason: String,
    kind: ObjectKind,
}

pub(super) fn leader(member: &str) -> Leader {
    Leader {
        member: member.into(),
        address: address(member),
        timeline: None,
    }
}

fn address(member: &str) -> Address {
    let last = member.bytes().next().unwrap() - b'a' + 1;
    Address::new(&format!("10.0.0.{last}"), 5432).unwrap()
}

pub(super) fn policy() -> Policy {
    Policy {
        switchover_hold: Duration::from_secs(10),
        report_life: Duration::from_secs(3),
    }
}

pub(super) fn report(role: Role, state: &str, timeline: u32) -> Report {
    Report {
        holds_lock: role == Role::Primary && state == "running",
        role,
        state: state.into(),
        timeline: Some(timeline),
        system: Some("7".into()),
        paused: false,
        failsafe_active: false,
    }
}

impl Story {
    /// Three pods are known; nothing else is.
    fn kubernetes() -> Self {
        let mut story = Self::nothing();
        let pods = ["a", "b", "c"].map(|name| pod(name, "replica")).to_vec();
        story.hear(Claim::Pods(pods));
        story
    }

    /// Three rows of `/cluster` are known; Kubernetes is not asked.
    fn rest_only() -> Self {
        let mut story = Self::nothing();
        story.cluster(None);
        story
    }

    fn nothing() -> Self {
        let begin = Instant::now();
        Self {
            begin,
            now: begin,
            view: View::default(),
            current: None,
            renewals: 0,
            written: None,
            reason: String::new(),
            kind: ObjectKind::Endpoints,
        }
    }

    /// a leads on timeline 1, for ten seconds already.
    fn a_leads() -> Self {
        Self::kubernetes()
            .lock("a")
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }

    /// a leads on timeline 1, by its report alone.
    fn a_leads_by_report() -> Self {
        Self::rest_only()
            .says("a", Role::Primary, "running", 1)
            .says("b", Role::Other, "running", 1)
            .must_route("a")
    }

    pub(super) fn hear(&mut self, claim: Claim) {
        self.view.record(Observation { at: self.now, claim });
    }

    fn heard(mut self, claim: Claim) -> Self {
        self.hear(claim);
        self
    }

    fn after(mut self, seconds: f64) -> Self {
        self.now += Duration::from_secs_f64(seconds);
        self
    }

    fn in_config_maps(mut self) -> Self {
        self.kind = ObjectKind::ConfigMap;
        self
    }

    fn lock(self, holder: &str) -> Self {
        self.lock_late(holder, 0.0)
    }

    /// The lock was written some seconds ago.
    fn lock_late(self, holder: &str, seconds: f64) -> Self {
        let since_begin = self.now - self.begin;
        let written = SystemTime::UNIX_EPOCH + HOUR + since_begin - Duration::from_secs_f64(seconds);
        self.lock_written(holder, Some(written))
    }

    /// The lock bears any time, or none that can be read.
    fn lock_written(mut self, holder: &str, written: Option<SystemTime>) -> Self {
        self.renewals += 1;
        self.written = written;
        let lock = self.lock_now(Some(holder));
        self.heard(lock)
    }

    fn released(mut self) -> Self {
        self.renewals += 1;
        let lock = self.lock_now(None);
        self.heard(lock)
    }

    /// The API shows the same lock again, not renewed.
    fn same_lock(self, holder: &str) -> Self {
        let lock = self.lock_now(Some(holder));
        self.heard(lock)
    }

    fn lock_now(&self, holder: Option<&str>) -> Claim {
        let renewal = [None, Some(format!("{:06}", self.renewals)), None];
        Claim::Lock(
            self.kind,
            Some(Lock {
                holder: holder.map(str::to_owned),
                ttl: Duration::from_secs(TTL),
                renewal,
                written: self.written,
            }),
        )
    }

    fn api_silent(self) -> Self {
        let claim = Claim::ApiSilent(self.kind, "connection refused".into());
        self.heard(claim)
    }

    fn says(self, member: &str, role: Role, state: &str, timeline: u32) -> Self {
        self.heard(Claim::Report(member.into(), Ok(report(role, state, timeline))))
    }

    fn says_without_lock(self, member: &str, timeline: u32) -> Self {
        let report = Report {
            holds_lock: false,
            ..report(Role::Primary, "running", timeline)
        };
        self.heard(Claim::Report(member.into(), Ok(report)))
    }

    fn says_in_pause(self, member: &str, role: Role, holds_lock: bool) -> Self {
        let report = Report {
            holds_lock,
            paused: true,
            ..report(role, "running", 1)
        };
        self.heard(Claim::Report(member.into(), Ok(report)))
    }

    fn vouched_in_failsafe(self, member: &str) -> Self {
        let report = Report {
            failsafe_active: true,
            ..report(Role::Primary, "running", 1)
        };
        self.heard(Claim::Report(member.into(), Ok(report)))
    }

    fn silent(self, member: &str) -> Self {
        self.heard(Claim::Report(member.into(), Err("no answer within 1 s".into())))
    }

    fn pod_status(self, member: &str, role: &str, timeline: u32) -> Self {
        self.heard(Claim::Pod(Pod {
            timeline: Some(timeline),
            ..pod(member, role)
        }))
    }

    fn announced(self, leader: Option<&str>, candidate: Option<&str>, starts_in: Option<f64>) -> Self {
        let starts = starts_in.map(|seconds| self.now + Duration::from_secs_f64(seconds));
        let announcement = Announcement {
            leader: leader.map(str::to_owned),
            candidate: candidate.map(str::to_owned),
            scheduled_at: starts.map(|_| "later".to_owned()),
            starts,
        };
        let claim = Claim::Announcement(self.kind, Some(announcement));
        self.heard(claim)
    }

    fn announcement_gone(self) -> Self {
        let claim = Claim::Announcement(self.kind, None);
        self.heard(claim)
    }

    fn configured(self, paused: bool, standby_cluster: bool) -> Self {
        let settings = ClusterSettings {
            paused,
            standby_cluster,
        };
        let claim = Claim::Settings(self.kind, Some(settings));
        self.heard(claim)
    }

    fn held_by_operator(self, seconds: u64) -> Self {
        let wall = SystemTime::UNIX_EPOCH + HOUR;
        let hold = OperatorHold {
            since: wall,
            until: wall + Duration::from_secs(seconds),
            ends: self.now + Duration::from_secs(seconds),
        };
        self.heard(Claim::Held(Some(hold)))
    }

    fn released_by_operator(self) -> Self {
        self.heard(Claim::Held(None))
    }

    /// As in [`Story::pause`], and `/cluster` names the lock's holder.
    fn paused_and_led_by(mut self, leader: &str) -> Self {
        self.pause_with(Some(leader.to_owned()));
        self
    }

    fn cluster(&mut self, switchover: Option<Announcement>) {
        let members = ["a", "b", "c"].map(|name| ClusterMember {
            name: name.into(),
            address: Some(address(name)),
            api_url: Some(format!("http://{name}:8008")),
            condition: Default::default(),
        });
        self.hear(Claim::Cluster(Cluster {
            scope: None,
            members: members.to_vec(),
            leader: None,
            paused: false,
            switchover,
            ttl: Some(Duration::from_secs(TTL)),
        }));
    }

    fn pause(&mut self) {
        self.pause_with(None);
    }

    fn pause_with(&mut self, leader: Option<String>) {
        let members = self.view.members().map(|name| ClusterMember {
            name: name.into(),
            address: Some(address(name)),
            api_url: Some(format!("http://{name}:8008")),
            condition: Default::default(),
        });
        let cluster = Cluster {
            scope: None,
            members: members.collect(),
            leader,
            paused: true,
            switchover: None,
            ttl: None,
        };
        self.hear(Claim::Cluster(cluster));
    }

    pub(super) fn verdict(&self) -> Verdict {
        decide(&self.view, self.current.as_ref(), self.now, &policy())
    }

    fn must(mut self, expected: &Course) -> Self {
        let verdict = self.verdict();
        let second = (self.now - self.begin).as_secs_f64();
        assert_eq!(verdict.course, *expected, "at second {second}: {}", verdict.reason);
        assert!(
            verdict.recheck_at.is_none_or(|at| self.now < at),
            "at second {second}: recheck in the past"
        );
        self.current = verdict.course.leader().cloned();
        self.reason = verdict.why();
        self
    }

    fn must_route(self, member: &str) -> Self {
        self.must(&Course::Route(leader(member)))
    }

    fn must_hold_keeping(self, member: &str) -> Self {
        self.must(&Course::Hold(Some(leader(member))))
    }

    fn must_hold_and_cut(self) -> Self {
        self.must(&Course::Hold(None))
    }

    fn must_fence(self) -> Self {
        self.must(&Course::Fence)
    }

    fn because(self, words: &str) -> Self {
        assert!(self.reason.contains(words), "{:?} does not say {words:?}", self.reason);
        self
    }
}

fn pod(name: &str, role: &str) -> Pod {
    Pod {
        name: name.into(),
        address: Ok(address(name)),
        api_url: Some(format!("http://{name}:8008")),
        role: Some(role.into()),
        state: Some("running".into()),
        timeline: Some(1),
        xlog_location: None,
    }
}

type Row = (&'static str, fn() -> Story);

const WITH_THE_LOCK: &[Row] = &[
    ("nothing heard → hold, and say so", || {
        Story::nothing()
            .must_hold_and_cut()
            .because("no member of the cluster has answered yet")
    }),
    ("lock names a, a says primary and running → route", || {
        Story::a_leads().because("holds the leader lock")
    }),
    ("lock names a, a has not answered → hold", || {
        Story::kubernetes()
            .lock("a")
            .must_hold_and_cut()
            .because("has not said yet")
    }),
    ("lock names a, a answers 200 but is still in recovery → hold", || {
        Story::kubernetes()
            .lock("a")
            .says("a", Role::Other, "running", 1)
            .must_hold_and_cut()
    }),
    (
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
    ("b's word from before it held the lock proves nothing", || {
        Story::a_leads()
            .says("b", Role::Primary, "running", 2)
            .after(1.0)
            .lock("b")
            .must_hold_and_cut()
    }),
    ("b on a lower timeline than one already seen → hold", || {
        Story::kubernetes()
            .lock("a")
            .says("a", Role::Primary, "running", 5)
            .must_route("a")
            .lock("b")
            .says("b", Role::Primary, "running", 4)
            .must_hold_and_cut()
            .because("timeline 4, and a leader was seen on timeline 5")
    }),
    ("a's REST hangs while the lock is renewed → keep routing", || {
        Story::a_leads()
            .after(2.0)
            .silent("a")
            .must_route("a")
            .after(8.0)
            .lock("a")
            .silent("a")
            .must_route("a")
            .after(19.0)
            .must_route("a")
            .because("which has not run out")
    }),
    (
        "a stops → hold, keep its sessions, also when it falls silent then",
        || {
            Story::a_leads()
                .says("a", Role::Primary, "stopping", 1)
                .must_hold_keeping("a")
                .silent("a")
                .must_hold_keeping("a")
        },
    ),
    ("a crashed and recovers in place → hold, then route", || {
        Story::a_leads()
            .says("a", Role::Primary, "starting", 1)
            .must_hold_keeping("a")
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }),
    ("lock not renewed for ttl → fence, and not a moment earlier", || {
        Story::a_leads()
            .after(19.4)
            .must_route("a")
            .after(0.1)
            .must_hold_keeping("a")
            .because("about to run out")
            .after(0.49)
            .must_hold_keeping("a")
            .after(0.01)
            .must_fence()
            .because("20 s (its ttl)")
    }),
    (
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
    ("a's clock is set back by 2 s → fence a second early, no more", || {
        Story::a_leads()
            .after(3.0)
            .lock_late("a", 2.0)
            .after(18.9)
            .must_hold_keeping("a")
            .after(0.1)
            .must_fence()
    }),
    ("a's clock is set back while it renews → keep routing", || {
        let renews = |story: Story| story.after(18.4).must_route("a").lock_late("a", 17.0).must_route("a");
        (0..20).fold(Story::a_leads(), |story, _| renews(story))
    }),
    (
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
    ("b's clock is 2 s behind a's: that is no delay", || {
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
        "the API falls silent after a late renewal → that lease, too, counts from when it was written",
        || {
            Story::a_leads()
                .after(3.6)
                .lock_late("a", 0.6)
                .api_silent()
                .silent("a")
                .after(19.3)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    ("the API shows the old lock again → that renews nothing", || {
        Story::a_leads().after(15.0).same_lock("a").after(5.0).must_fence()
    }),
    ("a fenced leader that renews must be verified anew", || {
        Story::a_leads()
            .after(20.0)
            .must_fence()
            .lock("a")
            .silent("a")
            .must_hold_and_cut()
            .says("a", Role::Primary, "running", 1)
            .must_route("a")
    }),
    ("lock released → hold, sessions end", || {
        Story::a_leads().released().must_hold_and_cut().because("released")
    }),
    (
        "lock released in pause, a still primary → hold, sessions stay",
        || {
            Story::a_leads()
                .configured(true, false)
                .released()
                .must_hold_keeping("a")
        },
    ),
    ("lock not renewed in pause → keep routing; a stops → hold", || {
        Story::a_leads()
            .configured(true, false)
            .after(60.0)
            .must_route("a")
            .says("a", Role::Primary, "stopped", 1)
            .must_hold_keeping("a")
    }),
    ("lock moved in pause → sessions of a end", || {
        Story::a_leads().configured(true, false).lock("b").must_hold_and_cut()
    }),
    ("a standby cluster's leader is no primary", || {
        Story::kubernetes()
            .configured(false, true)
            .lock("a")
            .says("a", Role::Primary, "running", 1)
            .must_hold_and_cut()
            .because("standby cluster")
    }),
    ("a says standby_leader → hold", || {
        Story::kubernetes()
            .lock("a")
            .says("a", Role::StandbyLeader, "running", 1)
            .must_hold_and_cut()
    }),
    ("lock names a pod that is not there → hold, and say so", || {
        Story::nothing()
            .lock("z")
            .must_hold_and_cut()
            .because("no pod and no row of /cluster is named z")
    }),
    ("a's pod is gone while it renews the lock → keep routing", || {
        Story::a_leads().heard(Claim::PodGone("a".into())).must_route("a")
    }),
    ("a came back at another address → verify it there", || {
        let moved = Pod {
            address: Address::new("10.0.0.9", 5432).map_err(|error| error.to_string()),
            ..pod("a", "primary")
        };
        Story::a_leads().heard(Claim::Pod(moved)).must_hold_and_cut()
    }),
    (
        "b's REST can't be reached, but its pod says primary since it holds the lock → route",
        || {
            Story::a_leads()
                .after(1.0)
                .lock("b")
                .silent("b")
                .must_hold_and_cut()
                .after(1.0)
                .pod_status("b", "primary", 2)
                .must_route("b")
                .because("pod's status")
        },
    ),
    ("an old pod status proves nothing", || {
        Story::a_leads()
            .pod_status("b", "primary", 2)
            .after(1.0)
            .lock("b")
            .silent("b")
            .must_hold_and_cut()
    }),
    ("both kinds of object: the one renewed last is believed", || {
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

const SWITCHOVERS: &[Row] = &[
    ("announced → hold, keep sessions; aborted → release", || {
        Story::a_leads()
            .announced(Some("a"), Some("b"), None)
            .must_hold_keeping("a")
            .because("from a to b")
            .after(1.0)
            .announcement_gone()
            .must_route("a")
    }),
    ("announced without a name → hold", || {
        Story::a_leads().announced(None, Some("b"), None).must_hold_keeping("a")
    }),
    ("announced for somebody else → route", || {
        Story::a_leads().announced(Some("c"), Some("b"), None).must_route("a")
    }),
    ("the candidate leads already → route", || {
        Story::a_leads().announced(None, Some("a"), None).must_route("a")
    }),
    (
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
    ("scheduled for later → route until then", || {
        Story::a_leads()
            .announced(Some("a"), Some("b"), Some(5.0))
            .must_route("a")
            .after(5.0)
            .must_hold_keeping("a")
    }),
    ("a whole switchover, as measured", || {
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

const API_SILENT: &[Row] = &[
    ("API silent, a vouches → route", || {
        Story::a_leads()
            .after(1.0)
            .api_silent()
            .must_route("a")
            .after(60.0)
            .vouched_in_failsafe("a")
            .must_route("a")
    }),
    (
        "API silent, REST silent → keep for ttl after the last evidence, then fence",
        || {
            Story::a_leads()
                .api_silent()
                .after(1.0)
                .silent("a")
                .must_route("a")
                .after(18.9)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    (
        "API silent just after the lock moved to b → a's word from before that proves nothing",
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
                .api_silent()
                .must_hold_and_cut()
                .says("b", Role::Primary, "running", 2)
                .must_route("b")
        },
    ),
    (
        "paused when the API fell silent, a silent → kept only while a member says that pause goes on",
        || {
            Story::a_leads()
                .configured(true, false)
                .api_silent()
                .silent("a")
                .after(30.0)
                .says_in_pause("b", Role::Other, false)
                .must_route("a")
                .because("paused")
                .after(3.0)
                .must_fence()
        },
    ),
    ("API silent, a demotes itself → hold", || {
        Story::a_leads()
            .api_silent()
            .says("a", Role::Other, "running", 1)
            .must_hold_keeping("a")
    }),
    ("API silent, b was promoted → route to b", || {
        Story::a_leads()
            .api_silent()
            .after(30.0)
            .silent("a")
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
    }),
    (
        "the API returns after a long outage: the lease counts on from where it stood",
        || {
            Story::a_leads()
                .after(3.0)
                .api_silent()
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
    ("lock old, but a vouches in failsafe mode → route", || {
        Story::a_leads()
            .after(19.0)
            .vouched_in_failsafe("a")
            .after(2.0)
            .must_route("a")
            .because("failsafe")
    }),
    ("verified in the last moment of its lease → not sent to", || {
        Story::kubernetes()
            .lock("a")
            .after(19.6)
            .says("a", Role::Primary, "running", 1)
            .must_hold_and_cut()
            .lock("a")
            .must_route("a")
    }),
    (
        "a vouched before its last renewal: that does not outlive the lease → last call",
        || {
            Story::a_leads()
                .vouched_in_failsafe("a")
                .after(0.3)
                .lock("a")
                .silent("a")
                .after(19.6)
                .must_hold_keeping("a")
                .after(0.4)
                .must_fence()
        },
    ),
    (
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
    ("a vouched, then lost the lock → fence", || {
        Story::a_leads()
            .after(18.0)
            .vouched_in_failsafe("a")
            .after(2.0)
            .says_without_lock("a", 1)
            .must_fence()
    }),
    ("a vouched once and fell silent for a whole lease → fence", || {
        Story::a_leads()
            .after(19.0)
            .vouched_in_failsafe("a")
            .after(20.0)
            .must_fence()
    }),
];

const REST_ONLY: &[Row] = &[
    ("one member says primary → route", || {
        Story::a_leads_by_report().because("a alone says")
    }),
    ("nobody says primary → hold", || {
        Story::rest_only()
            .says("a", Role::Other, "running", 1)
            .must_hold_and_cut()
            .because("no member says")
    }),
    (
        "a falls silent → keep for ttl after its last word, then fence",
        || {
            Story::a_leads_by_report()
                .after(1.0)
                .silent("a")
                .must_route("a")
                .after(18.9)
                .must_route("a")
                .after(0.1)
                .must_fence()
        },
    ),
    ("a silent, and gone from /cluster → fence at the same time", || {
        let mut story = Story::a_leads_by_report().after(1.0).silent("a");
        let rows = [ClusterMember {
            name: "b".into(),
            address: Some(address("b")),
            api_url: Some("http://b:8008".into()),
            condition: Default::default(),
        }];
        story.hear(Claim::Cluster(Cluster {
            scope: None,
            members: rows.to_vec(),
            leader: None,
            paused: false,
            switchover: None,
            ttl: Some(Duration::from_secs(TTL)),
        }));
        story
            .must_route("a")
            .after(18.9)
            .must_route("a")
            .after(0.1)
            .must_fence()
    }),
    ("paused, a silent for long → keep routing", || {
        let mut story = Story::a_leads_by_report();
        story.pause();
        story.silent("a").after(60.0).must_route("a").because("paused")
    }),
    (
        "paused, a silent, and /cluster names b as leader → fence once a's lease is over",
        || {
            Story::a_leads_by_report()
                .paused_and_led_by("a")
                .silent("a")
                .after(19.0)
                .paused_and_led_by("b")
                .must_route("a")
                .after(1.0)
                .must_fence()
        },
    ),
    (
        "paused, and a has spoken since /cluster named b → keep routing",
        || {
            Story::a_leads_by_report()
                .paused_and_led_by("b")
                .after(1.0)
                .says_in_pause("a", Role::Primary, true)
                .silent("a")
                .after(60.0)
                .must_route("a")
                .paused_and_led_by("a")
                .must_route("a")
        },
    ),
    ("a silent, b says primary → route to b", || {
        Story::a_leads_by_report()
            .after(1.0)
            .silent("a")
            .after(2.0)
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
    }),
    ("two say primary → the higher timeline", || {
        Story::a_leads_by_report()
            .says("b", Role::Primary, "running", 2)
            .must_route("b")
            .because("several members")
    }),
    ("two say primary on one timeline → fence and alarm", || {
        Story::a_leads_by_report()
            .says("b", Role::Primary, "running", 1)
            .must_fence()
            .because("SPLIT BRAIN")
    }),
    (
        "one promoted by hand, without the lock → the lock's holder stays",
        || Story::a_leads_by_report().says_without_lock("b", 9).must_route("a"),
    ),
    ("a silent, b promoted by hand without the lock → a is kept", || {
        Story::a_leads_by_report()
            .silent("a")
            .says_without_lock("b", 9)
            .must_route("a")
    }),
    (
        "a wakes without the lock: its sessions stay, nobody new is sent to it",
        || {
            Story::a_leads_by_report()
                .silent("a")
                .after(15.0)
                .must_route("a")
                .says_without_lock("a", 1)
                .must_hold_keeping("a")
                .because("does not hold the lock")
                .silent("a")
                .must_hold_keeping("a")
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
        },
    ),
    (
        "a left behind as a primary in pause, b is being promoted → nobody gets a's clients",
        || {
            Story::rest_only()
                .says_in_pause("a", Role::Primary, false)
                .must_route("a")
                .after(1.0)
                .silent("a")
                .after(20.0)
                .must_fence()
                .says_in_pause("b", Role::Other, true)
                .says_in_pause("a", Role::Primary, false)
                .must_hold_and_cut()
                .because("no member says")
        },
    ),
    (
        "a stops and falls silent → keep for ttl after its last word, then fence",
        || {
            Story::a_leads_by_report()
                .says("a", Role::Primary, "stopping", 1)
                .after(1.0)
                .silent("a")
                .must_hold_keeping("a")
                .after(18.9)
                .must_hold_keeping("a")
                .after(0.1)
                .must_fence()
        },
    ),
    ("a stops → hold, keep its sessions", || {
        Story::a_leads_by_report()
            .says("a", Role::Primary, "stopping", 1)
            .must_hold_keeping("a")
    }),
    ("a scheduled switchover holds at its time", || {
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

const HELD_BY_AN_OPERATOR: &[Row] = &[
    (
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
    (
        "nobody releases → route when the hold runs out, and not a moment earlier",
        || {
            Story::a_leads()
                .held_by_operator(10)
                .after(9.9)
                .must_hold_keeping("a")
                .after(0.2)
                .must_route("a")
        },
    ),
    (
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
                .silent("b")
                .must_hold_keeping("b")
                .released_by_operator()
                .must_route("b")
        },
    ),
    (
        "lease runs out during the hold → fence, and hold on when a is back",
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
        "a stops during the hold → hold for that, until it runs again and is released",
        || {
            Story::a_leads()
                .held_by_operator(60)
                .says("a", Role::Primary, "stopping", 1)
                .must_hold_keeping("a")
                .because("a leads but does not accept writes")
                .released_by_operator()
                .must_hold_keeping("a")
                .says("a", Role::Primary, "running", 1)
                .must_route("a")
        },
    ),
    ("held before anybody leads → hold on when a is found", || {
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
        "without a lock to go by, b takes over during the hold → sessions of a end",
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

#[test]
fn the_rules() {
    for (name, story) in [WITH_THE_LOCK, SWITCHOVERS, API_SILENT, REST_ONLY, HELD_BY_AN_OPERATOR].concat() {
        eprintln!("{name}");
        let story = story();
        let again = story.verdict();
        assert_eq!(
            again.course.leader(),
            story.current.as_ref(),
            "{name}: unchanged facts, another verdict"
        );
    }
}
