//! The claims about routes (pure): while a primary is healthy, each pgnorth sends clients to it, but for the time that it
//! may need after the last fault; and the two never send clients to different servers for longer.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// A span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: Instant,
    pub to: Instant,
}

/// A look at one pgnorth: the server to which it sends clients, if there is one.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub at: Instant,
    pub route: Option<Ipv4Addr>,
}

/// The longest time of one kind within a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Longest {
    pub lasted: Duration,
    pub from: Instant,
}

/// Returns the parts of these spans outside of all the others.
pub fn without(spans: &[Span], others: &[Span]) -> Vec<Span> {
    let mut left = spans.to_vec();
    for other in others {
        let parts = left.iter().flat_map(|span| {
            let before = Span {
                to: span.to.min(other.from),
                ..*span
            };
            let after = Span {
                from: span.from.max(other.to),
                ..*span
            };
            [before, after]
        });
        left = parts.filter(|span| span.from < span.to).collect();
    }
    left
}

/// Returns the longest time in which a pgnorth did not send clients to `server`, while that was the healthy primary. A look
/// counts from the one before it.
pub fn longest_without_route(healthy: Span, server: Ipv4Addr, looks: &[Look]) -> Option<Longest> {
    longest(healthy, looks.iter().map(|look| (look.at, look.route != Some(server))))
}

/// Returns the longest time in which two pgnorths sent clients to different servers.
pub fn longest_disagreement(calm: Span, first: &[Look], second: &[Look]) -> Option<Longest> {
    let at = |looks: &[Look], at: Instant| {
        let before = looks.partition_point(|look| look.at <= at);
        looks[..before].last().and_then(|look| look.route)
    };
    let mut times: Vec<Instant> = first.iter().chain(second).map(|look| look.at).collect();
    times.sort();
    let differ = times.into_iter().map(|time| {
        let routes = (at(first, time), at(second, time));
        (time, matches!(routes, (Some(one), Some(other)) if one != other))
    });
    longest(calm, differ)
}

/// Returns the longest run of bad samples within a span: from the last good one, or the beginning, to the next good one,
/// or the end.
fn longest(within: Span, samples: impl Iterator<Item = (Instant, bool)>) -> Option<Longest> {
    let mut longest: Option<Longest> = None;
    let mut good = within.from;
    let mut is_bad = false;
    let mut note = |from: Instant, to: Instant| {
        let lasted = to.saturating_duration_since(from);
        if longest.is_none_or(|longest| longest.lasted < lasted) {
            longest = Some(Longest { lasted, from });
        }
    };
    for (at, bad) in samples.filter(|(at, _)| *at >= within.from && *at <= within.to) {
        if !bad && is_bad {
            note(good, at);
        }
        if !bad {
            good = at;
        }
        is_bad = bad;
    }
    if is_bad {
        note(good, within.to);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 0, 0, 1));
    const B: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 0, 0, 2));

    struct Clock(Instant);

    impl Clock {
        fn at(&self, millis: u64) -> Instant {
            self.0 + Duration::from_millis(millis)
        }

        fn span(&self, from: u64, to: u64) -> Span {
            Span {
                from: self.at(from),
                to: self.at(to),
            }
        }

        fn looks(&self, looks: &[(u64, Option<Ipv4Addr>)]) -> Vec<Look> {
            let look = |(millis, route): &(u64, _)| Look {
                at: self.at(*millis),
                route: *route,
            };
            looks.iter().map(look).collect()
        }
    }

    fn millis(longest: Option<Longest>) -> Option<u128> {
        longest.map(|longest| longest.lasted.as_millis())
    }

    #[test]
    fn a_route_to_another_server_is_none() {
        let clock = Clock(Instant::now());
        let looks = clock.looks(&[(0, A), (100, None), (200, A), (300, B), (500, B), (900, A)]);
        let without = |from, to| millis(longest_without_route(clock.span(from, to), A.unwrap(), &looks));
        assert_eq!(without(0, 1000), Some(700), "from 200 to 900");
        assert_eq!(without(0, 250), Some(200), "from 0 to 200");
        assert_eq!(without(150, 400), Some(200), "to the end of the span");
        assert_eq!(without(900, 1000), None);
    }

    #[test]
    fn a_pgnorth_that_never_had_a_route_is_without_one_for_the_whole_span() {
        let clock = Clock(Instant::now());
        let looks = clock.looks(&[(0, None), (100, None), (4000, None)]);
        let longest = longest_without_route(clock.span(0, 5000), A.unwrap(), &looks);
        assert_eq!(millis(longest), Some(5000));
    }

    #[test]
    fn they_disagree_while_both_have_routes_to_different_servers() {
        let clock = Clock(Instant::now());
        let first = clock.looks(&[(0, A), (100, A), (200, B), (1200, B)]);
        let second = clock.looks(&[(0, A), (150, None), (250, A), (900, B)]);
        assert_eq!(
            millis(longest_disagreement(clock.span(0, 1200), &first, &second)),
            Some(700)
        );
        assert_eq!(millis(longest_disagreement(clock.span(0, 240), &first, &second)), None);
    }

    #[test]
    fn faults_are_cut_out_of_healthy_spans() {
        let clock = Clock(Instant::now());
        let (span, fault) = (clock.span(0, 1000), clock.span(300, 400));
        assert_eq!(without(&[span], &[fault]), [clock.span(0, 300), clock.span(400, 1000)]);
        assert_eq!(without(&[fault], &[span]), []);
        assert_eq!(without(&[span], &[clock.span(900, 1200)]), [clock.span(0, 900)]);
    }
}
