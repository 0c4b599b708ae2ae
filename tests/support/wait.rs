//! Waiting for a real condition, before a deadline.

use std::time::{Duration, Instant};

/// How often a condition is looked at. Short against everything that is waited for, and gentle with two cores.
const INTERVAL: Duration = Duration::from_millis(50);

/// Looks until `probe` answers with a value, and returns it; panics with `what` when `within` has passed.
pub async fn wait_until<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(start.elapsed() < within, "waited {within:?} in vain: {what}");
        tokio::time::sleep(INTERVAL).await;
    }
}
