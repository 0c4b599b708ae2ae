//! The discovery loop: it records observations in the view, decides on the view, and publishes the decision in the
//! slot.
//!
//! This file owns the order of these steps, and their log lines and metrics. `leader::decide` decides what the
//! facts mean; the sources below deliver them.

mod clusters;
mod commands;
pub mod etcd;
pub mod http;
pub mod kubernetes;
pub mod patroni;
pub mod routes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{Level, debug, info, warn};

use crate::command_queue::PendingCommand;
use crate::discovery::clusters::Clusters;
use crate::discovery::patroni::{Plan, Question, Target, sleep_until};
use crate::discovery::routes::FollowedRoute;
use crate::events::{EventKind, Events};
use crate::leader::decide::{Decision, Policy, decide};
use crate::leader::observation::{Claim, ObjectKind, Observation};
use crate::leader::probing::{Urgency, asked_and_answering, plan};
use crate::leader::reason::Reason;
use crate::leader::view::View;
use crate::leader::{Leader, LeaderFailure, MemberName, RoutingState};
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::route::Upstream;
use crate::slot::{Cut, LeaderSlot, ending};

/// The discovery loop.
pub struct Discovery {
    /// Slot in which decisions about the primary are published.
    pub slot: Arc<LeaderSlot>,
    /// Routes to other members than the primary alone.
    pub routes: Vec<FollowedRoute>,
    /// Metrics of decisions.
    pub metrics: Arc<Metrics>,
    /// Flight recorder: keeps each change of leader.
    pub recorder: Arc<Recorder>,
    /// Sender of Kubernetes Events about changes of leader.
    pub events: Events,
    /// Limiter of repeated log lines.
    pub log_limiter: LogLimiter,
    /// Readiness, set once a source has answered.
    pub readiness: ReadinessHandle,
    /// Times from the settings on which decisions depend.
    pub policy: Policy,
    /// Time for which sessions to a leader that released the lock cleanly may continue.
    pub failover_drain: Duration,
    /// Scope that answers must have, if the settings name one.
    pub scope: Option<String>,
    /// Citus group, if the settings name one.
    pub citus_group: Option<u32>,
    /// The server of a member that sessions go to.
    pub upstream: Upstream,
    /// Observations from the sources.
    pub observations: mpsc::Receiver<Observation>,
    /// Leader failures from the proxy.
    pub leader_failures: mpsc::Receiver<LeaderFailure>,
    /// Commands from operators.
    pub commands: mpsc::Receiver<PendingCommand>,
    /// Plan for the sources that ask Patroni.
    pub plan: watch::Sender<Plan>,
    /// Newest view, for the status page and `/status`; written after each decision.
    pub seen: watch::Sender<Arc<View>>,
}

/// The decision that was published last, and the times and tasks that depend on it.
struct Published {
    decision: Decision,
    /// Start of the time for which new clients have been held, for any reason.
    held_since: Option<Instant>,
    /// Start of the time without a leader for new clients. An operator's hold alone does not count.
    leaderless_since: Option<Instant>,
    last_leader: Option<Leader>,
    draining: Option<Draining>,
    /// Task of an operator's cut, until its last session is closed.
    cutting: Option<JoinHandle<()>>,
}

/// Sessions to a former leader that may continue for `failover_drain`.
struct Draining {
    member: MemberName,
    cut: Cut,
}

impl Published {
    /// Returns the time for which new clients have been held.
    fn held(&self, now: Instant) -> Duration {
        self.held_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Discovery {
    /// Runs the loop until every source is gone. Nothing in it waits for sessions.
    pub async fn run(mut self) {
        let mut view = View::of(self.scope.clone(), self.citus_group).with_upstream(self.upstream);
        let mut published = Published {
            decision: Decision::starting(),
            held_since: Some(Instant::now()),
            leaderless_since: Some(Instant::now()),
            last_leader: None,
            draining: None,
            cutting: None,
        };
        let mut clusters = Clusters::default();
        loop {
            let of_routes = self.routes.iter().filter_map(FollowedRoute::recheck_at);
            let recheck_at = published.decision.recheck_at.into_iter().chain(of_routes).min();
            tokio::select! {
                // Observations before the clock: a renewal that has arrived must win over the lock's expiry.
                biased;
                observation = self.observations.recv() => match observation {
                    Some(observation) => self.take_in(&mut view, observation),
                    None => return,
                },
                Some(failure) = self.leader_failures.recv() => {
                    debug!(member = %failure.member, "the proxy reports that the leader failed: {}", failure.what);
                    let claim = Claim::LeaderFailure(failure.member);
                    self.take_in(&mut view, Observation { at: Instant::now(), claim });
                }
                Some(command) = self.commands.recv() => self.apply_command(command, &mut view, &mut published),
                () = sleep_until(recheck_at) => {}
            }
            while let Ok(observation) = self.observations.try_recv() {
                self.take_in(&mut view, observation);
            }
            let now = Instant::now();
            self.end_expired_hold(&mut view, now);
            let current = self.slot.snapshot().state().leader().cloned();
            let decision = decide(&view, current.as_ref(), now, &self.policy);
            clusters.log_changes(&view, &self.log_limiter);
            self.record_signs(&view, &decision, &published, now);
            self.publish(decision, &mut published, now);
            for route in &mut self.routes {
                if let Some(note) = route.follow(&view, &published.decision.state, now) {
                    self.events.send(EventKind::NoMemberFit, note);
                }
            }
            self.replan(&view, &published, now);
            self.update_metrics(&view, &published, now);
            self.seen.send_replace(Arc::new(view.clone()));
        }
    }

    fn take_in(&self, view: &mut View, observation: Observation) {
        debug!(claim = ?observation.claim, "observed");
        let gone_back = view.gone_back();
        view.record(observation);
        if let Some((from, to)) = view.gone_back().filter(|back| gone_back != Some(*back)) {
            let leader = view.lock().and_then(|lock| lock.lock.holder.as_deref());
            warn!(
                leader,
                "the cluster has gone back from timeline {from} to timeline {to}: the leader has renewed its lock for \
                 a whole ttl and reports that it is a running primary on timeline {to}. If the cluster was not \
                 restored on purpose, writes on timeline {from} may be lost: check the cluster"
            );
        }
        if view.api_answered() || view.rest_answered() {
            self.readiness.ready();
        }
    }

    /// Passes the signs of a change of leader to the flight recorder.
    fn record_signs(&self, view: &View, decision: &Decision, published: &Published, now: Instant) {
        let Some(last) = &published.last_leader else { return };
        match decision.primary() {
            Some(leader) if leader == last && !decision.reason.is_sign_of_failover() => {
                self.recorder.all_is_well();
                return;
            }
            primary => self
                .recorder
                .sign(now, &decision.reason.to_string(), primary.is_none(), view.ttl()),
        }
        let holder = view.lock().and_then(|lock| lock.lock.holder.as_ref());
        if let Some(holder) = holder.filter(|holder| **holder != last.member) {
            self.recorder.lock_moved(now, holder);
        }
    }

    /// Publishes and logs the decision if it differs from the last one.
    fn publish(&self, decision: Decision, published: &mut Published, now: Instant) {
        let primary = decision.primary();
        published.leaderless_since = match primary {
            Some(_) => None,
            None => published.leaderless_since.or(Some(now)),
        };
        let changed = decision.state != published.decision.state || primary != published.decision.primary();
        if !changed && decision.reason == published.decision.reason && decision.held == published.decision.held {
            published.decision = decision;
            return;
        }
        let reason = decision.why();
        self.readiness.missing(decision.reason.to_string());
        self.change_state(&decision, &reason, published);
        if changed {
            self.log_change(&decision, &reason, published, now);
        } else if self.is_another_kind(&decision, &published.decision) {
            info!(%reason, "{}", still(&decision.state));
        } else {
            debug!(%reason, "{}", still(&decision.state));
        }
        published.decision = decision;
    }

    /// Returns true if the reason is of another kind than before. Kinds that alternate are logged once, then counted.
    fn is_another_kind(&self, decision: &Decision, before: &Decision) -> bool {
        let kind = |decision: &Decision| format!("{}: {}", still(&decision.state), decision.reason.as_str());
        decision.reason.as_str() != before.reason.as_str()
            && self.log_limiter.should_log_at(Level::INFO, &kind(decision))
    }

    /// Publishes the new state and ends the sessions that must end, before anything is logged. If the lock was released
    /// cleanly, they get `failover_drain`.
    fn change_state(&self, decision: &Decision, reason: &str, published: &mut Published) {
        let why = ending(&decision.state);
        let before = self.metrics.sessions_cut();
        let cut = self.slot.succeed(decision.state.clone(), reason.to_owned());
        let drain = match decision.reason {
            Reason::Released => self.failover_drain,
            _ => Duration::ZERO,
        };
        if let Some(cut) = &cut
            && drain.is_zero()
        {
            cut.end.now(why);
        }
        if decision.state == RoutingState::Fence
            && let Some(draining) = published.draining.take()
        {
            draining.cut.end.now(why);
        }
        let Some(cut) = cut else { return };
        let former = published.decision.state.leader();
        if let Some(former) = former.filter(|_| !drain.is_zero()) {
            published.draining = Some(Draining {
                member: former.member.clone(),
                cut: cut.clone(),
            });
        }
        let (metrics, recorder) = (self.metrics.clone(), self.recorder.clone());
        let mut at = Instant::now();
        tokio::spawn(async move {
            if !drain.is_zero() {
                tokio::time::sleep(drain).await;
                at = Instant::now();
                cut.end.now(why);
            }
            cut.done().await;
            recorder.sessions_cut(metrics.sessions_cut() - before, at.elapsed());
        });
    }

    fn log_change(&self, decision: &Decision, reason: &str, published: &mut Published, now: Instant) {
        let from = published.decision.state.leader();
        match &decision.state {
            RoutingState::Route(leader) => {
                let held = published.held(now);
                published.held_since = None;
                let held_ms = held.as_millis() as u64;
                match &published.last_leader {
                    Some(last) if last == leader => {
                        info!(leader = %leader, held_ms, %reason, "routing to the same leader again")
                    }
                    Some(last) => {
                        self.metrics.leader_changes.increment(1);
                        self.recorder.writable(now, last, leader, held, true);
                        info!(
                            from = %last, to = %leader, timeline = leader.timeline, held_ms, %reason,
                            "leader changed"
                        );
                        let held = format!("clients were held for {held_ms} ms");
                        self.announce_change(last, leader, &held, reason);
                    }
                    None => info!(leader = %leader, timeline = leader.timeline, %reason, "leader found"),
                }
                published.last_leader = Some(leader.clone());
            }
            // The change is over. From now on clients wait for the operator.
            RoutingState::Hold(Some(leader))
                if decision.primary().is_some() && published.last_leader.as_ref() != Some(leader) =>
            {
                published.held_since.get_or_insert(now);
                if let Some(last) = &published.last_leader {
                    self.metrics.leader_changes.increment(1);
                    self.recorder.writable(now, last, leader, published.held(now), false);
                    let timeline = leader.timeline;
                    info!(from = %last, to = %leader, timeline, %reason, "leader changed; new clients stay held");
                    self.announce_change(last, leader, "new clients stay held", reason);
                } else {
                    info!(leader = %leader, timeline = leader.timeline, %reason, "leader found; new clients stay held");
                }
                published.last_leader = Some(leader.clone());
            }
            RoutingState::Hold(kept) => {
                published.held_since.get_or_insert(now);
                match (from, kept) {
                    (_, Some(kept)) => info!(leader = %kept, %reason, "holding new clients; sessions stay"),
                    (Some(from), None) => {
                        info!(from = %from, %reason, "holding new clients; sessions to the former leader end")
                    }
                    (None, None) => info!(%reason, "holding new clients"),
                }
            }
            RoutingState::Fence => {
                published.held_since.get_or_insert(now);
                if from.is_some() {
                    self.metrics.fences.increment(1);
                    let note = format!("every session ends, new clients wait: {reason}");
                    self.events.send(EventKind::Fenced, note);
                }
                match (&decision.reason, from) {
                    (Reason::SplitBrain { .. }, _) => warn!(%reason, "fencing: every session ends, new clients wait"),
                    (_, Some(from)) => warn!(from = %from, %reason, "fencing: every session ends, new clients wait"),
                    (_, None) => info!(%reason, "holding new clients"),
                }
            }
        }
    }

    fn announce_change(&self, from: &Leader, to: &Leader, held: &str, reason: &str) {
        let note = format!("leader changed from {from} to {to}; {held}: {reason}");
        self.events.send(EventKind::LeaderChanged, note);
    }

    fn replan(&self, view: &View, published: &Published, now: Instant) {
        let state = &published.decision.state;
        let target = |member: &MemberName, question, urgency| {
            Some(Target {
                url: view.api_url(member)?.clone(),
                member: member.clone(),
                question,
                urgency,
            })
        };
        let probes = plan(view, state, published.leaderless_since, now);
        let probes = probes
            .iter()
            .filter_map(|probe| target(&probe.member, Question::Primary, probe.urgency));
        let leader = state.leader().map(|leader| &leader.member);
        let witnesses = view.witnesses(leader, now);
        let witnesses = witnesses.filter_map(|member| target(member, Question::Leader, Urgency::Round));
        let asked: Vec<_> = probes.chain(witnesses).collect();
        let asks_members = self.routes.iter().any(|route| route.conditions.asks_members());
        let others = view.members().filter(|_| asks_members);
        let others = others.filter(|member| !asked.iter().any(|probe: &Target| probe.member == **member));
        let others: Vec<_> = others
            .filter_map(|member| target(member, Question::Primary, Urgency::Steady))
            .collect();
        let targets = asked.into_iter().chain(others).collect();
        let next = Plan {
            targets,
            urls: view
                .members()
                .filter_map(|member| view.api_url(member))
                .cloned()
                .collect(),
            alert: published.leaderless_since.is_some(),
            followed: view.identity(),
        };
        self.plan.send_if_modified(|plan| {
            let changed = *plan != next;
            if changed {
                *plan = next;
            }
            changed
        });
    }

    fn update_metrics(&self, view: &View, published: &Published, now: Instant) {
        let state = &published.decision.state;
        let leader = state.leader().map(|leader| &leader.member);
        self.metrics.set_routing(state.open_to().is_some());
        self.metrics.set_held_by_operator(published.decision.held.is_some());
        self.metrics.set_routing_state(state, &published.decision.reason);
        self.metrics.set_leader(leader.map(MemberName::as_str));
        let primaries = view.primaries(now, self.policy.report_life);
        self.metrics.set_foreign_answers(view.foreign_clusters().count());
        self.metrics.set_primaries(primaries);
        self.metrics.set_ttl(view.ttl());
        let holder = view.lock().and_then(|lock| lock.lock.holder.as_ref());
        if let Some(seen) = leader.or(holder).and_then(|member| view.renewal_seen(member)) {
            self.metrics.set_lock_age(seen);
        }
        if view.api_answered() || view.api_unreachable().is_some() {
            let source = view.watched_kind().unwrap_or(ObjectKind::Endpoints).source();
            self.metrics.set_source_up(source, view.api_unreachable().is_none());
        }
        match asked_and_answering(view, state, now) {
            // While the lock has no holder, there may be no member to ask: the source keeps its last state.
            (0, _) if view.rest_answered() => {}
            (_, answering) => self.metrics.set_source_up("patroni", answering > 0),
        }
        if let Some(scope) = view.scope().filter(|_| self.citus_group.is_none()) {
            self.metrics.set_cluster(scope);
        }
    }
}

fn still(state: &RoutingState) -> &'static str {
    match state {
        RoutingState::Route(_) => "still routing to the leader",
        RoutingState::Hold(_) => "still holding new clients",
        RoutingState::Fence => "still fencing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Address;
    use crate::log_limiter::capture::Log;

    #[tokio::test(start_paused = true)]
    async fn reasons_that_alternate_do_not_flood_the_log() {
        let log = Log::default();
        let _logs_here = log.install();
        let metrics = Arc::new(Metrics::new());
        let discovery = Discovery {
            slot: Arc::new(LeaderSlot::new("starting")),
            recorder: Arc::new(Recorder::new(metrics.clone())),
            metrics,
            events: Events::default(),
            log_limiter: LogLimiter::default(),
            readiness: ReadinessHandle::starting("starting"),
            policy: Policy {
                switchover_hold: Duration::from_secs(10),
                report_life: Duration::from_secs(3),
            },
            routes: Vec::new(),
            scope: None,
            citus_group: None,
            upstream: Upstream::Postgres,
            failover_drain: Duration::ZERO,
            observations: mpsc::channel(1).1,
            leader_failures: mpsc::channel(1).1,
            commands: mpsc::channel(1).1,
            plan: watch::Sender::default(),
            seen: watch::Sender::default(),
        };
        let leader = Leader {
            member: "a".into(),
            address: Address::new("10.0.0.7", 5432).unwrap(),
            timeline: None,
        };
        let route = |reason| Decision {
            state: RoutingState::Route(leader.clone()),
            reason,
            ..Decision::starting()
        };
        let mut published = Published {
            decision: route(Reason::LockAndReport { member: "a".into() }),
            held_since: None,
            leaderless_since: None,
            last_leader: Some(leader.clone()),
            draining: None,
            cutting: None,
        };

        for _ in 0..500 {
            let silent = Reason::LockAlone {
                member: "a".into(),
                cause: "no answer within 1 s".into(),
            };
            for reason in [silent, Reason::LockAndReport { member: "a".into() }] {
                discovery.publish(route(reason), &mut published, Instant::now());
            }
        }
        assert_eq!(log.lines().len(), 2, "each kind of reason once");
        tokio::time::sleep(Duration::from_secs(31)).await;
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(
            lines.iter().all(|line| line.starts_with("… and 499 more like it")),
            "{lines:#?}"
        );
    }
}
