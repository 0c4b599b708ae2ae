//! Parses Patroni's annotations into values. Pure. Every error names the annotation and the problem; callers add the
//! object. No error quotes a connection string, which may contain a password.
//!
//! Source of the formats: Patroni 4.1, patroni/dcs/kubernetes.py and ha.py.

mod member;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use thiserror::Error;

use crate::leader::MemberName;
use crate::leader::observation::{Announcement, Lock};
use crate::leader::synchronous::SyncState;

pub use member::{dcs_status, tags};
pub use settings::{failsafe_mode, loop_wait, race_backoff, seconds, settings};

/// Patroni's default ttl, used if the annotation cannot be parsed.
const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// Largest ttl, in seconds. A larger number is a mistake.
const MAX_TTL: u64 = 24 * 60 * 60;

/// An object's annotations.
pub type Annotations = BTreeMap<String, String>;

/// An annotation that cannot be parsed.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("annotation `{annotation}` {what}")]
pub struct Malformed {
    annotation: &'static str,
    what: String,
}

impl Malformed {
    /// Returns the problem as the end of a sentence about the key in etcd that holds the same text.
    pub(in crate::discovery) fn of_a_key(self) -> String {
        match self.annotation {
            "scheduled_at" => format!("has a `scheduled_at` that {}", self.what),
            _ => self.what,
        }
    }
}

/// A value, as far as it could be parsed, and the problem if there is one.
pub type Read<T> = (T, Option<Malformed>);

/// Parses the lock on a leader object; `None` if no annotation is Patroni's (for example on a Service's own Endpoints).
pub fn lock(annotations: &Annotations) -> Read<Option<Lock>> {
    let get = |name: &str| annotations.get(name).cloned();
    let holder = get("leader").filter(|holder| !holder.is_empty());
    let renewal = ["acquireTime", "renewTime", "transitions"].map(get);
    if holder.is_none() && renewal.iter().all(Option::is_none) {
        return (None, None);
    }
    let (ttl, malformed) = match get("ttl") {
        None => (DEFAULT_TTL, None),
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=MAX_TTL) => (Duration::from_secs(seconds), None),
            _ => (
                DEFAULT_TTL,
                Some(malformed(
                    "ttl",
                    format!("is not a whole number of seconds from 1 to {MAX_TTL}: {text:?}; assuming 30"),
                )),
            ),
        },
    };
    let lock = Lock {
        holder: holder.map(MemberName::from),
        ttl,
        written: get("renewTime").as_deref().and_then(time),
        renewed: None,
        renewal,
    };
    (Some(lock), malformed)
}

/// Parses the switchover that a failover object announces. `None` if it announces none, or none with a valid time.
pub fn announcement(annotations: &Annotations, now: Instant, wall: SystemTime) -> Read<Option<Announcement>> {
    let get = |name: &str| annotations.get(name).filter(|value| !value.is_empty()).cloned();
    let (leader, candidate) = (get("leader"), get("member"));
    if leader.is_none() && candidate.is_none() {
        return (None, None);
    }
    let scheduled_at = get("scheduled_at");
    let (starts, malformed) = match scheduled_at.clone() {
        None => (None, None),
        Some(text) => match instant_of(&text, now, wall) {
            Some(starts) => (Some(starts), None),
            // Without a time, clients are not held: a late hold is better than one without a reason.
            None => {
                return (
                    None,
                    Some(malformed("scheduled_at", format!("is not an ISO 8601 time: {text:?}"))),
                );
            }
        },
    };
    (
        Some(Announcement {
            leader: leader.map(MemberName::from),
            candidate: candidate.map(MemberName::from),
            scheduled_at,
            starts,
        }),
        malformed,
    )
}

/// Parses the annotations of Patroni's sync object (`<scope>-sync`): the leader and its synchronous standbys.
pub fn synchronous_standbys(annotations: &Annotations) -> SyncState {
    let get = |name: &str| annotations.get(name).map(String::as_str);
    SyncState::new(get("leader"), get("sync_standby"))
}

/// Parses an ISO 8601 time into a local instant: `now` for a time in the past, `None` if the text is not a time.
pub fn instant_of(text: &str, now: Instant, wall: SystemTime) -> Option<Instant> {
    now.checked_add(time(text)?.duration_since(wall).unwrap_or_default())
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

/// Describes a syntax error only by its position: serde's own message quotes the value, which may be a secret.
fn not_json(error: &serde_json::Error) -> String {
    format!(
        "is not the JSON that Patroni writes (line {}, column {})",
        error.line(),
        error.column()
    )
}

fn malformed(annotation: &'static str, what: String) -> Malformed {
    Malformed { annotation, what }
}
