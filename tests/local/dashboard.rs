//! deploy/monitoring/dashboard.json: each query uses metrics and labels of the real binary, and a real Prometheus
//! answers it with data.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::fake_cluster::{FakeCluster, Product, Session};
use super::prometheus::Prometheus;

/// Labels that the scrape adds: the PodMonitor's, and Prometheus' own.
const TARGET: [&str; 4] = ["namespace", "pod", "job", "instance"];

/// Patroni's ttl in seconds, short because a fence takes that long.
const TTL: u32 = 4;

/// Time span of the queries: longer than the test, at the interval of the scrapes.
const PAST: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(1);

/// A query, and its position in the dashboard.
#[derive(Debug)]
struct Query {
    place: String,
    expr: String,
    legend: String,
}

/// By metric, the values of each label.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn dashboard() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring/dashboard.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

/// Returns the queries of panels, those in rows included; of annotations; and of variables, whose `label_values(metric,
/// label)` becomes a query.
fn queries(dashboard: &Value) -> Vec<Query> {
    let mut queries = Vec::new();
    let mut panels: Vec<&Value> = items(&dashboard["panels"]).collect();
    while let Some(panel) = panels.pop() {
        panels.extend(items(&panel["panels"]));
        for target in items(&panel["targets"]) {
            queries.push(Query {
                place: text(&panel["title"]),
                expr: text(&target["expr"]),
                legend: text(&target["legendFormat"]),
            });
        }
    }
    for annotation in items(&dashboard["annotations"]["list"]) {
        queries.push(Query {
            place: text(&annotation["name"]),
            expr: text(&annotation["expr"]),
            legend: text(&annotation["titleFormat"]),
        });
    }
    for variable in items(&dashboard["templating"]["list"]).filter(|variable| variable["type"] == "query") {
        let definition = text(&variable["definition"]);
        let inside = definition
            .strip_prefix("label_values(")
            .and_then(|rest| rest.strip_suffix(')'));
        let (metric, label) = inside.unwrap().rsplit_once(", ").unwrap();
        queries.push(Query {
            place: text(&variable["name"]),
            expr: format!("count by ({label}) ({metric})"),
            legend: String::new(),
        });
    }
    queries
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Lets two pods route, lose their leader, hold a client each, route to another leader, and fence. Returns the series
/// of the first pod's `/metrics` at each of these times.
async fn a_failover_and_a_fence(cluster: &FakeCluster, pods: &[Product; 2], prometheus: &Prometheus) -> Series {
    let mut seen = Series::new();
    for pod in pods {
        pod.decides("route", Some("a"), "").await;
        pod.session().await.lives().await;
    }
    seen = look(seen, &pods[0]).await;
    prometheus
        .until("sessions", "count(pgnorth_accepted_total == 1) == 2")
        .await;
    cluster.lock_moves_to("b");
    let mut held = Vec::new();
    for pod in pods {
        pod.decides("hold", None, "").await;
        held.push(pod.client().await);
    }
    prometheus
        .until("held clients", "count(pgnorth_sessions{state=\"held\"} == 1) == 2")
        .await;
    seen = look(seen, &pods[0]).await;
    cluster.b.is_primary(2);
    for client in held {
        assert_eq!(Session::of(client).await.member, "b");
    }
    seen = look(seen, &pods[0]).await;
    prometheus
        .until("the change", "count(pgnorth_leader_changes_total == 1) == 2")
        .await;
    cluster.freeze();
    prometheus
        .until("a fence", "count(pgnorth_fences_total == 1) == 2")
        .await;
    look(seen, &pods[0]).await
}

/// Adds the series that a pod has now.
async fn look(mut seen: Series, pod: &Product) -> Series {
    for (metric, labels) in series(&pod.page("/metrics").await.1) {
        let known = seen.entry(metric).or_default();
        for (label, values) in labels {
            known.entry(label).or_default().extend(values);
        }
    }
    seen
}

fn series(metrics: &str) -> Series {
    let mut series = Series::new();
    for line in metrics
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let (name, _value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let of_metric = series.entry(name.to_owned()).or_default();
        for (label, value) in pairs(labels.trim_end_matches('}')) {
            of_metric.entry(label).or_default().insert(value);
        }
    }
    series
}

/// Parses `a="b",c=~"d"` into names and the values that they are compared with.
fn pairs(labels: &str) -> Vec<(String, String)> {
    let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('"').unwrap_or_else(|| panic!("{labels}"));
            let name = name.trim().trim_end_matches(['=', '~', '!']);
            (name.to_owned(), value.trim_end_matches('"').to_owned())
        })
        .collect()
}

/// Returns every metric in an expression, with its matchers.
fn selectors(expr: &str) -> Vec<(String, Vec<(String, String)>)> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expr;
    while let Some(at) = ["pgnorth_", "process_"]
        .iter()
        .filter_map(|prefix| rest.find(prefix))
        .min()
    {
        rest = &rest[at..];
        let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let (matchers, after) = match after.strip_prefix('{') {
            Some(after) => after.split_once('}').unwrap(),
            None => ("", after),
        };
        found.push((name.to_owned(), pairs(matchers)));
        rest = after;
    }
    found
}

/// Returns the labels in `by (…)` and `on (…)`, and those in the legend.
fn grouped_by(query: &Query) -> BTreeSet<String> {
    let lists = [" by (", " on ("]
        .iter()
        .flat_map(|word| query.expr.split(word).skip(1));
    let labels = lists.flat_map(|rest| rest.split(')').next().unwrap().split(", "));
    labels.map(str::to_owned).chain(shown(&query.legend)).collect()
}

/// Returns the labels in the `{{…}}` of a legend.
fn shown(legend: &str) -> impl Iterator<Item = String> {
    let labels = legend.split("{{").skip(1);
    labels.map(|rest| rest.split("}}").next().unwrap().to_owned())
}

/// Returns the differences between a query and the series of `/metrics`.
fn mistakes(query: &Query, series: &Series) -> Vec<String> {
    let selectors = selectors(&query.expr);
    let mut mistakes = Vec::new();
    let mut known: BTreeSet<&str> = TARGET.into();
    for (metric, matchers) in &selectors {
        let Some(labels) = series.get(metric) else {
            mistakes.push(format!("there is no metric {metric}"));
            continue;
        };
        known.extend(labels.keys().map(String::as_str));
        for (label, value) in matchers.iter().filter(|(label, _)| !TARGET.contains(&label.as_str())) {
            let is_variable = value.starts_with('$');
            let values = labels.get(label);
            if !values.is_some_and(|values| is_variable || values.contains(value)) {
                mistakes.push(format!("{metric} has no {label}={value:?}"));
            }
        }
    }
    let groups = grouped_by(query).into_iter();
    mistakes.extend(
        groups
            .filter(|label| !known.contains(label.as_str()))
            .map(|label| format!("no label {label}")),
    );
    if selectors.is_empty() {
        mistakes.push("it names no metric".to_owned());
    }
    mistakes
}

/// Fills in the variables as Grafana does if all values are selected.
fn filled_in(expr: &str) -> String {
    let variables = [
        ("$__rate_interval", "10s"),
        ("$__interval", "1s"),
        ("$__range", "1m"),
        ("$namespace", "(default)"),
        ("$scope", ".*"),
        ("$pod", "(one|two)"),
    ];
    let filled = variables
        .iter()
        .fold(expr.to_owned(), |expr, (name, value)| expr.replace(name, value));
    assert!(!filled.contains('$'), "a variable that there is not: {filled}");
    filled
}

/// Waits until the query returns numbers, and every series has the labels of the legend.
async fn answered(query: &Query, prometheus: &Prometheus) -> Result<(), String> {
    let result = prometheus.range(&filled_in(&query.expr), PAST, STEP).await?;
    let number = |point: &Value| text(&point[1]).parse::<f64>().unwrap();
    // Proxies publish nothing, and a quantile of nothing is not a number.
    let any = query.expr.contains("pgnorth_publish_seconds");
    let mut points = result.iter().flat_map(|series| items(&series["values"]));
    if !points.any(|point| any || number(point).is_finite()) {
        return Err(format!("no number in {result:?}"));
    }
    for label in shown(&query.legend) {
        if let Some(nameless) = result.iter().find(|series| !series["metric"][&label].is_string()) {
            return Err(format!("no {label} in {}", nameless["metric"]));
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_query_uses_existing_series_and_a_real_prometheus_answers_it_with_data() {
    let cluster = FakeCluster::start(TTL).await;
    let pods = [Product::start(&cluster, &[]).await, Product::start(&cluster, &[]).await];
    let folder = TempDir::new().unwrap();
    let targets = [("one", pods[0].admin), ("two", pods[1].admin)];
    let prometheus = Prometheus::start(folder.path(), &targets, &json!({})).await;
    let seen = a_failover_and_a_fence(&cluster, &pods, &prometheus).await;

    let queries = queries(&dashboard());
    assert!(queries.len() > 30, "{}", queries.len());
    let mut wrong = Vec::new();
    for query in &queries {
        let mistakes = mistakes(query, &seen).into_iter();
        for mistake in mistakes.chain(answered(query, &prometheus).await.err()) {
            wrong.push(format!("{}: {}\n{mistake}", query.place, query.expr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Checks that find nothing would pass the tests above.
#[test]
fn a_mistake_in_a_query_is_found() {
    let seen = series("pgnorth_dial_seconds_count{outcome=\"ok\"} 1\npgnorth_routing 1\n");
    let wrong = |expr: &str, legend: &str| {
        let query = Query {
            place: String::new(),
            expr: expr.to_owned(),
            legend: legend.to_owned(),
        };
        mistakes(&query, &seen).join("; ")
    };
    let right = "sum by (outcome) (rate(pgnorth_dial_seconds_count{pod=~\"$pod\", outcome=\"ok\"}[1m]))";
    assert_eq!(wrong(right, "{{outcome}}"), "");
    assert_eq!(wrong("pgnorth_rooting", ""), "there is no metric pgnorth_rooting");
    assert_eq!(
        wrong("pgnorth_routing + pgnorth_dial_seconds_count{outcome=\"okay\"}", ""),
        "pgnorth_dial_seconds_count has no outcome=\"okay\""
    );
    assert_eq!(wrong("sum by (outcome) (pgnorth_routing)", ""), "no label outcome");
    assert_eq!(wrong("pgnorth_routing", "{{member}}"), "no label member");
    assert_eq!(wrong("vector(1)", ""), "it names no metric");
}
