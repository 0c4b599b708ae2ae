//! Why a decision was reached: a closed set, each member of which is a sentence for people.

use std::fmt;
use std::time::Duration;

use crate::leader::MemberName;

/// Why: a closed set, each of which prints as a sentence for people. It holds nothing that changes while the facts stay the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nothing has been heard yet.
    Starting,
    /// The leader object has not been read yet, of one kind at least.
    LockUnread,
    /// The lock names it, and its REST API says that it is writable.
    LockAndReport(MemberName),
    /// The lock names it and was renewed in time; its REST API is silent.
    LockAlone(MemberName, String),
    /// The lock names it, its REST API is silent, and its pod's status says that it is writable.
    LockAndPodStatus(MemberName, String),
    /// The lock moved to it; its REST API has not said yet that it is writable.
    Unverified(MemberName, String),
    /// The lock names it, and its REST API says that it is not writable.
    NotWritable(MemberName, String),
    /// The lock names a member whose address is not known.
    NoAddress(MemberName, String),
    /// A switchover away from it is about to begin.
    SwitchoverAnnounced(MemberName, Option<MemberName>),
    /// The lock has no holder.
    Released,
    /// The lock has no holder, but Patroni is paused and this member says that it is primary.
    ReleasedInPause(MemberName),
    /// The lock is about to run out.
    LockExpiring(MemberName),
    /// The lock was not renewed for its ttl.
    LockExpired(MemberName, Duration),
    /// The lock was not renewed for its ttl, but the race for it may be put off for a while.
    RaceBackoff(MemberName, Duration),
    /// The lock was not renewed, but Patroni is paused.
    ExpiredInPause(MemberName),
    /// The lock was not renewed, but the members vouch for the leader.
    Failsafe(MemberName),
    /// The cluster follows another one.
    StandbyCluster(MemberName),
    /// There is no lock to go by; this member alone says that it is primary.
    OnlyPrimary(MemberName, NoLock),
    /// There is no lock to go by; several say that they are primary, and this one is ahead.
    NewestPrimary(MemberName, NoLock),
    /// There is no lock to go by; several say that they are primary and none is ahead: a split brain.
    SplitBrain(Vec<MemberName>),
    /// There is no lock to go by, and no member answers; the leader is kept until the lock expires.
    KeptInSilence(MemberName, NoLock),
    /// There is no lock to go by, and the leader is silent, but a majority of the members says that it holds the lock.
    NamedByMembers(MemberName, NoLock),
    /// There is no lock to go by, and no member answers, but Patroni is paused.
    SilentInPause(MemberName, NoLock),
    /// There is no lock to go by, and no member said anything for a whole ttl.
    SilentTooLong(NoLock),
    /// There is no lock to go by; members answer, and none is primary.
    NoPrimary(NoLock),
    /// No member is known, or none has ever answered.
    NobodyAnswers(NoLock, String),
    /// At this member's address, or at this URL, another cluster answers; then the one that is followed.
    AnotherCluster(String, String, String),
    /// Several clusters answer, and nothing tells which one to follow.
    SeveralClusters(Vec<String>, NoLock),
    /// The scope is that of a Citus cluster with these groups, and the group is not named.
    CitusGroups(Vec<u32>),
}

/// Why there is no lock to go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLock {
    /// pgnorth runs without Kubernetes.
    RestOnly,
    /// The Kubernetes API does not answer, and why.
    ApiSilent(String),
    /// There is no leader object.
    NoObject,
}

impl Reason {
    /// Its kind, as a metric's label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::LockUnread => "lock_unread",
            Self::LockAndReport(..) => "lock_and_report",
            Self::LockAlone(..) => "lock_alone",
            Self::LockAndPodStatus(..) => "lock_and_pod_status",
            Self::Unverified(..) => "unverified",
            Self::NotWritable(..) => "not_writable",
            Self::NoAddress(..) => "no_address",
            Self::SwitchoverAnnounced(..) => "switchover_announced",
            Self::Released => "released",
            Self::ReleasedInPause(..) => "released_in_pause",
            Self::LockExpiring(..) => "lock_expiring",
            Self::LockExpired(..) => "lock_expired",
            Self::RaceBackoff(..) => "race_backoff",
            Self::ExpiredInPause(..) => "expired_in_pause",
            Self::Failsafe(..) => "failsafe",
            Self::StandbyCluster(..) => "standby_cluster",
            Self::OnlyPrimary(..) => "only_primary",
            Self::NewestPrimary(..) => "newest_primary",
            Self::SplitBrain(..) => "split_brain",
            Self::KeptInSilence(..) => "kept_in_silence",
            Self::NamedByMembers(..) => "named_by_members",
            Self::SilentInPause(..) => "silent_in_pause",
            Self::SilentTooLong(..) => "silent_too_long",
            Self::NoPrimary(..) => "no_primary",
            Self::NobodyAnswers(..) => "nobody_answers",
            Self::AnotherCluster(..) => "another_cluster",
            Self::SeveralClusters(..) => "several_clusters",
            Self::CitusGroups(..) => "citus_groups",
        }
    }

    /// Whether it speaks of trouble with the leader although clients are still sent to it: what is often the first sign of a failover.
    pub fn is_a_sign(&self) -> bool {
        matches!(
            self,
            Self::LockAlone(..) | Self::KeptInSilence(..) | Self::NamedByMembers(..) | Self::SilentInPause(..)
        )
    }
}

impl fmt::Display for NoLock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestOnly => out.write_str("going by Patroni's REST API"),
            Self::ApiSilent(why) => write!(
                out,
                "going by Patroni's REST API alone, since the Kubernetes API does not answer: {why}"
            ),
            Self::NoObject => out.write_str("going by Patroni's REST API alone, since there is no leader object"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => out.write_str("no source has answered yet"),
            Self::LockUnread => {
                out.write_str("the Kubernetes API has not yet said whether there is a leader object of each kind")
            }
            Self::LockAndReport(member) => write!(
                out,
                "{member} holds the leader lock and says that it is a running primary"
            ),
            Self::LockAlone(member, why) => write!(
                out,
                "{member} holds the leader lock, which has not run out; its REST API does not answer: {why}"
            ),
            Self::LockAndPodStatus(member, why) => write!(
                out,
                "{member} holds the leader lock and its pod's status says running primary; its REST API does not answer: {why}"
            ),
            Self::Unverified(member, why) => write!(
                out,
                "{member} holds the leader lock, but has not said yet that it is a running primary: {why}"
            ),
            Self::NotWritable(member, what) => write!(out, "{member} leads but does not accept writes: {what}"),
            Self::NoAddress(member, why) => write!(out, "{member} leads, but its address is not known: {why}"),
            Self::SwitchoverAnnounced(member, Some(candidate)) => {
                write!(out, "a switchover from {member} to {candidate} was announced")
            }
            Self::SwitchoverAnnounced(member, None) => write!(out, "a switchover away from {member} was announced"),
            Self::Released => out.write_str("the leader lock was released and nobody has taken it yet"),
            Self::ReleasedInPause(member) => write!(
                out,
                "nobody holds the leader lock, but Patroni is paused and {member} says that it is a running primary"
            ),
            Self::LockExpiring(member) => write!(
                out,
                "{member} has not renewed the leader lock, which is about to run out"
            ),
            Self::LockExpired(member, ttl) => write!(
                out,
                "{member} has not renewed the leader lock for {} s (its ttl): another member may be promoted by now",
                ttl.as_secs()
            ),
            Self::RaceBackoff(member, backoff) => write!(
                out,
                "{member} has not been seen to renew the leader lock for its ttl, but while it writes the standbys put the race for the lock off for up to {} s \
                 (primary_race_backoff): its sessions stay until then, unless another member takes the lock",
                backoff.as_secs()
            ),
            Self::ExpiredInPause(member) => write!(
                out,
                "{member} does not renew the leader lock, but Patroni is paused: nobody else is promoted by itself"
            ),
            Self::Failsafe(member) => write!(
                out,
                "{member} cannot renew the leader lock, but runs in failsafe mode: every member vouches for it"
            ),
            Self::StandbyCluster(member) => write!(
                out,
                "{member} leads a standby cluster: it follows a primary elsewhere and accepts no writes"
            ),
            Self::OnlyPrimary(member, no_lock) => {
                write!(out, "{member} alone says that it is a running primary; {no_lock}")
            }
            Self::NewestPrimary(member, no_lock) => write!(
                out,
                "several members say that they are primary, and {member} holds the lock on the newest timeline; {no_lock}"
            ),
            Self::SplitBrain(members) => write!(
                out,
                "SPLIT BRAIN: {} all say that they are primary, on the same timeline; nobody gets a connection until one of them is stopped",
                members.join(" and ")
            ),
            Self::KeptInSilence(member, no_lock) => {
                write!(
                    out,
                    "{member} does not answer and nobody else is primary: it is kept until its lock expires; {no_lock}"
                )
            }
            Self::NamedByMembers(member, no_lock) => write!(
                out,
                "{member} does not answer, but a majority of the members says that it holds the leader lock; {no_lock}"
            ),
            Self::SilentInPause(member, no_lock) => write!(
                out,
                "{member} does not answer, but Patroni is paused: nobody else is promoted by itself; {no_lock}"
            ),
            Self::SilentTooLong(no_lock) => {
                write!(out, "no member said for a whole ttl that it is primary; {no_lock}")
            }
            Self::NoPrimary(no_lock) => write!(out, "no member says that it is a running primary; {no_lock}"),
            Self::NobodyAnswers(no_lock, why) => write!(out, "{why}; {no_lock}"),
            Self::AnotherCluster(place, theirs, ours) => write!(
                out,
                "ANOTHER CLUSTER answers for {place}: {theirs}; pgnorth follows {ours}, and sends nobody there. If that is wrong, correct --scope and --patroni"
            ),
            Self::SeveralClusters(clusters, no_lock) => write!(
                out,
                "SEVERAL CLUSTERS answer, and nothing tells which one to follow: {}; name its scope (--scope, without Kubernetes together with --kubernetes=false), or take the others' URLs out of --patroni; {no_lock}",
                clusters.join(" and ")
            ),
            Self::CitusGroups(groups) => write!(
                out,
                "the pods belong to a Citus cluster, whose groups each have a primary: name one of the groups that are seen here with --citus-group: {}",
                groups.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
            ),
        }
    }
}
