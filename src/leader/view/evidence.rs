//! What members say of themselves as evidence: how old a pod's status is, who says that it is primary, on which
//! timelines leaders were.

use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::observation::{Pod, Report, Role};
use crate::leader::view::{Answers, View};

/// A pod, and how old its status is.
#[derive(Clone, Debug)]
pub struct PodView {
    /// The newest that was heard.
    pub value: Pod,
    /// When this was first seen.
    pub at: Instant,
    /// When its status was last seen to change, if only its `xlog_location`. `None` where it stands as it was first
    /// seen: nobody knows how old that is.
    pub written: Option<Instant>,
}

/// The newest timeline that a leader was seen writable on, and in which system.
#[derive(Clone, Debug)]
pub(super) struct NewestTimeline {
    pub(super) system: String,
    timeline: u32,
    /// The newer one that leaders were on before the cluster went back to this one.
    before: Option<u32>,
}

impl PodView {
    /// To be listed again, unchanged, makes nothing newer.
    pub(super) fn new(known: Option<Self>, value: Pod, at: Instant) -> Self {
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
        let role = self.value.role.as_deref().map(Role::from_patroni);
        role == Some(Role::Primary) && self.value.state.as_deref() == Some("running")
    }
}

impl View {
    /// The pod of a member.
    pub fn pod(&self, member: &MemberName) -> Option<&PodView> {
        self.pods.get(member)
    }

    /// As of when a pod's status holds; `None` where nobody knows.
    ///
    /// It is as old as its last write. Where it says primary, and its member holds the lock and has renewed it for a
    /// whole ttl, it is no older than the beginning of that ttl: at the end of each loop Patroni compares the status
    /// with what it would write now (ha.py, `touch_member`). That it says anything else for so long counts for nothing:
    /// then it is the watch of pods that is late, and nobody must lose its sessions for that.
    pub fn pod_as_of(&self, member: &MemberName) -> Option<Instant> {
        let pod = self.pods.get(member)?;
        let lock = self.lock().filter(|view| view.lock.holder.as_ref() == Some(member));
        let looked_after = lock.and_then(|view| view.renewed_throughout());
        pod.written.max(looked_after.filter(|_| pod.says_primary()))
    }

    /// How many members say of themselves, by an answer younger than `life` or by their pod's `status`, that they are a
    /// running primary.
    pub fn primaries(&self, now: Instant, life: Duration) -> usize {
        self.members()
            .filter(|member| self.claims_primary(member, now, life))
            .count()
    }

    fn claims_primary(&self, member: &MemberName, now: Instant, life: Duration) -> bool {
        let answers = self.answers.get(member).filter(|answers| answers.silent.is_none());
        let fresh = answers
            .and_then(|answers| answers.last.as_ref())
            .filter(|last| now < last.at + life);
        if let Some(last) = fresh {
            return last.value.is_writable();
        }
        // Whoever is not asked (the lock is watched) tells by its pod. The dead do not take their word back: what was
        // written before the lock moved counts for its holder alone.
        let pod = self.pods.get(member).filter(|_| self.stranger(member).is_none());
        let (Some(pod), Some(lock)) = (pod, self.lock()) else {
            return false;
        };
        let holds = lock.lock.holder.as_ref() == Some(member);
        let since_it_moved = lock
            .held_since
            .is_some_and(|moved| pod.written.is_some_and(|written| moved < written));
        (holds || since_it_moved) && pod.says_primary()
    }

    pub(super) fn note_timeline(&mut self, report: &Report) {
        if let (true, true, Some(system), Some(timeline)) =
            (report.holds_lock, report.is_writable(), &report.system, report.timeline)
        {
            let known = self.newest_timeline.as_ref();
            if known.is_none_or(|known| known.system != *system || known.timeline < timeline) {
                self.newest_timeline = Some(NewestTimeline {
                    system: system.clone(),
                    timeline,
                    before: None,
                });
            }
        }
    }

    /// A cluster that was restored goes on on an older timeline. That it has done so is believed of a holder of the
    /// lock that has renewed it for a whole ttl and says all that time, or at its end, that it is a running primary.
    pub(super) fn follow_the_lock_to_an_older_timeline(&mut self) {
        if let (Some(older), Some(newest)) = (self.older_timeline_of_the_lock(), &mut self.newest_timeline) {
            newest.before = Some(newest.timeline);
            newest.timeline = older;
        }
    }

    fn older_timeline_of_the_lock(&self) -> Option<u32> {
        let lock = self.lock().filter(|_| self.api_silence().is_none())?;
        let (holder, since) = (lock.lock.holder.as_ref()?, lock.renewed_throughout()?);
        let answers = self.answers.get(holder)?;
        let (timeline, system) = match &answers.silent {
            None => answered_since(answers, since).map(|report| (report.timeline, report.system.as_deref()))?,
            Some(_) => {
                let said_since = |pod: &&PodView| pod.says_primary() && self.pod_as_of(holder) >= Some(since);
                let pod = self.pods.get(holder).filter(said_since)?;
                (pod.value.timeline, self.system_of(holder))
            }
        };
        self.newer_timeline_than(timeline, system).and(timeline)
    }

    /// The newest timeline that a leader was seen writable on.
    pub fn newest_timeline(&self) -> Option<u32> {
        self.newest_timeline.as_ref().map(|newest| newest.timeline)
    }

    /// The cluster has gone back to an older timeline, and on since: from which one to which.
    pub fn gone_back(&self) -> Option<(u32, u32)> {
        let newest = self.newest_timeline.as_ref()?;
        Some((newest.before?, newest.timeline))
    }

    /// The newest timeline that a leader was seen writable on, if a report on `system` is older than that.
    pub fn newer_timeline_than(&self, timeline: Option<u32>, system: Option<&str>) -> Option<u32> {
        let newest = self.newest_timeline.as_ref()?;
        (system.is_none_or(|system| system == newest.system) && timeline? < newest.timeline).then_some(newest.timeline)
    }

    /// The system identifier that a pod's status, which does not tell it, speaks of: the config object's, else what its
    /// member named last.
    pub fn system_of(&self, member: &MemberName) -> Option<&str> {
        let of_member = || self.answers.get(member)?.last.as_ref()?.value.system.as_deref();
        let of_cluster = self.settings().and_then(|settings| settings.system.as_deref());
        of_cluster.or_else(of_member)
    }
}

/// An answer that it is a running primary.
fn answered_since(answers: &Answers, since: Instant) -> Option<&Report> {
    let last = answers.last.as_ref().filter(|last| since <= last.at)?;
    last.value.is_writable().then_some(&last.value)
}
