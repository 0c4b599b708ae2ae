//! The layers that src/lib.rs lists: imports go downwards only, the lowest layer is pure, and each outside crate stays
//! in its module.
//!
//! The rules hold for code that ships: code behind `#[cfg(test)]` may import upwards, as a property of `decide` over
//! whole histories needs the slot to check it. The sources are read as text, which suffices for code that `cargo fmt`
//! and the compiler have seen. `proxy/forward` has layers of its own: see [`forward`].

#![allow(clippy::unwrap_used)]

mod forward;
mod reading;

use reading::{Layers, Source, layers, module, modules_used, shipped, sources, without_tests, words};

/// The modules that speak HTTP themselves.
const HTTP: [&str; 5] = [
    "discovery/http",
    "discovery/patroni",
    "discovery/etcd",
    "admin",
    "app/status",
];

/// Outside crates that only these files may use, by the beginning of their path below src/.
const KEPT: [(&str, &[&str]); 9] = [
    (
        "kube",
        &[
            "kubernetes.rs",
            "events.rs",
            "discovery/kubernetes",
            "publish",
            "doctor/ask",
        ],
    ),
    (
        "k8s_openapi",
        &["events.rs", "discovery/kubernetes", "publish", "doctor/ask"],
    ),
    ("hyper", &HTTP),
    ("hyper_util", &HTTP),
    ("http_body_util", &HTTP),
    ("metrics_exporter_prometheus", &["metrics.rs", "metrics/register.rs"]),
    ("socket2", &["proxy/socket.rs"]),
    ("rustix", &["proxy/forward", "app/files.rs", "handover", "systemd.rs"]),
    ("listenfd", &["systemd.rs"]),
];

/// The highest layer without I/O and clock.
const PURE: u8 = 2;
/// Names that a pure module must not use: runtimes, sockets, files, processes.
const IMPURE: [&str; 12] = [
    "tokio",
    "tokio_util",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "UnixStream",
    "UnixListener",
    "fs",
    "process",
    "thread",
    "elapsed",
];

#[test]
fn imports_go_downwards_only() {
    let sources = sources();
    let layers = layers(&sources);
    let shipped = shipped(&sources);
    assert_none(shipped.into_iter().flat_map(|source| upward(source, &layers)));
}

#[test]
fn the_lowest_layer_has_no_io_and_no_clock() {
    let sources = sources();
    let layers = layers(&sources);
    let pure = |source: &&Source| layers.get(module(&source.path)).is_some_and(|layer| *layer <= PURE);
    assert_none(shipped(&sources).into_iter().filter(pure).flat_map(impure));
}

#[test]
fn each_outside_crate_stays_in_its_module() {
    assert_none(sources().iter().flat_map(strayed));
}

#[test]
fn every_file_says_first_what_it_owns() {
    assert_none(sources().iter().filter_map(unopened));
}

#[test]
fn every_module_has_a_layer_and_every_layer_its_modules() {
    let sources = sources();
    let layers = layers(&sources);
    let modules = |source: &Source| module(&source.path).to_owned();
    let found: std::collections::BTreeSet<_> = sources.iter().map(modules).filter(|module| module != "lib").collect();
    let listed: std::collections::BTreeSet<_> = layers.into_keys().collect();
    assert_eq!(found, listed, "modules in src/, and modules in the table of src/lib.rs");
}

/// A checker that never finds a mistake would pass all tests above.
#[test]
fn a_made_up_violation_is_found() {
    let layers = Layers::from([
        ("app".into(), 4),
        ("proxy".into(), 3),
        ("admin".into(), 3),
        ("leader".into(), 1),
    ]);
    let found = |path: &str, text: &str| {
        let source = Source {
            path: path.into(),
            text: text.into(),
        };
        let all = upward(&source, &layers).into_iter().chain(strayed(&source));
        all.chain(impure(&source)).chain(unopened(&source)).count()
    };
    for (path, text) in [
        ("leader.rs", "//! x\nuse crate::proxy::Session;"),
        ("leader/view.rs", "//! x\nuse crate::{leader::Leader, app};"),
        ("leader/view.rs", "//! x\nuse super::super::app::run;"),
        (
            "leader/view.rs",
            "//! x\nmod inner { use super::super::super::app::run; }",
        ),
        ("leader.rs", "//! x\nfn f() { crate::app::run() }"),
        ("leader.rs", "//! x\nfn f() -> Instant { Instant::now() }"),
        ("leader.rs", "//! x\nuse std::net::{IpAddr, TcpStream};"),
        (
            "leader.rs",
            "//! x\n#[cfg(test)]\nmod tests { fn f() {} }\nuse tokio::sync::mpsc;",
        ),
        ("proxy.rs", "//! x\nuse crate::admin::Admin;"),
        ("proxy/session.rs", "//! x\nuse rustix::pipe::pipe;"),
        ("app.rs", "//! x\nuse crate::attic::Box;"),
        ("app.rs", "use std::fmt;\n"),
    ] {
        assert_eq!(found(path, text), 1, "{path}: {text}");
    }
    for (path, text) in [
        (
            "proxy/session.rs",
            "//! x\nuse super::socket;\nuse crate::leader::Leader;",
        ),
        ("proxy/forward/pipes.rs", "//! x\nuse rustix::pipe::pipe;"),
        ("app.rs", "//! x\nuse crate::{admin::{self, Admin}, proxy};"),
        (
            "leader.rs",
            "//! x\n// use crate::app;\nconst S: &str = \"crate::app \\\" kube::x\";",
        ),
        (
            "leader.rs",
            "//! x\n#[cfg(test)]\nmod tests { fn f() { Instant::now(); } }",
        ),
        (
            "leader.rs",
            "//! x\nfn f<'a>(c: char) -> bool { c == '\"' || c == '\\'' }",
        ),
    ] {
        assert_eq!(found(path, text), 0, "{path}: {text}");
    }
}

fn assert_none(violations: impl Iterator<Item = String>) {
    let violations: Vec<_> = violations.collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

// ---- The rules

/// Returns the paths into modules of the same layer or a higher one. `main` is above all others, telemetry included.
fn upward(source: &Source, layers: &Layers) -> Vec<String> {
    let from = module(&source.path);
    let Some(layer) = layers.get(from) else {
        return Vec::new();
    };
    let wrong = |to: &String| match layers.get(to) {
        _ if to == from || from == "main" => None,
        Some(below) if below < layer => None,
        Some(other) => Some(format!(
            "{}: {from} (layer {layer}) uses {to} (layer {other})",
            source.path
        )),
        None => Some(format!(
            "{}: uses crate::{to}, which is no module of src/lib.rs",
            source.path
        )),
    };
    modules_used(source).iter().filter_map(wrong).collect()
}

/// Returns the impure names in a pure module, outside of its tests.
fn impure(source: &Source) -> Vec<String> {
    let words = without_tests(words(&source.text));
    let mut found = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let clock = word == "now" && at > 0 && words[at - 1] == "::";
        if clock || IMPURE.contains(&word.as_str()) {
            found.push(format!("{}: `{word}`: this layer has no I/O and no clock", source.path));
        }
    }
    found
}

/// Returns the outside crates that a file uses and must not.
fn strayed(source: &Source) -> Vec<String> {
    let words = words(&source.text);
    let named = |name: &str| {
        words.iter().enumerate().any(|(at, word)| {
            let begins = at == 0 || words[at - 1] != "::";
            let is_path = words.get(at + 1).is_some_and(|next| next == "::") || at > 0 && words[at - 1] == "use";
            word == name && begins && is_path
        })
    };
    KEPT.iter()
        .filter(|(name, homes)| named(name) && !homes.iter().any(|home| source.path.starts_with(home)))
        .map(|(name, homes)| format!("{}: names {name}, which only {} may", source.path, homes.join(" and ")))
        .collect()
}

fn unopened(source: &Source) -> Option<String> {
    let opens = source.text.starts_with("//! ");
    (!opens).then(|| format!("{}: does not open with a //! line that says what it owns", source.path))
}
