//! The documents hang together: every page of docs/ is in the table of contents, the files that they name exist, and
//! prose is wrapped.
//!
//! documents.rs checks that links and headings exist, and that the reference agrees with the product.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::documents::tracked;

/// Most columns of prose; tables and code may have more.
const WIDTH: usize = 120;
/// A list of links, which mdBook reads line by line; and generated pages.
const LISTS: [&str; 2] = ["docs/SUMMARY.md", "docs/reference/"];

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let summary = read("docs/SUMMARY.md");
    let links: Vec<_> = summary
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .collect();
    let listed: BTreeSet<_> = links.iter().copied().collect();
    assert_eq!(listed.len(), links.len(), "a page is listed twice");
    let pages = tracked(&["*.md"]);
    let pages: BTreeSet<_> = pages.iter().filter_map(|page| page.strip_prefix("docs/")).collect();
    let missing: Vec<_> = pages
        .difference(&listed)
        .filter(|page| **page != "SUMMARY.md")
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
    assert!(
        listed.is_subset(&pages),
        "docs/SUMMARY.md lists {:?}",
        listed.difference(&pages)
    );
}

/// A file that is renamed must be renamed in the documents, too.
#[test]
fn every_source_file_that_a_document_names_exists() {
    let mut missing = Vec::new();
    let mut named = 0;
    for document in tracked(&["*.md"]) {
        for span in code_spans(&read(&document)) {
            let is_path = span.ends_with(".rs") && !span.contains([' ', '*']);
            named += usize::from(is_path);
            if is_path && !exists(&span) {
                missing.push(format!("{document}: {span}"));
            }
        }
    }
    assert!(named > 30, "{named}");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn prose_is_wrapped() {
    let prose = tracked(&["*.md"])
        .into_iter()
        .filter(|document| !LISTS.iter().any(|list| document.starts_with(list)));
    let long: Vec<_> = prose
        .flat_map(|document| {
            long_lines(&read(&document))
                .map(move |line| format!("{document}:{line}"))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(long.is_empty(), "more than {WIDTH} columns: {long:#?}");
}

#[test]
fn every_make_target_is_explained_to_contributors() {
    let makefile = read("Makefile");
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    let contributing = read("CONTRIBUTING.md");
    let spans: BTreeSet<_> = code_spans(&contributing).into_iter().collect();
    let missing: Vec<_> = phony
        .split(' ')
        .filter(|target| *target != "help" && !spans.contains(&format!("make {target}")))
        .collect();
    assert!(missing.is_empty(), "CONTRIBUTING.md lacks {missing:?}");
}

/// The names are labels of a metric and fields of JSON documents.
#[test]
fn every_reason_is_explained() {
    let source = read("src/leader/reason.rs");
    let names = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    let is_name = |name: &&str| name.chars().all(|char| char.is_ascii_lowercase() || char == '_');
    let names: BTreeSet<_> = names.filter(is_name).collect();
    let page = read("docs/reference/reasons.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let explained: BTreeSet<_> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(names.len() > 20, "{names:?}");
    assert_eq!(
        explained, names,
        "reasons in docs/reference/reasons.md, and in src/leader/reason.rs"
    );
}

/// Returns true for a path below the repository, `src`, `tests/local`, or the folder of `src` that a page describes.
fn exists(path: &str) -> bool {
    let folders = ["", "src", "src/proxy", "tests/local", "tests/rig"];
    folders
        .iter()
        .any(|folder| repository().join(folder).join(path).exists())
}

/// Returns the texts in backticks, outside of blocks of code.
fn code_spans(text: &str) -> Vec<String> {
    let prose = text.split("\n```").step_by(2);
    let spans = prose.flat_map(|part| part.split('`').skip(1).step_by(2));
    spans
        .map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

/// Returns the numbers of lines of prose that are too long; tables, pictures and code are not counted.
fn long_lines(text: &str) -> impl Iterator<Item = usize> {
    let mut code = false;
    let numbered = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let long = numbered.filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        let prose = !code && !fence && !line.starts_with(['|', '!', '<', '#']);
        // A link cannot be wrapped.
        prose && line.chars().count() > WIDTH && line.split_whitespace().count() > 2
    });
    long.map(|(number, _)| number)
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
