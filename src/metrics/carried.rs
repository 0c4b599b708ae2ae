//! Histograms of the process that this one has replaced. The exporter accepts only single observations, so the counts
//! and sums of these histograms are added to the exporter's text.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::table::{FAMILIES, Family, Kind};

/// The values to add, by series: cumulative buckets, sums and counts.
#[derive(Debug, Default)]
pub(super) struct Carried(Mutex<BTreeMap<String, f64>>);

impl Carried {
    /// Replaces the values to add. `text` is the exposition without them. Skips a family whose series differ from those
    /// in `text`, because the other version has other buckets or labels.
    pub(super) fn set(&self, values: Vec<(String, f64)>, text: &str) {
        let own: BTreeSet<String> = histograms(text).into_iter().map(|(series, _)| series).collect();
        let is_known = |series: &String| own.contains(series);
        let differ: Vec<&Family> = values
            .iter()
            .filter(|(series, _)| !is_known(series))
            .filter_map(|(series, _)| family(series))
            .chain(
                own.iter()
                    .filter(|series| values.iter().all(|(other, _)| other != *series))
                    .filter_map(|series| family(series)),
            )
            .collect();
        let differs = |series: &str| {
            let family = family(series);
            family.is_none_or(|family| differ.iter().any(|other| other.name == family.name))
        };
        *self.lock() = values.into_iter().filter(|(series, _)| !differs(series)).collect();
    }

    /// Adds the values to those in the exporter's text.
    pub(super) fn add_to(&self, text: String) -> String {
        let carried = self.lock();
        if carried.is_empty() {
            return text;
        }
        let mut sums = String::with_capacity(text.len());
        for line in text.lines() {
            let carried = line.rsplit_once(' ').and_then(|(series, value)| {
                let sum = value.parse::<f64>().ok()? + carried.get(series)?;
                Some(format!("{series} {sum}"))
            });
            sums.push_str(carried.as_deref().unwrap_or(line));
            sums.push('\n');
        }
        sums
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, f64>> {
        // No code that holds the lock can panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the series of all histograms in an exposition, with their values.
pub(super) fn histograms(text: &str) -> Vec<(String, f64)> {
    let value = |line: &str| {
        let (series, value) = line.rsplit_once(' ')?;
        family(series)?;
        Some((series.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(value).collect()
}

/// Returns the histogram that this series belongs to.
fn family(series: &str) -> Option<&'static Family> {
    let name = series.split('{').next()?;
    let of = |suffix: &str| name.strip_suffix(suffix);
    let name = of("_bucket").or_else(|| of("_sum")).or_else(|| of("_count"))?;
    let mut families = FAMILIES.iter();
    families.find(|family| family.kind == Kind::Histogram && family.name == name)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Metrics;

    /// Returns the last bucket, the sum and the count of `pgnorth_hold_seconds`.
    fn sum_and_count(metrics: &Metrics) -> String {
        let text = metrics.render();
        let lines = text.lines().filter(|line| {
            [
                "pgnorth_hold_seconds_sum",
                "pgnorth_hold_seconds_count",
                "pgnorth_hold_seconds_bucket{le=\"+Inf\"}",
            ]
            .iter()
            .any(|name| line.starts_with(name))
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn histograms_of_a_replaced_process_are_added_to_those_of_this_one_over_several_reloads() {
        let record = |metrics: &Metrics, seconds: f64| metrics.hold_seconds.record(Duration::from_secs_f64(seconds));
        let mut last = Metrics::new();
        record(&last, 0.5);
        record(&last, 2.0);
        for reloads in 1..=3_u32 {
            let next = Metrics::new();
            record(&next, 0.25);
            next.carry_histograms(last.histograms());
            // A second call, as at the end of the replaced process, must not count anything twice.
            next.carry_histograms(last.histograms());
            let (count, sum) = (2 + reloads, 2.5 + 0.25 * f64::from(reloads));
            let expected = format!(
                "pgnorth_hold_seconds_bucket{{le=\"+Inf\"}} {count}\npgnorth_hold_seconds_sum {sum}\n\
                 pgnorth_hold_seconds_count {count}"
            );
            assert_eq!(sum_and_count(&next), expected);
            last = next;
        }
    }

    #[test]
    fn a_histogram_with_other_buckets_begins_again() {
        let old = Metrics::new();
        old.hold_seconds.record(Duration::from_secs(1));
        let mut values = old.histograms();
        values.retain(|(series, _)| !series.contains("pgnorth_hold_seconds_bucket{le=\"+Inf\"}"));
        let new = Metrics::new();
        new.carry_histograms(values);
        assert!(sum_and_count(&new).contains("pgnorth_hold_seconds_count 0"));
    }
}
