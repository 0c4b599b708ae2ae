//! Elects, of several publishers, the one that writes: the holder of a Lease.
//!
//! A holder counts as gone if its Lease has not changed for the Lease's duration by the local clock; remote clocks are
//! never compared. The election saves writes and is not needed for safety: the API rejects every write against an
//! outdated version.

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::errors::{PublishError, request};

/// Time for which a Lease is valid without a renewal.
const DURATION: Duration = Duration::from_secs(15);
/// Interval between renewals, or between reads.
const EVERY: Duration = Duration::from_secs(3);
/// Time without a renewal after which the holder stops writing: another publisher may soon hold the Lease.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A candidate in the election.
pub(super) struct Lease {
    pub(super) api: Api<LeaseObject>,
    pub(super) name: String,
    /// A unique name of this process.
    pub(super) identity: String,
}

/// The state of the Lease, as this publisher knows it.
#[derive(Default)]
struct LeaseState {
    /// The Lease's version, and the time at which it was first seen.
    seen: Option<(Option<String>, Instant)>,
    renewed: Option<Instant>,
    failing: bool,
    /// The holder that was logged last.
    logged: Option<String>,
}

impl Lease {
    /// Keeps `holds` true while this publisher holds the Lease, until `stop` is cancelled. Then releases the Lease, so
    /// that another publisher need not wait.
    pub(super) async fn run(self, holds: watch::Sender<bool>, stop: CancellationToken) {
        let mut known = LeaseState::default();
        loop {
            let begun = Instant::now();
            match self.step(&mut known).await {
                Ok(holder) => self.on_holder(&holds, &mut known, &holder),
                Err(PublishError::Conflict(_)) => {
                    debug!(lease = %self.name, "another publisher changed the lease first")
                }
                Err(error) if known.failing => {
                    debug!(lease = %self.name, "still cannot read or renew the lease: {error}")
                }
                Err(error) => {
                    known.failing = true;
                    warn!(lease = %self.name, "cannot read or renew the lease: {error}");
                }
            }
            if known.renewed.is_some_and(|renewed| renewed.elapsed() > GIVE_UP) && *holds.borrow() {
                warn!(lease = %self.name, "could not renew the lease for {} s: this publisher stops writing", GIVE_UP.as_secs());
                holds.send_replace(false);
                known.logged = None;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until((begun + EVERY).into()) => {}
            }
        }
        if *holds.borrow() {
            self.release().await;
        }
    }

    fn on_holder(&self, holds: &watch::Sender<bool>, known: &mut LeaseState, holder: &str) {
        known.failing = false;
        let ours = holder == self.identity;
        holds.send_if_modified(|holds| std::mem::replace(holds, ours) != ours);
        // Each renewal changes the Lease; the log names a holder once.
        if known.logged.as_deref() == Some(holder) {
            return;
        }
        known.logged = Some(holder.to_owned());
        match ours {
            true => info!(lease = %self.name, "this publisher holds the lease and writes the Service"),
            false => info!(lease = %self.name, %holder, "standing by: another publisher holds the lease"),
        }
    }

    /// Creates or renews the Lease, or takes it over if its holder is gone. Returns the holder.
    async fn step(&self, known: &mut LeaseState) -> Result<String, PublishError> {
        let title = format!("leases {}/{}", self.api.namespace().unwrap_or_default(), self.name);
        let found = request(&title, self.api.get_opt(&self.name)).await?;
        let parameters = PostParams::default();
        let Some(mut found) = found else {
            let lease = LeaseObject {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.spec(None)),
            };
            request(&title, self.api.create(&parameters, &lease)).await?;
            known.renewed = Some(Instant::now());
            return Ok(self.identity.clone());
        };
        let version = found.resource_version();
        let since = match &known.seen {
            Some((seen, since)) if *seen == version => *since,
            _ => Instant::now(),
        };
        known.seen = Some((version, since));
        let spec = found.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().unwrap_or_default();
        let seconds = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(DURATION, Duration::from_secs);
        if !holder.is_empty() && holder != self.identity && since.elapsed() < duration {
            return Ok(holder);
        }
        found.spec = Some(self.spec(Some(spec)));
        found.metadata.managed_fields = None;
        request(&title, self.api.replace(&self.name, &parameters, &found)).await?;
        known.renewed = Some(Instant::now());
        Ok(self.identity.clone())
    }

    fn spec(&self, before: Option<LeaseSpec>) -> LeaseSpec {
        let before = before.unwrap_or_default();
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        let now = jiff::Timestamp::try_from(SystemTime::now()).ok().map(MicroTime);
        LeaseSpec {
            acquire_time: if ours { before.acquire_time } else { now.clone() },
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!ours)),
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            renew_time: now,
            ..before
        }
    }

    async fn release(&self) {
        let released = async {
            let Some(mut found) = request("the lease", self.api.get_opt(&self.name)).await? else {
                return Ok(());
            };
            let spec = found.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            found.metadata.managed_fields = None;
            request(
                "the lease",
                self.api.replace(&self.name, &PostParams::default(), &found),
            )
            .await?;
            Ok::<_, PublishError>(())
        };
        match released.await {
            Ok(()) => info!(lease = %self.name, "this publisher no longer holds the lease"),
            Err(error) => {
                warn!(lease = %self.name, "could not release the lease; it stays valid for up to {} s: {error}", DURATION.as_secs())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_limiter::capture::Log;

    #[tokio::test]
    async fn a_standby_publisher_logs_the_holder_once_and_not_at_each_look() {
        let nowhere = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let lease = Lease {
            api: Api::namespaced(kube::Client::try_from(nowhere).unwrap(), "default"),
            name: "pgnorth".into(),
            identity: "one".into(),
        };
        let (holds, _) = watch::channel(false);
        let mut known = LeaseState::default();
        let log = Log::default();
        let _logs_here = log.install();
        let mut holder_is = |holder: &str, version: u32| {
            // The holder has just renewed, as it does before each read.
            known.seen = Some((Some(version.to_string()), Instant::now()));
            lease.on_holder(&holds, &mut known, holder);
            log.lines().len()
        };
        assert_eq!((1..=20).map(|version| holder_is("two", version)).sum::<usize>(), 1);
        assert_eq!((21..=40).map(|version| holder_is("three", version)).sum::<usize>(), 1);
        assert_eq!((41..=60).map(|version| holder_is("one", version)).sum::<usize>(), 1);
    }
}
