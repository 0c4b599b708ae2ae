//! The choice of a client's member: of those with the lowest rank, the member with the fewest sessions in proportion to
//! its share, which is smaller during its ramp-up. In a tie, the members take turns. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// Ramp-up time of a member that becomes fit while others are in use. Its caches are cold, and without a ramp-up it
/// would get all clients that open many short sessions.
const GROWTH: Duration = Duration::from_secs(30);
/// Smallest share of a member during its ramp-up.
const LEAST_SHARE: f64 = 1.0 / 30.0;
/// Time after a route has opened in which members need no ramp-up, because they are found one after the other.
pub(super) const SETTLING: Duration = Duration::from_secs(5);

/// A member that a client may get.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Number of its sessions, including clients for which pgnorth is dialling it.
    pub(super) sessions: usize,
    /// Preference: the lowest rank is chosen.
    pub(super) rank: u8,
    /// Start of its ramp-up, if it has one.
    pub(super) grows_from: Option<Instant>,
}

impl Candidate {
    /// Returns the number of its sessions plus one, divided by its share.
    fn load(&self, now: Instant) -> f64 {
        let share = match self.grows_from.map(|from| now.saturating_duration_since(from)) {
            Some(age) if age < GROWTH => (age.as_secs_f64() / GROWTH.as_secs_f64()).max(LEAST_SHARE),
            _ => 1.0,
        };
        #[expect(clippy::cast_precision_loss, reason = "sessions are far fewer than 2^52")]
        let sessions = self.sessions as f64 + 1.0;
        sessions / share
    }
}

/// Returns the index of the chosen member among `count`; `candidate` returns `None` for a member that cannot be chosen.
/// The search begins at a different index each `turn`, which decides between equals.
pub(super) fn choose(
    count: usize,
    turn: usize,
    now: Instant,
    candidate: impl Fn(usize) -> Option<Candidate>,
) -> Option<usize> {
    let mut best: Option<(usize, u8, f64)> = None;
    for step in 0..count {
        let place = turn.wrapping_add(step) % count;
        let Some(found) = candidate(place) else { continue };
        let load = found.load(now);
        if best.is_none_or(|(_, rank, least)| (found.rank, load) < (rank, least)) {
            best = Some((place, found.rank, load));
        }
    }
    best.map(|(place, ..)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EQUAL: Candidate = Candidate {
        sessions: 0,
        rank: 0,
        grows_from: None,
    };

    /// Opens sessions that stay, and returns how many each member has got.
    fn open(members: &mut [Candidate], sessions: usize, now: Instant) -> Vec<usize> {
        for turn in 0..sessions {
            let chosen = choose(members.len(), turn, now, |place| Some(members[place])).unwrap();
            members[chosen].sessions += 1;
        }
        members.iter().map(|member| member.sessions).collect()
    }

    #[test]
    fn the_member_with_the_fewest_sessions_gets_the_client() {
        let few = Candidate { sessions: 3, ..EQUAL };
        let many = Candidate { sessions: 9, ..EQUAL };
        assert_eq!(open(&mut [many, few, many], 6, Instant::now()), [9, 9, 9]);
    }

    #[test]
    fn equals_take_turns_even_if_no_session_stays() {
        let chosen: Vec<_> = (0..6)
            .map(|turn| choose(3, turn, Instant::now(), |_| Some(EQUAL)).unwrap())
            .collect();
        assert_eq!(chosen, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn a_higher_rank_gets_clients_only_if_no_lower_one_is_left() {
        let busy = Candidate { sessions: 90, ..EQUAL };
        let spare = Candidate { rank: 1, ..EQUAL };
        let members = [spare, busy];
        let now = Instant::now();
        assert_eq!(choose(2, 0, now, |place| Some(members[place])), Some(1));
        assert_eq!(choose(2, 0, now, |place| (place == 0).then_some(spare)), Some(0));
        assert_eq!(choose(2, 0, now, |_| None), None);
    }

    #[test]
    fn a_member_that_has_just_become_fit_is_not_the_emptiest_one() {
        let now = Instant::now();
        let few = Candidate { sessions: 10, ..EQUAL };
        let fresh = Candidate {
            grows_from: Some(now),
            ..EQUAL
        };
        let members = [fresh, few];
        assert_eq!(choose(2, 0, now, |place| Some(members[place])), Some(1));
    }

    #[test]
    fn a_member_that_has_become_fit_gets_its_share_over_thirty_seconds() {
        let begin = Instant::now();
        let busy = Candidate { sessions: 100, ..EQUAL };
        let fresh = Candidate {
            grows_from: Some(begin),
            ..EQUAL
        };
        let mut members = [busy, busy, fresh];
        let mut shares = Vec::new();
        for second in [0, 6, 15, 24, 30, 60] {
            let now = begin + Duration::from_secs(second);
            shares.push(open(&mut members, 60, now)[2]);
        }
        assert!(shares.is_sorted() && shares[0] < 6 && shares[1] < 35, "{shares:?}");
        assert!(
            (70..85).contains(&shares[2]),
            "half of an equal share after half of the time: {shares:?}"
        );
        let [a, b, c] = members.map(|member| member.sessions);
        assert!(
            a.abs_diff(c) <= 1 && b.abs_diff(c) <= 1,
            "equal in the end: {members:?}"
        );
    }
}
