//! Logs and counts the rounds of a publisher, each problem once.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::destination::Destination;
use super::errors::PublishError;
use super::objects::Desired;
use super::{Publisher, RETRY, State};
use crate::metrics::PublishResult;
use crate::slot::RouteSnapshot;

/// Message about a failed round of the publisher that writes.
const UPDATE_FAILED: &str = "cannot update the Service, which may point to a former primary";
/// Message about a failed check of the Service by a publisher that stands by.
const STANDBY_FAILED: &str = "cannot check the Service, which another publisher writes";

impl Publisher {
    /// Logs and counts a round without errors.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site, and each is a field of the log line"
    )]
    pub(super) fn log_written(
        &self,
        destination: &Destination,
        snapshot: &RouteSnapshot,
        desired: &Desired,
        before: &[String],
        changed: bool,
        should_log: bool,
        state: &mut State,
    ) {
        let service = destination.title();
        self.log_solved(destination, state, "the Service is up to date again");
        if !changed {
            if should_log {
                self.metrics.count_publish(PublishResult::Unchanged);
                debug!(%service, endpoints = ?before, "the Service is already up to date");
            }
            return;
        }
        let took = snapshot.at.elapsed();
        self.metrics.count_publish(PublishResult::Written);
        if !should_log {
            match &desired.leader {
                Some(primary) if primary.addresses.iter().all(|ip| before.contains(&ip.to_string())) => {}
                _ => {
                    warn!(
                        %service, endpoints_before = ?before, endpoints = ?destination.endpoints(),
                        "corrected the Service's endpoints: another client had changed them, or the leader's name now \
                         resolves to other addresses"
                    )
                }
            }
            return;
        }
        self.metrics.publish_seconds.record(took);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let reason = &snapshot.reason;
        match &desired.leader {
            Some(primary) => {
                info!(%service, leader = %primary.member, endpoints = ?destination.endpoints(), took_ms, %reason, "the Service points to the primary")
            }
            None => {
                info!(%service, endpoints_before = ?before, took_ms, %reason, "the Service has no endpoints: new connections are refused")
            }
        }
    }

    /// Records that the Service has no problem, and logs `message` if it had one.
    pub(super) fn log_solved(&self, destination: &Destination, state: &mut State, message: &'static str) {
        let service = destination.title();
        if state.problems.solved(&service) {
            info!(%service, "{message}");
        }
        (state.failures, state.backoff) = (0, None);
    }

    /// Handles a failed round, and returns the pause. `writes` is true if this publisher writes the Service, false if
    /// it stands by. A conflict is not a fault: the next round reads the objects again.
    pub(super) fn on_error(
        &self,
        writes: bool,
        destination: &mut Destination,
        state: &mut State,
        error: &PublishError,
    ) -> Duration {
        let service = destination.title();
        let pause = state.backoff.get_or_insert(RETRY).pause();
        state.failures += 1;
        destination.seen = None;
        if let PublishError::Conflict(_) = error {
            self.metrics.count_publish(PublishResult::Conflict);
            debug!(%service, "{error}; reading it again");
            return pause;
        }
        self.metrics.count_publish(PublishResult::Failed);
        self.metrics.set_publish_behind(writes);
        let what = if writes { UPDATE_FAILED } else { STANDBY_FAILED };
        let why = error.to_string();
        let leader = self.slot.snapshot().state().open_to().map(ToString::to_string);
        // An API that fails does so in several ways in turn, at one object after the other.
        let cause = error.cause();
        if state.problems.is_new(&service, &cause) && self.log_limiter.should_log(&format!("{what}: {cause}")) {
            let leader = leader.as_deref().unwrap_or("none");
            warn!(%service, %leader, "{what}: {why}");
        } else {
            debug!(%service, failures = state.failures, "still {what}: {why}");
        }
        pause
    }

    /// Logs and counts an object that is left to another publisher.
    pub(super) fn on_dispute(&self, destination: &Destination, state: &mut State, why: &str) {
        self.metrics.count_publish(PublishResult::Yielded);
        let service = destination.title();
        if state.problems.is_new(&service, why) {
            warn!(%service, "left another publisher's endpoints unchanged for now: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Settings;
    use super::super::questions::Questions;
    use super::*;
    use crate::log_limiter::LogLimiter;
    use crate::log_limiter::capture::Log;
    use crate::metrics::Metrics;
    use crate::readiness::ReadinessHandle;
    use crate::slot::RouteSlot;

    #[tokio::test(start_paused = true)]
    async fn an_api_that_fails_in_several_ways_in_turn_does_not_flood_the_log() {
        let publisher = Publisher {
            slot: Arc::new(RouteSlot::new("not decided")),
            readiness: ReadinessHandle::starting("nothing"),
            metrics: Arc::new(Metrics::default()),
            log_limiter: LogLimiter::default(),
            settings: Settings {
                namespace: None,
                service: "db".into(),
                scope: None,
                endpoints: false,
                lease: None,
                identity: "one".into(),
            },
        };
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let mut destination = Destination {
            client: kube::Client::try_from(nowhere).unwrap(),
            namespace: "default".into(),
            service: "db".into(),
            scope: None,
            endpoints: false,
            identity: "one".into(),
            alone: false,
            questions: Questions::default(),
            seen: None,
        };
        let (mut state, log) = (State::default(), Log::default());
        let _logs_here = log.install();
        for _ in 0..100 {
            for object in ["service default/db", "endpoints default/db"] {
                for cause in ["no answer within 1 s", "connection refused"] {
                    publisher.on_error(true, &mut destination, &mut state, &PublishError::failed(object, cause));
                }
            }
        }
        assert_eq!(log.lines().len(), 2);
        publisher.log_solved(&destination, &mut state, "the Service is up to date again");
        assert_eq!(log.lines().len(), 1);
    }
}
