//! Facts about a member that both its status in the DCS and its REST API state: replication and tags.

use std::collections::BTreeMap;

use crate::leader::MemberName;

/// A member's replication, as far as a source says. No decision about the leader depends on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replication {
    /// A primary's position in the WAL.
    pub location: Option<u64>,
    /// The position up to which a replica has replayed the WAL.
    pub replayed: Option<u64>,
    /// A replica's `replication_state`, as written: `streaming`, `in archive recovery`.
    pub state: Option<String>,
    /// A replica's part in synchronous replication, as Patroni sees it.
    pub standby: Option<Standby>,
    /// The members that stream from this one, by its own pg_stat_replication.
    pub streaming: Vec<MemberName>,
}

/// A replica's part in synchronous replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standby {
    /// `sync_standby`.
    Sync,
    /// `quorum_standby`.
    Quorum,
    /// Neither.
    Async,
}

/// A member's tags, each value as Patroni compares it with the query of a health check (api.py, `do_GET`): text as it
/// is, anything else in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    const NONE: &Self = &Self(BTreeMap::new());

    /// Returns no tags.
    pub const fn none() -> &'static Self {
        Self::NONE
    }

    /// Returns the value of a tag.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Returns true if the tag is one that Patroni reads as true (utils.py, `parse_bool`).
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
