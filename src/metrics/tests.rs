//! Tests of the exposition: families, help texts, and series that change.

use std::collections::BTreeSet;
use std::process::Command;

use super::*;

fn rendered() -> String {
    let metrics = Metrics::new();
    metrics.set_leader(Some("pg-0"));
    metrics.set_source_up("kubernetes", true);
    metrics.set_build("0", "unknown");
    metrics.set_cluster("demo");
    metrics.set_routing_state(&RoutingState::Hold(None), &Reason::Starting);
    metrics.set_route_open("replica", 5001, true);
    metrics
        .pooler_failures(RouteKind::Primary, Upstream::Port(6432))
        .increment(0);
    metrics.set_route_member("replica", 5001, "pg-1", true, 1);
    metrics.set_route_member_unfit("replica", 5001, "pg-2", "lagging");
    metrics.render()
}

#[test]
fn every_row_of_the_table_is_exposed_with_its_kind_and_help_and_nothing_else() {
    let text = rendered();
    for family in FAMILIES {
        let head = format!(
            "# HELP {} {}\n# TYPE {} {}\n",
            family.name,
            family.help,
            family.name,
            family.kind.as_str()
        );
        assert!(text.contains(&head), "{head}in\n{text}");
    }
    let exposed: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let declared: BTreeSet<_> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(exposed, declared);
    assert_eq!(declared.len(), FAMILIES.len(), "a name occurs twice");
}

#[test]
fn every_series_has_the_labels_of_its_row() {
    let text = rendered();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let family = FAMILIES
            .iter()
            .find(|family| {
                let suffix = name.strip_prefix(family.name);
                suffix.is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix))
            })
            .unwrap_or_else(|| panic!("{name} has no row"));
        let names = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0));
        let names: Vec<_> = names.filter(|name| *name != "le").collect();
        assert_eq!(names, family.labels, "{line}");
    }
}

#[test]
fn a_former_leader_state_and_scope_go_to_zero() {
    let metrics = Metrics::new();
    metrics.set_leader(Some("pg-0"));
    metrics.set_leader(Some("pg-1"));
    metrics.set_cluster("demo");
    metrics.set_routing_state(&RoutingState::Hold(None), &Reason::Starting);
    metrics.set_routing_state(&RoutingState::Hold(None), &Reason::Released);
    let text = metrics.render();
    for line in [
        "pgnorth_leader_info{member=\"pg-0\"} 0",
        "pgnorth_leader_info{member=\"pg-1\"} 1",
        "pgnorth_cluster_info{scope=\"\"} 0",
        "pgnorth_cluster_info{scope=\"demo\"} 1",
        "pgnorth_routing_state_info{state=\"hold\",reason=\"starting\"} 0",
        "pgnorth_routing_state_info{state=\"hold\",reason=\"released\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    metrics.set_leader(None);
    assert!(metrics.render().contains("pgnorth_leader_info{member=\"pg-1\"} 0\n"));
    metrics.set_leader(Some("pg-1"));
    assert!(metrics.render().contains("pgnorth_leader_info{member=\"pg-1\"} 1\n"));
}

/// A label's value may contain any character that Patroni allows in a name.
#[test]
fn values_from_outside_are_escaped() {
    let metrics = Metrics::new();
    metrics.set_cluster("a\"b\\c\nd");
    assert!(
        metrics
            .render()
            .contains(r#"pgnorth_cluster_info{scope="a\"b\\c\nd"} 1"#)
    );
}

#[test]
fn values_that_are_read_back_equal_the_exposed_ones() {
    let metrics = Metrics::new();
    metrics.ended(Ending::Full);
    metrics.bytes_to_client.inc_by(7);
    metrics.sessions(SessionState::Held).set(3);
    metrics.sessions(SessionState::Held).dec();
    let text = metrics.render();
    assert_eq!((metrics.endings(Ending::Full), metrics.bytes_to_client.get()), (1, 7));
    for line in [
        "pgnorth_sessions_ended_total{ending=\"full\"} 1\n",
        "pgnorth_forwarded_bytes_total{direction=\"leader_to_client\"} 7\n",
        "pgnorth_sessions{state=\"held\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

/// Checks that memory does not grow after the first minutes of a day without a scrape, with 100 sessions per second and
/// upkeep every five seconds. Measured in a separate process, because the memory of other tests would count in this
/// one.
#[test]
fn a_day_without_a_scrape_costs_no_memory() {
    const ALONE: &str = "PGNORTH_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "metrics::tests::a_day_without_a_scrape_costs_no_memory";
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    fn resident_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
    let metrics = Metrics::new();
    let five_seconds = |metrics: &Metrics| {
        for _ in 0..500 {
            metrics.hold_seconds.record(0.002);
            metrics.dialled(Outcome::Ok, Duration::from_millis(1));
        }
        metrics.upkeep();
    };
    (0..100).for_each(|_| five_seconds(&metrics));
    let before = resident_kib();
    (0..24 * 60 * 12).for_each(|_| five_seconds(&metrics));
    let grown = resident_kib().saturating_sub(before);
    // Without upkeep, memory grows by about 270 MiB.
    assert!(grown < 8 << 10, "grown by {grown} KiB");
    assert!(metrics.render().contains("pgnorth_hold_seconds_count 8690000\n"));
}

#[test]
fn the_counters_of_a_replaced_process_are_carried_on() {
    let (old, new) = (Metrics::new(), Metrics::new());
    old.ended(Ending::Full);
    old.bytes_to_client.inc_by(7);
    old.accept_errors.increment(3);
    old.pooler_failures(RouteKind::Primary, Upstream::Port(6432))
        .increment(2);
    new.bytes_to_client.inc_by(2);
    new.accept_errors.increment(1);
    new.carry_on(&old.counters());
    new.carry_on(&[("pgnorth_of_another_version_total".to_owned(), 5)]);
    assert_eq!((new.endings(Ending::Full), new.bytes_to_client.get()), (1, 9));
    let text = new.render();
    for line in [
        "pgnorth_sessions_ended_total{ending=\"full\"} 1\n",
        "pgnorth_forwarded_bytes_total{direction=\"leader_to_client\"} 9\n",
        "pgnorth_accept_errors_total 4\n",
        "pgnorth_pooler_failures_total{route=\"primary\",target=\"6432\"} 2\n",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    assert!(!text.contains("another_version"));
    let kinds = old
        .counters()
        .into_iter()
        .map(|(series, _)| series.split('{').next().unwrap().to_owned());
    let counters = FAMILIES.iter().filter(|family| family.kind == Kind::Counter);
    let (kinds, counters): (BTreeSet<_>, BTreeSet<_>) =
        (kinds.collect(), counters.map(|family| family.name.to_owned()).collect());
    assert_eq!(kinds, counters, "every counter is carried on");
}

#[test]
fn the_process_started_just_now() {
    let text = Metrics::new().render();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("process_start_time_seconds "));
    let started: f64 = value.unwrap().parse().unwrap();
    assert!((since_1970(SystemTime::now()) - started).abs() < 3600.0, "{started}");
}
