//! Waits for a real condition, before a deadline.

use std::time::{Duration, Instant};

/// Interval at which a condition is checked: short against every wait, and long enough for two cores.
const INTERVAL: Duration = Duration::from_millis(50);

/// Repeats `probe` until it returns a value, and returns that; panics with `what` when `within` has passed.
pub async fn wait_until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < within, "did not happen within {within:?}: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
