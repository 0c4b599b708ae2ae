//! Which of several publishers writes: the one that holds a Lease.
//!
//! A holder is gone when its Lease has not changed for its duration, by our own clock: remote clocks are never compared with ours. It is a matter of economy,
//! not of safety: who writes without it is still held to the version that it has read.

use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::ResourceExt;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::destination::{PublishError, read};

/// How long a Lease stands without a renewal.
const DURATION: Duration = Duration::from_secs(15);
/// From one renewal, or one look, to the next.
const EVERY: Duration = Duration::from_secs(3);
/// Who could not renew for so long does not write: another may hold it soon.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One publisher's part in it.
pub(super) struct Lease {
    pub(super) api: Api<LeaseObject>,
    pub(super) name: String,
    /// Of this process, unlike any other's.
    pub(super) identity: String,
}

/// What is known of the Lease.
#[derive(Default)]
struct LeaseState {
    /// Its version, and since when it stands.
    seen: Option<(Option<String>, Instant)>,
    renewed: Option<Instant>,
    failing: bool,
    /// The holder that the log named last.
    logged: Option<String>,
}

impl Lease {
    /// Tells `holds` whether this publisher writes, until `stop`; then lets go of the Lease, so that another need not wait.
    pub(super) async fn run(self, holds: watch::Sender<bool>, stop: CancellationToken) {
        let mut known = LeaseState::default();
        loop {
            let begun = Instant::now();
            match self.step(&mut known).await {
                Ok(holder) => self.tell(&holds, &mut known, &holder),
                Err(PublishError::Conflict(_)) => debug!(lease = %self.name, "another publisher was faster"),
                Err(error) if known.failing => debug!(lease = %self.name, "still: {error}"),
                Err(error) => {
                    known.failing = true;
                    warn!("cannot hold the lease: {error}");
                }
            }
            if known.renewed.is_some_and(|renewed| renewed.elapsed() > GIVE_UP) && *holds.borrow() {
                warn!(lease = %self.name, "the lease could not be renewed for {} s: this publisher stops writing", GIVE_UP.as_secs());
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

    fn tell(&self, holds: &watch::Sender<bool>, known: &mut LeaseState, holder: &str) {
        known.failing = false;
        let ours = holder == self.identity;
        holds.send_if_modified(|holds| std::mem::replace(holds, ours) != ours);
        // The Lease changes with each renewal by its holder; the log names a holder once.
        if known.logged.as_deref() == Some(holder) {
            return;
        }
        known.logged = Some(holder.to_owned());
        match ours {
            true => info!(lease = %self.name, "this publisher holds the lease, and writes"),
            false => info!(lease = %self.name, %holder, "standing by: another publisher holds the lease"),
        }
    }

    /// Renews the Lease, takes it over where its holder is gone, or looks who holds it; returns who does.
    async fn step(&self, known: &mut LeaseState) -> Result<String, PublishError> {
        let title = format!("leases {}/{}", self.api.namespace().unwrap_or_default(), self.name);
        let found = read(&title, self.api.get_opt(&self.name)).await?;
        let parameters = PostParams::default();
        let Some(mut found) = found else {
            let lease = LeaseObject {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.claim(None)),
            };
            read(&title, self.api.create(&parameters, &lease)).await?;
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
        found.spec = Some(self.claim(Some(spec)));
        found.metadata.managed_fields = None;
        read(&title, self.api.replace(&self.name, &parameters, &found)).await?;
        known.renewed = Some(Instant::now());
        Ok(self.identity.clone())
    }

    fn claim(&self, before: Option<LeaseSpec>) -> LeaseSpec {
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
            let Some(mut found) = read("the lease", self.api.get_opt(&self.name)).await? else {
                return Ok(());
            };
            let spec = found.spec.get_or_insert_default();
            if spec.holder_identity.as_ref() != Some(&self.identity) {
                return Ok(());
            }
            spec.holder_identity = Some(String::new());
            found.metadata.managed_fields = None;
            read(
                "the lease",
                self.api.replace(&self.name, &PostParams::default(), &found),
            )
            .await?;
            Ok::<_, PublishError>(())
        };
        match released.await {
            Ok(()) => info!(lease = %self.name, "let go of the lease"),
            Err(error) => {
                warn!(lease = %self.name, "the lease could not be released, and stands for {} s more: {error}", DURATION.as_secs())
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
            // The holder has just renewed, as it does before each look.
            known.seen = Some((Some(version.to_string()), Instant::now()));
            lease.tell(&holds, &mut known, holder);
            log.lines().len()
        };
        assert_eq!((1..=20).map(|version| holder_is("two", version)).sum::<usize>(), 1);
        assert_eq!((21..=40).map(|version| holder_is("three", version)).sum::<usize>(), 1);
        assert_eq!((41..=60).map(|version| holder_is("one", version)).sum::<usize>(), 1);
    }
}
