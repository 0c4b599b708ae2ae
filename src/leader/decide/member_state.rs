//! The state of a member according to the newest evidence.

use std::time::Instant;

use super::inputs::Inputs;
use crate::leader::MemberName;
use crate::leader::observation::{DcsStatus, NoReport, Report, Role};
use crate::leader::view::Timestamped;

/// The state of a member.
pub(super) enum MemberState {
    /// Its REST API says that it is a running primary, on this timeline.
    Writable { timeline: Option<u32> },
    /// Its status in the DCS says that it is a running primary, on this timeline. Its REST API gives no valid answer,
    /// for this cause.
    WritableByStatus { timeline: Option<u32>, cause: String },
    /// It does not accept writes or must not get any, for this cause.
    NotWritable { cause: String },
    /// It leads a standby cluster.
    StandbyLeader,
    /// No current evidence about it exists. The cause is the error of its REST API, or that no answer has arrived.
    Unreachable { cause: String },
}

/// The newest statement about a member.
enum Evidence<'a> {
    /// The last answer of a REST API that still answers.
    Answer(&'a Timestamped<Report>),
    /// The last answer of a REST API that no longer answers.
    FormerAnswer(&'a Timestamped<Report>),
    /// Its status in the DCS.
    DcsStatus(&'a DcsStatus),
}

impl MemberState {
    pub(super) fn is_writable(&self) -> bool {
        matches!(self, Self::Writable { .. } | Self::WritableByStatus { .. })
    }
}

impl Inputs<'_> {
    /// Returns the state of a member. `since` is the time at which the lock moved to it, if that was seen. Evidence
    /// from before `since` does not count if it says that the member is writable, but counts if it says the opposite.
    pub(super) fn member_state(&self, member: &MemberName, since: Option<Instant>) -> MemberState {
        if let Some(foreign_cluster) = self.view.foreign_cluster(member) {
            return MemberState::NotWritable {
                cause: format!("another cluster answers at its address: {}", foreign_cluster.identity),
            };
        }
        let last = self.view.answers(member).and_then(|answers| answers.last.as_ref());
        let no_answer = self.no_answer(member, since);
        let cause = match (no_answer, last) {
            (Some(error), _) => error.to_string(),
            (None, None) => "it has not answered yet".to_owned(),
            // This cause is used only for an answer from before `since`.
            (None, Some(_)) => "it has not answered since it took the lock".to_owned(),
        };
        let status_at = self.view.dcs_status_as_of(member);
        let status = self.view.dcs_status(member).map(|view| &view.value);
        let status = status.filter(|status| status.role.is_some());
        let status_is_newer = last.is_none_or(|last| Some(last.at) < status_at);
        // The evidence in order of precedence: a current answer of the REST API, the status in the DCS if it is newer
        // than the last answer, the last answer. Patroni writes the status about a second late.
        let evidence = match (no_answer, last, status.filter(|_| status_is_newer)) {
            (None, Some(last), _) => Evidence::Answer(last),
            (Some(_), _, Some(status)) => Evidence::DcsStatus(status),
            (Some(_), Some(last), None) => Evidence::FormerAnswer(last),
            (_, None, _) => return MemberState::Unreachable { cause },
        };
        let (state, said_at) = match &evidence {
            Evidence::Answer(last) | Evidence::FormerAnswer(last) => {
                (self.state_by_report(member, &last.value), Some(last.at))
            }
            Evidence::DcsStatus(status) => (self.state_by_status(status, &cause), status_at),
        };
        let is_too_old = since.is_some_and(|since| said_at < Some(since));
        // Once the lock has moved, older evidence that the member is writable no longer counts, but older evidence that
        // it is not writable does.
        match (state.is_writable(), evidence, is_too_old) {
            (true, Evidence::FormerAnswer(_), _) | (true, _, true) => MemberState::Unreachable { cause },
            (true, Evidence::Answer(_) | Evidence::DcsStatus(_), false) | (false, ..) => state,
        }
    }

    /// Returns the error of the newest request to the member's REST API; `None` if that request was answered, or ended
    /// before `since`.
    fn no_answer(&self, member: &MemberName, since: Option<Instant>) -> Option<&NoReport> {
        let answers = self.view.answers(member)?;
        let asked_since = since.is_none_or(|since| answers.asked.is_some_and(|asked| since <= asked));
        let failure = answers.unreachable.as_ref().filter(|_| asked_since)?;
        Some(&failure.value)
    }

    fn state_by_report(&self, member: &MemberName, report: &Report) -> MemberState {
        let lower_timeline = || self.lower_timeline(member, report.timeline, report.system.as_deref());
        let timeline = report.timeline;
        match report.role {
            Role::StandbyLeader => MemberState::StandbyLeader,
            Role::Replica | Role::Other => MemberState::NotWritable {
                cause: format!("its role is not primary (state {:?})", report.state),
            },
            Role::Primary if !report.is_writable() => MemberState::NotWritable {
                cause: format!("its state is {:?}", report.state),
            },
            Role::Primary => lower_timeline().map_or(MemberState::Writable { timeline }, |cause| {
                MemberState::NotWritable { cause }
            }),
        }
    }

    /// Returns the state according to the status in the DCS. `no_answer` is the error of the member's REST API.
    fn state_by_status(&self, status: &DcsStatus, no_answer: &str) -> MemberState {
        let role = status.role.as_deref().map_or(Role::Other, Role::from_patroni);
        let is_running = status.state.as_deref() == Some("running");
        let lower_timeline = self.lower_timeline(&status.name, status.timeline, self.view.system_of(&status.name));
        match (role, is_running, lower_timeline) {
            (Role::StandbyLeader, ..) => MemberState::StandbyLeader,
            (Role::Primary, true, None) => MemberState::WritableByStatus {
                timeline: status.timeline,
                cause: no_answer.to_owned(),
            },
            (Role::Primary, true, Some(cause)) => MemberState::NotWritable { cause },
            (Role::Primary, false, _) | (Role::Replica | Role::Other, ..) => {
                let role = status.role.as_deref().unwrap_or("unknown");
                let state = status.state.as_deref().unwrap_or("unknown");
                let cause = format!(
                    "its status in the DCS says role {role}, state {state}; its REST API gives no valid answer: \
                     {no_answer}"
                );
                MemberState::NotWritable { cause }
            }
        }
    }

    /// Returns the reason if a member's timeline forbids routing to it. The reason says what ends this state.
    pub(super) fn lower_timeline(
        &self,
        member: &MemberName,
        timeline: Option<u32>,
        system: Option<&str>,
    ) -> Option<String> {
        let newest = self.view.newer_timeline_than(timeline, system)?;
        let timeline = timeline.unwrap_or_default();
        let then = match self.view.lock() {
            Some(_) => format!("clients go to {member} once it has renewed the leader lock for a whole ttl"),
            None => format!("if the cluster was restored onto timeline {timeline} on purpose, restart pgnorth"),
        };
        Some(format!(
            "it is on timeline {timeline}, and a leader was seen on timeline {newest}; {then}"
        ))
    }
}
