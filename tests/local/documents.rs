//! The documents agree with the product: their tables name every setting, metric and ending there is, and none that there is not. No document has a dead link.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pgnorth::ending::Ending;
use pgnorth::leader::RoutingState;
use pgnorth::leader::reason::Reason;
use pgnorth::metrics::{FAMILIES, Metrics};

/// By flag: its variable and its default, as `--help` prints them ("none" where it prints none).
type Settings = BTreeMap<String, (String, String)>;

#[test]
fn the_settings_table_is_what_help_says() {
    assert_eq!(told(&section(None)), settings(&[]));
}

/// Its section has a table of what it alone has, and a sentence that names what it shares with the proxy.
#[test]
fn each_subcommands_settings_are_what_its_help_says() {
    let proxys = settings(&[]);
    let subcommands = subcommands();
    assert!(!subcommands.is_empty());
    for subcommand in subcommands {
        let all = settings(&[&subcommand]);
        let (shared, own): (Settings, Settings) = all.into_iter().partition(|(flag, _)| proxys.contains_key(flag));
        for (flag, told) in &shared {
            assert_eq!(proxys.get(flag), Some(told), "--{flag} of pgnorth {subcommand}");
        }
        let section = section(Some(&format!("pgnorth {subcommand}")));
        assert_eq!(told(&section), own, "pgnorth {subcommand}");
        let sentence = section.lines().find(|line| line.starts_with("As for the proxy: "));
        let named: BTreeSet<String> = quoted(sentence.unwrap_or_default())
            .iter()
            .map(|flag| bare(flag))
            .collect();
        assert_eq!(
            named,
            shared.into_keys().collect(),
            "pgnorth {subcommand}, as for the proxy"
        );
    }
}

#[test]
fn the_metrics_table_is_what_metrics_are() {
    let page = read("docs/reference/metrics.md");
    let rows: Vec<_> = ["`pgnorth_", "`process_"]
        .iter()
        .flat_map(|first| rows(&page, first))
        .collect();
    let told: BTreeSet<_> = rows.iter().map(|row| bare(&row[0])).collect();
    assert_eq!(told, declared_metrics());
    assert_eq!(told.len(), rows.len(), "a metric stands twice");
    let rendered = every_series();
    for row in rows {
        let name = bare(&row[0]);
        let kind = format!("# TYPE {name} {}\n", row[1]);
        assert!(rendered.contains(&kind), "{kind}in\n{rendered}");
        assert_eq!(quoted(&row[2]), labels(&rendered, &name), "labels of {name}");
    }
}

#[test]
fn every_ending_is_explained() {
    let told: BTreeSet<_> = rows(&read("docs/reference/endings.md"), "`")
        .iter()
        .map(|row| bare(&row[0]))
        .collect();
    for ending in Ending::ALL {
        assert!(told.contains(ending.as_str()), "{ending}");
    }
}

/// Files, headings in them, and pictures.
#[test]
fn every_link_in_a_document_leads_somewhere() {
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

/// They are in every clone for ever.
#[test]
fn pictures_are_small_and_shown() {
    let shown = links_in(&read("docs/operating/monitoring.md"));
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

/// Every Markdown file that git knows, or would.
fn documents() -> Vec<String> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "*.md"];
    let output = Command::new("git")
        .args(list)
        .current_dir(repository())
        .output()
        .unwrap();
    assert!(output.status.success());
    let list = String::from_utf8(output.stdout).unwrap();
    let here = list.lines().filter(|file| repository().join(file).exists());
    here.map(str::to_owned).collect()
}

/// Of `[text](link)` and `<img src="link"`, outside of code.
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

/// As GitHub and GitLab make anchors of them.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        let kept: String = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .collect();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

/// What the settings' page says of a subcommand; without one, of the proxy.
fn section(heading: Option<&str>) -> String {
    let page = read("docs/reference/settings.md");
    let rest = match heading {
        None => page.as_str(),
        Some(heading) => {
            let rest = page.split_once(&format!("\n## {heading}\n"));
            rest.unwrap_or_else(|| panic!("the settings' page has a section {heading:?}"))
                .1
        }
    };
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The table of settings in it.
fn told(section: &str) -> Settings {
    let rows = rows(section, "`--");
    let told: Settings = rows
        .iter()
        .map(|row| (bare(&row[0]), (bare(&row[1]), bare(&row[2]))))
        .collect();
    assert_eq!(told.len(), rows.len(), "a flag stands twice");
    told
}

/// As the help lists them.
fn subcommands() -> Vec<String> {
    let help = help(&[]);
    let (_, list) = help.split_once("Instead of the proxy:\n").unwrap();
    let lines = list.lines().take_while(|line| !line.is_empty());
    // A longer help goes on, further indented.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn read(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap()
}

/// The cells of the table rows whose first cell begins like this.
fn rows(text: &str, first: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    text.lines()
        .filter_map(|line| Some(cells(line.strip_prefix("| ")?)))
        .filter(|row| row[0].starts_with(first))
        .collect()
}

/// `--listen` in backticks is the flag `listen`; everything else is only unquoted.
fn bare(cell: &str) -> String {
    let text = cell.trim_matches('`');
    text.strip_prefix("--").unwrap_or(text).to_owned()
}

/// What stands in backticks.
fn quoted(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn help(subcommand: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .args(subcommand)
        .arg("--help")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn settings(subcommand: &[&str]) -> Settings {
    let help = help(subcommand);
    let mut entries: Vec<String> = Vec::new();
    for line in help.lines().map(str::trim) {
        match (line.starts_with("--"), entries.last_mut()) {
            (true, _) => entries.push(line.to_owned()),
            (false, Some(entry)) => *entry = format!("{entry} {line}"),
            (false, None) => {}
        }
    }
    let settings: Settings = entries
        .iter()
        .map(|entry| {
            // `--endpoints[=<true|false>]` is a flag, too.
            let flag = between(&entry.replacen('[', " [", 1), "--", " ").unwrap();
            let env = between(entry, "[env: ", "]").unwrap();
            let default = between(entry, "[default: ", "] ").unwrap_or_else(|| "none".to_owned());
            (flag, (env, default))
        })
        .collect();
    assert!(settings.len() > if subcommand.is_empty() { 10 } else { 0 }, "{help}");
    settings
}

/// What stands between `begin` and `end`, or the end of the text.
fn between(text: &str, begin: &str, end: &str) -> Option<String> {
    let (_, rest) = text.split_once(begin)?;
    let (inside, _) = rest
        .split_once(end)
        .unwrap_or((rest.strip_suffix(']').unwrap_or(rest), ""));
    Some(inside.to_owned())
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
