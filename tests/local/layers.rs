//! The layers that src/lib.rs lists: imports go downwards only, the lowest layer is pure, and each outside crate stays in its module.
//!
//! Layers are about what ships: code behind `#[cfg(test)]` may look up, as a property of `decide` over whole histories needs the slot to check it.
//! It reads the sources as text, comments and literals blanked out: enough for code that `cargo fmt` and the compiler have seen.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Outside crates that only these files may name, by the beginning of their path below src/.
const KEPT: [(&str, &[&str]); 8] = [
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
    ("hyper", &["discovery/patroni", "admin", "app/status"]),
    ("hyper_util", &["discovery/patroni", "admin", "app/status"]),
    ("http_body_util", &["discovery/patroni", "admin", "app/status"]),
    ("metrics_exporter_prometheus", &["metrics.rs", "metrics/register.rs"]),
    ("socket2", &["proxy/socket.rs"]),
    ("rustix", &["proxy/forward", "app/files.rs"]),
];

/// The layer without I/O and clock.
const PURE: u8 = 1;
/// Names that a pure module has no use for: runtimes, sockets, files, processes.
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

/// One source file: its path below src/, and its text.
struct Source {
    path: String,
    text: String,
}

/// Layer by module.
type Layers = BTreeMap<String, u8>;

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
    let pure = |source: &&Source| layers.get(module(&source.path)) == Some(&PURE);
    assert_none(shipped(&sources).into_iter().filter(pure).flat_map(impure));
}

#[test]
fn each_outside_crate_stays_in_its_room() {
    assert_none(sources().iter().flat_map(strayed));
}

#[test]
fn every_file_says_first_what_it_owns() {
    assert_none(sources().iter().filter_map(unopened));
}

#[test]
fn every_room_has_a_layer_and_every_layer_its_rooms() {
    let sources = sources();
    let layers = layers(&sources);
    let modules = |source: &Source| module(&source.path).to_owned();
    let found: std::collections::BTreeSet<_> = sources.iter().map(modules).filter(|module| module != "lib").collect();
    let listed: std::collections::BTreeSet<_> = layers.into_keys().collect();
    assert_eq!(found, listed, "modules in src/, and modules in the table of src/lib.rs");
}

/// A checker that finds nothing wrong with anything would pass all of the above.
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

/// Paths into modules on the same layer or a higher one. `main` stands above all, telemetry included.
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
    rooms_used(source).iter().filter_map(wrong).collect()
}

/// What a pure module does that it must not, outside of its tests.
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

/// Outside crates that are named where they do not belong.
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

// ---- Reading

/// Every file below src/.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(Source {
                    text: fs::read_to_string(&path).unwrap(),
                    path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(),
                });
            }
        }
    }
    assert!(sources.len() > 20, "src/ was read: {}", sources.len());
    sources
}

/// The table in src/lib.rs: `//! | 3 | [`discovery`], [`proxy`], [`admin`] (…) |`.
fn layers(sources: &[Source]) -> Layers {
    let map = sources.iter().find(|source| source.path == "lib.rs").unwrap();
    let mut layers = Layers::new();
    for line in map.text.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        if let ["//!", layer, modules, ""] = cells[..]
            && let Ok(layer) = layer.parse::<u8>()
        {
            layers.extend(
                modules
                    .split('`')
                    .skip(1)
                    .step_by(2)
                    .map(|module| (module.to_owned(), layer)),
            );
        }
    }
    assert!(layers.len() > 5, "the table in src/lib.rs was read: {layers:?}");
    layers
}

/// `proxy/forward/copy.rs` and `proxy.rs` belong to the module `proxy`.
fn module(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Without the files that are modules of tests alone.
fn shipped(sources: &[Source]) -> Vec<&Source> {
    let tests = test_files(sources);
    assert!(!tests.is_empty(), "src/leader/decide.rs has such modules");
    let is_test = |path: &str| {
        // What lies below a test module is one, too.
        let below = |file: &String| path.starts_with(&format!("{}/", file.trim_end_matches(".rs")));
        tests.iter().any(|file| file == path || below(file))
    };
    sources.iter().filter(|source| !is_test(&source.path)).collect()
}

/// `#[cfg(test)] mod rules;` in `leader/decide.rs` is `leader/decide/rules.rs`.
fn test_files(sources: &[Source]) -> Vec<String> {
    let mut files = Vec::new();
    for source in sources {
        let words = words(&source.text);
        for at in 0..words.len() {
            if is_test_attribute(&words[at..])
                && let [word, name, end, ..] = &words[at + TEST_ATTRIBUTE.len()..]
                && word == "mod"
                && end == ";"
            {
                files.push(format!("{}/{name}.rs", source.path.trim_end_matches(".rs")));
            }
        }
    }
    files
}

/// The first name behind each `crate::`, `pgnorth::` and behind each `super::` that reaches the crate's root.
fn rooms_used(source: &Source) -> Vec<String> {
    let words = without_tests(words(&source.text));
    // The module that a file is lies as deep as its path; inline modules lie deeper.
    let depth_of_file = match source.path.as_str() {
        "main.rs" | "lib.rs" => 0,
        path => path.split('/').count(),
    };
    let mut modules = Vec::new();
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let inline = braces.iter().filter(|is_module| **is_module).count();
        match words[at].as_str() {
            "{" => braces.push(at > 1 && words[at - 2] == "mod"),
            "}" => {
                braces.pop();
            }
            "crate" | "pgnorth" if is_path_root(&words, at) => heads(&words, at + 2, &mut modules),
            "super" if is_path_root(&words, at) => {
                let mut ups = 1;
                while words.get(at + 2 * ups).is_some_and(|word| word == "super") {
                    ups += 1;
                }
                if ups == depth_of_file + inline {
                    heads(&words, at + 2 * ups, &mut modules);
                }
                at += 2 * ups - 1;
            }
            _ => {}
        }
        at += 1;
    }
    modules
}

fn is_path_root(words: &[String], at: usize) -> bool {
    let begins = at == 0 || words[at - 1] != "::";
    begins && words.get(at + 1).is_some_and(|next| next == "::")
}

/// The heads of what follows: one name, or each of a group `{a::b, c}`.
fn heads(words: &[String], at: usize, modules: &mut Vec<String>) {
    match words.get(at).map(String::as_str) {
        Some("{") => {
            let mut depth = 0;
            let mut at_head = false;
            for word in &words[at..] {
                match word.as_str() {
                    "{" => {
                        depth += 1;
                        at_head = depth == 1;
                    }
                    "}" => depth -= 1,
                    "," => at_head = depth == 1,
                    name if at_head => {
                        modules.push(name.to_owned());
                        at_head = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    return;
                }
            }
        }
        Some(name) => modules.push(name.to_owned()),
        None => {}
    }
}

const TEST_ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

fn is_test_attribute(words: &[String]) -> bool {
    words.len() >= TEST_ATTRIBUTE.len() && words.iter().zip(TEST_ATTRIBUTE).all(|(word, wanted)| word == wanted)
}

/// Without what stands behind `#[cfg(test)]`: to the end of its block, or to its semicolon.
fn without_tests(words: Vec<String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if !is_test_attribute(&words[at..]) {
            kept.push(words[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        while at < words.len() {
            match words[at].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            let ends = depth == 0 && matches!(words[at].as_str(), "}" | ";");
            at += 1;
            if ends {
                break;
            }
        }
    }
    kept
}

/// Names, `::`, and single signs; comments and the insides of literals are left out.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw_literal(rest),
            '"' => literal(rest, '"'),
            // A lifetime has no second quote where a character's stands.
            '\'' if rest[1..].starts_with('\\') => literal(rest, '\''),
            '\'' if rest.chars().nth(2) == Some('\'') => rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end),
            _ if first.is_alphanumeric() || first == '_' => {
                let name = |letter: char| letter.is_alphanumeric() || letter == '_';
                let length = rest.find(|letter| !name(letter)).unwrap_or(rest.len());
                words.push(rest[..length].to_owned());
                length
            }
            _ if rest.starts_with("::") => {
                words.push("::".into());
                2
            }
            _ if first.is_whitespace() => first.len_utf8(),
            sign => {
                words.push(sign.into());
                sign.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    words
}

/// The length of a literal that begins and ends with `quote`.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            end if end == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_literal(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = 1 + hashes + 1;
    text[begin..].find(&end).map_or(text.len(), |at| begin + at + end.len())
}
