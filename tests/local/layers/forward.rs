//! The layers inside `proxy/forward`: reactor, relay, executor, the lowest first. Each file imports only from files
//! before it.

use super::reading::{Source, is_path_root, shipped, sources, without_tests, words};

/// The files of `src/proxy/forward`, lowest first; the empty name is `forward.rs` itself. The file that has a folder's
/// name comes after the files in it.
const ORDER: [&str; 33] = [
    "reactor/token",
    "reactor/epoll",
    "reactor/unsent",
    "reactor/stream",
    "reactor/syscalls",
    "reactor/registry",
    "reactor/lack",
    "reactor/socket",
    "reactor/listener",
    "reactor/wakeups",
    "reactor",
    "relay/pipes/state",
    "relay/pipes",
    "relay/context",
    "relay/error",
    "relay/undelivered",
    "relay/direction",
    "relay/closing",
    "relay/outcome",
    "relay/stall",
    "relay/timers",
    "relay/state",
    "relay",
    "executor/atomic",
    "executor/wake_flag",
    "executor/pair",
    "executor/handle",
    "executor/mailbox",
    "executor/pairs",
    "executor/worker",
    "executor/workers",
    "executor",
    "",
];

/// Modules of `proxy` that forwarding may use: the socket options.
const OF_PROXY: [&str; 1] = ["socket"];

const MAX_LINES: usize = 250;

#[test]
fn imports_inside_forward_go_one_way() {
    let sources = sources();
    let forward: Vec<_> = shipped(&sources)
        .into_iter()
        .filter(|source| name(source).is_some())
        .collect();
    super::assert_none(forward.iter().flat_map(|source| backward(source)));
    let mut found: Vec<_> = forward.iter().filter_map(|source| name(source)).collect();
    let mut listed = ORDER.to_vec();
    found.sort_unstable();
    listed.sort_unstable();
    assert_eq!(
        found, listed,
        "files in src/proxy/forward, and files in the order above"
    );
}

#[test]
fn no_file_of_forward_is_long() {
    let sources = sources();
    let long = sources
        .iter()
        .filter(|source| name(source).is_some())
        .filter_map(|source| {
            let lines = source.text.lines().count();
            (lines > MAX_LINES).then(|| format!("{}: {lines} lines", source.path))
        });
    super::assert_none(long);
}

#[test]
fn a_made_up_import_against_the_order_is_found() {
    let found = |path: &str, text: &str| {
        let source = Source {
            path: path.into(),
            text: text.into(),
        };
        backward(&source).len()
    };
    for (path, text) in [
        ("proxy/forward/relay/stall.rs", "use super::timers::Timer;"),
        (
            "proxy/forward/relay/stall.rs",
            "use super::{error::DirectionError, Relay};",
        ),
        (
            "proxy/forward/relay/stall.rs",
            "use crate::proxy::forward::executor::Workers;",
        ),
        ("proxy/forward/relay/stall.rs", "fn f() { super::super::executor::f() }"),
        (
            "proxy/forward/relay/stall.rs",
            "use crate::proxy::{forward::{self, reactor::Side}, socket};",
        ),
        ("proxy/forward/reactor.rs", "use super::Workers;"),
        ("proxy/forward/reactor/epoll.rs", "use super::Reactor;"),
        ("proxy/forward/reactor/epoll.rs", "use crate::proxy::session::Session;"),
    ] {
        assert_eq!(found(path, text), 1, "{path}: {text}");
    }
    for (path, text) in [
        (
            "proxy/forward/relay/stall.rs",
            "use super::{error::{DirectionError, FailedEnd}, pipes};",
        ),
        (
            "proxy/forward/relay/stall.rs",
            "use crate::proxy::forward::reactor::{Side, Token};",
        ),
        (
            "proxy/forward/relay/stall.rs",
            "use crate::proxy::socket;\nuse crate::metrics::Count;",
        ),
        ("proxy/forward/relay.rs", "pub(crate) use timers::{Timer, Timers};"),
        ("proxy/forward.rs", "use executor::Workers;\nuse relay::Relay;"),
        ("proxy/forwarded.rs", "use super::session::Session;"),
        (
            "proxy/forward/reactor/epoll.rs",
            "// super::Reactor\n#[cfg(test)]\nmod tests { use super::super::Reactor; }",
        ),
    ] {
        assert_eq!(found(path, text), 0, "{path}: {text}");
    }
}

/// Returns the file's name in [`ORDER`], if it is one of forward's files and no test.
fn name(source: &Source) -> Option<&str> {
    let inside = source.path.strip_suffix(".rs")?.strip_prefix("proxy/")?;
    let mut parts = inside.split('/');
    if parts.next() != Some("forward") || parts.any(|part| part == "tests") {
        return None;
    }
    Some(inside.trim_start_matches("forward").trim_start_matches('/'))
}

/// Returns the names in a file that come from files that are not before it.
fn backward(source: &Source) -> Vec<String> {
    let Some(from) = name(source) else {
        return Vec::new();
    };
    let place = |name: &str| ORDER.iter().position(|listed| *listed == name);
    let words = without_tests(words(&source.text));
    let mut paths = Vec::new();
    for at in 0..words.len() {
        if is_path_root(&words, at) {
            tree(&words, at, &[], &mut paths);
        }
    }
    let wrong = |path: &Vec<String>| {
        let to = match used(from, path)? {
            Ok(to) => to,
            Err(outside) => return Some(format!("{}: uses proxy::{outside}", source.path)),
        };
        (to != from && place(&to) >= place(from)).then(|| format!("{}: uses {}", source.path, path.join("::")))
    };
    paths.iter().filter_map(wrong).collect()
}

/// Returns the file of forward that a path refers to, or the module of proxy outside of it; `None` for any other path.
fn used(from: &str, path: &[String]) -> Option<Result<String, String>> {
    let mut module: Vec<&str> = ["proxy", "forward"].into_iter().chain(from.split('/')).collect();
    module.retain(|part| !part.is_empty());
    let mut rest = path.iter().map(String::as_str).peekable();
    let relative = match *rest.peek()? {
        "crate" => {
            module.clear();
            rest.next();
            false
        }
        "super" | "self" => {
            while let Some(step) = rest.next_if(|step| matches!(*step, "super" | "self")) {
                if step == "super" {
                    module.pop();
                }
            }
            false
        }
        _ => true,
    };
    module.extend(rest.filter(|part| *part != "self"));
    match module[..] {
        ["proxy", "forward", ref inside @ ..] => {
            let known = (0..=inside.len()).rev().map(|length| inside[..length].join("/"));
            let file = known.into_iter().find(|name| ORDER.contains(&name.as_str()))?;
            // A name without a root is a child module, an item of the file itself, or an outside crate.
            (!relative || file.starts_with(from)).then_some(Ok(file))
        }
        ["proxy", outside, ..] if !OF_PROXY.contains(&outside) => Some(Err(outside.to_owned())),
        _ => None,
    }
}

/// Adds the path that begins at this word, or each path of its group.
fn tree(words: &[String], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    loop {
        match words.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while words.get(at).is_some_and(|word| word != "}") {
                    match words[at].as_str() {
                        "," => at += 1,
                        _ => at = tree(words, at, &path, paths).max(at + 1),
                    }
                }
                return at + 1;
            }
            Some(name) => path.push(name.to_owned()),
            None => return at,
        }
        if words.get(at + 1).is_none_or(|next| next != "::") {
            paths.push(path);
            return at + 1;
        }
        at += 2;
    }
}
