//! Publishes a decision: updates the slots and ends sessions, then writes log lines, metrics, Events and the flight
//! recorder.

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tracing::{Level, debug, info, warn};

use crate::discovery::Discovery;
use crate::discovery::primaries::PrimarySlot;
use crate::ending::Ending;
use crate::events::EventKind;
use crate::leader::decide::Decision;
use crate::leader::reason::Reason;
use crate::leader::view::View;
use crate::leader::{MemberName, RoutingState, Server};
use crate::slot::{SessionsToEnd, ending};

/// Tracing target of these log lines. Documents and filters name it.
const TARGET: &str = "pgnorth::discovery";

/// The decision that was published last, and the times and tasks that depend on it.
pub(super) struct Published {
    pub(super) decision: Decision,
    /// Time since which new clients have been held, for any reason; `None` while they are routed.
    pub(super) held_since: Option<Instant>,
    /// Time since which there has been no leader for new clients. An operator's hold does not count.
    pub(super) leaderless_since: Option<Instant>,
    pub(super) last_leader: Option<Server>,
    pub(super) draining: Option<Draining>,
    /// Task of an operator's cut. It ends when the last of its sessions is closed.
    pub(super) cutting: Option<JoinHandle<()>>,
}

/// Sessions to a former leader that may continue for `failover_drain`.
pub(super) struct Draining {
    pub(super) member: MemberName,
    pub(super) cuts: Vec<SessionsToEnd>,
}

impl Published {
    /// Returns the time for which new clients have been held.
    fn held(&self, now: Instant) -> Duration {
        self.held_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Discovery {
    /// Publishes and logs the decision if it differs from the last one. Otherwise, publishes only a changed address of
    /// the leader for another target.
    pub(super) fn publish(&mut self, decision: Decision, view: &View, published: &mut Published, now: Instant) {
        let primary = decision.primary();
        published.leaderless_since = match primary {
            Some(_) => None,
            None => published.leaderless_since.or(Some(now)),
        };
        let changed = decision.state != published.decision.state || primary != published.decision.primary();
        if !changed && decision.reason == published.decision.reason && decision.held == published.decision.held {
            end_all(&self.follow_in_primaries(view, &decision), ending(&decision.state));
            self.log_problems();
            published.decision = decision;
            return;
        }
        let reason = decision.why();
        self.readiness.missing(decision.reason.to_string());
        self.change_state(&decision, &reason, view, published);
        if changed {
            self.log_change(&decision, &reason, published, now);
        } else if self.is_another_kind(&decision, &published.decision) {
            info!(target: TARGET, %reason, "{}", still(&decision.state));
        } else {
            debug!(target: TARGET, %reason, "{}", still(&decision.state));
        }
        self.log_problems();
        published.decision = decision;
    }

    fn log_problems(&mut self) {
        self.primaries.iter_mut().for_each(PrimarySlot::log_problem);
    }

    /// Returns true if the kind of the reason has changed and should be logged. Kinds that alternate are logged once,
    /// then counted.
    fn is_another_kind(&self, decision: &Decision, before: &Decision) -> bool {
        let kind = |decision: &Decision| format!("{}: {}", still(&decision.state), decision.reason.as_str());
        decision.reason.as_str() != before.reason.as_str()
            && self.log_limiter.should_log_at(Level::INFO, &kind(decision))
    }

    /// Publishes the decision in the further slots of the primary. Returns the handles that end the sessions to former
    /// servers.
    fn follow_in_primaries(&mut self, view: &View, decision: &Decision) -> Vec<SessionsToEnd> {
        if self.primaries.is_empty() {
            return Vec::new();
        }
        let reason = decision.why();
        let slots = self.primaries.iter_mut();
        slots
            .filter_map(|primary| primary.follow(view, &decision.state, &reason))
            .collect()
    }

    /// Publishes the new state in every slot of the primary, and then ends the sessions that must end, before the
    /// change is logged. If the lock was released cleanly, these sessions may continue for `failover_drain`.
    fn change_state(&mut self, decision: &Decision, reason: &str, view: &View, published: &mut Published) {
        let why = ending(&decision.state);
        let before = self.metrics.sessions_cut();
        let mut cuts = Vec::from_iter(self.slot.succeed(decision.state.clone(), reason.to_owned()));
        cuts.extend(self.follow_in_primaries(view, decision));
        let drain = match decision.reason {
            Reason::Released => self.failover_drain,
            _ => Duration::ZERO,
        };
        if drain.is_zero() {
            end_all(&cuts, why);
        }
        if decision.state == RoutingState::Fence
            && let Some(draining) = published.draining.take()
        {
            end_all(&draining.cuts, why);
        }
        if cuts.is_empty() {
            return;
        }
        let former = published.decision.state.leader();
        if let Some(former) = former.filter(|_| !drain.is_zero()) {
            published.draining = Some(Draining {
                member: former.member.clone(),
                cuts: cuts.clone(),
            });
        }
        let (metrics, recorder) = (self.metrics.clone(), self.recorder.clone());
        let mut at = Instant::now();
        tokio::spawn(async move {
            if !drain.is_zero() {
                tokio::time::sleep(drain).await;
                at = Instant::now();
                end_all(&cuts, why);
            }
            for cut in cuts {
                cut.done().await;
            }
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
                        info!(target: TARGET, leader = %leader, held_ms, %reason, "routing to the same leader again")
                    }
                    Some(last) => {
                        self.metrics.leader_changes.increment(1);
                        self.recorder.writable(now, last, leader, held, true);
                        info!(target: TARGET, from = %last, to = %leader, timeline = leader.timeline, held_ms, %reason,
                            "leader changed"
                        );
                        let held = format!("clients were held for {held_ms} ms");
                        self.announce_change(last, leader, &held, reason);
                    }
                    None => {
                        info!(target: TARGET, leader = %leader, timeline = leader.timeline, %reason, "leader found")
                    }
                }
                published.last_leader = Some(leader.clone());
            }
            // The change of leader is over. From now on, clients wait for the operator.
            RoutingState::Hold(Some(leader))
                if decision.primary().is_some() && published.last_leader.as_ref() != Some(leader) =>
            {
                published.held_since.get_or_insert(now);
                if let Some(last) = &published.last_leader {
                    self.metrics.leader_changes.increment(1);
                    self.recorder.writable(now, last, leader, published.held(now), false);
                    let timeline = leader.timeline;
                    info!(target: TARGET, from = %last, to = %leader, timeline, %reason, "leader changed; new clients stay held");
                    self.announce_change(last, leader, "new clients stay held", reason);
                } else {
                    info!(target: TARGET, leader = %leader, timeline = leader.timeline, %reason, "leader found; new clients stay held");
                }
                published.last_leader = Some(leader.clone());
            }
            RoutingState::Hold(kept) => {
                published.held_since.get_or_insert(now);
                match (from, kept) {
                    (_, Some(kept)) => {
                        info!(target: TARGET, leader = %kept, %reason, "holding new clients; sessions stay")
                    }
                    (Some(from), None) if decision.reason == Reason::Released && !self.failover_drain.is_zero() => {
                        info!(target: TARGET, from = %from, %reason, "holding new clients; sessions to the former leader end after --failover-drain")
                    }
                    (Some(from), None) => {
                        info!(target: TARGET, from = %from, %reason, "holding new clients; sessions to the former leader end")
                    }
                    (None, None) => info!(target: TARGET, %reason, "holding new clients"),
                }
            }
            RoutingState::Fence => {
                published.held_since.get_or_insert(now);
                if from.is_some() {
                    self.metrics.fences.increment(1);
                    let note = format!("sessions to the primary end, new clients wait: {reason}");
                    self.events.send(EventKind::Fenced, note);
                }
                match (&decision.reason, from) {
                    (Reason::SplitBrain { .. }, _) => {
                        warn!(target: TARGET, %reason, "fencing: sessions to the primary end, new clients wait")
                    }
                    (_, Some(from)) => {
                        warn!(target: TARGET, from = %from, %reason, "fencing: sessions to the primary end, new clients wait")
                    }
                    (_, None) => info!(target: TARGET, %reason, "holding new clients"),
                }
            }
        }
    }

    fn announce_change(&self, from: &Server, to: &Server, held: &str, reason: &str) {
        let note = format!("leader changed from {from} to {to}; {held}: {reason}");
        self.events.send(EventKind::LeaderChanged, note);
    }
}

fn end_all(cuts: &[SessionsToEnd], why: Ending) {
    for cut in cuts {
        cut.end.now(why);
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
mod tests;
