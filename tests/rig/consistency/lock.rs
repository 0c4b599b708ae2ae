//! The lock in Kubernetes, which no server ends: a leader that does not renew it for a ttl has lost it, even if its Patroni
//! calls it the primary. In etcd the key ends then, so Patroni notices.

use std::time::{Duration, Instant};

use super::cluster::Cluster;
use crate::support::Dcs;
use crate::support::http::{Http, Request};
use crate::support::kubernetes::{NAMESPACE, User};
use crate::support::rig::SCOPE;

/// The rig's ttl.
const TTL: Duration = Duration::from_secs(20);

/// The question for the leader object.
pub struct Question {
    http: Http,
    url: String,
}

/// The lock, as it was last seen.
#[derive(Default)]
pub struct Lock {
    /// Its last renewal, and the time at which this was first seen.
    renewal: Option<(String, Instant)>,
    is_known: bool,
}

impl Question {
    /// Returns the question; `None` with etcd.
    pub fn of(cluster: &Cluster) -> Option<Self> {
        let rig = &cluster.rig;
        (rig.dcs() != Dcs::Etcd).then(|| Self {
            http: rig.http().clone(),
            url: rig
                .kubernetes()
                .url(&format!("/api/v1/namespaces/{NAMESPACE}/endpoints/{SCOPE}")),
        })
    }

    /// Returns the last renewal; `None` if the API does not answer.
    pub async fn ask(&self, within: Duration) -> Option<String> {
        let request = Request {
            token: Some(User::Admin.name()),
            within,
            ..Request::get(&self.url)
        };
        let leader = self.http.ask(&request).await.ok()?.json();
        Some(leader["metadata"]["annotations"]["renewTime"].as_str()?.to_owned())
    }
}

impl Lock {
    /// Records an answer.
    pub fn note(&mut self, renewal: Option<String>, at: Instant) {
        self.is_known = renewal.is_some();
        if let Some(renewal) = renewal
            && self.renewal.as_ref().is_none_or(|(last, _)| *last != renewal)
        {
            self.renewal = Some((renewal, at));
        }
    }

    /// Returns true if it is known that the lock was not renewed for a ttl.
    pub fn has_expired(&self, now: Instant) -> bool {
        let renewed = self.renewal.as_ref().filter(|_| self.is_known);
        renewed.is_some_and(|(_, at)| now.saturating_duration_since(*at) > TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_not_renewed_expires_and_a_silent_api_does_not_end_it() {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut lock = Lock::default();
        assert!(!lock.has_expired(at(30)), "nothing is known");
        lock.note(Some("first".to_owned()), at(0));
        lock.note(Some("first".to_owned()), at(15));
        assert!(!lock.has_expired(at(20)));
        assert!(lock.has_expired(at(21)));
        lock.note(None, at(22));
        assert!(!lock.has_expired(at(23)), "the API does not answer");
        lock.note(Some("second".to_owned()), at(24));
        assert!(!lock.has_expired(at(44)));
    }
}
