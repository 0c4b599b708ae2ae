//! README.md agrees with the product: its tables name every setting, metric and ending there is, and none that there is not.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use pgnorth::ending::Ending;
use pgnorth::metrics::Metrics;

/// By flag: its variable and its default, as `--help` prints them ("none" where it prints none).
type Settings = BTreeMap<String, (String, String)>;

#[test]
fn the_settings_table_is_what_help_says() {
    let rows = rows(&read("README.md"), "`--");
    let told: Settings = rows
        .iter()
        .map(|row| (bare(&row[0]), (bare(&row[1]), bare(&row[2]))))
        .collect();
    assert_eq!(told.len(), rows.len(), "a flag stands twice");
    assert_eq!(told, settings());
}

#[test]
fn the_metrics_table_is_what_metrics_are() {
    let rows = rows(&read("README.md"), "`pgnorth_");
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
    let told: BTreeSet<_> = rows(&read("README.md"), "`").iter().map(|row| bare(&row[0])).collect();
    for ending in Ending::ALL {
        assert!(told.contains(ending.as_str()), "{ending}");
    }
}

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
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

fn settings() -> Settings {
    let output = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
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
            let flag = between(entry, "--", " ").unwrap();
            let env = between(entry, "[env: ", "]").unwrap();
            let default = between(entry, "[default: ", "] ").unwrap_or_else(|| "none".to_owned());
            (flag, (env, default))
        })
        .collect();
    assert!(settings.len() > 10, "{help}");
    settings
}

/// What stands between `begin` and `end`, or the end of the text.
fn between(text: &str, begin: &str, end: &str) -> Option<String> {
    let (_, rest) = text.split_once(begin)?;
    let (inside, _) = rest.split_once(end).unwrap_or((rest.trim_end_matches(']'), ""));
    Some(inside.to_owned())
}

/// The names in the source, since a metric without series is not rendered.
fn declared_metrics() -> BTreeSet<String> {
    let source = read("src/metrics.rs");
    let (code, _tests) = source.split_once("#[cfg(test)]").unwrap();
    let names = code.split('"').skip(1).step_by(2);
    names
        .filter(|text| text.starts_with("pgnorth_"))
        .map(str::to_owned)
        .collect()
}

fn every_series() -> String {
    let metrics = Metrics::new();
    metrics.leader_is(Some("pg-0"));
    metrics.source_is_up("kubernetes", true);
    metrics.failover_phase("total", Duration::from_secs(1));
    metrics.build_is("0", "unknown");
    metrics.render()
}

fn labels(rendered: &str, name: &str) -> BTreeSet<String> {
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
