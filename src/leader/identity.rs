//! Tells clusters apart: by Patroni's scope and PostgreSQL's system identifier. Which of them is followed is known to
//! `view::followed`.

use std::fmt;

/// The cluster that an answer comes from, as far as the answer tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Patroni's scope.
    pub scope: Option<String>,
    /// PostgreSQL's system identifier: `initdb` makes a new one.
    pub system: Option<String>,
}

impl Identity {
    /// Returns whether the two cannot be one cluster. What either of them does not tell contradicts nothing.
    pub fn contradicts(&self, other: &Self) -> bool {
        self.has_another_scope_than(other) || differ(self.system.as_ref(), other.system.as_ref())
    }

    /// Returns whether the scopes tell the two apart.
    pub fn has_another_scope_than(&self, other: &Self) -> bool {
        differ(self.scope.as_ref(), other.scope.as_ref())
    }

    /// Returns whether `other` tells all that is known here, and the same.
    pub fn is_confirmed_by(&self, other: &Self) -> bool {
        let told = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || theirs.is_some();
        told(&self.scope, &other.scope) && told(&self.system, &other.system) && !self.contradicts(other)
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
    fn what_is_not_told_contradicts_nothing_and_confirms_nothing() {
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
