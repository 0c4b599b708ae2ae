//! The routes that do not lead only to the primary: decides which members are fit, publishes them in each route's slot,
//! and ends the sessions to members that may no longer be used.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tracing::{Level, debug, info, warn};

use crate::ending::Ending;
use crate::leader::fit::{Fitness, Judged, Outcome, fit};
use crate::leader::view::View;
use crate::leader::{MemberName, RoutingState};
use crate::log_limiter::LogLimiter;
use crate::route::{Conditions, Upstream};
use crate::slot::{RouteSlot, UsableMember};

/// A route, and the last decision about its members.
pub struct FollowedRoute {
    /// Address of its listener, for the log.
    pub listen: String,
    /// Port of its listener, for Events.
    pub port: u16,
    /// The conditions under which a member is fit.
    pub conditions: Conditions,
    /// Server of a member that the route's sessions connect to.
    pub upstream: Upstream,
    /// Slot in which the members are published.
    pub slot: Arc<RouteSlot>,
    /// Newest outcome, for the status page and `/status`.
    pub fitness: watch::Sender<Arc<Fitness>>,
    /// Limiter of repeated log lines.
    pub log_limiter: LogLimiter,
}

impl FollowedRoute {
    /// Returns the time of the next decision without a new observation.
    pub fn recheck_at(&self) -> Option<Instant> {
        self.fitness.borrow().recheck_at
    }

    /// Decides which members are fit now, and publishes them if they differ from before. Ends the sessions to members
    /// that may no longer be used, before it logs anything. Returns the note of an Event if the route has lost its last
    /// fit member.
    pub fn follow(&mut self, view: &View, primary: &RoutingState, now: Instant) -> Option<String> {
        let next = fit(view, primary, &self.conditions, self.upstream, now);
        let before = self.fitness.borrow().clone();
        if next == *before {
            return None;
        }
        let lost_all = before.open().next().is_some() && next.open().next().is_none();
        let next = Arc::new(next);
        let usable = self.usable(&next);
        if usable != self.usable(&before) {
            let why = next.why(self.conditions.kind);
            let cuts = self.slot.share(usable, why.clone());
            for cut in &cuts {
                cut.end.now(Ending::MemberUnfit);
            }
            self.log_members(&before, &next, &why);
        }
        let note = lost_all.then(|| {
            format!(
                "{} (port {}): new clients are held",
                next.why(self.conditions.kind),
                self.port
            )
        });
        self.fitness.send_replace(next);
        note
    }

    /// Returns the members whose sessions are kept. A member whose address has become unknown keeps its sessions at its
    /// last known address.
    fn usable(&self, fitness: &Fitness) -> Vec<UsableMember> {
        let snapshot = self.slot.snapshot();
        let last = |member: &MemberName| {
            let place = snapshot.members().iter().find(|place| place.server.member == *member)?;
            Some((*place.server).clone())
        };
        let usable = |judged: &Judged| {
            let (open, rank) = match judged.outcome {
                Outcome::Fit(rank) => (true, rank),
                Outcome::Closed(_) => (false, 0),
                Outcome::Out(_) => return None,
            };
            let server = judged.server.clone().or_else(|| last(&judged.member))?;
            Some(UsableMember { server, open, rank })
        };
        fitness.members.iter().filter_map(usable).collect()
    }

    /// Logs which members have become fit or unfit. Members that alternate are logged once, then counted.
    fn log_members(&self, before: &Fitness, next: &Fitness, why: &str) {
        let (route, listen) = (self.conditions.kind, &self.listen);
        for judged in &next.members {
            let was = before.members.iter().find(|known| known.member == judged.member);
            let was_open = was.is_some_and(|known| matches!(known.outcome, Outcome::Fit(_)));
            let (cause, what) = match &judged.outcome {
                Outcome::Fit(_) if !was_open => {
                    if self.should_log("gets new clients", &judged.member) {
                        info!(%route, %listen, member = %judged.member, "the member gets new clients");
                    }
                    continue;
                }
                Outcome::Fit(_) => continue,
                Outcome::Closed(cause) => (cause, "gets no new clients; its sessions stay"),
                Outcome::Out(cause) => (cause, "gets no new clients; its sessions end"),
            };
            if was.is_some_and(|known| known.outcome == judged.outcome) || was.is_none() {
                continue;
            }
            let cause = cause.of(&judged.member);
            if self.should_log(what, &judged.member) {
                let member = &judged.member;
                info!(%route, %listen, %member, reason = %cause, "the member {what}");
            }
        }
        let gone = before
            .members
            .iter()
            .filter(|known| !next.members.iter().any(|judged| judged.member == known.member));
        for judged in gone {
            info!(%route, %listen, member = %judged.member, "the member has left the cluster: its sessions end");
        }
        match (before.open().next(), next.open().next()) {
            (Some(_), None) => warn!(%route, %listen, reason = %why, "no member is fit: new clients are held"),
            (None, Some(_)) => info!(%route, %listen, reason = %why, "new clients go to the members that are fit"),
            _ => debug!(%route, %listen, reason = %why, "the set of fit members has changed"),
        }
    }

    fn should_log(&self, what: &str, member: &MemberName) -> bool {
        let kind = format!("{} on {}: {member}: {what}", self.conditions.kind, self.listen);
        self.log_limiter.should_log_at(Level::INFO, &kind)
    }
}
