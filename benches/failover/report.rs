//! The report: one table for people, in Markdown, and the same with every sample as JSON.

use std::process::Command;

use serde_json::{Map, Value, json};

use crate::contenders::Contender;
use crate::faults::{Fault, Source};
use crate::figures::{Figure, Measure, Must, figures, median, worst};
use crate::libpq;
use crate::round::Round;
use crate::support::rig::cache;

/// All rounds of one fault.
pub struct Outcome {
    pub fault: Fault,
    pub source: Source,
    pub rounds: Vec<Round>,
}

/// All figures of a run.
pub struct Report {
    /// Patroni's ttl, loop_wait and retry_timeout.
    pub patroni: [u32; 3],
    pub contenders: Vec<Contender>,
    pub outcomes: Vec<Outcome>,
}

/// Returns the table as Markdown with aligned columns.
pub fn table(report: &Report) -> String {
    let names = report.contenders.iter().map(|contender| contender.name());
    let head = ["fault", "figure"]
        .into_iter()
        .chain(names)
        .chain(["pgnorth must", "met"]);
    let [ttl, ..] = report.patroni;
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    for outcome in &report.outcomes {
        let mut row = heading(outcome);
        row.resize(rows[0].len(), String::new());
        rows.push(row);
        rows.extend(
            figures(outcome.fault, ttl)
                .iter()
                .map(|figure| row_of(report, outcome, figure)),
        );
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..rows[0].len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.iter().map(|width| format!("{:-<1$}|", "", width + 2));
    let rule = format!("|{}\n", rule.collect::<String>());
    let mut lines = rows.iter().map(line);
    let head = lines.next().unwrap_or_default();
    head + &rule + &lines.collect::<String>()
}

/// Returns the settings, the versions and all figures.
pub fn json(report: &Report) -> Value {
    let [ttl, loop_wait, retry_timeout] = report.patroni;
    json!({
        "date": jiff::Timestamp::now().to_string(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": cpus(),
        "patroni": {"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout},
        "versions": versions(report),
        "faults": report.outcomes.iter().map(|outcome| of_fault(report, outcome)).collect::<Vec<_>>(),
    })
}

/// Returns the machine, the versions and Patroni's settings, for people.
pub fn setting(report: &Report) -> String {
    let [ttl, loop_wait, retry_timeout] = report.patroni;
    let versions = versions(report);
    let versions: Vec<_> = versions.values().filter_map(Value::as_str).collect();
    format!(
        "{}, Linux {}, {} CPUs; ttl {ttl}, loop_wait {loop_wait}, retry_timeout {retry_timeout}\n{}",
        jiff::Timestamp::now(),
        read("/proc/sys/kernel/osrelease"),
        cpus(),
        versions.join("; ")
    )
}

fn heading(outcome: &Outcome) -> Vec<String> {
    let after: Vec<_> = outcome
        .rounds
        .iter()
        .map(|round| round.writable_after.map(|after| after.as_secs_f64()))
        .collect();
    let rounds = match after.len() {
        1 => "1 round".to_owned(),
        count => format!("{count} rounds"),
    };
    let figure = if outcome.fault.moves_the_primary() {
        format!(
            "({rounds}; new primary writable after {})",
            show(&after, Measure::Seconds(|_| None))
        )
    } else if after.iter().any(Option::is_some) {
        format!("({rounds}; another member took over, as it should not)")
    } else {
        format!("({rounds})")
    };
    vec![format!("{}; {}", outcome.fault.title(), outcome.source.title()), figure]
}

fn row_of(report: &Report, outcome: &Outcome, figure: &Figure) -> Vec<String> {
    let mut row = vec![String::new(), figure.name.to_owned()];
    let mut met = "";
    for (index, contender) in report.contenders.iter().enumerate() {
        let samples = samples(outcome, figure, index);
        row.push(show(&samples, figure.measure));
        if *contender == Contender::Pgnorth {
            met = match figure.must.is_met(&samples) {
                None => "",
                Some(true) => "yes",
                Some(false) => "NO",
            };
        }
    }
    row.extend([must(figure), met.to_owned()]);
    row
}

/// Returns one figure of one contender, round by round.
fn samples(outcome: &Outcome, figure: &Figure, contender: usize) -> Vec<Option<f64>> {
    let views = outcome.rounds.iter().map(|round| &round.views[contender]);
    views.map(|view| figure.of(view)).collect()
}

/// Returns the median, and the worst value if it differs.
fn show(samples: &[Option<f64>], measure: Measure) -> String {
    let text = |value: Option<f64>| match (value, measure) {
        (None, _) => "never".to_owned(),
        (Some(count), Measure::Count(_)) => count.to_string(),
        (Some(seconds), Measure::Seconds(_)) => time(seconds),
    };
    let (middle, worst) = (text(median(samples)), text(worst(samples)));
    if middle == worst {
        middle
    } else {
        format!("{middle}, worst {worst}")
    }
}

fn time(seconds: f64) -> String {
    if seconds.abs() < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

fn must(figure: &Figure) -> String {
    let text = |value: f64| match figure.measure {
        Measure::Seconds(_) if value != 0.0 => time(value),
        _ => value.to_string(),
    };
    match figure.must {
        Must::Nothing => String::new(),
        Must::AtMost(0.0) if matches!(figure.measure, Measure::Count(_)) => "0".to_owned(),
        Must::AtMost(most) => format!("≤ {}", text(most)),
        Must::AtLeast(least) => format!("≥ {}", text(least)),
        Must::MedianAndWorst(middle, worst) => format!("≤ {}, worst ≤ {}", text(middle), text(worst)),
    }
}

fn of_fault(report: &Report, outcome: &Outcome) -> Value {
    let [ttl, ..] = report.patroni;
    let after = outcome
        .rounds
        .iter()
        .map(|round| round.writable_after.map(|after| after.as_secs_f64()));
    json!({
        "fault": outcome.fault.title(),
        "source": outcome.source.title(),
        "rounds": outcome.rounds.len(),
        "new_primary_writable_after_seconds": after.collect::<Vec<_>>(),
        "figures": figures(outcome.fault, ttl).iter().map(|figure| of_figure(report, outcome, figure)).collect::<Vec<_>>(),
    })
}

fn of_figure(report: &Report, outcome: &Outcome, figure: &Figure) -> Value {
    let mut value = json!({
        "figure": figure.name,
        "unit": if matches!(figure.measure, Measure::Count(_)) { "count" } else { "seconds" },
        "must": must(figure),
    });
    for (index, contender) in report.contenders.iter().enumerate() {
        let samples = samples(outcome, figure, index);
        value[contender.key()] = json!({
            "samples": samples.iter().map(|sample| number(*sample, figure.measure)).collect::<Vec<_>>(),
            "median": number(median(&samples), figure.measure),
            "worst": number(worst(&samples), figure.measure),
        });
        if *contender == Contender::Pgnorth {
            value["met"] = json!(figure.must.is_met(&samples));
        }
    }
    value
}

fn number(sample: Option<f64>, measure: Measure) -> Value {
    match measure {
        Measure::Seconds(_) => json!(sample),
        Measure::Count(_) => json!(sample.map(|count| count as u64)),
    }
}

fn versions(report: &Report) -> Map<String, Value> {
    let patroni = cache().join("patroni/bin/patroni");
    let mut versions = Map::new();
    let mut add = |name: &str, version: String| versions.insert(name.to_owned(), version.into());
    for contender in &report.contenders {
        match contender {
            Contender::Libpq => add("libpq", libpq::version()),
            Contender::Pgnorth => add("pgnorth", first_line(env!("CARGO_BIN_EXE_pgnorth"), "--version")),
            Contender::Haproxy3 => add("haproxy-3", of_haproxy(*contender)),
            _ => add("haproxy", of_haproxy(*contender)),
        };
    }
    add("patroni", first_line(patroni.to_str().unwrap_or_default(), "--version"));
    add("postgresql", first_line("psql", "--version"));
    versions
}

fn of_haproxy(contender: Contender) -> String {
    let program = contender.program().unwrap_or_default();
    let line = first_line(program.to_str().unwrap_or_default(), "-v");
    line.split(" - ").next().unwrap_or_default().to_owned()
}

/// Returns the version that a program prints.
fn first_line(program: &str, flag: &str) -> String {
    let output = Command::new(program).arg(flag).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}
