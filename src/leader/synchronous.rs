//! Patroni's record of the synchronous standbys: the object `<scope>-sync`, or the key `sync`.

use std::collections::BTreeSet;

use crate::leader::MemberName;

/// The synchronous standbys; in quorum mode, all standbys that may take part in a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncState {
    /// The names in lower case, because Patroni compares names as PostgreSQL does in `synchronous_standby_names`.
    standbys: BTreeSet<String>,
}

impl SyncState {
    /// Returns the record with the given `leader` and `sync_standby`. Without a leader, the record is empty
    /// (dcs/__init__.py, `SyncState.is_empty`).
    pub fn new(leader: Option<&str>, sync_standby: Option<&str>) -> Self {
        let named = sync_standby.filter(|_| leader.is_some_and(|leader| !leader.is_empty()));
        let names = named.unwrap_or_default().split(',').map(str::trim);
        Self {
            standbys: names.filter(|name| !name.is_empty()).map(str::to_lowercase).collect(),
        }
    }

    /// Returns true if this member is one of the synchronous standbys.
    pub fn contains(&self, member: &MemberName) -> bool {
        self.standbys.contains(&member.as_str().to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standbys_are_those_that_patroni_finds() {
        // The expected values are the results of SyncState.matches in Patroni 4.1.5.
        for (leader, standbys, member, expected) in [
            (Some("a"), Some("b"), "b", true),
            (Some("a"), Some("b, c"), "c", true),
            (Some("a"), Some("B"), "b", true),
            (Some("a"), Some("b"), "B", true),
            (Some("a"), Some("b"), "a", false),
            (Some("a"), Some("bc"), "b", false),
            (Some("a"), Some(""), "b", false),
            (Some("a"), None, "b", false),
            (Some(""), Some("b"), "b", false),
            (None, Some("b"), "b", false),
        ] {
            let found = SyncState::new(leader, standbys).contains(&member.into());
            assert_eq!(found, expected, "{leader:?} {standbys:?} {member}");
        }
    }
}
