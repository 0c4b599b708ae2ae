//! The figures of one run: requests per second, and the time until the new leader is found.

use std::time::Duration;

/// Most requests per second to one member that are allowed for longer than [`TOLERATED`].
pub const BOUND: u64 = 200;
pub const TOLERATED: Duration = Duration::from_secs(5);

/// Requests to one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Requests per second, over the whole scenario.
    pub mean: f64,
    /// Requests per second in the worst five seconds.
    pub worst: f64,
    /// Longest time with more than [`BOUND`] requests in each second.
    pub above: Duration,
}

/// The figures of one run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub members: Vec<Load>,
    pub api: Load,
    /// Time from the moment at which the new leader is writable until a pgnorth routes to it; one for each that does.
    pub added: Vec<Duration>,
}

impl Load {
    /// Counts the requests that arrived from `from` to `to`.
    pub fn of(requests: &[Duration], from: Duration, to: Duration) -> Self {
        let mut seconds = vec![0_u64; (to - from).as_secs() as usize + 1];
        let counted = requests.iter().filter(|at| (from..to).contains(*at));
        counted.for_each(|at| seconds[(*at - from).as_secs() as usize] += 1);
        let sum: u64 = seconds.iter().sum();
        let window = TOLERATED.as_secs() as usize;
        let worst = seconds
            .windows(window)
            .map(|window| window.iter().sum())
            .max()
            .unwrap_or(sum);
        let runs = seconds.split(|requests| *requests <= BOUND);
        Self {
            mean: sum as f64 / (to - from).as_secs_f64(),
            worst: worst as f64 / window as f64,
            above: Duration::from_secs(runs.map(|run| run.len() as u64).max().unwrap_or(0)),
        }
    }
}

impl Figures {
    /// Returns the mean and the longest of the added times.
    pub fn added(&self) -> Option<(Duration, Duration)> {
        let longest = self.added.iter().max()?;
        Some((self.added.iter().sum::<Duration>() / self.added.len() as u32, *longest))
    }
}
