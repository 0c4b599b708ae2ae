//! Facts about a member that both its status in the DCS and its REST API contain: replication and tags.

use std::collections::BTreeMap;

use crate::leader::MemberName;

/// A member's replication, as far as a source reports it. No decision about the leader depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// A primary's WAL position.
    pub location: Option<u64>,
    /// The WAL position up to which a replica has replayed.
    pub replayed: Option<u64>,
    /// A replica's `replication_state`, as written: `streaming`, `in archive recovery`.
    pub state: Option<String>,
    /// A replica's kind of standby, according to Patroni.
    pub standby: Option<Standby>,
    /// The members that stream from this member, from its pg_stat_replication.
    pub streaming: Vec<MemberName>,
}

/// A replica's kind of standby.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// A synchronous standby: `sync_standby`.
    Sync,
    /// A synchronous standby in quorum mode: `quorum_standby`.
    Quorum,
    /// An asynchronous standby.
    Async,
}

/// A member's tags. Each value has the form that Patroni compares with the query of a health check (api.py, `do_GET`):
/// strings unchanged, other values as text in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    const NONE: &Self = &Self(BTreeMap::new());

    /// Returns the empty set of tags.
    pub const fn none() -> &'static Self {
        Self::NONE
    }

    /// Returns the value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns true if Patroni reads the tag's value as true (utils.py, `parse_bool`).
    pub fn is_on(&self, name: &str) -> bool {
        let value = self.get(name).map(str::to_lowercase);
        matches!(value.as_deref(), Some("on" | "true" | "yes" | "1"))
    }
}

impl FromIterator<(String, String)> for Tags {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(tags: T) -> Self {
        Self(tags.into_iter().collect())
    }
}
