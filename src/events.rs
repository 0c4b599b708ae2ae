//! Kubernetes Events about pgnorth's own pod: `kubectl describe pod` then tells of changes of leader and of fences.
//!
//! They are a courtesy. Whoever tells of something never waits for it: the queue is short, what does not fit is dropped, and what cannot be written is given up.

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
use crate::config::Pod;
use crate::kubernetes::{Access, Connection, why};

/// Events that may wait while the API does not answer.
const WAITING: usize = 32;
/// One request.
const DEADLINE: Duration = Duration::from_secs(2);
/// Between two tries: a fence comes when the API is often out of reach.
const RETRY: Duration = Duration::from_secs(5);
/// Tries for one event, five minutes in all. Later nobody looks for it there.
const TRIES: usize = 60;
/// What the API takes of a note, in bytes.
const LONGEST_NOTE: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Sessions go to another leader than before.
    LeaderChanged,
    /// Every session was ended, because the lock may have expired.
    Fenced,
}

/// What is to be written, and when it happened.
#[derive(Debug)]
struct Event {
    what: Happening,
    note: String,
    at: SystemTime,
}

/// Where happenings are told. The default is nowhere.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<mpsc::Sender<Event>>);

/// Writes what was told.
#[derive(Debug)]
pub struct Writer {
    pod: Pod,
    told: mpsc::Receiver<Event>,
    is_forbidden: bool,
}

impl Events {
    /// About this pod, and who writes them.
    pub fn of(pod: Pod) -> (Self, Writer) {
        let (tell, told) = mpsc::channel(WAITING);
        let writer = Writer {
            pod,
            told,
            is_forbidden: false,
        };
        (Self(Some(tell)), writer)
    }

    /// Tells of something, in words for people. Never waits.
    pub fn tell(&self, what: Happening, note: String) {
        let Some(queue) = &self.0 else { return };
        let at = SystemTime::now();
        if let Err(error) = queue.try_send(Event { what, note, at }) {
            debug!(%error, "a Kubernetes Event is dropped");
        }
    }
}

impl Writer {
    /// Until nobody is left to tell.
    pub async fn run(mut self, access: Arc<Access>) {
        let connection = access.connection().await.clone();
        while let Some(event) = self.told.recv().await {
            self.write(&connection, &event).await;
        }
    }

    async fn write(&mut self, connection: &Connection, event: &Event) {
        let events: Api<Object> = Api::namespaced(connection.client.clone(), &connection.namespace);
        let object = object(&self.pod, &connection.namespace, event);
        for _ in 0..TRIES {
            match timeout(DEADLINE, events.create(&PostParams::default(), &object)).await {
                // 409: it was written, and the answer was lost.
                Ok(Ok(_)) => return self.is_forbidden = false,
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => return,
                Ok(Err(error @ kube::Error::Api(_))) if is_final(&error) => return self.refused(&error),
                Ok(Err(error)) => debug!("a Kubernetes Event cannot be written yet: {}", why(&error)),
                Err(_) => debug!("a Kubernetes Event cannot be written yet: no answer within 2 s"),
            }
            tokio::time::sleep(jittered(RETRY)).await;
        }
        debug!("a Kubernetes Event is given up");
    }

    /// That it is forbidden is most likely meant so: it is told once. The next event is tried all the same.
    fn refused(&mut self, error: &kube::Error) {
        if std::mem::replace(&mut self.is_forbidden, true) {
            debug!("no Kubernetes Events still: {}", why(error));
            return;
        }
        info!(
            "no Kubernetes Events tell of changes of leader; where they are wanted, the service account needs create on events of events.k8s.io: {}",
            why(error)
        );
    }
}

/// The API understood, and will say the same again.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 408 | 429))
}

impl Happening {
    const fn reason(self) -> &'static str {
        match self {
            Self::LeaderChanged => "LeaderChanged",
            Self::Fenced => "Fenced",
        }
    }

    const fn action(self) -> &'static str {
        match self {
            Self::LeaderChanged => "Route",
            Self::Fenced => "Fence",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::LeaderChanged => "Normal",
            Self::Fenced => "Warning",
        }
    }
}

/// As events.k8s.io/v1 wants it, which is there since Kubernetes 1.19.
fn object(pod: &Pod, namespace: &str, event: &Event) -> Object {
    let at = Timestamp::try_from(event.at).unwrap_or_default();
    Object {
        metadata: ObjectMeta {
            // As everybody names them, so that two are told apart.
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
        reason: Some(event.what.reason().to_owned()),
        action: Some(event.what.action().to_owned()),
        type_: Some(event.what.kind().to_owned()),
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
    async fn whoever_tells_never_waits() {
        let pod = Pod {
            name: "pgnorth-0".into(),
            uid: None,
        };
        let (events, mut writer) = Events::of(pod);
        for number in 0..2 * WAITING {
            events.tell(Happening::Fenced, number.to_string());
        }
        assert_eq!(writer.told.recv().await.unwrap().note, "0");
        assert_eq!(writer.told.len(), WAITING - 1, "those that came too many are dropped");
        Events::default().tell(Happening::Fenced, String::new());
    }
}
