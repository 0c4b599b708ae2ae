//! Tests of the pool: its limit, the return of pipes, and the closing of idle ones.

use std::time::Instant;

use super::state::MAX_LARGE;
use super::*;
use crate::log_limiter::capture::Log;

#[test]
fn an_empty_pipe_returns_and_a_filled_one_is_closed() {
    let pipes = Pipes::default();
    let first = pipes.take().unwrap();
    let capacity = first.capacity();
    drop(first);
    {
        let state = lock(&pipes.state);
        assert_eq!(state.idle_large.len() + state.idle_small.len(), 1);
    }
    let mut again = pipes.take().unwrap();
    assert_eq!(again.capacity(), capacity);
    again.filled = 1;
    drop(again);
    let state = lock(&pipes.state);
    assert_eq!((state.large, state.small), (0, 0));
    assert!(state.idle_large.is_empty() && state.idle_small.is_empty());
}

#[test]
fn the_pool_is_bounded_and_recovers() {
    let pipes = Pipes::default();
    let lent: Vec<_> = std::iter::from_fn(|| pipes.take()).take(2 * MAX_PIPES).collect();
    assert!(!lent.is_empty() && lent.len() <= MAX_PIPES, "{}", lent.len());
    assert!(lent.iter().filter(|pipe| pipe.ends.is_large()).count() <= MAX_LARGE);
    assert!(pipes.take().is_none());
    drop(lent);
    assert!(pipes.take().is_some());
}

#[test]
fn idle_pipes_are_given_back() {
    let pipes = Pipes::default();
    let (kept, idle) = (pipes.take().unwrap(), pipes.take().unwrap());
    drop(idle);
    let now = Instant::now();
    assert!(pipes.close_idle_at(now), "there are two");
    assert_eq!(pipes.count(), 2);
    assert!(pipes.close_idle_at(now + IDLE), "one is lent");
    assert_eq!(pipes.count(), 1);
    drop(kept);
    assert!(!pipes.close_idle_at(now + 2 * IDLE), "there is none");
    assert_eq!(pipes.count(), 0);
}

#[test]
fn small_pipes_count_as_large_ones_do() {
    let pipes = Pipes::made_by(|_| make(false));
    assert!(!pipes.close_idle(), "there is none");
    let lent = pipes.take().unwrap();
    assert!(pipes.close_idle(), "one is lent");
    drop(lent);
    assert!(pipes.close_idle(), "one is idle, but not for long");
}

#[test]
fn a_refusal_of_splice_is_logged_once() {
    let log = Log::default();
    let _guard = log.install();
    let pipes = Pipes::default();
    for refused in 1..=2 {
        pipes.on_splice_refused(&io::ErrorKind::PermissionDenied.into());
        assert!(pipes.take().is_none());
        assert_eq!(log.lines().len(), usize::from(refused == 1), "refusal {refused}");
    }
}

#[test]
fn a_process_uses_at_most_a_third_of_its_users_limit() {
    let pipes = Pipes::default();
    let lent: Vec<_> = std::iter::from_fn(|| pipes.take()).take(MAX_PIPES).collect();
    let pages: usize = lent.iter().map(|pipe| pipe.capacity() / 4096).sum();
    assert!(pages <= 16_384 / 3, "{pages}");
}
