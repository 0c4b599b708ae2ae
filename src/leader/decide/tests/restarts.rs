//! Checks that a restart never helps: regardless of its earlier observations, a long-running process routes to the same
//! leader as a new process that lists everything again.

use proptest::prelude::*;

use super::histories::{Run, TTL, any_report, history, member, pod};
use super::*;
use crate::leader::observation::{Claim, ClusterSettings, Lock, NoReport, ObjectKind};

/// Patroni's loop_wait.
const LOOP: Duration = Duration::from_secs(3);

/// The facts from now on: the lock's holder, the answer of its REST API, the pods, and whether Patroni is paused.
#[derive(Clone, Debug)]
struct Facts {
    holder: &'static str,
    answer: Result<Report, NoReport>,
    pods: Vec<DcsStatus>,
    paused: bool,
}

fn facts() -> impl Strategy<Value = Facts> {
    // The cluster may have been initialised again in the meantime.
    let report = (any_report(), prop::bool::weighted(0.3)).prop_map(|(report, anew)| match anew {
        true => Report {
            system: Some("8".into()),
            ..report
        },
        false => report,
    });
    let answer = prop_oneof![3 => Just(Err(NoReport::Unreachable("no answer".into()))), 2 => report.prop_map(Ok)];
    (
        member(),
        answer,
        prop::collection::vec(pod(), 0..6),
        prop::bool::weighted(0.2),
    )
        .prop_map(|(holder, answer, pods, paused)| {
            // Keep the last pod of each name.
            let by_name: std::collections::BTreeMap<_, _> =
                pods.into_iter().map(|pod| (pod.name.clone(), pod)).collect();
            Facts {
                holder,
                answer,
                pods: by_name.into_values().collect(),
                paused,
            }
        })
}

impl Facts {
    /// Returns the claims of a complete list.
    fn listed(&self, renewal: usize) -> Vec<Claim> {
        let settings = ClusterSettings {
            paused: self.paused,
            ..ClusterSettings::default()
        };
        vec![
            self.lock(renewal),
            Claim::Lock(ObjectKind::ConfigMap, None),
            Claim::Announcement(ObjectKind::Endpoints, None),
            Claim::Settings(ObjectKind::Endpoints, Some(settings)),
            Claim::DcsStatuses(self.pods.clone()),
            self.answer(),
        ]
    }

    fn lock(&self, renewal: usize) -> Claim {
        let lock = Lock {
            holder: Some(self.holder.into()),
            ttl: TTL,
            renewal: [None, Some(format!("renewed {renewal}")), None],
            written: None,
            renewed: None,
        };
        Claim::Lock(ObjectKind::Endpoints, Some(lock))
    }

    fn answer(&self) -> Claim {
        Claim::Report(self.holder.into(), self.answer.clone())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_restart_is_never_a_cure(
        history in history(),
        outage in 0..60_u64,
        facts in facts(),
        order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let mut old = Run::new();
        for (pause, claim) in history {
            old.now += pause;
            old.hear(claim);
        }
        old.now += Duration::from_secs(outage);
        let mut fresh = Run::new();
        fresh.now = old.now;
        let listed = facts.listed(0);
        for place in order {
            old.hear(listed[place].clone());
            fresh.hear(listed[place].clone());
        }
        // Enough renewals for a whole ttl between the first and the last renewal.
        for renewal in 1..=TTL.as_secs().div_ceil(LOOP.as_secs()) + 1 {
            for run in [&mut old, &mut fresh] {
                run.now += LOOP;
                run.hear(facts.lock(renewal as usize));
                run.hear(facts.answer());
                run.check()?;
            }
        }
        let [old, fresh] = [&old, &fresh].map(|run| &run.decision);
        if facts.answer.is_ok() || fresh.state.open_to().is_some() {
            prop_assert_eq!(old.state.open_to(), fresh.state.open_to(), "{} / {}", old.reason, fresh.reason);
        }
    }
}
