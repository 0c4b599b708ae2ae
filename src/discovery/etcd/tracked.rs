//! The state of a scope's keys, built from listings, changes and answers about the lease, and the claims that follow.
//! Pure.
//!
//! Two facts differ from Kubernetes. First, etcd deletes the leader key if its holder does not renew the lease: if the
//! key vanishes when its lease was due to expire, the claim is an expired lock, and not a released one. Second, etcd
//! deletes the key of a member that cannot reach it: the member's address stays known until the lock is renewed again,
//! because all members may be cut off from etcd together, and the leader may continue in failsafe mode.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use crate::discovery::etcd::gateway::{CheckedLease, CheckedListing};
use crate::discovery::etcd::keys::{self, Key};
use crate::discovery::etcd::lease::Lease;
use crate::discovery::etcd::messages::{Change, KeyValue, LeaseTime, Listing};
use crate::leader::MemberName;
use crate::leader::observation::{Claim, DcsStatus, Lock, ObjectKind};

/// Patroni's default ttl, used until the lease or the key `config` shows the cluster's ttl.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
const KIND: ObjectKind = ObjectKind::EtcdKey;

/// The keys of one scope.
#[derive(Debug)]
pub(super) struct Tracked {
    prefix: String,
    group: Option<u32>,
    /// Newest revision that this state includes.
    revision: i64,
    /// The keys below the prefix, by path.
    keys: BTreeMap<String, KeyValue>,
    lease: Option<Lease>,
    /// The lock in the last claim.
    lock: Option<Lock>,
    /// Members whose keys are gone, but whose addresses stay known.
    vanished: BTreeMap<MemberName, DcsStatus>,
    /// Problems with values that cannot be parsed, by key.
    problems: BTreeMap<String, String>,
    /// Problems that have not been reported yet.
    new_problems: Vec<String>,
}

impl Tracked {
    /// Returns the state before the first listing. `prefix` ends with a slash.
    pub(super) fn new(prefix: &str, group: Option<u32>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            group,
            revision: 0,
            keys: BTreeMap::new(),
            lease: None,
            lock: None,
            vanished: BTreeMap::new(),
            problems: BTreeMap::new(),
            new_problems: Vec::new(),
        }
    }

    /// Returns the lease of the leader key; `None` if there is no leader key.
    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref().filter(|_| self.keys.contains_key("leader"))
    }

    /// Returns true if there is no key below the prefix.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the problems that were not returned before, as sentences.
    pub(super) fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_problems)
    }

    /// Replaces all keys with those of a listing.
    pub(super) fn replace(&mut self, checked: CheckedListing, at: Instant) -> Vec<Claim> {
        let CheckedListing { listing, lease } = checked;
        let before = std::mem::take(&mut self.keys);
        self.revision = listing.revision;
        for key in listing.keys {
            if let Some(path) = key.key.strip_prefix(&self.prefix) {
                self.keys.insert(path.to_owned(), key);
            }
        }
        let gone: Vec<_> = before.keys().filter(|path| !self.keys.contains_key(*path)).collect();
        for path in gone {
            if let Some((name, pod)) = self.member_of(path, &before[path]) {
                self.vanished.insert(name, pod);
            }
        }
        let listed: Vec<DcsStatus> = self.members();
        self.vanished
            .retain(|name, _| listed.iter().all(|pod| pod.name != *name));
        let members = listed.into_iter().chain(self.vanished.values().cloned()).collect();
        let moved =
            before.get("leader").map(|key| key.mod_revision) != self.keys.get("leader").map(|key| key.mod_revision);
        if moved {
            self.leader_changed(at);
        }
        let mut claims = vec![
            self.settings(),
            self.standbys(),
            Claim::DcsStatuses(members),
            self.announcement(at),
        ];
        claims.extend(self.checked(lease));
        claims
    }

    /// Applies changes from the watch.
    pub(super) fn apply(&mut self, changes: Vec<Change>, at: Instant) -> Vec<Claim> {
        changes
            .into_iter()
            .filter_map(|change| self.apply_one(change, at))
            .flatten()
            .collect()
    }

    fn apply_one(&mut self, change: Change, at: Instant) -> Option<Vec<Claim>> {
        let (Change::Put(key) | Change::Deleted(key)) = &change;
        self.revision = self.revision.max(key.mod_revision);
        let path = key.key.strip_prefix(&self.prefix)?.to_owned();
        let former = match change {
            Change::Put(key) => self.keys.insert(path.clone(), key),
            Change::Deleted(_) => self.keys.remove(&path),
        };
        Some(match Key::of(&path) {
            Key::Leader => {
                self.leader_changed(at);
                vec![self.lock_claim()]
            }
            Key::Failover => vec![self.announcement(at)],
            Key::Config | Key::Initialize => vec![self.settings()],
            Key::Sync => vec![self.standbys()],
            Key::Member(_) | Key::GroupMember(..) => self.member_changed(&path, former),
            Key::Other => Vec::new(),
        })
    }

    fn member_changed(&mut self, path: &str, former: Option<KeyValue>) -> Vec<Claim> {
        if let Some(pod) = self.read_member(path) {
            self.vanished.remove(&pod.name);
            return vec![Claim::DcsStatus(pod)];
        }
        if let Some((name, pod)) = former.and_then(|former| self.member_of(path, &former)) {
            self.vanished.insert(name, pod);
        }
        Vec::new()
    }

    /// Updates the lock after its key was written or deleted.
    fn leader_changed(&mut self, at: Instant) {
        let ttl = self.ttl();
        let Some(key) = self.keys.get("leader") else {
            let expired = self.lease.as_ref().is_none_or(|lease| lease.expiry() <= at);
            if let Some(lock) = self.lock.as_mut().filter(|_| !expired) {
                lock.holder = None;
                lock.renewed = None;
            }
            return;
        };
        let holder = Some(key.value.as_str()).filter(|name| !name.is_empty());
        self.lease = Some(match self.lease.take() {
            Some(lease) if lease.id == key.lease && key.lease != 0 => lease,
            _ => Lease::unknown(key.lease, ttl, at),
        });
        let holder = holder.map(MemberName::from);
        let revision = key.mod_revision.to_string();
        let lease = self.lease.as_ref();
        self.lock = Some(Lock {
            holder,
            ttl: lease.map_or(ttl, |lease| lease.ttl),
            renewal: [None, None, Some(revision)],
            written: None,
            renewed: lease.map(Lease::renewed),
        });
    }

    /// Records the lease of a check that found no missed change.
    pub(super) fn checked(&mut self, lease: Option<CheckedLease>) -> Vec<Claim> {
        match lease {
            Some(lease) => self.record_lease(lease.id, lease.time, lease.sent, lease.answered),
            None => vec![self.lock_claim()],
        }
    }

    /// Records an answer about the lease of the leader key, with the times of the request and the answer.
    fn record_lease(&mut self, id: i64, time: LeaseTime, sent: Instant, answered: Instant) -> Vec<Claim> {
        let Some(lease) = self.lease.as_mut().filter(|lease| lease.id == id) else {
            return vec![self.lock_claim()];
        };
        let renewed = match id {
            0 => {
                lease.found(sent);
                true
            }
            _ => lease.record(time, sent, answered),
        };
        let mut claims = Vec::new();
        if renewed && self.keys.contains_key("leader") {
            if let Some(lock) = &mut self.lock {
                lock.renewed = Some(lease.renewed());
                lock.ttl = lease.ttl;
            }
            claims = self.forget_vanished();
        }
        claims.push(self.lock_claim());
        claims
    }

    /// Returns the lock as a claim, which also shows that etcd has answered.
    fn lock_claim(&self) -> Claim {
        Claim::Lock(KIND, self.lock.clone())
    }

    /// Forgets the members whose keys are gone, except the lock's holder. The holder reaches etcd, so these members
    /// could reach etcd, too.
    fn forget_vanished(&mut self) -> Vec<Claim> {
        let holder = self.lock.as_ref().and_then(|lock| lock.holder.clone());
        let gone: BTreeSet<_> = self
            .vanished
            .keys()
            .filter(|name| Some(*name) != holder.as_ref())
            .cloned()
            .collect();
        self.vanished.retain(|name, _| !gone.contains(name));
        gone.into_iter().map(Claim::DcsStatusGone).collect()
    }

    /// Returns true if a listing, even one without values, shows that the watch has not delivered every change.
    pub(super) fn is_behind(&self, listing: &Listing) -> bool {
        if listing.revision < self.revision {
            return false;
        }
        let listed = listing
            .keys
            .iter()
            .filter_map(|key| Some((key.key.strip_prefix(&self.prefix)?, key.mod_revision)));
        let known = self.keys.iter().map(|(path, key)| (path.as_str(), key.mod_revision));
        listed.ne(known)
    }

    /// Returns true if the leader key in a listing differs from the known one.
    pub(super) fn has_another_leader(&self, listing: &Listing) -> bool {
        let leader = |key: &&KeyValue| key.key.strip_prefix(&self.prefix) == Some("leader");
        let listed = listing.keys.iter().find(leader).map(|key| key.mod_revision);
        listed != self.keys.get("leader").map(|key| key.mod_revision)
    }

    fn ttl(&self) -> Duration {
        let config = self.keys.get("config").and_then(|key| keys::ttl(&key.value));
        config.unwrap_or(DEFAULT_TTL)
    }

    fn settings(&mut self) -> Claim {
        let value = |path: &str| self.keys.get(path).map(|key| key.value.as_str());
        let (settings, problem) = keys::settings(value("config"), value("initialize"));
        self.note("config", problem);
        Claim::Settings(KIND, settings)
    }

    fn standbys(&mut self) -> Claim {
        let text = self.keys.get("sync").map(|key| key.value.clone());
        let (standbys, problem) = text.map(|text| keys::synchronous_standbys(&text)).unwrap_or_default();
        self.note("sync", problem);
        Claim::Synchronous(KIND, Some(standbys))
    }

    fn announcement(&mut self, at: Instant) -> Claim {
        let text = self.keys.get("failover").map(|key| key.value.clone());
        let read = text.map(|text| keys::announcement(&text, at, SystemTime::now()));
        let (announcement, problem) = read.unwrap_or_default();
        self.note("failover", problem);
        Claim::Announcement(KIND, announcement)
    }

    fn members(&mut self) -> Vec<DcsStatus> {
        let paths: Vec<_> = self.keys.keys().cloned().collect();
        paths.iter().filter_map(|path| self.read_member(path)).collect()
    }

    fn read_member(&mut self, path: &str) -> Option<DcsStatus> {
        let (name, group) = self.name_of(path)?;
        let key = self.keys.get(path)?;
        let (pod, problem) = keys::member(&name, group, &key.value);
        self.note(path, problem);
        Some(pod)
    }

    fn member_of(&self, path: &str, key: &KeyValue) -> Option<(MemberName, DcsStatus)> {
        let (name, group) = self.name_of(path)?;
        let (pod, _) = keys::member(&name, group, &key.value);
        Some((pod.name.clone(), pod))
    }

    fn name_of(&self, path: &str) -> Option<(String, Option<u32>)> {
        match Key::of(path) {
            Key::Member(name) => Some((name.to_owned(), self.group)),
            Key::GroupMember(group, name) => Some((name.to_owned(), Some(group))),
            _ => None,
        }
    }

    fn note(&mut self, path: &str, problem: Option<String>) {
        match problem {
            Some(problem) if self.problems.get(path) == Some(&problem) => {}
            Some(problem) => {
                self.new_problems.push(format!("key {}{path} {problem}", self.prefix));
                self.problems.insert(path.to_owned(), problem);
            }
            None => _ = self.problems.remove(path),
        }
    }
}

#[cfg(test)]
mod tests;
