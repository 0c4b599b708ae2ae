//! Patroni's health checks as routes: the path and query that HAProxy requests.

use super::Outcome::{self, NoEquivalent, NotNeeded, Setting};
use crate::route::{RouteKind, UNITS};

/// The route that corresponds to a check, and the outcomes of the parts of the check's query.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) kind: RouteKind,
    /// Keys of the route, each as it is written in `--route`.
    pub(super) keys: Vec<String>,
    pub(super) outcomes: Vec<Outcome>,
}

/// Patroni's paths (its api.py, `do_GET`).
const PATHS: [(&str, RouteKind); 14] = [
    ("/", RouteKind::Primary),
    ("/primary", RouteKind::Primary),
    ("/master", RouteKind::Primary),
    ("/read-write", RouteKind::Primary),
    ("/leader", RouteKind::Leader),
    ("/standby-leader", RouteKind::StandbyLeader),
    ("/standby_leader", RouteKind::StandbyLeader),
    ("/replica", RouteKind::Replica),
    ("/read-only", RouteKind::ReadOnly),
    ("/sync", RouteKind::Sync),
    ("/synchronous", RouteKind::Sync),
    ("/quorum", RouteKind::Quorum),
    ("/async", RouteKind::Async),
    ("/asynchronous", RouteKind::Async),
];

/// Returns the route that corresponds to HAProxy's request, or the reason why there is none.
pub(super) fn read(uri: &str) -> Result<Check, String> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let kind = PATHS.iter().find(|(known, _)| *known == path).map(|(_, kind)| *kind);
    let Some(kind) = kind else {
        return Err(match path {
            "GET" | "HEAD" | "OPTIONS" => format!(
                "HAProxy uses a single word as the path, and requests {path}; Patroni answers 503. Did you mean \
                 `{path} /primary`?"
            ),
            _ => format!("pgnorth has no route that corresponds to the health check {path}"),
        });
    };
    let mut check = Check {
        kind,
        keys: Vec::new(),
        outcomes: vec![Setting(format!("the route is {kind}"))],
    };
    let parameters = url::form_urlencoded::parse(query.as_bytes());
    for (name, value) in parameters {
        let outcome = check.parameter(&name, &value);
        if let Setting(key) = &outcome {
            check.keys.push(key.clone());
        }
        check.outcomes.push(outcome);
    }
    Ok(check)
}

impl Check {
    fn parameter(&self, name: &str, value: &str) -> Outcome {
        let tag = name.strip_prefix("tag_");
        if !self.kind.is_for_replicas() {
            return NotNeeded(format!("Patroni ignores {name} for this path"));
        }
        let is_plain = |text: &str| {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.:/+@".contains(letter);
            !text.is_empty() && text.chars().all(plain)
        };
        match (name, tag) {
            ("lag", _) => match kilobytes(value) {
                Some(size) => Setting(format!("max-lag={size}")),
                None => NoEquivalent(format!(
                    "{value:?} is not a size, so Patroni ignores it and the route gets no limit"
                )),
            },
            ("replication_state", _) if value == "streaming" => Setting("streaming".to_owned()),
            (_, Some(tag)) if is_plain(tag) && is_plain(value) => Setting(format!("tag.{tag}={value}")),
            (_, Some(tag)) => NoEquivalent(format!("the value of the tag {tag} cannot be written in --route")),
            ("replication_state", _) => NoEquivalent(format!("a route cannot require the replication state {value:?}")),
            _ => NotNeeded(format!("Patroni has no parameter {name}, and ignores it")),
        }
    }
}

/// Converts one of Patroni's sizes to the units of a route, rounded down. A number without a unit is in bytes.
fn kilobytes(value: &str) -> Option<String> {
    let split = value
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(value.len());
    let (count, unit) = value.split_at(split);
    let count: u64 = count.parse().ok()?;
    let shift = match unit.trim() {
        "" | "B" => 0,
        unit => UNITS.iter().find(|(known, _)| *known == unit)?.1,
    };
    let kilobytes = count.checked_mul(1 << shift)? >> 10 << 10;
    Some(match kilobytes {
        0 => "0kB".to_owned(),
        bytes => crate::route::size(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_of_patroni_is_a_route() {
        for (uri, expected) in [
            ("/", "primary"),
            ("/master", "primary"),
            ("/primary?lag=1&tag_a=b", "primary"),
            ("/leader", "leader"),
            ("/standby_leader", "standby-leader"),
            (
                "/replica?lag=16MB&replication_state=streaming",
                "replica,max-lag=16MB,streaming",
            ),
            ("/replica?lag=1048576", "replica,max-lag=1MB"),
            ("/replica?lag=1000000", "replica,max-lag=976kB"),
            ("/replica?lag=0", "replica,max-lag=0kB"),
            (
                "/async?lag=100MB&tag_dc=eu%2D1&tag_key2=2",
                "async,max-lag=100MB,tag.dc=eu-1,tag.key2=2",
            ),
            ("/read-only?mode=apply", "read-only"),
            ("/synchronous", "sync"),
            ("/quorum", "quorum"),
        ] {
            let check = read(uri).unwrap();
            let route = [&[check.kind.to_string()], &check.keys[..]].concat().join(",");
            assert_eq!(route, expected, "{uri}");
        }
    }

    #[test]
    fn a_check_without_a_route_is_named() {
        for uri in ["/health", "/readiness", "/patroni", "/read-only-sync", "GET", "*"] {
            assert!(read(uri).is_err(), "{uri}");
        }
        for (uri, part) in [
            ("/replica?lag=lots", "not a size"),
            ("/replica?tag_a=b%2Cc", "cannot be written"),
            ("/replica?replication_state=in+archive+recovery", "replication state"),
        ] {
            let check = read(uri).unwrap();
            assert!(check.keys.is_empty(), "{uri}");
            let named = |outcome: &Outcome| matches!(outcome, NoEquivalent(text) if text.contains(part));
            assert!(check.outcomes.iter().any(named), "{uri}: {check:?}");
        }
    }
}
