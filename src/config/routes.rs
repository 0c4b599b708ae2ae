//! The grammar of routes: `ADDRESS=ROUTE[,KEY=VALUE…]`, several separated by `;`. Every mistake is returned, each with
//! a suggested route.

use std::net::SocketAddr;
use std::time::Duration;

use super::parse;
use crate::route::{Conditions, Route, RouteKind, UNITS, Upstream};

/// Bounds of the key `hold`, as of `--hold`.
const HOLD: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));

/// The keys, for messages.
const KEYS: [&str; 8] = [
    "hold",
    "target",
    "max-lag",
    "lagging",
    "streaming",
    "tag.NAME",
    "prefer.NAME",
    "fallback",
];

/// A mistake in one route.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The wrong part and its problem.
    pub(super) problem: String,
    /// A valid route to copy.
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
        upstream: None,
        conditions: Conditions::of(RouteKind::Primary),
    }
}

/// The names of the presets.
const PRESETS: [&str; 2] = ["patroni", "autobase"];

/// Returns a mistake for each route to a pooler whose address is published only in the DCS.
pub(super) fn unpublished(routes: &[Route], problem: &str) -> Vec<Mistake> {
    let to_proxy_url = routes.iter().filter(|route| route.upstream == Some(Upstream::Proxy));
    let mistake = |route: &Route| {
        let entry = format!("{}={}", route.listen, route.conditions.kind);
        Mistake {
            problem: format!("{entry},target=proxy: target=proxy {problem}"),
            instead: format!("{entry},target=6432"),
        }
    };
    to_proxy_url.map(mistake).collect()
}

/// Parses the name of a preset: the ports and routes of a well-known HAProxy template.
pub(super) fn preset(name: &str) -> Result<Vec<Route>, String> {
    let routes = match name {
        // extras/confd/templates/haproxy.tmpl
        "patroni" => "[::]:5000=primary;[::]:5001=replica",
        // roles/haproxy/templates/haproxy.cfg.j2, with the default of patroni_maximum_lag_on_replica
        "autobase" => "[::]:5000=primary;[::]:5001=replica,max-lag=100MB;[::]:5002=sync;[::]:5003=async,max-lag=100MB",
        _ => return Err(format!("not a preset; the presets are {}", PRESETS.join(" and "))),
    };
    Ok(parse(routes).expect("a test parses every preset"))
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
    let listen = parse::listener(address.trim());
    let named = RouteKind::named(kind);
    // The suggested route is valid even if several parts are wrong.
    let good_address = listen.as_ref().map_or("[::]:5001".to_owned(), ToString::to_string);
    let good_kind = named.unwrap_or(RouteKind::Replica);
    let good = |keys: &str| format!("{good_address}={good_kind}{keys}");
    if let Err(problem) = &listen {
        wrong(format!("the address is {problem}"), good(""));
    }
    if named.is_none() {
        let kinds = RouteKind::ALL.map(RouteKind::as_str).join(", ");
        wrong(format!("{kind:?} is not a route; the routes are {kinds}"), good(""));
    }
    let mut read = Route {
        listen: listen.unwrap_or_else(|_| SocketAddr::from(([0; 16], 0))),
        hold: None,
        upstream: None,
        conditions: Conditions::of(good_kind),
    };
    for part in parts {
        let (key, value) = part
            .split_once('=')
            .map_or((part, None), |(key, value)| (key, Some(value)));
        if let Err((problem, key)) = read_key(&mut read, key, value) {
            wrong(problem, good(&key));
        }
    }
    match mistakes.is_empty() {
        true => Ok(read),
        false => Err(mistakes),
    }
}

/// Reads one key into the route. On failure, returns the problem and a suggested key.
fn read_key(route: &mut Route, key: &str, value: Option<&str>) -> Result<(), (String, String)> {
    let conditions = &mut route.conditions;
    if !["hold", "target"].contains(&key) && !conditions.kind.is_for_replicas() {
        let known = KEYS
            .iter()
            .any(|known| key.split('.').next() == known.split('.').next());
        let kind = conditions.kind;
        return Err(match known {
            true => (
                format!("{key} is a condition on replicas; the route {kind} does not lead to replicas"),
                String::new(),
            ),
            false => (unknown(key), String::new()),
        });
    }
    let tag = |name: &str| match value {
        Some(value) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err((format!("{key} has no VALUE"), ",tag.datacenter=dc1".to_owned())),
    };
    match (key, value) {
        ("hold", Some(value)) => {
            let hold = parse::duration(HOLD.0, HOLD.1)(value);
            route.hold = Some(hold.map_err(|problem| (format!("hold: {problem}"), ",hold=5s".to_owned()))?);
        }
        ("target", Some(value)) => {
            let upstream = parse::upstream(value);
            route.upstream =
                Some(upstream.map_err(|problem| (format!("target is {problem}"), ",target=6432".to_owned()))?);
        }
        ("max-lag", Some(value)) => {
            conditions.max_lag = Some(size(value).map_err(|problem| (problem, ",max-lag=16MB".to_owned()))?);
        }
        ("lagging", Some("cut" | "keep")) => conditions.cut_lagging = value == Some("cut"),
        ("fallback", Some("primary" | "none")) => conditions.fallback = value == Some("primary"),
        ("streaming", None) => conditions.streaming = true,
        ("hold", None) => return Err(("hold has no VALUE".to_owned(), ",hold=5s".to_owned())),
        ("target", None) => return Err(("target has no VALUE".to_owned(), ",target=6432".to_owned())),
        ("max-lag", None) => return Err(("max-lag has no VALUE".to_owned(), ",max-lag=16MB".to_owned())),
        ("lagging", _) => return Err(("lagging is cut or keep".to_owned(), ",lagging=cut".to_owned())),
        ("fallback", _) => return Err(("fallback is primary or none".to_owned(), ",fallback=primary".to_owned())),
        ("streaming", Some(_)) => return Err(("streaming takes no VALUE".to_owned(), ",streaming".to_owned())),
        (key, _) => match key.split_once('.') {
            Some(("tag", name)) => conditions.tags.push(tag(name)?),
            Some(("prefer", name)) => conditions.prefer.push(tag(name)?),
            _ => return Err((unknown(key), String::new())),
        },
    }
    Ok(())
}

fn unknown(key: &str) -> String {
    format!("{key:?} is not a key; the keys are {}", KEYS.join(", "))
}

/// Parses a size in Patroni's and PostgreSQL's units.
fn size(text: &str) -> Result<u64, String> {
    let split = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (count, unit) = text.split_at(split);
    let shift = UNITS.iter().find(|(known, _)| *known == unit).map(|(_, shift)| *shift);
    let bytes = count
        .parse::<u64>()
        .ok()
        .zip(shift)
        .and_then(|(count, shift)| count.checked_mul(1 << shift));
    bytes.ok_or_else(|| "max-lag is not a size; write a whole number with the unit kB, MB, GB or TB".to_owned())
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
    fn every_route_may_have_a_target_of_its_own() {
        let text = "[::]:5000=primary,target=6432;[::]:5001=replica,target=proxy;[::]:5002=leader,target=postgres;\
                    [::]:5003=sync";
        let targets: Vec<_> = parse(text).unwrap().iter().map(|route| route.upstream).collect();
        let expected = [Upstream::Port(6432), Upstream::Proxy, Upstream::Postgres].map(Some);
        assert_eq!(targets, [&expected[..], &[None]].concat());
    }

    #[test]
    fn every_key_is_read() {
        let text =
            "[::]:5001=replica,max-lag=16MB,lagging=cut,streaming,tag.dc=a,prefer.rack=7,fallback=primary,hold=5s";
        let expected = Conditions {
            kind: RouteKind::Replica,
            max_lag: Some(16 << 20),
            cut_lagging: true,
            streaming: true,
            tags: vec![("dc".into(), "a".into())],
            prefer: vec![("rack".into(), "7".into())],
            fallback: true,
        };
        assert_eq!(parse(text).unwrap()[0].conditions, expected);
    }

    #[test]
    fn every_preset_is_valid() {
        let kinds = PRESETS.map(|name| {
            let routes = preset(name).unwrap();
            let kinds: Vec<_> = routes
                .iter()
                .map(|route| (route.listen.port(), route.conditions.kind))
                .collect();
            kinds
        });
        let (primary, replica) = ((5000, RouteKind::Primary), (5001, RouteKind::Replica));
        assert_eq!(kinds[0], [primary, replica]);
        assert_eq!(
            kinds[1],
            [primary, replica, (5002, RouteKind::Sync), (5003, RouteKind::Async)]
        );
        assert!(preset("pigsty").unwrap_err().contains("patroni and autobase"));
    }

    #[test]
    fn every_mistake_is_reported_with_a_route_to_copy() {
        for (text, part, instead) in [
            ("[::]:5001", "no ROUTE", "[::]:5001=replica"),
            ("x", "no ROUTE", "[::]:5001=replica"),
            ("5001=replica", "a port without an address", "[::]:5001=replica"),
            (
                "[::]:5001=replicas",
                "\"replicas\" is not a route; the routes are primary, replica",
                "[::]:5001=replica",
            ),
            (
                "[::]:5001=replica,hold=5",
                "a duration needs a unit",
                "[::]:5001=replica,hold=5s",
            ),
            (
                "[::]:5001=replica,lagg=1",
                "\"lagg\" is not a key; the keys are hold",
                "[::]:5001=replica",
            ),
            (
                "[::]:5001=replica,hold",
                "hold has no VALUE",
                "[::]:5001=replica,hold=5s",
            ),
            (
                "[::]:5001=replica,max-lag=16",
                "not a size",
                "[::]:5001=replica,max-lag=16MB",
            ),
            (
                "[::]:5001=replica,max-lag=99999999TB",
                "not a size",
                "[::]:5001=replica,max-lag=16MB",
            ),
            (
                "[::]:5001=replica,lagging=drop",
                "cut or keep",
                "[::]:5001=replica,lagging=cut",
            ),
            (
                "[::]:5001=async,streaming=1",
                "takes no VALUE",
                "[::]:5001=async,streaming",
            ),
            (
                "[::]:5001=replica,tag.dc",
                "tag.dc has no VALUE",
                "[::]:5001=replica,tag.datacenter=dc1",
            ),
            (
                "[::]:5001=replica,fallback=leader",
                "primary or none",
                "[::]:5001=replica,fallback=primary",
            ),
            (
                "[::]:5000=primary,target",
                "target has no VALUE",
                "[::]:5000=primary,target=6432",
            ),
            (
                "[::]:5001=replica,target=pgbouncer",
                "target is neither postgres, nor proxy, nor a port",
                "[::]:5001=replica,target=6432",
            ),
            (
                "[::]:5000=primary,target=0",
                "target is neither postgres, nor proxy, nor a port",
                "[::]:5000=primary,target=6432",
            ),
            (
                "[::]:5000=primary,max-lag=1MB",
                "the route primary does not lead to replicas",
                "[::]:5000=primary",
            ),
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
