//! Reads the sources as words: names, `::` and single characters, without comments and literals.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One source file: its path below src/, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// Layer by module.
pub type Layers = BTreeMap<String, u8>;

/// Returns every file below src/.
pub fn sources() -> Vec<Source> {
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

/// Reads the table in src/lib.rs: `//! | 3 | [`discovery`], [`proxy`], [`admin`] (…) |`.
pub fn layers(sources: &[Source]) -> Layers {
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

/// Returns the module of a file: `proxy/forward/copy.rs` and `proxy.rs` belong to `proxy`.
pub fn module(path: &str) -> &str {
    path.split('/').next().unwrap().trim_end_matches(".rs")
}

/// Returns the sources without the modules of tests.
pub fn shipped(sources: &[Source]) -> Vec<&Source> {
    let tests = test_files(sources);
    assert!(!tests.is_empty(), "src/leader/decide.rs has such modules");
    let is_test = |path: &str| {
        // A module below a test module is a test module, too.
        let below = |file: &String| path.starts_with(&format!("{}/", file.trim_end_matches(".rs")));
        tests.iter().any(|file| file == path || below(file))
    };
    sources.iter().filter(|source| !is_test(&source.path)).collect()
}

/// Returns the files of test modules: `#[cfg(test)] mod rules;` in `leader/decide.rs` is `leader/decide/rules.rs`.
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

/// Returns the first name after each `crate::`, `pgnorth::`, and each `super::` that reaches the crate's root.
pub fn modules_used(source: &Source) -> Vec<String> {
    let words = without_tests(words(&source.text));
    // A file's module is as deep as its path; inline modules are deeper.
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

pub fn is_path_root(words: &[String], at: usize) -> bool {
    let begins = at == 0 || words[at - 1] != "::";
    begins && words.get(at + 1).is_some_and(|next| next == "::")
}

/// Adds the first names of the paths at this position: one name, or each of a group `{a::b, c}`.
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

pub fn is_test_attribute(words: &[String]) -> bool {
    words.len() >= TEST_ATTRIBUTE.len() && words.iter().zip(TEST_ATTRIBUTE).all(|(word, wanted)| word == wanted)
}

/// Removes the items behind `#[cfg(test)]`, to the end of their block or to their semicolon.
pub fn without_tests(words: Vec<String>) -> Vec<String> {
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

/// Returns names, `::` and single characters, without comments and without the insides of literals.
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            _ if rest.starts_with("r\"") || rest.starts_with("r#\"") => raw_literal(rest),
            '"' => literal(rest, '"'),
            // A lifetime has no second quote, unlike a character.
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

/// Returns the length of a literal that begins and ends with `quote`.
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
