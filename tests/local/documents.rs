//! The documents agree with the product: their reference is generated, no link is broken, and every command in them
//! exists.

#![allow(clippy::unwrap_used)]

mod man;
mod reference;
mod rust;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgnorth::leader::RoutingState;
use pgnorth::leader::reason::Reason;
use pgnorth::metrics::{FAMILIES, Metrics};

/// Links to files, to headings in them, and to pictures.
#[test]
fn every_link_in_a_document_has_a_target() {
    let documents = documents();
    assert!(documents.len() > 8, "{documents:?}");
    let mut dead = Vec::new();
    let mut links = 0;
    for document in &documents {
        for link in links_in(&read(document))
            .into_iter()
            .filter(|link| !link.contains("://"))
        {
            links += 1;
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => PathBuf::from(document),
                file => Path::new(document).parent().unwrap().join(file),
            };
            let there = repository().join(&target).exists();
            if !there || (!heading.is_empty() && !headings(&read(target.to_str().unwrap())).contains(heading)) {
                dead.push(format!("{document}: {link}"));
            }
        }
    }
    assert!(links > 30, "{links}");
    assert!(dead.is_empty(), "{dead:#?}");
}

/// A manifest once named `make image`, which did not exist.
#[test]
fn every_make_target_that_a_file_names_exists() {
    let makefile = read("Makefile");
    let targets = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    let targets: BTreeSet<_> = targets.split(' ').collect();
    let mut named = 0;
    for file in tracked(&["*.md", "*.yaml", "*.sh", "*.rs", "Dockerfile", ".ci/run"]) {
        let text = read(&file);
        let spans = text
            .split("`make ")
            .skip(1)
            .chain(text.lines().filter_map(|line| line.strip_prefix("make ")));
        for span in spans {
            let target = span
                .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
                .next()
                .unwrap();
            named += 1;
            assert!(target.is_empty() || targets.contains(target), "{file}: make {target}");
        }
    }
    assert!(named > 20, "{named}");
}

/// Large files stay in every clone for ever.
#[test]
fn every_picture_is_small_and_shown_in_a_document() {
    let in_benchmarks = links_in(&read("docs/benchmarks.md")).into_iter();
    let mut shown = links_in(&read("docs/operating/monitoring.md"));
    shown.extend(in_benchmarks.map(|link| format!("../{link}")));
    let pictures = fs::read_dir(repository().join("docs/images")).unwrap();
    for picture in pictures.map(Result::unwrap) {
        let name = picture.file_name().into_string().unwrap();
        assert!(picture.metadata().unwrap().len() < 150_000, "{name}");
        assert!(shown.contains(&format!("../images/{name}")), "{name}");
    }
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Markdown file that git knows, or would add.
fn documents() -> Vec<String> {
    tracked(&["*.md"])
}

/// Returns the files that git tracks, or would, and that match the patterns.
pub(crate) fn tracked(patterns: &[&str]) -> Vec<String> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "--"];
    let output = Command::new("git")
        .args(list)
        .args(patterns)
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success());
    let list = String::from_utf8(output.stdout).unwrap();
    let here = list.lines().filter(|file| repository().join(file).exists());
    here.map(str::to_owned).collect()
}

/// Returns the links in `[text](link)` and `<img src="link"`, outside of code.
fn links_in(text: &str) -> BTreeSet<String> {
    let prose: Vec<_> = text.split("\n```").step_by(2).collect();
    let links = |begin, end| {
        prose
            .iter()
            .flat_map(move |part| part.split(begin).skip(1))
            .filter_map(move |rest| rest.split_once(end))
    };
    let all = links("](", ")").chain(links("<img src=\"", "\""));
    all.map(|(link, _)| link.to_owned()).collect()
}

/// Returns the anchors of all headings.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(anchor).collect()
}

/// Returns a heading's anchor as GitHub and GitLab make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept: String = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .collect();
    kept.replace(' ', "-")
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

pub fn declared_metrics() -> BTreeSet<String> {
    FAMILIES.iter().map(|family| family.name.to_owned()).collect()
}

pub fn every_series() -> String {
    let metrics = Metrics::new();
    metrics.set_leader(Some("pg-0"));
    metrics.set_source_up("kubernetes", true);
    metrics.set_build("0", "unknown");
    metrics.set_routing_state(&RoutingState::Hold(None), &Reason::Starting);
    for route in ["primary", "replica"] {
        metrics.set_route_open(route, 5432, true);
        metrics.set_route_member(route, 5432, "pg-0", true, 1);
    }
    for reason in ["lagging", "lag_unknown"] {
        metrics.set_route_member_unfit("replica", 5432, "pg-0", reason);
    }
    metrics.render()
}

pub fn labels(rendered: &str, name: &str) -> BTreeSet<String> {
    let series = rendered.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = ["_bucket", "_sum", "_count"]
            .iter()
            .fold(rest, |rest, suffix| rest.strip_prefix(suffix).unwrap_or(rest));
        let (labels, _) = rest.strip_prefix('{')?.split_once('}')?;
        Some(labels)
    });
    series
        .flat_map(|labels| labels.split(','))
        .filter_map(|label| label.split_once('=').map(|(name, _)| name.to_owned()))
        .filter(|name| name != "le")
        .collect()
}
