//! The lag of a replica's replay behind the leader, in bytes of WAL.
//!
//! The two positions are read at different times. Because a replica only advances, the difference between the leader's
//! newest position and the replica's last known position is an upper bound of its present lag. Its lag when its own
//! position was read is the difference from the leader's position at that time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::leader::MemberName;
use crate::leader::view::View;

/// Shortest time between two positions that are kept, except for the newest. The leader is asked up to 40 times a
/// second, and a replica every 2 s.
const SPACING: Duration = Duration::from_millis(500);
/// Maximum number of the leader's positions that are kept. They reach back at least 32 s, which is far enough for the
/// position of any replica.
const KEPT: usize = 65;

/// The leader's positions in the WAL, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct LeaderPositions {
    leader: Option<MemberName>,
    samples: VecDeque<(Instant, u64)>,
}

/// A replica's lag, in bytes of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayLag {
    /// Lag when the replica's position was read.
    pub then: u64,
    /// Upper bound of the present lag, if the leader has not written since `leader_at`.
    pub at_most: u64,
    /// Time at which the replica's position was read.
    pub at: Instant,
    /// Time at which the leader's newest position was read.
    pub leader_at: Instant,
}

impl LeaderPositions {
    /// Records the position of the leader, and drops those of a former leader.
    pub(super) fn record(&mut self, leader: &MemberName, location: u64, at: Instant) {
        if self.leader.as_ref() != Some(leader) {
            self.leader = Some(leader.clone());
            self.samples.clear();
        }
        // A status in the DCS may arrive later than a newer position in a REST answer.
        if self.samples.back().is_some_and(|(_, last)| location < *last) {
            return;
        }
        let mut newest_first = self.samples.iter().rev().map(|(known, _)| *known);
        if let (Some(last), Some(before)) = (newest_first.next(), newest_first.next())
            && last.saturating_duration_since(before) < SPACING
        {
            self.samples.pop_back();
        }
        if self.samples.len() == KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back((at, location));
    }

    /// Returns the position at that time: interpolated between two known positions, else the nearest one.
    fn at(&self, at: Instant) -> Option<u64> {
        let later = self.samples.iter().position(|(known, _)| at <= *known);
        let (_, last) = *self.samples.back()?;
        let Some(later) = later else { return Some(last) };
        let (to, upper) = self.samples[later];
        let Some((from, lower)) = later.checked_sub(1).map(|earlier| self.samples[earlier]) else {
            return Some(upper);
        };
        let part = |time: Duration| time.as_micros().max(1);
        let (passed, whole) = (
            part(at.saturating_duration_since(from)),
            part(to.saturating_duration_since(from)),
        );
        let grown = u128::from(upper - lower) * passed / whole;
        Some(lower + u64::try_from(grown).unwrap_or(u64::MAX).min(upper - lower))
    }
}

impl View {
    /// Returns the lag of a replica's replay; `None` if it is unknown. If the replica's or the leader's position is
    /// unknown, this is `replay_lag` in `/cluster`.
    pub fn replay_lag(&self, member: &MemberName) -> Option<ReplayLag> {
        self.own_replay_lag(member).or_else(|| {
            let (row, at) = self.condition(member)?;
            let lag = row.replay_lag?;
            Some(ReplayLag {
                then: lag,
                at_most: lag,
                at,
                leader_at: at,
            })
        })
    }

    fn own_replay_lag(&self, member: &MemberName) -> Option<ReplayLag> {
        let report = self.answers(member).and_then(|answers| answers.last.as_ref());
        let reported = report.and_then(|last| Some((last.at, last.value.replication.replayed?)));
        let status = self.dcs_status(member);
        let written =
            status.and_then(|status| Some((status.written.unwrap_or(status.at), status.value.replication.replayed?)));
        let (at, replayed) = reported.into_iter().chain(written).max()?;
        let (leader_at, newest) = *self.leader_positions.samples.back()?;
        Some(ReplayLag {
            then: self.leader_positions.at(at)?.saturating_sub(replayed),
            at_most: newest.saturating_sub(replayed),
            at,
            leader_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leaders_position_is_interpolated_between_two_answers() {
        let begin = Instant::now();
        let second = |seconds| begin + Duration::from_secs(seconds);
        let mut positions = LeaderPositions::default();
        assert_eq!(positions.at(begin), None);
        positions.record(&"l".into(), 1000, second(2));
        positions.record(&"l".into(), 3000, second(4));
        positions.record(&"l".into(), 2900, second(5));
        let at: Vec<_> = [1, 2, 3, 4, 9]
            .map(|seconds| positions.at(second(seconds)).unwrap())
            .into();
        assert_eq!(at, [1000, 1000, 2000, 3000, 3000]);
        positions.record(&"m".into(), 500, second(6));
        assert_eq!(
            positions.at(second(3)),
            Some(500),
            "a new leader starts with no positions"
        );
    }

    #[test]
    fn a_leader_that_is_asked_often_hides_no_position_of_the_last_half_minute() {
        const SECONDS: u64 = 60;
        for milliseconds in [25, 100, 300, 1000, 2000] {
            let begin = Instant::now();
            let mut positions = LeaderPositions::default();
            // The leader writes a byte in each microsecond.
            for asked in 0..=SECONDS * 1000 / milliseconds {
                let passed = Duration::from_millis(asked * milliseconds);
                positions.record(&"l".into(), passed.as_micros() as u64, begin + passed);
                let newest = positions.samples.back().copied();
                assert_eq!(newest, Some((begin + passed, passed.as_micros() as u64)));
            }
            for age in 0..=30 {
                let second = SECONDS - age;
                let known = positions.at(begin + Duration::from_secs(second)).unwrap();
                assert_eq!(known, second * 1_000_000, "{age} s ago, asked every {milliseconds} ms");
            }
            assert!(positions.samples.len() <= KEPT);
        }
    }
}
