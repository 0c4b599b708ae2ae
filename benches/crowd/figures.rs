//! What a run costs: requests a second, and how late the new leader is found.

use std::time::Duration;

/// More than this for longer than [`TOLERATED`] costs a member too much.
pub const BOUND: u64 = 200;
pub const TOLERATED: Duration = Duration::from_secs(5);

/// Requests to one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Requests a second, over all of the run after its first sign.
    pub mean: f64,
    /// Requests a second in the worst five seconds.
    pub worst: f64,
    /// The longest time with more than [`BOUND`] in each second.
    pub above: Duration,
}

/// The outcome of one run.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub members: Vec<Load>,
    pub api: Load,
    /// From the moment at which the new leader accepted writes until it was routed to, by each pgnorth that did.
    pub added: Vec<Duration>,
}

impl Load {
    /// Of requests that came in from `from` to `to`.
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
    /// The mean and the longest of the added times.
    pub fn added(&self) -> Option<(Duration, Duration)> {
        let longest = self.added.iter().max()?;
        Some((self.added.iter().sum::<Duration>() / self.added.len() as u32, *longest))
    }
}
