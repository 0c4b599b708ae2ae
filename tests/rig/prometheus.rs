//! A real Prometheus scrapes pgnorth while a leader dies, no member can take over, and later one does: the metrics have
//! the failover, and the rules of deploy/monitoring fire and resolve.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::prometheus::Prometheus;
use crate::support::{Dcs, Product, Rig, psql, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(60);

/// The times that are shortened, because a test does not wait for minutes: the duration before an alert, and the range
/// over which clients are counted. promtool tests the real times with samples of hours
/// (deploy/monitoring/alerts.test.yaml). All other rules are unchanged.
const SHORTENED: [(&str, &str, &str); 4] = [
    ("PgnorthNoLeader", "for", "1m"),
    ("PgnorthSourceDown", "for", "2m"),
    ("PgnorthAbsent", "for", "2m"),
    ("PgnorthHoldingTooLong", "expr", "[5m]"),
];
const SHORT: &str = "3s";
const SHORT_WINDOW: &str = "[20s]";

#[tokio::test]
async fn the_rules_fire_and_resolve_in_a_real_failover() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let mut product = Product::start(&rig, &["--hold", "2s", "--lame-duck", "0s", "--drain", "0s"], &[]).await;
    product.wait_until_writable(SOON).await;
    let target = [("pgnorth", product.admin())];
    let prometheus = Prometheus::start(rig.folder(), &target, &rules()).await;
    // Two samples: Prometheus notices an increase only of a series that exists before it.
    wait_until("two scrapes", SOON, async || {
        let scrapes = prometheus.value("count_over_time(pgnorth_routing[1m])").await?;
        (scrapes >= 2.0).then_some(())
    })
    .await;
    // On a busy machine a first probe may be late.
    wait_until("no alert is active before the fault", SOON, async || {
        prometheus.alerts().await.is_empty().then_some(())
    })
    .await;
    assert_eq!(prometheus.value("pgnorth_primaries").await, Some(1.0));

    let old = rig.leader().await;
    rig.others(old).for_each(|member| member.freeze_patroni());
    old.kill_host();
    say(&prometheus, "the leader is dead, and the others' Patroni is frozen");
    let refused = psql(product.address(), "select 1")
        .await
        .expect_err("there is no primary");
    say(&prometheus, &format!("a client: {}", refused.trim()));
    let alert = prometheus.wait_for("PgnorthHoldingTooLong", "firing").await.unwrap();
    assert_eq!(alert["labels"]["severity"], "critical");
    prometheus.wait_for("PgnorthSourceDown", "firing").await;
    let alert = prometheus.wait_for("PgnorthNoLeader", "firing").await.unwrap();
    let cluster =
        json!({"alertname": "PgnorthNoLeader", "namespace": "default", "scope": "patronidemo", "severity": "critical"});
    assert_eq!(alert["labels"], cluster);
    assert!(
        alert["annotations"]["description"]
            .as_str()
            .unwrap()
            .contains("Reason: lock_expired."),
        "{alert}"
    );

    rig.others(old).for_each(|member| member.thaw_patroni());
    say(&prometheus, "the others' Patroni goes on");
    product.wait_until_writable(SOON).await;
    say(&prometheus, "a client is through");
    for name in ["PgnorthNoLeader", "PgnorthSourceDown", "PgnorthHoldingTooLong"] {
        prometheus.wait_for(name, "inactive").await;
    }
    the_failover_is_in_the_figures(&prometheus).await;
    let objective = "pgnorth_failover_seconds_bucket{phase=\"total\",le=\"45\"}";
    let quick = prometheus.value(objective).await == Some(1.0);

    product.terminate(SOON).await;
    say(&prometheus, "pgnorth has ended");
    prometheus.wait_for("PgnorthAbsent", "firing").await;
    let _again = Product::start_at(&rig, product.address(), product.admin(), &[]).await;
    prometheus.wait_for("PgnorthAbsent", "inactive").await;

    let fired = prometheus
        .query("count by (alertname) (count_over_time(ALERTS{alertstate=\"firing\"}[10m]))")
        .await;
    let fired: BTreeSet<_> = fired
        .iter()
        .map(|(labels, _)| labels["alertname"].as_str().unwrap())
        .collect();
    println!("fired in all this: {fired:?}");
    // It depends on the machine whether it was slow.
    let slow = (!quick).then_some("PgnorthFailoverSlow");
    let expected: BTreeSet<_> = SHORTENED.iter().map(|(name, ..)| *name).chain(slow).collect();
    assert_eq!(fired, expected, "no other rule fired");
    let evaluated = prometheus.rules().await;
    assert!(evaluated.len() > 10, "{evaluated:?}");
    for (rule, error) in evaluated {
        assert_eq!(error, "", "{rule} could not be evaluated");
    }
}

async fn the_failover_is_in_the_figures(prometheus: &Prometheus) {
    let mut seen = Vec::new();
    for expression in [
        "pgnorth_leader_changes_total",
        "pgnorth_fences_total",
        "pgnorth_sessions_ended_total{ending=\"hold_expired\"} > bool 0",
        "pgnorth_failover_seconds_count{phase=\"total\"}",
        "pgnorth_failover_seconds_bucket{phase=\"total\",le=\"10\"}",
        "pgnorth_failover_seconds_bucket{phase=\"total\",le=\"+Inf\"}",
        "pgnorth_failover_seconds_count{phase=\"promotion\"}",
        "changes(pgnorth_failover_seconds_count{phase=\"total\"}[10m])",
        "pgnorth_routing",
        "max_over_time(pgnorth_primaries[10m])",
        "up{job=\"pgnorth\"}",
    ] {
        let value = prometheus.value(expression).await;
        println!("          {expression} = {value:?}");
        seen.push(value);
    }
    // The ttl alone is 20 s, above all lower buckets.
    let expected = [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    assert_eq!(seen, expected.map(Some));
    let total = prometheus.value("pgnorth_failover_seconds_sum{phase=\"total\"}").await;
    println!("          the failover took {total:?} s");
}

fn rules() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/monitoring/alerts.yaml");
    let mut rules: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let list = rules["groups"][0]["rules"].as_array_mut().unwrap();
    for (name, field, long) in SHORTENED {
        let rule = list.iter_mut().find(|rule| rule["alert"] == name).unwrap();
        let text = rule[field].as_str().unwrap();
        assert!(text.contains(long), "{name} has no {long}: {text}");
        let short = if field == "for" { SHORT } else { SHORT_WINDOW };
        rule[field] = json!(text.replace(long, short));
    }
    rules
}

fn say(prometheus: &Prometheus, what: &str) {
    println!("{:6.1} s  {what}", prometheus.elapsed().as_secs_f64());
}
