//! The last ten minutes, with one sample per second, for the charts of the status page.

use std::collections::VecDeque;
use std::time::Instant;

use super::status::Series;
use crate::metrics::{Metrics, SessionState};

/// Number of samples: ten minutes, one per second.
const KEPT: usize = 600;

/// The samples.
#[derive(Debug)]
pub(super) struct History {
    samples: VecDeque<Sample>,
    last: CounterValues,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    to_leader: u64,
    to_client: u64,
    sessions: u64,
    held: u64,
}

/// The counters at one point in time.
#[derive(Clone, Copy, Debug)]
struct CounterValues {
    at: Instant,
    to_leader: u64,
    to_client: u64,
}

impl History {
    /// Starts with no samples.
    pub(super) fn new(metrics: &Metrics, now: Instant) -> Self {
        Self {
            samples: VecDeque::with_capacity(KEPT),
            last: CounterValues::read(metrics, now),
        }
    }

    /// Adds a sample. Must be called about once a second; the rates are averages since the last sample.
    pub(super) fn sample(&mut self, metrics: &Metrics, now: Instant) {
        let counted = CounterValues::read(metrics, now);
        let seconds = now.saturating_duration_since(self.last.at).as_secs_f64().max(0.001);
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds).round() as u64;
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            to_leader: rate(counted.to_leader, self.last.to_leader),
            to_client: rate(counted.to_client, self.last.to_client),
            sessions: ALL.iter().map(|state| open(metrics, *state)).sum(),
            held: open(metrics, SessionState::Held),
        });
        self.last = counted;
    }

    /// Returns all samples, the oldest first.
    pub(super) fn series(&self) -> Series {
        let column = |value: fn(&Sample) -> u64| self.samples.iter().map(value).collect();
        Series {
            to_leader: column(|sample| sample.to_leader),
            to_client: column(|sample| sample.to_client),
            sessions: column(|sample| sample.sessions),
            held: column(|sample| sample.held),
        }
    }
}

const ALL: [SessionState; 3] = [SessionState::Held, SessionState::Dialling, SessionState::Forwarding];

/// Returns the number of sessions in one state. The gauge may be below zero for an instant, between two updates on
/// other threads.
pub(super) fn open(metrics: &Metrics, state: SessionState) -> u64 {
    metrics.sessions(state).get().try_into().unwrap_or(0)
}

impl CounterValues {
    fn read(metrics: &Metrics, at: Instant) -> Self {
        Self {
            at,
            to_leader: metrics.bytes_to_leader.get(),
            to_client: metrics.bytes_to_client.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_by_the_time_that_has_passed_and_the_oldest_go() {
        let metrics = Metrics::new();
        metrics.bytes_to_leader.inc_by(1_000_000);
        let begin = Instant::now();
        let mut history = History::new(&metrics, begin);
        metrics.bytes_to_leader.inc_by(3_000);
        metrics.bytes_to_client.inc_by(500);
        metrics.sessions(SessionState::Held).set(2);
        metrics.sessions(SessionState::Forwarding).set(5);
        history.sample(&metrics, begin + Duration::from_secs(2));
        let series = history.series();
        assert_eq!(
            (&series.to_leader[..], &series.to_client[..]),
            (&[1_500][..], &[250][..])
        );
        assert_eq!((&series.sessions[..], &series.held[..]), (&[7][..], &[2][..]));
        for second in 0..KEPT as u64 {
            history.sample(&metrics, begin + Duration::from_secs(3 + second));
        }
        assert_eq!(history.series().to_leader, [0; KEPT]);
    }
}
