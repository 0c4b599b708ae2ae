//! The identity of a cluster: Patroni's scope and PostgreSQL's system identifier. `view::followed` determines which
//! cluster is followed.

use std::fmt;

/// The identity of a cluster, as far as an answer contains it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Patroni's scope.
    pub scope: Option<String>,
    /// PostgreSQL's system identifier, which `initdb` creates.
    pub system: Option<String>,
}

impl Identity {
    /// Returns true if the two identities cannot belong to the same cluster. A missing part is not a contradiction.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.has_another_scope_than(other) || differ(self.system.as_ref(), other.system.as_ref())
    }

    /// Returns true if both scopes are known and differ.
    pub fn has_another_scope_than(&self, other: &Self) -> bool {
        differ(self.scope.as_ref(), other.scope.as_ref())
    }

    /// Returns true if `other` has each known part of `self`, and no part contradicts.
    pub fn is_confirmed_by(&self, other: &Self) -> bool {
        let has_it = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || theirs.is_some();
        has_it(&self.scope, &other.scope) && has_it(&self.system, &other.system) && !self.contradicts(other)
    }
}

fn differ(one: Option<&String>, other: Option<&String>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.scope, &self.system) {
            (Some(scope), Some(system)) => write!(out, "scope {scope:?} with system identifier {system:?}"),
            (Some(scope), None) => write!(out, "scope {scope:?}"),
            (None, Some(system)) => write!(out, "system identifier {system:?}"),
            (None, None) => out.write_str("an unknown cluster"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(scope: Option<&str>, system: Option<&str>) -> Identity {
        Identity {
            scope: scope.map(str::to_owned),
            system: system.map(str::to_owned),
        }
    }

    #[test]
    fn a_missing_part_is_neither_contradiction_nor_confirmation() {
        let ours = identity(Some("pg"), Some("7"));
        for (scope, system, contradicts, confirms) in [
            (Some("pg"), Some("7"), false, true),
            (Some("pg"), Some("8"), true, false),
            (Some("zz"), Some("7"), true, false),
            (Some("zz"), None, true, false),
            (None, Some("8"), true, false),
            (Some("pg"), None, false, false),
            (None, None, false, false),
        ] {
            let theirs = identity(scope, system);
            assert_eq!(ours.contradicts(&theirs), contradicts, "{theirs}");
            assert_eq!(theirs.contradicts(&ours), contradicts, "{theirs}");
            assert_eq!(ours.is_confirmed_by(&theirs), confirms, "{theirs}");
        }
        assert!(identity(None, None).is_confirmed_by(&ours));
    }
}
