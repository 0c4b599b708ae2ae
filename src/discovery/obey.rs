//! Carries out what an operator orders, and writes down who ordered what: hold, release, cut.

use std::time::{Instant, SystemTime};

use tracing::info;

use super::{Discovery, Told};
use crate::ending::Ending;
use crate::leader::observation::{Claim, Observation, OperatorHold};
use crate::leader::view::View;
use crate::orders::{Order, Outcome, Wish};

impl Discovery {
    /// A hold and its release are news like any other: the decision follows from them.
    pub(super) fn obey(&self, order: Order, view: &mut View, told: &mut Told) {
        match order.wish.clone() {
            Wish::Hold(length) => {
                let (now, wall) = (Instant::now(), SystemTime::now());
                let hold = OperatorHold {
                    since: view.operator_hold().map_or(wall, |known| known.since),
                    until: wall + length,
                    ends: now + length,
                };
                info!(by = %order.by, r#for = %humantime::format_duration(length), "an operator orders: hold new clients");
                self.hear(view, Some(hold));
                order.is_done(Outcome::Held(hold.until));
            }
            Wish::Release => {
                let held = view.operator_hold().is_some();
                info!(by = %order.by, held, "an operator orders: release new clients");
                self.hear(view, None);
                order.is_done(Outcome::Released(held));
            }
            Wish::Cut(member) => self.cut(order, member.as_deref(), view, told),
        }
    }

    /// A hold that has ended is over by itself.
    pub(super) fn end_the_hold(&self, view: &mut View, now: Instant) {
        if view.operator_hold().is_some_and(|hold| hold.ends <= now) {
            info!("the operator's hold has run out, and nobody released it");
            self.hear(view, None);
        }
    }

    fn hear(&self, view: &mut View, hold: Option<OperatorHold>) {
        let claim = Claim::Held(hold);
        self.take_in(
            view,
            Observation {
                at: Instant::now(),
                claim,
            },
        );
    }

    /// Ends the epochs in question; newcomers are in another one. The answer, and the line that counts, come when the last session is closed.
    fn cut(&self, order: Order, member: Option<&str>, view: &View, told: &mut Told) {
        let whose = member.unwrap_or("every member");
        if let Some(member) = member
            && !view.members().any(|known| known == member)
        {
            info!(by = %order.by, member, "an operator orders: cut sessions; there is no such member");
            let members = view.members().map(str::to_owned).collect();
            return order.is_done(Outcome::NoSuchMember(members));
        }
        // Two at once could not be counted apart.
        if told.cutting.as_ref().is_some_and(|cutting| !cutting.is_finished()) {
            info!(by = %order.by, member = whose, "an operator orders: cut sessions; another cut is not over yet");
            return order.is_done(Outcome::CutUnderWay);
        }
        let concerns = |leads: &str| member.is_none_or(|member| member == leads);
        let mut cuts = Vec::new();
        if self
            .slot
            .snapshot()
            .state
            .leader()
            .is_some_and(|leader| concerns(&leader.member))
        {
            cuts.extend(self.slot.renew());
        }
        cuts.extend(
            told.draining
                .take_if(|draining| concerns(&draining.member))
                .map(|draining| draining.cut),
        );
        info!(by = %order.by, member = whose, "an operator orders: cut sessions");
        let metrics = self.metrics.clone();
        let (before, begun) = (metrics.endings(Ending::CutByOperator), Instant::now());
        for cut in &cuts {
            cut.end.now(Ending::CutByOperator);
        }
        let member = whose.to_owned();
        told.cutting = Some(tokio::spawn(async move {
            for cut in cuts {
                cut.done().await;
            }
            let (sessions, took) = (metrics.endings(Ending::CutByOperator) - before, begun.elapsed());
            info!(by = %order.by, member, sessions, took_ms = took.as_millis() as u64, "the sessions that an operator ordered to be cut are closed");
            order.is_done(Outcome::Cut(sessions, took));
        }));
    }
}
