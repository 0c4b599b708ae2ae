//! One pgnorth in the simulation: the real view, decision, plan and pacing, driven as `discovery` and its sources
//! drive them.

use std::time::{Duration, Instant};

use pgnorth::backoff::Backoff;
use pgnorth::discovery::kubernetes::checks::Checks;
use pgnorth::discovery::patroni::CLUSTER_ON_ALERT;
use pgnorth::leader::decide::{Policy, decide};
use pgnorth::leader::observation::{Claim, Observation};
use pgnorth::leader::probing::pacing::Pacer;
use pgnorth::leader::probing::{Probe, Urgency, plan, witnesses};
use pgnorth::leader::view::View;
use pgnorth::leader::{MemberName, RoutingState};

use super::Chance;

/// Time of the next wake-up for one purpose.
#[derive(Clone, Copy, Default)]
pub struct Wake(Option<Duration>);

/// One simulated pgnorth.
pub struct Pgnorth {
    pub view: View,
    max_lag: bool,
    pub state: RoutingState,
    held_since: Option<Instant>,
    pub recheck_at: Option<Instant>,
    pub recheck: Wake,
    pub ask: Wake,
    pacer: Pacer,
    pub checks: Checks,
    /// Number of the newest check, or attempt, of the lock. Older ones are void.
    pub check: u64,
    pub opened: Instant,
    pub retry: Backoff,
    pub cluster: Backoff,
    pub config_at: Option<Duration>,
    pub seeds_at: Option<Duration>,
}

impl Wake {
    /// Returns true if a wake-up at `at` must be added, because there is none before.
    pub fn wakes(&mut self, at: Duration, now: Duration) -> bool {
        let sooner = self.0.is_some_and(|known| now < known && known <= at);
        if !sooner {
            self.0 = Some(at);
        }
        !sooner
    }
}

impl Pgnorth {
    pub fn new(begin: Instant, max_lag: bool) -> Self {
        Self {
            view: View::default(),
            max_lag,
            state: RoutingState::Hold(None),
            held_since: Some(begin),
            recheck_at: None,
            recheck: Wake::default(),
            ask: Wake::default(),
            pacer: Pacer::default(),
            checks: Checks::default(),
            check: 0,
            opened: begin,
            retry: pgnorth::discovery::kubernetes::checks::LOCK_RETRY,
            cluster: CLUSTER_ON_ALERT,
            config_at: None,
            seeds_at: None,
        }
    }

    pub fn hear(&mut self, claim: Claim, now: Instant) {
        self.view.record(Observation { at: now, claim });
        self.decide(now);
    }

    pub fn decide(&mut self, now: Instant) {
        let policy = Policy {
            switchover_hold: Duration::from_secs(10),
            report_life: Duration::from_secs(3),
        };
        let decision = decide(&self.view, self.state.leader(), now, &policy);
        self.held_since = match decision.primary() {
            Some(_) => None,
            None => self.held_since.or(Some(now)),
        };
        self.recheck_at = decision.recheck_at;
        self.state = decision.state;
    }

    pub fn is_held(&self) -> bool {
        self.held_since.is_some()
    }

    /// Returns the members to ask now, each for `/primary` or for `/cluster` (true), and the time of the next request.
    pub fn due(&mut self, now: Instant, chance: &mut Chance) -> (Vec<(String, bool)>, Option<Instant>) {
        let probes = plan(&self.view, &self.state, self.held_since, now);
        let witnesses = witnesses(&self.view, &self.state, now);
        let witnesses = witnesses
            .into_iter()
            .map(|Probe { member, urgency }| (format!("{member} /cluster"), urgency));
        let probes = probes
            .into_iter()
            .map(|Probe { member, urgency }| (member.into(), urgency));
        let mut all: Vec<_> = probes.chain(witnesses).collect();
        for member in self.view.members().filter(|_| self.max_lag).map(MemberName::as_str) {
            if !all.iter().any(|(asked, _)| asked == member) {
                all.push((member.to_owned(), Urgency::Steady));
            }
        }
        let keys = all.iter().map(|(key, urgency)| (key.as_str(), *urgency));
        let (due, next) = self.pacer.due(keys, now, || chance.unit());
        let asked = |place: usize| match all[place].0.strip_suffix(" /cluster") {
            Some(member) => (member.to_owned(), true),
            None => (all[place].0.clone(), false),
        };
        (due.into_iter().map(asked).collect(), next)
    }

    /// Records the end of a request. Returns true if its answer still counts.
    pub fn answered(&mut self, member: &str, answered: bool, now: Instant) -> bool {
        self.pacer.ended(member, answered, now)
    }
}
