//! The discovery loop: it records observations in the view, decides on the view, and publishes the decision in the
//! slot.
//!
//! This file owns the order of these steps, and their log lines and metrics. The sources below deliver the
//! observations, and `leader::decide` makes the decision.

mod clusters;
mod commands;
pub mod etcd;
pub mod http;
pub mod kubernetes;
mod outage;
pub mod patroni;
pub mod primaries;
mod publishing;
pub mod routes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use crate::command_queue::PendingCommand;
use crate::discovery::clusters::Clusters;
use crate::discovery::patroni::{Plan, Question, Target, sleep_until};
use crate::discovery::primaries::PrimarySlot;
use crate::discovery::publishing::Published;
use crate::discovery::routes::FollowedRoute;
use crate::events::{EventKind, EventSender};
use crate::leader::decide::{Decision, Policy, decide};
use crate::leader::observation::{Claim, ObjectKind, Observation};
use crate::leader::probing::{Urgency, asked_and_answering, plan, witnesses};
use crate::leader::view::View;
use crate::leader::{LeaderFailure, MemberName};
use crate::log_limiter::LogLimiter;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::route::Upstream;
use crate::slot::RouteSlot;

/// The discovery loop.
pub struct Discovery {
    /// Slot in which decisions about the primary are published.
    pub slot: Arc<RouteSlot>,
    /// Further slots for the same decisions, for routes to the primary that have another target.
    pub primaries: Vec<PrimarySlot>,
    /// Routes that do not lead only to the primary.
    pub routes: Vec<FollowedRoute>,
    /// Metrics of decisions.
    pub metrics: Arc<Metrics>,
    /// Flight recorder of the changes of leader.
    pub recorder: Arc<Recorder>,
    /// Sender of Kubernetes Events about changes of leader.
    pub events: EventSender,
    /// Limiter of repeated log lines.
    pub log_limiter: LogLimiter,
    /// Readiness, set once a source has answered.
    pub readiness: ReadinessHandle,
    /// The settings that decisions depend on.
    pub policy: Policy,
    /// Time for which sessions may continue to a leader that has released the lock cleanly.
    pub failover_drain: Duration,
    /// Scope that answers must have, if the settings name one.
    pub scope: Option<String>,
    /// Citus group, if the settings name one.
    pub citus_group: Option<u32>,
    /// Server of a member that sessions connect to, unless a route has another target.
    pub upstream: Upstream,
    /// Observations from the sources.
    pub observations: mpsc::Receiver<Observation>,
    /// Leader failures from the proxy.
    pub leader_failures: mpsc::Receiver<LeaderFailure>,
    /// Commands from operators.
    pub commands: mpsc::Receiver<PendingCommand>,
    /// Plan for the sources that ask Patroni.
    pub plan: watch::Sender<Plan>,
    /// Newest view, for the status, a reload and the comparison with HAProxy; written after each decision.
    pub seen: watch::Sender<Arc<View>>,
}

impl Discovery {
    /// Runs the loop until every source has ended. The loop never waits for sessions.
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
            let mut reply = None;
            tokio::select! {
                // Polls observations before the clock: a renewal that has arrived must win over the lock's expiry.
                biased;
                observation = self.observations.recv() => match observation {
                    Some(observation) => self.record(&mut view, observation),
                    None => return,
                },
                Some(failure) = self.leader_failures.recv() => {
                    debug!(member = %failure.member, target = %failure.upstream, "the proxy reports a failure: {}", failure.what);
                    let claim = match failure.upstream.is_pooler() {
                        true => Claim::PoolerFailure(failure.member, failure.upstream),
                        false => Claim::LeaderFailure(failure.member),
                    };
                    self.record(&mut view, Observation { at: Instant::now(), claim });
                }
                Some(command) = self.commands.recv() => {
                    reply = self.apply_command(command, &mut view, &mut published);
                }
                () = sleep_until(recheck_at) => {}
            }
            while let Ok(observation) = self.observations.try_recv() {
                self.record(&mut view, observation);
            }
            let now = Instant::now();
            self.end_expired_hold(&mut view, now);
            let current = self.slot.snapshot().state().leader().cloned();
            let decision = decide(&view, current.as_ref(), now, &self.policy);
            clusters.log_changes(&view, &self.log_limiter);
            self.record_signs(&view, &decision, &published, now);
            self.publish(decision, &view, &mut published, now);
            for route in &mut self.routes {
                if let Some(note) = route.follow(&view, &published.decision.state, now) {
                    self.events.send(EventKind::NoMemberFit, note);
                }
            }
            if let Some((command, outcome)) = reply {
                command.reply(outcome);
            }
            self.replan(&view, &published, now);
            self.update_metrics(&view, &published, now);
            self.seen.send_replace(Arc::new(view.clone()));
        }
    }

    fn record(&self, view: &mut View, observation: Observation) {
        debug!(claim = ?observation.claim, "observed");
        let gone_back = view.gone_back();
        view.record(observation);
        if let Some((from, to)) = view.gone_back().filter(|back| gone_back != Some(*back)) {
            let leader = view.lock().and_then(|lock| lock.lock.holder.as_deref());
            warn!(
                leader,
                "the cluster has gone back from timeline {from} to timeline {to}: the leader has renewed its lock for \
                 a whole ttl and reports that it is a running primary on timeline {to}; unless the cluster was \
                 restored on purpose, writes on timeline {from} may be lost: check the cluster"
            );
        }
        if view.api_answered() || view.rest_answered() {
            self.readiness.ready();
        }
    }

    /// Reports signs of a change of leader, or their absence, to the flight recorder.
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
        let witnesses = witnesses(view, state, now);
        let witnesses = witnesses
            .iter()
            .filter_map(|probe| target(&probe.member, Question::Leader, probe.urgency));
        let asked: Vec<_> = probes.chain(witnesses).collect();
        let reads_standbys = view.reads_standbys();
        let mut routes = self.routes.iter();
        let asks_members = routes.any(|route| route.conditions.asks_members(reads_standbys));
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
