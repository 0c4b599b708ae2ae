//! The members' own statements as evidence: the age of a status in the DCS, the members that say that they are primary,
//! and the leaders' timelines.

use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::observation::{DcsStatus, Report, Role};
use crate::leader::view::{Answers, View};

/// A member's status in the DCS, and its age.
#[derive(Clone, Debug)]
pub struct DcsStatusView {
    /// The newest status.
    pub value: DcsStatus,
    /// Local time at which this value was first seen.
    pub at: Instant,
    /// Time of the last observed change, even if only `xlog_location` changed. `None` if the status has not changed
    /// since it was first seen; its age is then unknown.
    pub written: Option<Instant>,
}

/// The newest timeline on which a leader was seen writable, and the system identifier that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct NewestTimeline {
    pub(super) system: String,
    timeline: u32,
    /// Local time at which a leader was first seen on it.
    since: Instant,
    /// The newer timeline of leaders before the cluster went back to this timeline.
    before: Option<u32>,
}

impl DcsStatusView {
    /// Returns the view of a status, with the known times if the status is listed again unchanged.
    pub(super) fn new(known: Option<Self>, value: DcsStatus, at: Instant) -> Self {
        match known {
            Some(known) if known.value == value => known,
            known => Self {
                value,
                at,
                written: known.map(|_| at),
            },
        }
    }

    fn says_primary(&self) -> bool {
        says_primary(&self.value)
    }
}

impl View {
    /// Returns a member's status in the DCS.
    pub fn dcs_status(&self, member: &MemberName) -> Option<&DcsStatusView> {
        self.statuses.get(member)
    }

    /// Returns the time at which a member's status in the DCS was certainly true; `None` if that is unknown.
    ///
    /// A status is as old as its last write, with one exception. If the status says that its member is primary, and the
    /// member holds the lock and has renewed it for a whole ttl, the status was true at the beginning of that ttl or
    /// later, because Patroni updates an outdated status at the end of each loop (ha.py, `touch_member`). The exception
    /// does not cover any other status of such a member: in that case the watch of pods is late, and no session must
    /// end for that reason.
    pub fn dcs_status_as_of(&self, member: &MemberName) -> Option<Instant> {
        let status = self.statuses.get(member)?;
        let lock = self.lock().filter(|view| view.lock.holder.as_ref() == Some(member));
        let looked_after = lock.and_then(|view| view.renewed_throughout());
        status.written.max(looked_after.filter(|_| status.says_primary()))
    }

    /// Counts the members that say that they are a running primary, in an answer younger than `life` or in their
    /// status in the DCS.
    pub fn primaries(&self, now: Instant, life: Duration) -> usize {
        self.members()
            .filter(|member| self.claims_primary(member, now, life))
            .count()
    }

    fn claims_primary(&self, member: &MemberName, now: Instant, life: Duration) -> bool {
        let answers = self.answers.get(member).filter(|answers| answers.unreachable.is_none());
        let fresh = answers
            .and_then(|answers| answers.last.as_ref())
            .filter(|last| now < last.at + life);
        if let Some(last) = fresh {
            return last.value.is_writable();
        }
        // A member that is not asked, because the lock is watched, reports through its status in the DCS. A member that
        // died does not correct its status, so a status written before the lock moved counts only for the lock's
        // holder.
        let status = self
            .statuses
            .get(member)
            .filter(|_| self.foreign_cluster(member).is_none());
        let (Some(status), Some(lock)) = (status, self.lock()) else {
            return false;
        };
        let holds = lock.lock.holder.as_ref() == Some(member);
        let since_it_moved = lock
            .held_since
            .is_some_and(|moved| status.written.is_some_and(|written| moved < written));
        (holds || since_it_moved) && status.says_primary()
    }

    pub(super) fn note_timeline(&mut self, report: &Report, at: Instant) {
        if let (true, true, Some(system), Some(timeline)) =
            (report.holds_lock, report.is_writable(), &report.system, report.timeline)
        {
            let known = self.newest_timeline.as_ref();
            if known.is_none_or(|known| known.system != *system || known.timeline < timeline) {
                self.newest_timeline = Some(NewestTimeline {
                    system: system.clone(),
                    timeline,
                    since: at,
                    before: None,
                });
            }
        }
    }

    /// Accepts an older timeline, on which a restored cluster continues. The required evidence is a lock holder that
    /// has renewed the lock for a whole ttl, and that has said during this ttl that it is a running primary.
    pub(super) fn follow_the_lock_to_an_older_timeline(&mut self, at: Instant) {
        if let (Some(older), Some(newest)) = (self.older_timeline_of_the_lock(), &mut self.newest_timeline) {
            newest.before = Some(newest.timeline);
            newest.timeline = older;
            newest.since = at;
        }
    }

    fn older_timeline_of_the_lock(&self) -> Option<u32> {
        let lock = self.lock().filter(|_| self.api_unreachable().is_none())?;
        let (holder, since) = (lock.lock.holder.as_ref()?, lock.renewed_throughout()?);
        let answers = self.answers.get(holder)?;
        let (timeline, system) = match &answers.unreachable {
            None => answered_since(answers, since).map(|report| (report.timeline, report.system.as_deref()))?,
            Some(_) => {
                let said_since =
                    |status: &&DcsStatusView| status.says_primary() && self.dcs_status_as_of(holder) >= Some(since);
                let status = self.statuses.get(holder).filter(said_since)?;
                (status.value.timeline, self.system_of(holder))
            }
        };
        self.newer_timeline_than(timeline, system).and(timeline)
    }

    /// Returns the newest timeline on which a leader was seen writable.
    pub fn newest_timeline(&self) -> Option<u32> {
        self.newest_timeline.as_ref().map(|newest| newest.timeline)
    }

    /// Returns true if this status says that its member is a running primary, and the member holds the lock.
    pub(super) fn leads_by_status(&self, status: &DcsStatus) -> bool {
        let holds = self
            .lock()
            .is_some_and(|view| view.lock.holder.as_ref() == Some(&status.name));
        holds && says_primary(status)
    }

    /// Returns the local time at which a leader was first seen on the newest timeline.
    pub fn newest_timeline_since(&self) -> Option<Instant> {
        self.newest_timeline.as_ref().map(|newest| newest.since)
    }

    /// Returns the former and the present timeline, if the cluster has gone back to an older timeline.
    pub fn gone_back(&self) -> Option<(u32, u32)> {
        let newest = self.newest_timeline.as_ref()?;
        Some((newest.before?, newest.timeline))
    }

    /// Returns the newest timeline on which a leader was seen writable, if `timeline` of `system` is older.
    pub fn newer_timeline_than(&self, timeline: Option<u32>, system: Option<&str>) -> Option<u32> {
        let newest = self.newest_timeline.as_ref()?;
        (system.is_none_or(|system| system == newest.system) && timeline? < newest.timeline).then_some(newest.timeline)
    }

    /// Returns the system identifier that belongs to a member's status, which does not contain it. It is taken from the
    /// config object, else from the member's last answer.
    pub fn system_of(&self, member: &MemberName) -> Option<&str> {
        let of_member = || self.answers.get(member)?.last.as_ref()?.value.system.as_deref();
        let of_cluster = self.settings().and_then(|settings| settings.system.as_deref());
        of_cluster.or_else(of_member)
    }
}

/// Returns the newest answer, if it arrived at `since` or later and says that the member is a running primary.
fn answered_since(answers: &Answers, since: Instant) -> Option<&Report> {
    let last = answers.last.as_ref().filter(|last| since <= last.at)?;
    last.value.is_writable().then_some(&last.value)
}

fn says_primary(status: &DcsStatus) -> bool {
    let role = status.role.as_deref().map(Role::from_patroni);
    role == Some(Role::Primary) && status.state.as_deref() == Some("running")
}
