//! Kubernetes Events about pgnorth's own pod, so that `kubectl describe pod` shows changes of leader and fences.
//!
//! Nothing depends on these Events, and nothing waits for them. An Event is dropped if the short queue is full, if the
//! API rejects the Event, or if the Event cannot be written within about five minutes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as Object;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::backoff::jittered;
use crate::config::OwnPod;
use crate::kubernetes::{Access, Connection, error_message};

/// Capacity of the queue of Events, which fills while the API does not answer.
const CAPACITY: usize = 32;
/// Deadline of one request.
const DEADLINE: Duration = Duration::from_secs(2);
/// Pause between two attempts: during a fence the API is often unreachable.
const RETRY: Duration = Duration::from_secs(5);
/// Attempts to write one Event, over some five minutes in all. An older Event is useless.
const ATTEMPTS: usize = 60;
/// The API's limit for a note, in bytes.
const LONGEST_NOTE: usize = 1024;

/// The kinds of Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The leader has changed. New clients go to the new leader, unless an operator holds them.
    LeaderChanged,
    /// pgnorth ended the sessions to the primary, because another member may be primary.
    Fenced,
    /// No member is fit for a route other than the primary's.
    NoMemberFit,
}

/// An Event to write.
#[derive(Debug)]
struct Event {
    kind: EventKind,
    note: String,
    at: SystemTime,
}

/// The sending end of the queue of Events. The default discards them.
#[derive(Clone, Debug, Default)]
pub struct EventSender(Option<mpsc::Sender<Event>>);

/// Writer of the queued Events.
#[derive(Debug)]
pub struct Writer {
    pod: OwnPod,
    queue: mpsc::Receiver<Event>,
    is_forbidden: bool,
}

impl EventSender {
    /// Returns the sending end of a queue of Events about this pod, and the writer of these Events.
    pub fn of(pod: OwnPod) -> (Self, Writer) {
        let (sender, queue) = mpsc::channel(CAPACITY);
        let writer = Writer {
            pod,
            queue,
            is_forbidden: false,
        };
        (Self(Some(sender)), writer)
    }

    /// Queues an Event with a human-readable note. Never waits.
    pub fn send(&self, kind: EventKind, note: String) {
        let Some(queue) = &self.0 else { return };
        let at = SystemTime::now();
        if let Err(error) = queue.try_send(Event { kind, note, at }) {
            debug!(%error, "cannot queue a Kubernetes Event; it is dropped");
        }
    }
}

impl Writer {
    /// Writes Events until every sending end is dropped.
    pub async fn run(mut self, access: Arc<Access>) {
        let connection = access.connection().await.clone();
        while let Some(event) = self.queue.recv().await {
            self.write(&connection, &event).await;
        }
    }

    async fn write(&mut self, connection: &Connection, event: &Event) {
        let events: Api<Object> = Api::namespaced(connection.client.clone(), &connection.namespace);
        let object = object(&self.pod, &connection.namespace, event);
        for _ in 0..ATTEMPTS {
            match timeout(DEADLINE, events.create(&PostParams::default(), &object)).await {
                // 409: an earlier attempt wrote the Event, and its answer was lost.
                Ok(Ok(_)) => return self.is_forbidden = false,
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
                Ok(Err(error @ kube::Error::Api(_))) if is_final(&error) => return self.log_rejected(&error),
                Ok(Err(error)) => debug!(
                    "cannot write a Kubernetes Event yet; retrying: {}",
                    error_message(&error)
                ),
                Err(_) => debug!("cannot write a Kubernetes Event yet; retrying: no answer within 2 s"),
            }
            tokio::time::sleep(jittered(RETRY)).await;
        }
        debug!("dropped a Kubernetes Event: {ATTEMPTS} attempts to write it have failed");
    }

    /// Logs a rejection at info only once, because a missing right is probably intended. Later Events are still
    /// attempted.
    fn log_rejected(&mut self, error: &kube::Error) {
        if std::mem::replace(&mut self.is_forbidden, true) {
            debug!("the API still rejects Kubernetes Events: {}", error_message(error));
            return;
        }
        info!(
            "the API rejects pgnorth's Kubernetes Events: {}; if the right is missing, grant the service account create \
             on events in events.k8s.io",
            error_message(error)
        );
    }
}

/// Returns true if the API would reject the same request again.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 408 | 429))
}

impl EventKind {
    /// Every kind of Event.
    pub const ALL: [Self; 3] = [Self::LeaderChanged, Self::Fenced, Self::NoMemberFit];

    /// Returns the Event's reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::LeaderChanged => "LeaderChanged",
            Self::Fenced => "Fenced",
            Self::NoMemberFit => "NoMemberFit",
        }
    }

    /// Returns the Event's action.
    pub const fn action(self) -> &'static str {
        match self {
            Self::LeaderChanged => "Route",
            Self::Fenced => "Fence",
            Self::NoMemberFit => "Hold",
        }
    }

    /// Returns the Event's type.
    pub const fn type_(self) -> &'static str {
        match self {
            Self::LeaderChanged => "Normal",
            Self::Fenced | Self::NoMemberFit => "Warning",
        }
    }

    /// Returns the meaning, for the reference documentation.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::LeaderChanged => {
                "the leader has changed; new clients go to the new leader, unless an operator holds them"
            }
            Self::Fenced => "sessions to the primary were ended, because another member may be primary",
            Self::NoMemberFit => {
                "no member is fit for a route other than the primary's: the route's new clients are held"
            }
        }
    }
}

/// Returns the Event as an object of events.k8s.io/v1, which Kubernetes has since 1.19.
fn object(pod: &OwnPod, namespace: &str, event: &Event) -> Object {
    let at = Timestamp::try_from(event.at).unwrap_or_default();
    Object {
        metadata: ObjectMeta {
            // The usual form of the names of Events, which makes each name unique.
            name: Some(format!("{}.{:x}", pod.name, at.as_nanosecond())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(at)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pod.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: pod.uid.clone(),
            ..ObjectReference::default()
        }),
        reason: Some(event.kind.reason().to_owned()),
        action: Some(event.kind.action().to_owned()),
        type_: Some(event.kind.type_().to_owned()),
        note: Some(shortened(&event.note)),
        reporting_controller: Some("pgnorth".to_owned()),
        reporting_instance: Some(pod.name.clone()),
        ..Object::default()
    }
}

fn shortened(note: &str) -> String {
    if note.len() <= LONGEST_NOTE {
        return note.to_owned();
    }
    let end = note.floor_char_boundary(LONGEST_NOTE - "…".len());
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_fits_whatever_the_reason() {
        assert_eq!(shortened("a leads"), "a leads");
        for text in ["x".repeat(2000), "ä".repeat(2000), "€".repeat(400)] {
            let note = shortened(&text);
            assert!(note.len() <= LONGEST_NOTE && note.len() > LONGEST_NOTE - 8 && note.ends_with('…'));
        }
    }

    #[tokio::test]
    async fn sending_never_waits() {
        let pod = OwnPod {
            name: "pgnorth-0".into(),
            uid: None,
        };
        let (events, mut writer) = EventSender::of(pod);
        for number in 0..2 * CAPACITY {
            events.send(EventKind::Fenced, number.to_string());
        }
        assert_eq!(writer.queue.recv().await.unwrap().note, "0");
        assert_eq!(writer.queue.len(), CAPACITY - 1, "those that do not fit are dropped");
        EventSender::default().send(EventKind::Fenced, String::new());
    }
}
