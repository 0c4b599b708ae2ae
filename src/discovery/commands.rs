//! Applies the operators' commands (hold, release, cut), and logs each with the address that it came from.

use std::time::{Instant, SystemTime};

use tracing::info;

use super::{Discovery, Published};
use crate::command_queue::{Outcome, PendingCommand};
use crate::config::OperatorCommand;
use crate::ending::Ending;
use crate::leader::MemberName;
use crate::leader::observation::{Claim, Observation, OperatorHold};
use crate::leader::view::View;
use crate::slot::SessionsToEnd;

impl Discovery {
    /// Applies one command. A hold or a release becomes an observation that leads to a new decision, and is returned
    /// with its outcome. The caller must not reply before that decision is published: an operator who reads the reply
    /// may stop the primary, and no client may then be on its way there. For a cut, returns `None`: `cut` itself
    /// replies.
    pub(super) fn apply_command(
        &self,
        pending: PendingCommand,
        view: &mut View,
        published: &mut Published,
    ) -> Option<(PendingCommand, Outcome)> {
        match pending.command.clone() {
            OperatorCommand::Hold(length) => {
                let (now, wall) = (Instant::now(), SystemTime::now());
                let hold = OperatorHold {
                    since: view.operator_hold().map_or(wall, |known| known.since),
                    until: wall + length,
                    ends: now + length,
                };
                info!(
                    by = %pending.by, r#for = %humantime::format_duration(length),
                    "an operator holds new clients"
                );
                self.set_hold(view, Some(hold));
                Some((pending, Outcome::Held(hold.until)))
            }
            OperatorCommand::Release => {
                let held = view.operator_hold().is_some();
                info!(by = %pending.by, held, "an operator releases new clients");
                self.set_hold(view, None);
                Some((pending, Outcome::Released(held)))
            }
            OperatorCommand::Cut(member) => {
                self.cut(pending, member.as_deref(), view, published);
                None
            }
        }
    }

    /// Ends the operator's hold if its time has passed.
    pub(super) fn end_expired_hold(&self, view: &mut View, now: Instant) {
        if view.operator_hold().is_some_and(|hold| hold.ends <= now) {
            info!("the operator's hold has expired without a release");
            self.set_hold(view, None);
        }
    }

    fn set_hold(&self, view: &mut View, hold: Option<OperatorHold>) {
        let (at, claim) = (Instant::now(), Claim::Held(hold));
        self.record(view, Observation { at, claim });
    }

    /// Closes the sessions to the member, or all sessions; sessions that open later are unaffected. Replies when the
    /// last of these sessions is closed, or immediately if the member is unknown or an earlier cut is not finished.
    fn cut(&self, pending: PendingCommand, member: Option<&str>, view: &View, published: &mut Published) {
        let whose = member.unwrap_or("every member");
        if let Some(member) = member
            && !view.members().any(|known| known == member)
        {
            info!(by = %pending.by, member, "rejected an operator's command to end sessions: no member has this name");
            let members = view.members().map(MemberName::to_string).collect();
            return pending.reply(Outcome::NoSuchMember(members));
        }
        // Two cuts at the same time would share one counter, so neither could report its own number of sessions.
        if published.cutting.as_ref().is_some_and(|cutting| !cutting.is_finished()) {
            info!(
                by = %pending.by, member = whose,
                "rejected an operator's command to end sessions: an earlier one is not finished"
            );
            return pending.reply(Outcome::CutUnderWay);
        }
        info!(by = %pending.by, member = whose, "an operator ends sessions");
        let metrics = self.metrics.clone();
        let (before, begun) = (metrics.endings(Ending::CutByOperator), Instant::now());
        let cuts = self.cuts_of(member, published);
        for cut in &cuts {
            cut.end.now(Ending::CutByOperator);
        }
        let member = whose.to_owned();
        published.cutting = Some(tokio::spawn(async move {
            for cut in cuts {
                cut.done().await;
            }
            let (sessions, took) = (metrics.endings(Ending::CutByOperator) - before, begun.elapsed());
            info!(
                by = %pending.by, member, sessions, took_ms = took.as_millis() as u64,
                "the sessions that an operator ended are closed"
            );
            pending.reply(Outcome::Cut(sessions, took));
        }));
    }

    /// Returns the handles that end the sessions to this member, or to every member, on all routes. This includes the
    /// draining sessions to a former leader.
    fn cuts_of(&self, member: Option<&str>, published: &mut Published) -> Vec<SessionsToEnd> {
        let concerns = |other: &str| member.is_none_or(|member| member == other);
        let mut cuts = self.slot.renew(|leader| concerns(&leader.member));
        let primaries = self.primaries.iter().map(|primary| &primary.slot);
        for slot in primaries.chain(self.routes.iter().map(|route| &route.slot)) {
            cuts.extend(slot.renew(|member| concerns(&member.member)));
        }
        let former = published.draining.take_if(|draining| concerns(&draining.member));
        cuts.extend(former.into_iter().flat_map(|former| former.cuts));
        cuts
    }
}
