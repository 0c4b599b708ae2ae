//! The newest statement about a member, from its own REST API, its status in the DCS, or its row in `/cluster`.

use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::observation::{Report, Role, Tags};
use crate::leader::view::{Timestamped, View};

/// Age below which a member's own answer takes precedence. A member that is asked at all is asked at least every 2 s.
/// The other sources repeat the member's status in the DCS, which is up to a `loop_wait` old.
pub(super) const FRESH: Duration = Duration::from_secs(5);

/// The role and the state of a member.
#[derive(Clone, Debug)]
pub(super) struct Facts<'a> {
    at: Instant,
    pub(super) role: MemberRole,
    /// The role, as Patroni writes it; `unknown` for [`Role::Other`] in an answer of the REST API.
    pub(super) role_text: &'a str,
    pub(super) state: &'a str,
    pub(super) timeline: Option<u32>,
    pub(super) tags: &'a Tags,
    pub(super) replication_state: Option<&'a str>,
    /// True if the member's answer says that it holds the lock.
    pub(super) holds_lock: bool,
}

/// The roles that the rules distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberRole {
    Primary,
    StandbyLeader,
    Replica,
    /// `promoted`, `demoted`, `uninitialized`, …
    Other,
}

impl<'a> Facts<'a> {
    /// Returns the member's own answer if it is fresh, else the newest facts of any source; `None` if no source has
    /// reported the member's role and state.
    pub(super) fn newest(view: &'a View, member: &MemberName, now: Instant) -> Option<Self> {
        let answers = view.answers(member);
        let report = answers.and_then(|answers| answers.last.as_ref()).map(Self::of_report);
        match report {
            Some(report) if now.saturating_duration_since(report.at) < FRESH => Some(report),
            report => {
                let others = [Self::of_pod(view, member), Self::of_row(view, member)];
                [report]
                    .into_iter()
                    .chain(others)
                    .flatten()
                    .max_by_key(|facts| facts.at)
            }
        }
        .map(|facts| facts.with_tags(view, member))
    }

    fn of_report(heard: &'a Timestamped<Report>) -> Self {
        let report = &heard.value;
        let (role, role_text) = match report.role {
            Role::Primary => (MemberRole::Primary, "primary"),
            Role::StandbyLeader => (MemberRole::StandbyLeader, "standby_leader"),
            Role::Replica => (MemberRole::Replica, "replica"),
            Role::Other => (MemberRole::Other, "unknown"),
        };
        Self {
            at: heard.at,
            role,
            role_text,
            state: &report.state,
            timeline: report.timeline,
            tags: Tags::none(),
            replication_state: report.replication.state.as_deref(),
            holds_lock: report.holds_lock,
        }
    }

    fn of_pod(view: &'a View, member: &MemberName) -> Option<Self> {
        let pod = view.dcs_status(member)?;
        let (role, state) = (pod.value.role.as_deref()?, pod.value.state.as_deref()?);
        Some(Self {
            at: pod.written.unwrap_or(pod.at),
            role: role_named(role),
            role_text: role,
            state,
            timeline: pod.value.timeline,
            tags: &pod.value.tags,
            replication_state: pod.value.replication.state.as_deref(),
            holds_lock: false,
        })
    }

    fn of_row(view: &'a View, member: &MemberName) -> Option<Self> {
        let (row, at) = view.condition(member)?;
        let (role, state) = (row.role.as_deref()?, row.state.as_deref()?);
        Some(Self {
            at,
            role: role_named(role),
            role_text: role,
            state,
            timeline: row.timeline,
            tags: &row.tags,
            // A row has the state of replication in place of `running`.
            replication_state: Some(state),
            holds_lock: false,
        })
    }

    /// Sets the tags to those of the status in the DCS, else of the row in `/cluster`. An answer of the REST API does
    /// not contain them.
    fn with_tags(self, view: &'a View, member: &MemberName) -> Self {
        let of_pod = view.dcs_status(member).map(|pod| &pod.value.tags);
        let of_row = view.condition(member).map(|(row, _)| &row.tags);
        let tags = of_pod.or(of_row).unwrap_or(self.tags);
        Self { tags, ..self }
    }

    /// Returns true if PostgreSQL is running.
    pub(super) fn is_running(&self) -> bool {
        matches!(self.state, "running" | "streaming" | "in archive recovery")
    }
}

fn role_named(role: &str) -> MemberRole {
    match role {
        "primary" | "master" | "leader" => MemberRole::Primary,
        "standby_leader" => MemberRole::StandbyLeader,
        "replica" | "sync_standby" | "quorum_standby" => MemberRole::Replica,
        _ => MemberRole::Other,
    }
}
