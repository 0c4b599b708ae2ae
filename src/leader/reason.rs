//! The reasons for decisions: a closed set. Each is displayed as a sentence.

use std::fmt;
use std::time::Duration;

use crate::leader::identity::Identity;
use crate::leader::observation::ObjectKind;
use crate::leader::view::AnswerOrigin;
use crate::leader::{MemberName, UnknownAddress};

/// The reason for a decision. It contains nothing that changes while the facts stay the same.
#[allow(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No source has answered yet.
    Starting,
    /// At least one watched kind of leader object has not been read yet; `kind` is one of the watched kinds.
    LockUnread { kind: ObjectKind },
    /// The member holds the lock, and its REST API says that it is a running primary.
    LockAndReport { member: MemberName },
    /// The member holds a fresh lock, and its REST API gives no valid answer.
    LockAlone { member: MemberName, cause: String },
    /// The member holds the lock, and its status in the DCS says that it is a running primary. Its REST API gives no
    /// valid answer.
    LockAndPodStatus { member: MemberName, cause: String },
    /// The member holds the lock, but no current evidence shows that it is a running primary.
    Unverified { member: MemberName, cause: String },
    /// The member holds the lock, says that it is primary, or led last, but does not accept writes or must not get any.
    NotWritable { member: MemberName, cause: String },
    /// The member holds the lock or says that it is a running primary, and its address is unknown.
    NoAddress { member: MemberName, cause: UnknownAddress },
    /// A switchover, or a failover that an operator requested, is due; `to` is `None` if no candidate is named.
    SwitchoverAnnounced { from: MemberName, to: Option<MemberName> },
    /// The lock has no holder.
    Released,
    /// The lock has no holder, Patroni is paused, and the member says that it is a running primary.
    ReleasedInPause { member: MemberName },
    /// The lock is about to expire.
    LockExpiring { member: MemberName },
    /// The lock has expired.
    LockExpired { member: MemberName, ttl: Duration },
    /// The ttl is over, with or without a watched lock, and the race for the lock may be postponed by `backoff`.
    RaceBackoff { member: MemberName, backoff: Duration },
    /// The lock has expired, and Patroni is paused.
    ExpiredInPause { member: MemberName },
    /// The lock has expired, and the member leads in failsafe mode.
    Failsafe { member: MemberName },
    /// The member leads a standby cluster.
    StandbyCluster { member: MemberName },
    /// Without a lock: this member says that it is a running primary, and no other member with the lock does.
    OnlyPrimary { member: MemberName, no_lock: NoLock },
    /// Without a lock: several members say that they are primary, and only this one holds the lock, or it has the
    /// highest timeline.
    NewestPrimary { member: MemberName, no_lock: NoLock },
    /// Without a lock: several members say that they are primary, and neither the lock nor the timeline distinguishes
    /// the first two.
    SplitBrain { members: Vec<MemberName> },
    /// Without a lock: the leader does not answer, and stays the leader until its ttl has passed.
    KeptInSilence { member: MemberName, no_lock: NoLock },
    /// Without a lock: the leader does not answer, and a majority of the members names it.
    NamedByMembers { member: MemberName, no_lock: NoLock },
    /// Without a lock: the former leader does not answer, and every other member names it again.
    NamedAgain { member: MemberName, no_lock: NoLock },
    /// Without a lock: the leader does not answer, and Patroni is paused.
    SilentInPause { member: MemberName, no_lock: NoLock },
    /// Without a lock: the leader has not answered for its whole ttl.
    SilentTooLong { no_lock: NoLock },
    /// Without a lock: members have answered, but no member says that it is a running primary and holds the lock.
    NoPrimary { no_lock: NoLock },
    /// Without a lock: no member is known, or no member has ever answered.
    NobodyAnswers { no_lock: NoLock, cause: String },
    /// A cluster other than the followed one answers at `origin`.
    AnotherCluster {
        origin: AnswerOrigin,
        theirs: Identity,
        ours: Identity,
    },
    /// These clusters answer, and it is unknown which one to follow.
    SeveralClusters { clusters: Vec<Identity>, no_lock: NoLock },
    /// The pods belong to these groups of a Citus cluster, and the settings select none of them.
    CitusGroups { groups: Vec<u32> },
}

/// The reason why the members' answers decide instead of the lock.
#[allow(missing_docs, reason = "the variants say what their fields are")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLock {
    /// pgnorth uses only Patroni's REST API.
    RestOnly,
    /// The store of the lock, the Kubernetes API or etcd, cannot be read.
    ApiUnreachable { store: &'static str, cause: String },
    /// The store has no leader object, neither of this kind nor of another.
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

    /// Returns true if the reason is often the first sign of a failover: the leader's REST API gives no valid answer,
    /// but clients still go to the leader.
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
                "decided by Patroni's REST API only, because {store} cannot be read: {cause}"
            ),
            Self::NoObject { kind } => write!(
                out,
                "decided by Patroni's REST API only, because {} has no {}",
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
                "{} has not yet reported whether there is a {}",
                kind.store(),
                kind.lock_object()
            ),
            Self::LockAndReport { member } => write!(
                out,
                "{member} holds the leader lock and says that it is a running primary"
            ),
            Self::LockAlone { member, cause } => write!(
                out,
                "{member} holds the leader lock, which has not expired; its REST API gives no valid answer: {cause}"
            ),
            Self::LockAndPodStatus { member, cause } => write!(
                out,
                "{member} holds the leader lock, and its status in the DCS says that it is a running primary; its REST \
                 API gives no valid answer: {cause}"
            ),
            Self::Unverified { member, cause } => write!(
                out,
                "{member} holds the leader lock, but has not confirmed that it is a running primary: {cause}"
            ),
            Self::NotWritable { member, cause } => {
                write!(out, "{member} is not ready for writes: {cause}")
            }
            Self::NoAddress { member, cause } => {
                write!(out, "{member} leads, but its address is unknown: {cause}")
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
                "{member} has not renewed the leader lock for {} s (its ttl): another member may have been promoted by \
                 now",
                ttl.as_secs()
            ),
            Self::RaceBackoff { member, backoff } => write!(
                out,
                "nothing has shown for a whole ttl that {member} renews the leader lock, but while it still writes, \
                 the other members postpone the race for the lock for up to {} s (primary_race_backoff): its sessions \
                 are kept until then, unless another member acquires the lock",
                backoff.as_secs()
            ),
            Self::ExpiredInPause { member } => write!(
                out,
                "{member} does not renew the leader lock, but Patroni is paused and promotes no other member \
                 automatically"
            ),
            Self::Failsafe { member } => write!(
                out,
                "{member} cannot renew the leader lock, but stays the leader in failsafe mode, confirmed by every \
                 member"
            ),
            Self::StandbyCluster { member } => write!(
                out,
                "{member} leads a standby cluster, which follows another cluster's primary and accepts no writes"
            ),
            Self::OnlyPrimary { member, no_lock } => {
                write!(out, "{member} says that it is a running primary; {no_lock}")
            }
            Self::NewestPrimary { member, no_lock } => write!(
                out,
                "several members say that they are primary; {member} is used, because it holds the lock or has the \
                 highest timeline; {no_lock}"
            ),
            Self::SplitBrain { members } => write!(
                out,
                "SPLIT BRAIN: {} say that they are primary, and neither the lock nor the timeline shows which one \
                 leads; clients wait until only one of them is left: stop the others",
                members.join(" and ")
            ),
            Self::KeptInSilence { member, no_lock } => write!(
                out,
                "{member} does not answer, and no other member is known to be the primary: {member} stays the leader \
                 until its ttl has passed; {no_lock}"
            ),
            Self::NamedByMembers { member, no_lock } => write!(
                out,
                "{member} does not answer, but a majority of the members names it as the lock holder; {no_lock}"
            ),
            Self::NamedAgain { member, no_lock } => write!(
                out,
                "{member} does not answer, but every other member names it as the lock holder, on the timeline on \
                 which it last led; {no_lock}"
            ),
            Self::SilentInPause { member, no_lock } => write!(
                out,
                "{member} does not answer, but Patroni is paused and promotes no other member automatically; {no_lock}"
            ),
            Self::SilentTooLong { no_lock } => write!(
                out,
                "the leader has not answered for its whole ttl: another member may have been promoted by now; {no_lock}"
            ),
            Self::NoPrimary { no_lock } => write!(
                out,
                "no member says that it is a running primary and holds the leader lock; {no_lock}"
            ),
            Self::NobodyAnswers { no_lock, cause } => write!(out, "{cause}; {no_lock}"),
            Self::AnotherCluster { origin, theirs, ours } => write!(
                out,
                "ANOTHER CLUSTER answers for {origin}: {theirs}; pgnorth follows {ours} and sends no clients there. If \
                 pgnorth follows the wrong cluster, correct --scope and --patroni"
            ),
            Self::SeveralClusters { clusters, no_lock } => {
                let clusters: Vec<_> = clusters.iter().map(ToString::to_string).collect();
                write!(
                    out,
                    "SEVERAL CLUSTERS answer, and it is unknown which one to follow: {}; set --scope (without \
                     Kubernetes, together with --kubernetes=false), or remove the other clusters' URLs from --patroni; \
                     {no_lock}",
                    clusters.join(" and ")
                )
            }
            Self::CitusGroups { groups } => {
                let groups: Vec<_> = groups.iter().map(u32::to_string).collect();
                write!(
                    out,
                    "the pods belong to a Citus cluster, in which each group has its own primary: select one with \
                     --citus-group; groups found: {}",
                    groups.join(", ")
                )
            }
        }
    }
}
