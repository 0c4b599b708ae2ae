//! The watches of Patroni's objects and of the scope's pods. The objects are the leader, failover and config objects
//! and, if a route needs it, the sync object, each as Endpoints and as ConfigMap.
//!
//! Each watch is kube's (list, watch, list again after 410). The watch of the lock has more checks than the others
//! (`lock`). `annotations` parses the objects.

pub mod annotations;
pub mod checks;
mod faults;
mod lock;

use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::backoff::random;
use crate::discovery::kubernetes::annotations::{Annotations, Malformed};
use crate::discovery::kubernetes::checks::OTHER_RETRY;
use crate::discovery::kubernetes::faults::{Faults, Problems, StreamEnd, is_gone};
use crate::discovery::kubernetes::lock::follow_lock;
use crate::kubernetes::{Access, Connection, WATCH_SECONDS};
use crate::leader::observation::{Claim, DcsStatus, ObjectKind, Observation};
use crate::log_limiter::LogLimiter;

/// Verbs for reading and watching one object by its name.
const OBJECT_RIGHTS: &str = "get, list and watch";
/// Patroni's label on the pods of a Citus cluster (postgresql/mpp/citus.py).
const CITUS_GROUP: &str = "citus-group";
/// Deadline of a GET of the leader object. After that, the API counts as unreachable. Also the time for which a new
/// watch may be silent before the first GET.
const DEADLINE: Duration = Duration::from_secs(1);

/// The Kubernetes source.
pub struct Kubernetes {
    access: Arc<Access>,
    scope: String,
    namespace: Option<String>,
    selector: String,
    /// True if a route depends on which members are synchronous standbys.
    standbys: bool,
    log_limiter: LogLimiter,
}

/// The channel for all watches' claims, and the state that the watches share.
#[derive(Clone)]
struct ClaimSink {
    observations: mpsc::Sender<Observation>,
    /// Counter, incremented when a stream may be dead, or when the API has recovered. All streams use the same network,
    /// so all watches are then restarted.
    restart: watch::Sender<u64>,
    /// Kind of the leader object that changed last; `None` until one has changed.
    in_use: watch::Sender<Option<ObjectKind>>,
}

impl Kubernetes {
    /// Returns a source that has not sent any request yet.
    pub fn new(
        access: Arc<Access>,
        scope: &str,
        namespace: Option<&str>,
        selector: &str,
        log_limiter: LogLimiter,
    ) -> Self {
        Self {
            access,
            scope: scope.to_owned(),
            namespace: namespace.map(str::to_owned),
            selector: selector.to_owned(),
            standbys: false,
            log_limiter,
        }
    }

    /// Returns this source. If `standbys` is true, the source also watches the object of the synchronous standbys.
    pub fn with_standbys(self, standbys: bool) -> Self {
        Self { standbys, ..self }
    }

    /// Watches until the receiver of observations is dropped. If the pod has no credentials yet, reports that and waits
    /// for them.
    pub async fn run(self, observations: mpsc::Sender<Observation>) {
        let sink = ClaimSink {
            observations,
            restart: watch::Sender::new(0),
            in_use: watch::Sender::default(),
        };
        for kind in ObjectKind::IN_KUBERNETES {
            if !sink.send(Claim::Watching(kind)).await {
                return;
            }
        }
        let mut connection = std::pin::pin!(self.access.connection());
        let mut missing = self.access.missing();
        let Connection { client, namespace } = loop {
            let why = missing.borrow_and_update().clone();
            if let Some(why) = why {
                for kind in ObjectKind::IN_KUBERNETES {
                    if !sink.send(Claim::ApiUnreachable(kind, why.clone())).await {
                        return;
                    }
                }
            }
            // The sender lives as long as `access`, so `changed` does not fail.
            tokio::select! {
                connection = &mut connection => break connection,
                Ok(()) = missing.changed() => {}
            }
        };
        let namespace = self.namespace.as_ref().unwrap_or(namespace);
        info!(%namespace, scope = %self.scope, selector = %self.selector, "watching Patroni's objects in Kubernetes");
        let mut watches = JoinSet::new();
        let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
        self.spawn_objects(&endpoints, ObjectKind::Endpoints, &self.scope, &sink, &mut watches);
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let leader = format!("{}-leader", self.scope);
        self.spawn_objects(&config_maps, ObjectKind::ConfigMap, &leader, &sink, &mut watches);
        self.spawn_pods(
            Api::namespaced(client.clone(), namespace),
            namespace,
            sink,
            &mut watches,
        );
        watches.join_next().await;
    }

    fn spawn_objects<K: Object>(
        &self,
        api: &Api<K>,
        kind: ObjectKind,
        leader: &str,
        sink: &ClaimSink,
        watches: &mut JoinSet<()>,
    ) {
        let leader = ObjectName::new(api, leader.to_owned());
        watches.spawn(follow_lock(api.clone(), kind, leader, sink.clone()));
        let mut spawn =
            |name: String, lost, read: fn(ObjectKind, Option<&Annotations>) -> (Claim, Option<Malformed>)| {
                let (api, ObjectName { name, title }) = (api.clone(), ObjectName::new(api, name));
                let open = move || watch_object(api.clone(), &name);
                let object = title.clone();
                let read = move |found: Option<K>, problems: &mut Problems| {
                    let (claim, problem) = read(kind, found.as_ref().map(ResourceExt::annotations));
                    problems.log(&object, problem);
                    Some(claim)
                };
                watches.spawn(follow(title, OBJECT_RIGHTS, sink.clone(), open, read, lost));
            };
        spawn(format!("{}-failover", self.scope), None, |kind, annotations| {
            let (announcement, problem) = annotations.map_or((None, None), |annotations| {
                annotations::announcement(annotations, Instant::now(), SystemTime::now())
            });
            (Claim::Announcement(kind, announcement), problem)
        });
        spawn(format!("{}-config", self.scope), None, |kind, annotations| {
            let (settings, problem) = annotations.map_or((None, None), annotations::settings);
            (Claim::Settings(kind, settings), problem)
        });
        if self.standbys {
            let lost = Some(Claim::Synchronous(kind, None));
            spawn(format!("{}-sync", self.scope), lost, |kind, annotations| {
                let standbys = annotations.map(annotations::synchronous_standbys).unwrap_or_default();
                (Claim::Synchronous(kind, Some(standbys)), None)
            });
        }
    }

    fn spawn_pods(&self, api: Api<Pod>, namespace: &str, sink: ClaimSink, watches: &mut JoinSet<()>) {
        let selector = self.selector.clone();
        let title = format!("pods in namespace {namespace} with labels {}", self.selector);
        let open = move || watcher::watcher(api.clone(), watching().labels(&selector));
        watches.spawn(follow(
            title.clone(),
            "list and watch",
            sink,
            open,
            read_pods(title, self.log_limiter.clone()),
            None,
        ));
    }
}

/// A kind of object that can hold Patroni's annotations: Endpoints or ConfigMap.
trait Object:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static
{
}

/// The exact name of an object. Three of Patroni's objects have an annotation `leader`; only their names differ.
#[derive(Clone, Debug)]
struct ObjectName {
    name: String,
    /// Kind, namespace and name for messages: `endpoints default/pg-failover`.
    title: String,
}

impl ObjectName {
    fn new<K: Object>(api: &Api<K>, name: String) -> Self {
        let namespace = api.namespace().unwrap_or_default();
        Self {
            title: format!("{} {namespace}/{name}", K::plural(&())),
            name,
        }
    }
}

impl ClaimSink {
    /// Sends one claim. Returns false if the receiver was dropped.
    async fn send(&self, claim: Claim) -> bool {
        let observation = Observation {
            at: Instant::now(),
            claim,
        };
        self.observations.send(observation).await.is_ok()
    }

    fn restart_all(&self) {
        self.restart.send_modify(|generation| *generation += 1);
    }
}

/// Returns a configuration that makes the API server end each watch after some time; kube then continues it with a new
/// request. A quiet stream can thus be distinguished from a dead one. Bookmarks are not enough: for a quiet kind of
/// object the server sends none until the kind's version passes that of the watch.
fn watching() -> watcher::Config {
    let range = WATCH_SECONDS.end() - WATCH_SECONDS.start();
    // Rounded down, so that the sum does not exceed the end of the range.
    let more = (f64::from(range) * random()) as u32;
    watcher::Config::default().timeout(WATCH_SECONDS.start() + more)
}

/// Watches one object by its name; `None` while there is no such object. kube's own `watch_object` accepts no
/// configuration.
fn watch_object<K: Object>(
    api: Api<K>,
    name: &str,
) -> impl Stream<Item = Result<Option<K>, watcher::Error>> + Send + use<K> {
    let config = watching().fields(&format!("metadata.name={name}"));
    let mut listed = false;
    watcher::watcher(api, config).filter_map(move |event| {
        let found = match event {
            Ok(Event::Init) => {
                listed = false;
                None
            }
            Ok(Event::InitApply(object)) => {
                listed = true;
                Some(Ok(Some(object)))
            }
            Ok(Event::InitDone) => (!listed).then_some(Ok(None)),
            Ok(Event::Apply(object)) => Some(Ok(Some(object))),
            Ok(Event::Delete(_)) => Some(Ok(None)),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(found)
    })
}

/// Follows a watch other than the lock's. Its faults are not reported as an outage of the API: only the lock's watch
/// reports whether the API answers.
///
/// `rights` are the verbs that the watch needs, for the message if one is forbidden. `lost` is the claim that is sent
/// if the watch fails.
async fn follow<E, S>(
    title: String,
    rights: &'static str,
    sink: ClaimSink,
    open: impl Fn() -> S,
    mut read: impl FnMut(E, &mut Problems) -> Option<Claim>,
    lost: Option<Claim>,
) where
    S: Stream<Item = Result<E, watcher::Error>>,
{
    let mut restart = sink.restart.subscribe();
    let mut faults = Faults::new(&title, rights, OTHER_RETRY);
    let mut problems = Problems::default();
    loop {
        let mut events = pin!(open());
        let ended = loop {
            let event = tokio::select! {
                biased;
                event = next(&mut events, &mut restart) => match event {
                    Ok(event) => event,
                    Err(ended) => break ended,
                },
                () = faults.recovered() => continue,
            };
            let Some(claim) = read(event, &mut problems) else {
                continue;
            };
            faults.answered();
            if !sink.send(claim).await {
                return;
            }
        };
        if let (StreamEnd::Failed(_), Some(lost)) = (&ended, &lost)
            && !sink.send(lost.clone()).await
        {
            return;
        }
        faults.pause_after(ended, &mut restart).await;
    }
}

/// Returns the next event of a stream, or the reason for its end. Cancel-safe.
async fn next<E, S>(events: &mut S, restart: &mut watch::Receiver<u64>) -> Result<E, StreamEnd>
where
    S: Stream<Item = Result<E, watcher::Error>> + Unpin,
{
    tokio::select! {
        biased;
        _ = restart.changed() => Err(StreamEnd::Restarted),
        event = events.next() => match event {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) if is_gone(&error) => Err(StreamEnd::HistoryLost),
            Some(Err(error)) => Err(StreamEnd::Failed(error)),
            None => Err(StreamEnd::Restarted),
        },
    }
}

/// Returns a reader of the events of a watch on pods: a list first, then changes.
fn read_pods(title: String, log_limiter: LogLimiter) -> impl FnMut(Event<Pod>, &mut Problems) -> Option<Claim> {
    let mut listed = Vec::new();
    move |event, problems| match event {
        Event::Init => {
            listed.clear();
            None
        }
        Event::InitApply(pod) => {
            listed.push(read_pod(&pod, problems));
            None
        }
        Event::InitDone => {
            // Without the right to watch, the pods are listed again after each pause.
            if listed.is_empty() && log_limiter.should_log(&format!("{title}: none exist")) {
                warn!(%title, "no pod matches the selector: check --selector and --namespace");
            }
            Some(Claim::DcsStatuses(std::mem::take(&mut listed)))
        }
        Event::Apply(pod) => Some(Claim::DcsStatus(read_pod(&pod, problems))),
        Event::Delete(pod) => {
            problems.log(&format!("pod {}", pod.name_any()), None);
            Some(Claim::DcsStatusGone(pod.name_any().into()))
        }
    }
}

fn read_pod(pod: &Pod, problems: &mut Problems) -> DcsStatus {
    let name = pod.name_any();
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let (mut read, problem) = annotations::dcs_status(&name, pod.annotations(), ip);
    read.citus_group = pod.labels().get(CITUS_GROUP).and_then(|group| group.parse().ok());
    problems.log(&format!("pod {name}"), problem);
    read
}
