//! The alert rules in deploy/monitoring: promtool tests them, they use metrics and labels that exist, the operator's
//! copy has the same rules, and each has an entry in the runbook.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use pgnorth::ending::Ending;
use serde_json::Value;

use super::documents::{declared_metrics, every_series, labels};
use super::manifests::{deploy, items, one, text, with_components, yaml};
use super::promtool::promtool;

const MAKE: &str = "the PrometheusRule is not alerts.yaml: run deploy/monitoring/prometheusrule.sh";
/// Labels that the scrape adds, and labels of Prometheus itself.
const FROM_OUTSIDE: [&str; 4] = ["job", "instance", "namespace", "le"];

#[tokio::test]
async fn promtool_finds_every_rule_to_fire_and_to_stay_silent_as_its_tests_say() {
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        let (code, said) = promtool(&arguments, "").await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

/// promtool accepts a rule without a test.
#[test]
fn every_alert_is_tested_before_while_and_after_it_fires() {
    let tests = read("alerts.test.yaml");
    for alert in alerts() {
        let name = text(&alert["alert"]);
        let fires_and_ends = items(&tests["tests"]).any(|test| {
            let looks = items(&test["alert_rule_test"]).filter(|look| look["alertname"] == name);
            let fires: Vec<bool> = looks.map(|look| items(&look["exp_alerts"]).count() > 0).collect();
            let first = fires.iter().position(|fires| *fires);
            first.is_some_and(|first| first > 0 && fires[first..].contains(&false))
        });
        assert!(
            fires_and_ends,
            "{name}: no test sees it silent, then firing, then resolved"
        );
    }
}

#[test]
fn the_operators_rules_are_the_plain_ones() {
    let objects = with_components("alerts", &["prometheus-operator"]);
    assert!(one(&objects, "PrometheusRule")["spec"] == read("alerts.yaml"), "{MAKE}");
    let made = tempfile::NamedTempFile::new().unwrap();
    let script = deploy().join("monitoring/prometheusrule.sh");
    assert!(Command::new(script).arg(made.path()).status().unwrap().success());
    let kept = deploy().join("components/prometheus-operator/prometheusrule.yaml");
    let same = fs::read_to_string(made).unwrap() == fs::read_to_string(kept).unwrap();
    assert!(same, "{MAKE}");
}

#[test]
fn every_alert_has_an_entry_in_the_runbook_and_every_entry_an_alert() {
    let runbook = fs::read_to_string(deploy().join("../docs/operating/runbook.md")).unwrap();
    let entries: Vec<(&str, &str)> = runbook
        .split("\n## ")
        .skip(1)
        .map(|entry| entry.split_once('\n').unwrap())
        .collect();
    for (name, entry) in &entries {
        let parts = ["\n**What it means.** ", "\n**What to check.** ", "\n**What to do.** "];
        let places: Vec<_> = parts.iter().map(|part| entry.find(part)).collect();
        assert!(
            places.iter().all(Option::is_some) && places.is_sorted(),
            "{name}: {places:?}"
        );
    }
    let names: Vec<_> = entries.iter().map(|(name, _)| *name).collect();
    let alerts = alerts();
    assert_eq!(
        names,
        alerts.iter().map(|alert| text(&alert["alert"])).collect::<Vec<_>>()
    );
    for alert in &alerts {
        let anchor = text(&alert["alert"]).to_lowercase();
        let path = format!("docs/operating/runbook.md#{anchor}");
        assert_eq!(text(&alert["annotations"]["runbook_url"]), path);
    }
    let page = fs::read_to_string(deploy().join("../docs/reference/alerts.md")).unwrap();
    for alert in &alerts {
        let (name, severity) = (text(&alert["alert"]), text(&alert["labels"]["severity"]));
        let row = format!(
            "\n| [`{name}`](../operating/runbook.md#{}) | {severity} | ",
            name.to_lowercase()
        );
        assert!(page.contains(&row), "docs/reference/alerts.md has no row{row}");
    }
    assert_eq!(page.matches("\n| [`Pgnorth").count(), alerts.len());
    // Every link between entries has a target.
    for link in runbook.split("](#").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        assert!(names.iter().any(|name| name.to_lowercase() == link), "#{link}");
    }
}

#[test]
fn every_alert_has_a_severity_an_event_and_an_object() {
    for alert in alerts() {
        let name = text(&alert["alert"]);
        assert!(
            ["critical", "warning"].contains(&text(&alert["labels"]["severity"])),
            "{name}"
        );
        let annotations = &alert["annotations"];
        assert!(text(&annotations["summary"]).contains("$labels."), "{name}");
        assert!(
            text(&annotations["description"]).contains("$labels.namespace"),
            "{name}"
        );
        let which = ["$labels.scope", "$labels.pod"];
        assert!(
            which
                .iter()
                .any(|label| text(&annotations["description"]).contains(label)),
            "{name}"
        );
    }
}

#[test]
fn rules_use_existing_metrics_labels_and_values() {
    let (declared, rendered) = (declared_metrics(), every_series());
    let mut seen = BTreeSet::new();
    for alert in alerts() {
        let texts = [text(&alert["expr"]), text(&alert["annotations"]["description"])];
        for (metric, matchers) in texts.iter().flat_map(|text| metrics(text)) {
            let family = ["_count", "_bucket", "_sum"]
                .iter()
                .find_map(|end| metric.strip_suffix(end))
                .filter(|family| declared.contains(*family))
                .unwrap_or(&metric);
            assert!(declared.contains(family), "{metric} in {}", alert["alert"]);
            seen.insert(family.to_owned());
            for (label, values) in matchers {
                let known = labels(&rendered, family).contains(&label) || FROM_OUTSIDE.contains(&label.as_str());
                assert!(known, "{metric} has no label {label}");
                for value in values.split('|').filter(|value| !value.is_empty()) {
                    assert!(exists(&rendered, family, &label, value), "{metric}: {label}={value:?}");
                }
            }
        }
    }
    assert!(seen.len() > 10, "expressions were read: {seen:?}");
}

/// Returns true if this label value exists. Series that exist from the start show their values; the kinds of reason are
/// read from the source.
fn exists(rendered: &str, metric: &str, label: &str, value: &str) -> bool {
    match (metric, label) {
        ("pgnorth_routing_state_info", "reason") => {
            let source = fs::read_to_string(deploy().join("../src/leader/reason.rs")).unwrap();
            source.contains(&format!("=> \"{value}\","))
        }
        (_, "ending") => Ending::ALL.iter().any(|ending| ending.as_str() == value),
        // Templates are filled in by Prometheus.
        (_, _) if value.starts_with('%') => true,
        _ => rendered
            .lines()
            .any(|line| line.starts_with(metric) && line.contains(&format!("{label}=\"{value}\""))),
    }
}

/// Returns each metric in an expression, with its labels and their values.
fn metrics(expression: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    for prefix in ["pgnorth_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            let rest = &expression[at..];
            let end = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            let matchers = rest
                .strip_prefix('{')
                .and_then(|rest| rest.split('}').next())
                .unwrap_or_default();
            let matchers = matchers
                .split(", ")
                .filter(|matcher| !matcher.is_empty())
                .map(|matcher| {
                    let end = matcher.find(|letter| !is_name(letter)).unwrap();
                    let value = matcher[end..].trim_start_matches(['=', '~', '!']).trim_matches('"');
                    (matcher[..end].to_owned(), value.to_owned())
                });
            found.push((name.to_owned(), matchers.collect()));
        }
    }
    found
}

fn alerts() -> Vec<Value> {
    let rules = read("alerts.yaml");
    let alerts: Vec<_> = items(&rules["groups"])
        .flat_map(|group| items(&group["rules"]))
        .cloned()
        .collect();
    assert!(alerts.len() >= 10, "{rules}");
    alerts
}

fn read(file: &str) -> Value {
    let text = fs::read_to_string(deploy().join("monitoring").join(file)).unwrap();
    yaml(&text).remove(0)
}
