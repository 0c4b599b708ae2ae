//! Random histories of observations. The properties hold for all observations, in any order.

use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;

use super::stories::{api_url, leader, listing, policy, report};
use super::*;
use crate::leader::identity::Identity;
use crate::leader::observation::{
    Announcement, Claim, Cluster, ClusterSettings, DcsStatus, Lock, NoReport, ObjectKind, Observation, OperatorHold,
    Replication, Tags,
};
use crate::slot::{RouteSlot, Target};

const MEMBERS: [&str; 3] = ["a", "b", "c"];
pub(super) const TTL: Duration = Duration::from_secs(20);

pub(super) fn member() -> impl Strategy<Value = &'static str> {
    prop::sample::select(MEMBERS.to_vec())
}

fn kind() -> impl Strategy<Value = ObjectKind> {
    prop_oneof![
        9 => Just(ObjectKind::Endpoints),
        1 => Just(ObjectKind::ConfigMap),
        1 => Just(ObjectKind::EtcdKey),
    ]
}

/// Returns a `renewTime` of a clock that is set repeatedly, or `None` for a value that cannot be parsed.
fn written() -> impl Strategy<Value = Option<SystemTime>> {
    let at = prop_oneof![4 => 3_600_000..3_700_000_u64, 1 => 0..10_000_000_000_u64];
    prop::option::weighted(
        0.9,
        at.prop_map(|at| SystemTime::UNIX_EPOCH + Duration::from_millis(at)),
    )
}

fn lock() -> impl Strategy<Value = Option<Lock>> {
    let held =
        (prop::option::weighted(0.9, member()), 0..40_u32, written()).prop_map(|(holder, renewal, written)| Lock {
            holder: holder.map(MemberName::from),
            ttl: TTL,
            renewal: [None, Some(renewal.to_string()), None],
            written,
            renewed: None,
        });
    prop::option::weighted(0.95, held)
}

pub(super) fn any_report() -> impl Strategy<Value = Report> {
    let role = prop_oneof![4 => Just(Role::Primary), 4 => Just(Role::Other), 1 => Just(Role::StandbyLeader)];
    let state = prop_oneof![6 => Just("running"), 1 => Just("stopping"), 1 => Just("starting"), 1 => Just("crashed")];
    (role, state, 1..5_u32, any::<bool>(), prop::bool::weighted(0.1)).prop_map(
        |(role, state, timeline, holds_lock, failsafe_active)| Report {
            holds_lock,
            failsafe_active,
            ..report(role, state, timeline)
        },
    )
}

fn announcement() -> impl Strategy<Value = Option<Announcement>> {
    let some = (prop::option::of(member()), prop::option::of(member())).prop_map(|(from, to)| Announcement {
        leader: from.map(MemberName::from),
        candidate: to.map(MemberName::from),
        scheduled_at: None,
        starts: None,
    });
    prop::option::of(some)
}

pub(super) fn pod() -> impl Strategy<Value = DcsStatus> {
    let role = prop_oneof![Just("primary"), Just("replica"), Just("promoted")];
    (member(), role, 1..5_u32).prop_map(|(name, role, timeline)| DcsStatus {
        name: name.into(),
        address: Ok(leader(name).address),
        proxy_address: None,
        api_url: Some(api_url(name)),
        role: Some(role.into()),
        state: Some("running".into()),
        timeline: Some(timeline),
        xlog_location: None,
        tags: Tags::default(),
        replication: Replication::default(),
        citus_group: None,
    })
}

fn claim() -> impl Strategy<Value = Claim> {
    let silence = || "no answer".to_owned();
    prop_oneof![
        6 => (kind(), lock()).prop_map(|(kind, lock)| Claim::Lock(kind, lock)),
        2 => kind().prop_map(move |kind| Claim::ApiUnreachable(kind, silence())),
        2 => (kind(), announcement()).prop_map(|(kind, news)| Claim::Announcement(kind, news)),
        1 => (kind(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(|(kind, paused, standby_cluster)| {
            let settings = ClusterSettings { paused, standby_cluster, ..ClusterSettings::default() };
            Claim::Settings(kind, Some(settings))
        }),
        8 => (member(), any_report()).prop_map(|(member, report)| Claim::Report(member.into(), Ok(report))),
        3 => member().prop_map(move |member| Claim::Report(member.into(), Err(NoReport::Unreachable(silence())))),
        2 => pod().prop_map(Claim::DcsStatus),
        1 => member().prop_map(|member| Claim::DcsStatusGone(member.into())),
        1 => member().prop_map(|member| Claim::LeaderFailure(member.into())),
        1 => Just(Claim::ClusterUnreachable(silence())),
    ]
}

pub(super) fn history() -> impl Strategy<Value = Vec<(Duration, Claim)>> {
    let pause =
        prop_oneof![5 => 0..200_u64, 3 => 200..3_000_u64, 1 => 3_000..25_000_u64].prop_map(Duration::from_millis);
    prop::collection::vec((pause, claim()), 1..60)
}

/// Runs a history as discovery does, with a slot and with one session to each leader that clients are routed to.
pub(super) struct Run {
    pub(super) now: Instant,
    view: View,
    slot: RouteSlot,
    sessions: Vec<Target>,
    pub(super) decision: Decision,
    /// The newest timeline of the followed system on which a lock's holder was seen writable.
    newest: u32,
    system: Option<String>,
}

impl Run {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let mut run = Self {
            now,
            view: View::default(),
            slot: RouteSlot::new("starting"),
            sessions: Vec::new(),
            decision: Decision::starting(),
            newest: 0,
            system: None,
        };
        run.hear(Claim::Cluster(Cluster {
            ttl: Some(TTL),
            ..listing(&MEMBERS)
        }));
        run
    }

    pub(super) fn hear(&mut self, claim: Claim) {
        let leads = |report: &Report| report.holds_lock && report.is_writable();
        let reported = match &claim {
            Claim::Report(_, Ok(report)) if leads(report) => Some((report.system.clone(), report.timeline)),
            _ => None,
        };
        self.view.record(Observation { at: self.now, claim });
        let system = self.view.identity().system;
        if self.system != system {
            self.newest = 0;
            self.system = system;
        }
        if let Some((system, timeline)) = reported
            && (self.system.is_none() || self.system == system)
        {
            self.newest = self.newest.max(timeline.unwrap_or_default());
        }
        // A member that renews the lock for a whole ttl may lead the cluster on an older timeline.
        if self.view.lock().is_some_and(|lock| lock.renewed_throughout().is_some()) {
            self.newest = self.newest.min(self.view.newest_timeline().unwrap_or_default());
        }
        self.decide();
    }

    fn decide(&mut self) {
        let current = self.current();
        self.decision = decide(&self.view, current.as_ref(), self.now, &policy());
        self.slot
            .publish(self.decision.state.clone(), self.decision.reason.to_string());
        self.sessions.extend(self.slot.snapshot().target(&[]));
        self.sessions.retain(|session| session.ending().is_none());
    }

    fn current(&self) -> Option<Server> {
        self.slot.snapshot().state().leader().cloned()
    }

    pub(super) fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(!self.decision.reason.to_string().is_empty());
        for session in &self.sessions {
            prop_assert_eq!(
                Some(&*session.server),
                self.decision.state.leader(),
                "two leaders at once"
            );
        }
        let Some(leader) = self.decision.state.open_to() else {
            return Ok(());
        };
        let answers = self.view.answers(&leader.member);
        if let Some(last) = answers.and_then(|answers| answers.last.as_ref()) {
            let pod_is_newer = self.view.dcs_status_as_of(&leader.member) >= Some(last.at);
            prop_assert!(
                last.value.is_writable() || pod_is_newer,
                "routed to {leader}, which says {:?}",
                last.value
            );
            let timeline = last.value.timeline.unwrap_or_default();
            prop_assert!(
                pod_is_newer || self.newest <= timeline,
                "routed to timeline {timeline}, after {}",
                self.newest
            );
        }
        Ok(())
    }

    /// Checks that an operator's hold makes new clients wait and changes nothing else: neither leader, sessions, fence
    /// nor reason.
    fn check_hold(&self) -> Result<(), TestCaseError> {
        let hold = OperatorHold {
            since: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH,
            ends: self.now + TTL,
        };
        let mut view = self.view.clone();
        let claim = Claim::Held(Some(hold));
        view.record(Observation { at: self.now, claim });
        let current = self.current();
        let [free, held] = [&self.view, &view].map(|view| decide(view, current.as_ref(), self.now, &policy()));
        prop_assert_eq!(held.state.open_to(), None);
        prop_assert_eq!(held.state.leader(), free.state.leader());
        prop_assert_eq!(held.state == RoutingState::Fence, free.state == RoutingState::Fence);
        prop_assert_eq!(held.primary(), free.state.open_to());
        prop_assert_eq!(&held.reason, &free.reason);
        prop_assert!(held.why().contains("held by an operator"));
        prop_assert!(held.recheck_at.is_some_and(|at| at <= hold.ends), "it ends by itself");
        let over = decide(&view, current.as_ref(), hold.ends, &policy());
        prop_assert_eq!(over, decide(&self.view, current.as_ref(), hold.ends, &policy()));
        Ok(())
    }

    /// Checks that, without observations, the decision changes only at `recheck_at`.
    fn check_time(&self, wait: Duration) -> Result<(), TestCaseError> {
        let later = decide(&self.view, self.current().as_ref(), self.now + wait, &policy());
        let rechecked = self.decision.recheck_at.is_some_and(|at| at <= self.now + wait);
        // A fence without a leader is the same as a hold.
        let effect = |state: &RoutingState| (state.leader().cloned(), state.open_to().cloned());
        prop_assert!(
            effect(&later.state) == effect(&self.decision.state) || rechecked,
            "{:?} became {:?} after {wait:?}, unasked for (recheck {:?})",
            self.decision,
            later,
            self.decision
                .recheck_at
                .map(|at| at.saturating_duration_since(self.now))
        );
        Ok(())
    }
}

/// Returns a claim of another cluster: its answer to `/primary` at a member's address, to `/cluster`, or at a URL of
/// `--patroni`.
fn foreign_claim() -> impl Strategy<Value = Claim> {
    let other = Identity {
        scope: Some("zz".into()),
        system: Some("8".into()),
    };
    let seed = other.clone();
    prop_oneof![
        Just(Claim::Cluster(Cluster {
            from: api_url("zz"),
            scope: Some("zz".into()),
            system: Some("8".into()),
            leader: Some("z".into()),
            paused: true,
            ..listing(&["z"])
        })),
        any_report().prop_map(move |report| {
            let report = Report {
                scope: other.scope.clone(),
                system: other.system.clone(),
                ..report
            };
            Claim::Report("z".into(), Ok(report))
        }),
        Just(Claim::Seed(api_url("zz"), Some(seed))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_two_leaders_never_a_replica_never_an_older_timeline(history in history(), wait in 0..60_000_u64) {
        let mut run = Run::new();
        for (pause, claim) in history {
            run.now += pause;
            run.decide();
            run.check()?;
            run.hear(claim);
            run.check()?;
            run.check_time(Duration::from_millis(wait))?;
            run.check_hold()?;
        }
    }

    /// A member at whose address another cluster answers gets no new clients, whatever else is observed about it.
    #[test]
    fn no_client_is_sent_to_an_address_where_another_cluster_answers(
        history in prop::collection::vec((0..3_000_u64, claim(), prop::option::of((member(), any_report()))), 1..60),
    ) {
        let mut run = Run::new();
        run.hear(Claim::Report("a".into(), Ok(report(Role::Primary, "running", 1))));
        for (pause, claim, foreign) in history {
            run.now += Duration::from_millis(pause);
            run.hear(claim);
            run.check()?;
            if let Some((member, report)) = foreign {
                let report = Report {
                    scope: Some("zz".into()),
                    system: Some("8".into()),
                    ..report
                };
                run.hear(Claim::Report(member.into(), Ok(report)));
                let open_to = run.decision.state.open_to();
                prop_assert!(open_to.is_none_or(|leader| leader.member != member), "{}", run.decision.reason);
                run.check()?;
            }
        }
    }

    /// Once the followed cluster is known, a run that continually observes another cluster decides as a run that never
    /// observes it. The reasons may differ in which member of the followed cluster is unreachable.
    #[test]
    fn another_clusters_answers_never_change_the_decision(
        history in prop::collection::vec((0..3_000_u64, claim(), foreign_claim()), 1..60),
    ) {
        let [mut run, mut beside] = [Run::new(), Run::new()];
        beside.view = run.view.clone();
        beside.now = run.now;
        for run in [&mut run, &mut beside] {
            run.hear(Claim::Report("a".into(), Ok(report(Role::Primary, "running", 1))));
        }
        for (pause, claim, foreign) in history {
            for run in [&mut run, &mut beside] {
                run.now += Duration::from_millis(pause);
                run.hear(claim.clone());
            }
            // A second decision on the same facts may have another reason, because a fenced leader is no longer the
            // current leader.
            run.decide();
            beside.hear(foreign);
            // A fence without a leader is the same as a hold.
            let effect = |run: &Run| (run.current(), run.decision.state.open_to().cloned());
            prop_assert_eq!(effect(&run), effect(&beside));
            prop_assert!(run.view.members().eq(beside.view.members()));
            let now = run.now;
            let life = policy().report_life;
            prop_assert_eq!(run.view.primaries(now, life), beside.view.primaries(now, life));
        }
    }

    #[test]
    fn an_unreachable_rest_api_alone_never_changes_the_leader_while_the_lock_is_renewed(
        history in history(),
        first in written(),
        // 1.5 s less than the ttl: half a second is the margin before the expiry, and a second is for clock errors.
        silences in prop::collection::vec((0..18_500_u64, member(), written()), 1..30),
    ) {
        let mut run = Run::new();
        for (pause, claim) in history {
            run.now += pause;
            run.hear(claim);
        }
        run.hear(Claim::Announcement(ObjectKind::Endpoints, None));
        run.hear(Claim::Lock(ObjectKind::ConfigMap, None));
        run.hear(Claim::Settings(ObjectKind::Endpoints, None));
        let lock = |renewal: usize, written| Claim::Lock(ObjectKind::Endpoints, Some(Lock {
            holder: Some("a".into()),
            ttl: TTL,
            renewal: [None, Some(format!("renewed {renewal}")), None],
            written,
            renewed: None,
        }));
        run.hear(lock(0, first));
        run.hear(Claim::Report("a".into(), Ok(report(Role::Primary, "running", 9))));
        let routed = RoutingState::Route(leader("a"));
        prop_assert_eq!(&run.decision.state, &routed);
        for (renewal, (pause, member, written)) in silences.into_iter().enumerate() {
            run.now += Duration::from_millis(pause);
            run.hear(Claim::Report(member.into(), Err(NoReport::Unreachable("no answer".into()))));
            prop_assert_eq!(&run.decision.state, &routed);
            run.hear(lock(renewal + 1, written));
            prop_assert_eq!(&run.decision.state, &routed);
        }
    }
}
