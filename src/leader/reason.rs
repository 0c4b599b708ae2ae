//! The reasons for decisions: a closed set. Each prints as a sentence for people.

use std::fmt;
use std::time::Duration;

use crate::leader::identity::Identity;
use crate::leader::observation::ObjectKind;
use crate::leader::view::AnswerOrigin;
use crate::leader::{MemberName, UnknownAddress};

/// The reason for a decision. It holds nothing that changes while the facts stay the same.
#[allow(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No source has answered yet.
    Starting,
    /// At least one kind of leader object has not been read yet, for example this one.
    LockUnread { kind: ObjectKind },
    /// The member holds the lock, and its REST API says that it is a running primary.
    LockAndReport { member: MemberName },
    /// The member holds a fresh lock; its REST API does not answer, for this cause.
    LockAlone { member: MemberName, cause: String },
    /// The member holds the lock, and its status in the DCS says that it is a running primary; its REST API does not answer.
    LockAndPodStatus { member: MemberName, cause: String },
    /// The lock moved to the member, which has not said since that it is a running primary.
    Unverified { member: MemberName, cause: String },
    /// The member leads and does not accept writes, for this cause.
    NotWritable { member: MemberName, cause: String },
    /// The member leads, and its address is not known, for this cause.
    NoAddress { member: MemberName, cause: UnknownAddress },
    /// A switchover between these members is about to begin; `to` is `None` if no candidate is named.
    SwitchoverAnnounced { from: MemberName, to: Option<MemberName> },
    /// The lock has no holder.
    Released,
    /// The lock has no holder, Patroni is paused, and the member says that it is a running primary.
    ReleasedInPause { member: MemberName },
    /// The lock is about to expire.
    LockExpiring { member: MemberName },
    /// The lock has expired.
    LockExpired { member: MemberName, ttl: Duration },
    /// The lock has expired, and the race for it may be postponed by `backoff`.
    RaceBackoff { member: MemberName, backoff: Duration },
    /// The lock has expired, and Patroni is paused.
    ExpiredInPause { member: MemberName },
    /// The lock has expired, and the member leads in failsafe mode.
    Failsafe { member: MemberName },
    /// The member leads a standby cluster.
    StandbyCluster { member: MemberName },
    /// Without a lock: the member alone says that it is a running primary.
    OnlyPrimary { member: MemberName, no_lock: NoLock },
    /// Without a lock: several members say that they are primary, and this one is the foremost.
    NewestPrimary { member: MemberName, no_lock: NoLock },
    /// Without a lock: several members say that they are primary, and none is the foremost.
    SplitBrain { members: Vec<MemberName> },
    /// Without a lock: the leader does not answer, and is kept until its ttl is over.
    KeptInSilence { member: MemberName, no_lock: NoLock },
    /// Without a lock: the leader does not answer, and a majority of the members names it.
    NamedByMembers { member: MemberName, no_lock: NoLock },
    /// Without a lock: the former leader does not answer, and every other member names it again.
    NamedAgain { member: MemberName, no_lock: NoLock },
    /// Without a lock: the leader does not answer, and Patroni is paused.
    SilentInPause { member: MemberName, no_lock: NoLock },
    /// Without a lock: for a whole ttl no member said that it is a running primary.
    SilentTooLong { no_lock: NoLock },
    /// Without a lock: members answer, and none is a running primary.
    NoPrimary { no_lock: NoLock },
    /// Without a lock: no member is known, or none has ever answered.
    NobodyAnswers { no_lock: NoLock, cause: String },
    /// Another cluster than the followed one answers here.
    AnotherCluster {
        origin: AnswerOrigin,
        theirs: Identity,
        ours: Identity,
    },
    /// These clusters answer, and nothing says which one to follow.
    SeveralClusters { clusters: Vec<Identity>, no_lock: NoLock },
    /// The scope is that of a Citus cluster with these groups, and the settings name none of them.
    CitusGroups { groups: Vec<u32> },
}

/// The reason for which the members' answers decide instead of the lock.
#[allow(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLock {
    /// pgnorth runs with Patroni's REST API alone.
    RestOnly,
    /// The store of the lock, the Kubernetes API or etcd, does not answer, for this cause.
    ApiUnreachable { store: &'static str, cause: String },
    /// There is no leader object, of this kind or another one in its store.
    NoObject { kind: ObjectKind },
}

impl Reason {
    /// Returns the reason's kind, as a metric's label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::LockUnread { .. } => "lock_unread",
            Self::LockAndReport { .. } => "lock_and_report",
            Self::LockAlone { .. } => "lock_alone",
            Self::LockAndPodStatus { .. } => "lock_and_pod_status",
            Self::Unverified { .. } => "unverified",
            Self::NotWritable { .. } => "not_writable",
            Self::NoAddress { .. } => "no_address",
            Self::SwitchoverAnnounced { .. } => "switchover_announced",
            Self::Released => "released",
            Self::ReleasedInPause { .. } => "released_in_pause",
            Self::LockExpiring { .. } => "lock_expiring",
            Self::LockExpired { .. } => "lock_expired",
            Self::RaceBackoff { .. } => "race_backoff",
            Self::ExpiredInPause { .. } => "expired_in_pause",
            Self::Failsafe { .. } => "failsafe",
            Self::StandbyCluster { .. } => "standby_cluster",
            Self::OnlyPrimary { .. } => "only_primary",
            Self::NewestPrimary { .. } => "newest_primary",
            Self::SplitBrain { .. } => "split_brain",
            Self::KeptInSilence { .. } => "kept_in_silence",
            Self::NamedByMembers { .. } => "named_by_members",
            Self::NamedAgain { .. } => "named_again",
            Self::SilentInPause { .. } => "silent_in_pause",
            Self::SilentTooLong { .. } => "silent_too_long",
            Self::NoPrimary { .. } => "no_primary",
            Self::NobodyAnswers { .. } => "nobody_answers",
            Self::AnotherCluster { .. } => "another_cluster",
            Self::SeveralClusters { .. } => "several_clusters",
            Self::CitusGroups { .. } => "citus_groups",
        }
    }

    /// Returns true if the reason names a fault of the leader although clients are still sent to it: often the first
    /// sign of a failover.
    pub fn is_sign_of_failover(&self) -> bool {
        matches!(
            self,
            Self::LockAlone { .. }
                | Self::KeptInSilence { .. }
                | Self::NamedByMembers { .. }
                | Self::NamedAgain { .. }
                | Self::SilentInPause { .. }
        )
    }
}

impl fmt::Display for NoLock {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestOnly => out.write_str("decided by Patroni's REST API"),
            Self::ApiUnreachable { store, cause } => write!(
                out,
                "decided by Patroni's REST API alone, because {store} does not answer: {cause}"
            ),
            Self::NoObject { kind } => write!(
                out,
                "decided by Patroni's REST API alone, because {} has no {}",
                kind.store(),
                kind.lock_object()
            ),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting => out.write_str("no source has answered yet"),
            Self::LockUnread { kind } => write!(
                out,
                "{} has not yet said whether there is a {}",
                kind.store(),
                kind.lock_object()
            ),
            Self::LockAndReport { member } => write!(
                out,
                "{member} holds the leader lock and says that it is a running primary"
            ),
            Self::LockAlone { member, cause } => write!(
                out,
                "{member} holds the leader lock, which has not expired; its REST API does not answer: {cause}"
            ),
            Self::LockAndPodStatus { member, cause } => write!(
                out,
                "{member} holds the leader lock and its status in the DCS says running primary; its REST API does not \
                 answer: {cause}"
            ),
            Self::Unverified { member, cause } => write!(
                out,
                "{member} holds the leader lock, but has not said yet that it is a running primary: {cause}"
            ),
            Self::NotWritable { member, cause } => {
                write!(out, "{member} leads but does not accept writes: {cause}")
            }
            Self::NoAddress { member, cause } => {
                write!(out, "{member} leads, but its address is not known: {cause}")
            }
            Self::SwitchoverAnnounced { from, to: Some(to) } => {
                write!(out, "a switchover from {from} to {to} was announced")
            }
            Self::SwitchoverAnnounced { from, to: None } => write!(out, "a switchover away from {from} was announced"),
            Self::Released => out.write_str("the leader lock was released and no member has taken it yet"),
            Self::ReleasedInPause { member } => write!(
                out,
                "no member holds the leader lock, but Patroni is paused and {member} says that it is a running primary"
            ),
            Self::LockExpiring { member } => write!(
                out,
                "{member} has not renewed the leader lock, which is about to expire"
            ),
            Self::LockExpired { member, ttl } => write!(
                out,
                "{member} has not renewed the leader lock for {} s (its ttl): another member may be promoted by now",
                ttl.as_secs()
            ),
            Self::RaceBackoff { member, backoff } => write!(
                out,
                "{member} has not been seen to renew the leader lock for its ttl, but while it writes, the other \
                 members put the race for the lock off for up to {} s (primary_race_backoff): its sessions stay until \
                 then, unless another member takes the lock",
                backoff.as_secs()
            ),
            Self::ExpiredInPause { member } => write!(
                out,
                "{member} does not renew the leader lock, but Patroni is paused and promotes no other member by itself"
            ),
            Self::Failsafe { member } => write!(
                out,
                "{member} cannot renew the leader lock, but leads in failsafe mode: every member agrees to it"
            ),
            Self::StandbyCluster { member } => write!(
                out,
                "{member} leads a standby cluster, which follows another cluster's primary and accepts no writes"
            ),
            Self::OnlyPrimary { member, no_lock } => {
                write!(out, "{member} alone says that it is a running primary; {no_lock}")
            }
            Self::NewestPrimary { member, no_lock } => write!(
                out,
                "several members say that they are primary, and {member} holds the lock or has the newest timeline; \
                 {no_lock}"
            ),
            Self::SplitBrain { members } => write!(
                out,
                "SPLIT BRAIN: {} all say that they are primary, on the same timeline; no client gets a connection \
                 until one of them is stopped",
                members.join(" and ")
            ),
            Self::KeptInSilence { member, no_lock } => write!(
                out,
                "{member} does not answer and no other member is primary: it is kept until its lock expires; {no_lock}"
            ),
            Self::NamedByMembers { member, no_lock } => write!(
                out,
                "{member} does not answer, but a majority of the members says that it holds the leader lock; {no_lock}"
            ),
            Self::NamedAgain { member, no_lock } => write!(
                out,
                "{member} does not answer, but every other member says that it holds the leader lock and runs on the \
                 timeline on which it was primary; {no_lock}"
            ),
            Self::SilentInPause { member, no_lock } => write!(
                out,
                "{member} does not answer, but Patroni is paused and promotes no other member by itself; {no_lock}"
            ),
            Self::SilentTooLong { no_lock } => {
                write!(out, "no member has said for a whole ttl that it is primary; {no_lock}")
            }
            Self::NoPrimary { no_lock } => write!(out, "no member says that it is a running primary; {no_lock}"),
            Self::NobodyAnswers { no_lock, cause } => write!(out, "{cause}; {no_lock}"),
            Self::AnotherCluster { origin, theirs, ours } => write!(
                out,
                "ANOTHER CLUSTER answers for {origin}: {theirs}; pgnorth follows {ours} and sends no client there. If \
                 that is wrong, correct --scope and --patroni"
            ),
            Self::SeveralClusters { clusters, no_lock } => {
                let clusters: Vec<_> = clusters.iter().map(ToString::to_string).collect();
                write!(
                    out,
                    "SEVERAL CLUSTERS answer, and nothing says which one to follow: {}; name its scope (--scope, \
                     without Kubernetes together with --kubernetes=false), or remove the others' URLs from --patroni; \
                     {no_lock}",
                    clusters.join(" and ")
                )
            }
            Self::CitusGroups { groups } => {
                let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
                write!(
                    out,
                    "the pods belong to a Citus cluster, in which each group has its own primary: choose one of the \
                     groups found here with --citus-group: {}",
                    groups.join(", ")
                )
            }
        }
    }
}
