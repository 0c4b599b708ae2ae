//! What was measured, and what follows from it: medians, spreads, ratios.

use crate::contenders::Kind;
use crate::measure::Values;
use crate::workloads::Workload;

/// All rounds of one workload.
pub struct Outcome {
    pub workload: Workload,
    /// In the order of the table; round by round.
    pub of: Vec<(Kind, Vec<Result<Values, String>>)>,
}

impl Outcome {
    /// One figure of a contender, round by round; nothing for a round that failed, or where there is nothing to be measured.
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

    /// The median of the rounds' ratios: two that were measured in one round had the same machine.
    pub fn ratio(&self, kind: Kind, to: Kind, figure: usize) -> Option<f64> {
        let pairs = self.samples(kind, figure).into_iter().zip(self.samples(to, figure));
        let ratios: Vec<_> = pairs.map(|(one, other)| Some(one? / other?)).collect();
        median(&ratios)
    }

    /// Why rounds of a contender failed.
    pub fn failures(&self) -> impl Iterator<Item = (Kind, &str)> {
        let of = self.of.iter();
        of.flat_map(|(kind, rounds)| {
            rounds
                .iter()
                .filter_map(|round| Some((*kind, round.as_ref().err()?.as_str())))
        })
    }
}

/// Of those that there are; the mean of the two in the middle where there are two.
pub fn median(samples: &[Option<f64>]) -> Option<f64> {
    let sorted = sorted(samples);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        length if length % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The least and the most.
pub fn spread(samples: &[Option<f64>]) -> Option<(f64, f64)> {
    let sorted = sorted(samples);
    Some((*sorted.first()?, *sorted.last()?))
}

fn sorted(samples: &[Option<f64>]) -> Vec<f64> {
    let mut sorted: Vec<f64> = samples.iter().flatten().copied().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}
