//! The results: medians, spreads and ratios of the measurements.

use crate::contenders::Kind;
use crate::measure::Values;
use crate::workloads::Workload;

/// All rounds of one workload.
pub struct Outcome {
    pub workload: Workload,
    /// The rounds of each contender, in the order of the table.
    pub of: Vec<(Kind, Vec<Result<Values, String>>)>,
}

impl Outcome {
    /// Returns one figure of a contender, round by round; `None` for a round that failed, or if there is nothing to
    /// measure.
    pub fn samples(&self, kind: Kind, figure: usize) -> Vec<Option<f64>> {
        let rounds = self
            .of
            .iter()
            .find(|(known, _)| *known == kind)
            .map(|(_, rounds)| rounds);
        let values = rounds.into_iter().flatten();
        values.map(|round| *round.as_ref().ok()?.get(figure)?).collect()
    }

    pub fn median(&self, kind: Kind, figure: usize) -> Option<f64> {
        median(&self.samples(kind, figure))
    }

    /// Returns the median of the rounds' ratios, because two figures of one round were measured on the same machine.
    pub fn ratio(&self, kind: Kind, to: Kind, figure: usize) -> Option<f64> {
        let pairs = self.samples(kind, figure).into_iter().zip(self.samples(to, figure));
        let ratios: Vec<_> = pairs.map(|(one, other)| Some(one? / other?)).collect();
        median(&ratios)
    }

    /// Returns the errors of the rounds that failed.
    pub fn failures(&self) -> impl Iterator<Item = (Kind, &str)> {
        let of = self.of.iter();
        of.flat_map(|(kind, rounds)| {
            rounds
                .iter()
                .filter_map(|round| Some((*kind, round.as_ref().err()?.as_str())))
        })
    }
}

/// Returns the median of the values that exist; the mean of the two in the middle if there are two.
pub fn median(samples: &[Option<f64>]) -> Option<f64> {
    let sorted = sorted(samples);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// Returns the least and the greatest value.
pub fn spread(samples: &[Option<f64>]) -> Option<(f64, f64)> {
    let sorted = sorted(samples);
    Some((*sorted.first()?, *sorted.last()?))
}

fn sorted(samples: &[Option<f64>]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}
