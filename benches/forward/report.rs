//! The report: the table of all figures and the table of the bounds, both in Markdown, and the same with every sample
//! as JSON.

use serde_json::{Value, json};

use crate::bars::{BARS, Must};
use crate::contenders::{Kind, version};
use crate::outcomes::{Outcome, median, spread};
use crate::stage::Stage;
use crate::workloads::Better;

const NONE: &str = "–";

/// Returns the machine, the versions and the settings, for people.
pub fn setting(stage: &Stage, kinds: &[Kind], rounds: usize) -> String {
    let facts = facts(stage, kinds, rounds);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = facts["versions"].as_object().into_iter().flat_map(|map| map.values());
    let versions: Vec<String> = versions.map(text).collect();
    let mut lines = vec![
        format!(
            "{}, Linux {}, {} CPUs ({}); congestion control {}, in a network namespace",
            text(&facts["date"]),
            text(&facts["kernel"]),
            stage.world.cpus.len(),
            text(&facts["cpu"]),
            stage.world.congestion_control,
        ),
        versions.join("; "),
        format!(
            "pgnorth's extra arguments: {:?}; at most {} sessions at once",
            stage.pgnorth_arguments, stage.world.most_sessions
        ),
        format!(
            "Interleaved rounds: {rounds}. The median, and half of the span between the least and the most. Ratios are medians of the rounds' ratios."
        ),
    ];
    for (kind, why) in &stage.left_out {
        lines.push(format!("left out: {}: {why}", kind.name()));
    }
    lines.join("\n")
}

/// Returns all figures of all contenders.
pub fn table(outcomes: &[Outcome], kinds: &[Kind]) -> String {
    let mut head = vec!["workload".to_owned(), "figure".to_owned()];
    head.extend(kinds.iter().map(|kind| kind.name().to_owned()));
    let ratios: Vec<Kind> = [Kind::Haproxy, Kind::HaproxySplice]
        .into_iter()
        .filter(|to| kinds.contains(to) && kinds.contains(&Kind::Pgnorth))
        .collect();
    head.extend(ratios.iter().map(|to| format!("pgnorth / {}", to.name())));
    let mut rows = vec![head];
    for outcome in outcomes {
        for (place, figure) in outcome.workload.figures().iter().enumerate() {
            let title = if place == 0 { outcome.workload.title() } else { "" };
            let mut row = vec![title.to_owned(), figure.name.to_owned()];
            row.extend(kinds.iter().map(|kind| cell(outcome, *kind, place)));
            let ratio = |to: &Kind| outcome.ratio(Kind::Pgnorth, *to, place);
            row.extend(
                ratios
                    .iter()
                    .map(|to| ratio(to).map_or(NONE.to_owned(), |ratio| format!("{ratio:.2}"))),
            );
            rows.push(row);
        }
    }
    markdown(&rows)
}

/// Returns the bounds, and whether they are met. Workloads that were not run have no row.
pub fn bars(outcomes: &[Outcome]) -> String {
    let head = ["workload", "figure", "pgnorth must", "measured", "met"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for bar in BARS {
        let Some(outcome) = outcomes.iter().find(|outcome| outcome.workload == bar.workload) else {
            continue;
        };
        let must = match bar.must {
            Must::AtMost(most) => format!("≤ {most}"),
            Must::AtLeast(least) => format!("≥ {least}"),
        };
        let (measured, met) = match bar.measured(outcome) {
            Some(measured) if bar.is_met(measured) => (number(measured), "yes"),
            Some(measured) => (number(measured), "NO"),
            None => (NONE.to_owned(), "not measured"),
        };
        rows.push(vec![
            bar.workload.title().to_owned(),
            bar.workload.figures()[bar.figure].name.to_owned(),
            must + bar.against.name(),
            measured,
            met.to_owned(),
        ]);
    }
    markdown(&rows)
}

/// Returns everything, with every sample.
pub fn json(stage: &Stage, kinds: &[Kind], rounds: usize, outcomes: &[Outcome]) -> Value {
    let mut value = facts(stage, kinds, rounds);
    value["workloads"] = outcomes.iter().map(|outcome| of_workload(outcome, kinds)).collect();
    value["bars"] = BARS.iter().filter_map(|bar| {
        let outcome = outcomes.iter().find(|outcome| outcome.workload == bar.workload)?;
        let measured = bar.measured(outcome);
        let (must, value) = match bar.must {
            Must::AtMost(most) => ("at_most", most),
            Must::AtLeast(least) => ("at_least", least),
        };
        Some(json!({
            "workload": bar.workload.key(), "figure": bar.workload.figures()[bar.figure].name, must: value,
            "against": format!("{:?}", bar.against), "measured": measured, "met": measured.map(|measured| bar.is_met(measured)),
        }))
    }).collect();
    value
}

fn facts(stage: &Stage, kinds: &[Kind], rounds: usize) -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut versions = serde_json::Map::new();
    let programs = kinds.iter().filter_map(|kind| kind.program());
    for (program, flag) in programs.chain([("pgbench", "--version")]) {
        let name = program.rsplit('/').next().unwrap_or(program);
        if let Ok(version) = version(program, flag) {
            versions.insert(name.to_owned(), version.into());
        }
    }
    json!({
        "date": jiff::Timestamp::now().to_string(), "kernel": kernel.trim(), "cpu": cpu.trim_start_matches([' ', '\t', ':']),
        "cpus": stage.world.cpus.len(), "congestion_control": stage.world.congestion_control,
        "rounds": rounds, "versions": versions, "pgnorth_arguments": stage.pgnorth_arguments,
        "most_sessions": stage.world.most_sessions,
        "left_out": stage.left_out.iter().map(|(kind, why)| json!({"contender": kind.key(), "why": why})).collect::<Vec<_>>(),
    })
}

fn of_workload(outcome: &Outcome, kinds: &[Kind]) -> Value {
    let figure = |(place, figure): (usize, &crate::workloads::Figure)| {
        let mut value =
            json!({"figure": figure.name, "better": if figure.better == Better::More { "more" } else { "less" }});
        for kind in kinds {
            let samples = outcome.samples(*kind, place);
            if !samples.is_empty() {
                value[kind.key()] = json!({"median": median(&samples), "samples": samples});
            }
        }
        value
    };
    json!({
        "workload": outcome.workload.key(),
        "figures": outcome.workload.figures().iter().enumerate().map(figure).collect::<Vec<_>>(),
        "failures": outcome.failures().map(|(kind, why)| json!({"contender": kind.key(), "why": why})).collect::<Vec<_>>(),
    })
}

fn cell(outcome: &Outcome, kind: Kind, figure: usize) -> String {
    let samples = outcome.samples(kind, figure);
    let failed = outcome.failures().filter(|(failed, _)| *failed == kind).count();
    let text = match (median(&samples), spread(&samples)) {
        (Some(middle), Some((least, most))) if least < most => {
            format!("{} ±{:.0} %", number(middle), (most - least) / 2.0 / middle * 100.0)
        }
        (Some(middle), _) => number(middle),
        (None, _) if failed > 0 => return format!("failed {failed}×"),
        (None, _) => return NONE.to_owned(),
    };
    match failed {
        0 => text,
        failed => format!("{text}, failed {failed}×"),
    }
}

/// Returns a number with three significant digits.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        large if large >= 10.0 => 1,
        small if small >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Returns a table with aligned columns; the first row is its head.
fn markdown(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule: String = widths.iter().map(|width| format!("{:-<1$}|", "", width + 2)).collect();
    let mut lines = rows.iter().map(line);
    lines.next().unwrap_or_default() + &format!("|{rule}\n") + &lines.collect::<String>()
}
