//! The report: one table for people, in Markdown, and the same with every sample as JSON.

use std::process::Command;

use serde_json::{Value, json};

use crate::contenders::Contender;
use crate::faults::{Fault, Source};
use crate::figures::{Figure, Measure, Must, figures, median, worst};
use crate::round::Round;
use crate::support::rig::cache;

/// All rounds of one fault.
pub struct Outcome {
    pub fault: Fault,
    pub source: Source,
    pub rounds: Vec<Round>,
}

const HEAD: [&str; 7] = [
    "fault",
    "figure",
    "HAProxy, template",
    "HAProxy, tuned",
    "pgnorth",
    "pgnorth must",
    "met",
];

/// Returns the table as Markdown with aligned columns.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    for outcome in outcomes {
        rows.push(heading(outcome));
        for figure in figures(outcome.fault) {
            rows.push(row(outcome, &figure));
        }
    }
    let widths: [usize; 7] = std::array::from_fn(|column| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or(0)
    });
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = format!("|{}\n", widths.map(|width| format!("{:-<1$}|", "", width + 2)).concat());
    let mut lines = rows.iter().map(line);
    let head = lines.next().unwrap_or_default();
    head + &rule + &lines.collect::<String>()
}

/// Returns the settings, the versions and all figures.
pub fn json(outcomes: &[Outcome]) -> Value {
    json!({
        "date": jiff::Timestamp::now().to_string(),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "versions": versions(),
        "faults": outcomes.iter().map(of_fault).collect::<Vec<_>>(),
    })
}

/// Returns the machine and the versions, for people.
pub fn setting() -> String {
    let facts = json(&[]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions: Vec<_> = ["pgnorth", "haproxy", "patroni", "postgresql"]
        .map(|name| text(&facts["versions"][name]))
        .into();
    format!(
        "{}, Linux {}, {} CPUs\n{}",
        text(&facts["date"]),
        text(&facts["kernel"]),
        facts["cpus"],
        versions.join("; ")
    )
}

fn heading(outcome: &Outcome) -> [String; 7] {
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
    let mut row = [const { String::new() }; 7];
    row[0] = format!("{}; {}", outcome.fault.title(), outcome.source.title());
    row[1] = figure;
    row
}

fn row(outcome: &Outcome, figure: &Figure) -> [String; 7] {
    let [template, tuned, pgnorth] = [0, 1, 2].map(|index| samples(outcome, figure, index));
    let met = match figure.must.is_met(&pgnorth) {
        None => "",
        Some(true) => "yes",
        Some(false) => "NO",
    };
    let [template, tuned, pgnorth] = [template, tuned, pgnorth].map(|samples| show(&samples, figure.measure));
    [
        String::new(),
        figure.name.to_owned(),
        template,
        tuned,
        pgnorth,
        must(figure),
        met.to_owned(),
    ]
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

fn of_fault(outcome: &Outcome) -> Value {
    let after = outcome
        .rounds
        .iter()
        .map(|round| round.writable_after.map(|after| after.as_secs_f64()));
    json!({
        "fault": outcome.fault.title(),
        "source": outcome.source.title(),
        "rounds": outcome.rounds.len(),
        "new_primary_writable_after_seconds": after.collect::<Vec<_>>(),
        "figures": figures(outcome.fault).iter().map(|figure| of_figure(outcome, figure)).collect::<Vec<_>>(),
    })
}

fn of_figure(outcome: &Outcome, figure: &Figure) -> Value {
    let mut value = json!({
        "figure": figure.name,
        "unit": if matches!(figure.measure, Measure::Count(_)) { "count" } else { "seconds" },
        "must": must(figure),
    });
    for (index, contender) in Contender::ALL.into_iter().enumerate() {
        let samples = samples(outcome, figure, index);
        value[contender.key()] = json!({
            "samples": samples.iter().map(|sample| number(*sample, figure.measure)).collect::<Vec<_>>(),
            "median": number(median(&samples), figure.measure),
            "worst": number(worst(&samples), figure.measure),
        });
        if contender == Contender::Pgnorth {
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

fn versions() -> Value {
    let patroni = cache().join("patroni/bin/patroni");
    json!({
        "pgnorth": first_line(env!("CARGO_BIN_EXE_pgnorth")),
        "haproxy": first_line("haproxy").split(" - ").next(),
        "patroni": first_line(patroni.to_str().unwrap_or_default()),
        "postgresql": first_line("psql"),
    })
}

/// Returns the version that a program prints.
fn first_line(program: &str) -> String {
    let flag = if program == "haproxy" { "-v" } else { "--version" };
    let output = Command::new(program).arg(flag).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().unwrap_or_default().to_owned()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_default().trim().to_owned()
}
