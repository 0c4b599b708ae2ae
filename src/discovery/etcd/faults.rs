//! Pauses and log lines for failures of all endpoints, and the pause before the keys are listed again.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::EndpointFailures;
use crate::backoff::{Backoff, jittered};
use crate::discovery::outage::{Outage, RECOVERED_AFTER};

/// Pauses between attempts after all endpoints have failed.
const RETRY: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// Pause between attempts if only an operator can change the answers. In each attempt, etcd may have to hash a
/// password.
const REFUSED_RETRY: Duration = Duration::from_secs(10);
/// Pause before the keys are listed again soon after the last time. It is short, because no change is seen meanwhile.
const LIST_AGAIN: Duration = Duration::from_millis(250);

/// Repeated faults. The first fault is logged, and the recovery with the number of faults.
pub(super) struct Faults {
    outage: Outage,
    backoff: Backoff,
    /// Time at which the keys were last listed again without a fault.
    listed_again: Option<Instant>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            outage: Outage::default(),
            backoff: RETRY,
            listed_again: None,
        }
    }
}

impl Faults {
    /// Records and logs the errors of all endpoints, and returns the pause before the next attempt.
    pub(super) fn record(&mut self, failures: &EndpointFailures) -> Duration {
        match self.outage.count() {
            1 => warn!("cannot read or watch Patroni's keys at any etcd endpoint; retrying: {failures}"),
            count => debug!(
                count,
                "still cannot read or watch Patroni's keys at any etcd endpoint: {failures}"
            ),
        }
        match failures.0.iter().all(|(_, error)| error.needs_an_operator()) {
            true => jittered(REFUSED_RETRY),
            false => self.backoff.pause(),
        }
    }

    /// Returns the pause before the keys are listed again: zero the first time, and about [`LIST_AGAIN`] if that recurs
    /// soon.
    pub(super) fn pause_before_listing(&mut self) -> Duration {
        let again = self.listed_again.is_some_and(|at| at.elapsed() < 2 * RECOVERED_AFTER);
        self.listed_again = Some(Instant::now());
        match again {
            true => jittered(LIST_AGAIN),
            false => Duration::ZERO,
        }
    }

    /// Records an answer.
    pub(super) fn answered(&mut self) {
        self.outage.answered();
    }

    /// Waits for the recovery, and logs it. Waits forever if there was no fault. Cancel-safe.
    pub(super) async fn recovered(&mut self) {
        let faults = self.outage.recovered().await;
        self.backoff.reset();
        info!(faults, "etcd serves Patroni's keys again");
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::discovery::etcd::gateway::GatewayError;
    use crate::discovery::etcd::messages::Refused;
    use crate::leader::BaseUrl;
    use crate::log_limiter::capture::Log;

    fn failures(errors: &[Refused]) -> EndpointFailures {
        let url = BaseUrl::parse("http://10.0.0.1:2379").unwrap();
        let errors = errors
            .iter()
            .map(|error| (url.clone(), GatewayError::from(error.clone())));
        EndpointFailures(errors.collect())
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_one_warning_and_its_end_one_line() {
        let log = Log::default();
        let _logs_here = log.install();
        let mut faults = Faults::default();
        for _ in 0..100 {
            sleep(faults.record(&failures(&[Refused::Other("no leader".into())]))).await;
        }
        faults.answered();
        faults.recovered().await;
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("http://10.0.0.1:2379: no leader"), "{lines:#?}");
    }

    #[test]
    fn a_wrong_password_at_every_endpoint_is_tried_seldom() {
        let mut faults = Faults::default();
        let pause = faults.record(&failures(&[Refused::Password, Refused::Password]));
        assert!(Duration::from_secs(7) < pause, "{pause:?}");
        let pause = faults.record(&failures(&[Refused::Password, Refused::Other("no leader".into())]));
        assert!(pause < Duration::from_secs(5), "{pause:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn listing_again_waits_only_if_it_was_done_a_moment_ago() {
        let mut faults = Faults::default();
        assert_eq!(faults.pause_before_listing(), Duration::ZERO);
        for _ in 0..100 {
            let pause = faults.pause_before_listing();
            assert!(!pause.is_zero() && pause < Duration::from_millis(500), "{pause:?}");
        }
        sleep(Duration::from_secs(60)).await;
        assert_eq!(faults.pause_before_listing(), Duration::ZERO);
    }
}
