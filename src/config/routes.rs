//! The grammar of routes: `ADDRESS=ROUTE[,KEY=VALUE…]`, several separated by `;`. Every mistake is returned, each with
//! the route as it may have been meant.

use std::net::SocketAddr;
use std::time::Duration;

use super::parse;
use crate::route::{Conditions, Route, RouteKind};

/// Bounds of the key `hold`, as of `--hold`.
const HOLD: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));

/// A mistake in one route.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The part that is wrong, and why.
    pub(super) problem: String,
    /// A route to copy.
    pub(super) instead: String,
}

/// Parses all routes of the setting.
pub(super) fn parse(text: &str) -> Result<Vec<Route>, Vec<Mistake>> {
    let (mut routes, mut mistakes) = (Vec::new(), Vec::new());
    let entries = text.split(';').map(str::trim).filter(|entry| !entry.is_empty());
    for entry in entries {
        match parse_one(entry) {
            Ok(route) => routes.push(route),
            Err(more) => mistakes.extend(more),
        }
    }
    match mistakes.is_empty() {
        true => Ok(routes),
        false => Err(mistakes),
    }
}

/// Returns the route to the primary that `--listen` stands for.
pub(super) fn to_primary(listen: SocketAddr) -> Route {
    Route {
        listen,
        hold: None,
        conditions: Conditions {
            kind: RouteKind::Primary,
        },
    }
}

fn parse_one(entry: &str) -> Result<Route, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let mut wrong = |problem: String, instead: String| {
        mistakes.push(Mistake {
            problem: format!("{entry}: {problem}"),
            instead,
        });
    };
    let Some((address, route)) = entry.split_once('=') else {
        let instead = match parse::listener(entry) {
            Ok(address) => format!("{address}=replica"),
            Err(_) => "[::]:5001=replica".to_owned(),
        };
        wrong("no ROUTE; write ADDRESS=ROUTE".to_owned(), instead);
        return Err(mistakes);
    };
    let mut parts = route.split(',').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let listen = parse::listener(address.trim())
        .map_err(|problem| wrong(format!("the address is {problem}"), format!("[::]:5001={route}")));
    let named = RouteKind::named(kind);
    if named.is_none() {
        let kinds = RouteKind::ALL.map(RouteKind::as_str).join(", ");
        wrong(
            format!("{kind:?} is no route; the routes are {kinds}"),
            format!("{address}=replica"),
        );
    }
    let mut hold = None;
    for part in parts {
        let without = || format!("{address}={kind}");
        match part.split_once('=') {
            Some(("hold", value)) => match parse::duration(HOLD.0, HOLD.1)(value) {
                Ok(value) => hold = Some(value),
                Err(problem) => wrong(format!("hold is {problem}"), format!("{},hold=5s", without())),
            },
            Some((key, _)) => wrong(format!("{key:?} is no key; the key is hold"), without()),
            None => wrong(format!("{part:?} is no KEY=VALUE"), without()),
        }
    }
    match (listen, named, mistakes.is_empty()) {
        (Ok(listen), Some(kind), true) => Ok(Route {
            listen,
            hold,
            conditions: Conditions { kind },
        }),
        _ => Err(mistakes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_parsed_in_their_order() {
        let routes = parse("[::]:5000=primary; 10.0.0.7:5001=replica,hold=5s;[::]:5002=read-only;").unwrap();
        let written: Vec<_> = routes
            .iter()
            .map(|route| format!("{}={} {:?}", route.listen, route.conditions.kind, route.hold))
            .collect();
        assert_eq!(
            written,
            [
                "[::]:5000=primary None",
                "10.0.0.7:5001=replica Some(5s)",
                "[::]:5002=read-only None"
            ]
        );
    }

    #[test]
    fn every_mistake_is_reported_with_a_route_to_copy() {
        for (text, part, instead) in [
            ("[::]:5001", "no ROUTE", "[::]:5001=replica"),
            ("x", "no ROUTE", "[::]:5001=replica"),
            ("5001=replica", "a port without an address", "[::]:5001=replica"),
            (
                "[::]:5001=replicas",
                "\"replicas\" is no route; the routes are primary, replica",
                "[::]:5001=replica",
            ),
            (
                "[::]:5001=replica,hold=5",
                "a duration needs a unit",
                "[::]:5001=replica,hold=5s",
            ),
            ("[::]:5001=replica,lagg=1", "\"lagg\" is no key", "[::]:5001=replica"),
            ("[::]:5001=replica,hold", "is no KEY=VALUE", "[::]:5001=replica"),
        ] {
            let mistakes = parse(text).unwrap_err();
            let [mistake] = &mistakes[..] else {
                panic!("{text}: {mistakes:?}")
            };
            assert!(mistake.problem.contains(part), "{text}: {}", mistake.problem);
            assert_eq!(mistake.instead, instead, "{text}");
            assert!(parse(&mistake.instead).is_ok(), "{}", mistake.instead);
        }
        let mistakes = parse("5001=replicas,hold=5,x=1;[::]:5002=readonly").unwrap_err();
        assert_eq!(mistakes.len(), 5, "{mistakes:?}");
    }
}
