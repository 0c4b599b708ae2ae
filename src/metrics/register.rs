//! Registers metrics with the exporter's recorder, and keeps the values that pgnorth itself reads back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level as Verbosity, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::table::{FAMILIES, Family, Kind};

/// The description of a call site, which the `metrics` facade requires. The exporter ignores it.
const METADATA: Metadata<'static> = Metadata::new("pgnorth", Verbosity::INFO, None);

/// A counter that pgnorth reads back. Its value is copied to the exporter at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    /// Adds one.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// Adds `more`.
    pub fn inc_by(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A gauge that pgnorth reads back. Its value is copied to the exporter at each scrape.
#[derive(Clone, Debug, Default)]
pub struct Level(Arc<AtomicI64>);

impl Level {
    /// Adds one.
    pub fn inc(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Subtracts one.
    pub fn dec(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Returns the value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The values that are copied to the exporter at each scrape.
#[derive(Debug, Default)]
pub(super) struct ExportedValues {
    /// The counters, each with its name and labels.
    counts: Vec<(String, Count, Counter)>,
    levels: Vec<(Level, Gauge)>,
}

impl ExportedValues {
    pub(super) fn count(&mut self, series: String, exported: Counter) -> Count {
        let count = Count::default();
        self.counts.push((series, count.clone(), exported));
        count
    }

    /// Adds to the counter with this name and labels. Returns false if pgnorth does not read such a counter back.
    pub(super) fn add(&self, series: &str, more: u64) -> bool {
        let found = self.counts.iter().find(|(own, ..)| own == series);
        found.inspect(|(_, count, _)| count.inc_by(more)).is_some()
    }

    pub(super) fn level(&mut self, exported: Gauge) -> Level {
        let level = Level::default();
        self.levels.push((level.clone(), exported));
        level
    }

    /// Copies every value to the exporter.
    pub(super) fn export(&self) {
        for (_, count, exported) in &self.counts {
            exported.absolute(count.get());
        }
        for (level, exported) in &self.levels {
            #[expect(clippy::cast_precision_loss, reason = "sessions are far fewer than 2^52")]
            exported.set(level.get() as f64);
        }
    }
}

pub(super) fn describe_all(recorder: &PrometheusRecorder) {
    for family in FAMILIES {
        let (name, help) = (family.name.into(), family.help.into());
        match family.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram => recorder.describe_histogram(name, None, help),
        }
    }
}

/// Returns the name and labels as the exposition format has them. The values come from closed sets, so they need no
/// escaping.
pub(super) fn series(family: &Family, values: &[&str]) -> String {
    let labels = family.labels.iter().zip(values);
    let labels: Vec<_> = labels.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    match labels[..] {
        [] => family.name.to_owned(),
        _ => format!("{}{{{}}}", family.name, labels.join(",")),
    }
}

/// Returns the counter's family and the values of its labels.
pub(super) fn parse_series(series: &str) -> Option<(&'static Family, Vec<&str>)> {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let mut families = FAMILIES.iter();
    let family = families.find(|family| family.name == name && family.kind == Kind::Counter)?;
    let labels = labels.strip_suffix('}')?.split(',').filter(|label| !label.is_empty());
    let labels: Option<Vec<_>> = labels.map(|label| label.split_once('=')).collect();
    let (names, values): (Vec<_>, Vec<_>) = labels?.into_iter().unzip();
    let values = values.into_iter().map(|value| value.trim_matches('"')).collect();
    (names == family.labels).then_some((family, values))
}

pub(super) fn counter(recorder: &PrometheusRecorder, family: &Family, values: &[&str]) -> Counter {
    recorder.register_counter(&key(family, Kind::Counter, values), &METADATA)
}

pub(super) fn gauge(recorder: &PrometheusRecorder, family: &Family, values: &[&str]) -> Gauge {
    recorder.register_gauge(&key(family, Kind::Gauge, values), &METADATA)
}

pub(super) fn histogram(recorder: &PrometheusRecorder, family: &Family, values: &[&str]) -> Histogram {
    recorder.register_histogram(&key(family, Kind::Histogram, values), &METADATA)
}

fn key(family: &Family, kind: Kind, values: &[&str]) -> Key {
    debug_assert_eq!(
        (family.kind, family.labels.len()),
        (kind, values.len()),
        "{}",
        family.name
    );
    let labels = family.labels.iter().zip(values);
    let labels: Vec<_> = labels
        .map(|(name, value)| Label::new(*name, (*value).to_owned()))
        .collect();
    Key::from_parts(family.name, labels)
}
