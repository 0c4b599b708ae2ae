//! The bounds for pgnorth, most of them as ratios to HAProxy in the same run.

use crate::contenders::Kind;
use crate::outcomes::Outcome;
use crate::workloads::Workload;

/// One bound.
pub struct Bar {
    pub workload: Workload,
    /// The index of the workload's figure.
    pub figure: usize,
    pub against: Against,
    pub must: Must,
}

/// The value with which a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    Haproxy,
    HaproxySplice,
    /// The better one of HAProxy's two configurations.
    BetterHaproxy,
    /// The figure itself.
    Itself,
}

#[derive(Clone, Copy, Debug)]
pub enum Must {
    AtMost(f64),
    AtLeast(f64),
}

use Against::{BetterHaproxy, Haproxy, HaproxySplice, Itself};
use Must::{AtLeast, AtMost};

/// All bounds, in the order of the table of workloads.
pub const BARS: &[Bar] = &[
    bar(Workload::BulkUp1, 0, HaproxySplice, AtLeast(1.15)),
    bar(Workload::BulkUp1, 0, Haproxy, AtLeast(2.4)),
    bar(Workload::BulkUp1, 1, HaproxySplice, AtMost(0.6)),
    bar(Workload::BulkDown1, 0, HaproxySplice, AtLeast(1.15)),
    bar(Workload::BulkDown1, 0, Haproxy, AtLeast(2.4)),
    bar(Workload::BulkDown1, 1, HaproxySplice, AtMost(0.6)),
    bar(Workload::BulkUp8, 0, HaproxySplice, AtLeast(1.0)),
    bar(Workload::BulkDown8, 0, HaproxySplice, AtLeast(1.0)),
    bar(Workload::PingPong1, 0, Haproxy, AtMost(0.87)),
    bar(Workload::PingPong64, 0, BetterHaproxy, AtLeast(1.0)),
    bar(Workload::PingPong64, 1, BetterHaproxy, AtMost(0.92)),
    bar(Workload::Connect, 0, BetterHaproxy, AtLeast(1.0)),
    bar(Workload::Connect, 1, BetterHaproxy, AtMost(0.95)),
    bar(Workload::Idle, 0, Itself, AtMost(0.5)),
    bar(Workload::Idle, 1, Itself, AtMost(2.0)),
    bar(Workload::SmallBesideBulk, 0, BetterHaproxy, AtMost(0.5)),
    bar(Workload::BusyAmongIdle, 0, Itself, AtLeast(0.95)),
    bar(Workload::Pgbench16, 0, BetterHaproxy, AtLeast(1.05)),
    bar(Workload::Rows1m, 0, BetterHaproxy, AtLeast(1.0)),
];

impl Bar {
    /// Returns the measured value; `None` if one of the two was not measured.
    pub fn measured(&self, outcome: &Outcome) -> Option<f64> {
        let ratio = |to| outcome.ratio(Kind::Pgnorth, to, self.figure);
        match self.against {
            Itself => outcome.median(Kind::Pgnorth, self.figure),
            Haproxy => ratio(Kind::Haproxy),
            HaproxySplice => ratio(Kind::HaproxySplice),
            BetterHaproxy => match (ratio(Kind::Haproxy), ratio(Kind::HaproxySplice), self.must) {
                (Some(plain), Some(splice), AtLeast(_)) => Some(plain.min(splice)),
                (Some(plain), Some(splice), AtMost(_)) => Some(plain.max(splice)),
                _ => None,
            },
        }
    }

    pub fn is_met(&self, measured: f64) -> bool {
        match self.must {
            AtMost(most) => measured <= most,
            AtLeast(least) => measured >= least,
        }
    }
}

impl Against {
    /// Returns the text after the number.
    pub fn name(self) -> &'static str {
        match self {
            Haproxy => " × HAProxy",
            HaproxySplice => " × HAProxy, splice",
            BetterHaproxy => " × the better HAProxy",
            Itself => "",
        }
    }
}

const fn bar(workload: Workload, figure: usize, against: Against, must: Must) -> Bar {
    Bar {
        workload,
        figure,
        against,
        must,
    }
}
