//! The watches: leader object, failover object and config object of both kinds, and the pods of the scope.
//!
//! Each watch is kube's (list, watch, 410 and relist); this file adds what a proxy needs beyond it: the lock's watch is checked by a GET when it has been
//! quiet for too long, so that a dead stream is told from a lock that nobody renews. What the objects mean is read in `annotations`.

pub mod annotations;
mod faults;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod};
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::discovery::kubernetes::annotations::{Annotations, Malformed};
use crate::discovery::kubernetes::faults::{Fault, Faults, Problems, is_gone};
use crate::kubernetes::{Access, Connection};
use crate::leader::observation::{Claim, ObjectKind, Observation};

/// How long one request to the API may take before it counts as silent.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long a leader object that does not exist, or is not Patroni's, may be quiet before its watch is checked.
const QUIET_WITHOUT_LOCK: Duration = Duration::from_secs(30);

/// The Kubernetes source.
pub struct Kubernetes {
    access: Arc<Access>,
    scope: String,
    namespace: Option<String>,
    selector: String,
}

/// What every watch needs.
#[derive(Clone)]
struct Feed {
    observations: mpsc::Sender<Observation>,
    /// Bumped when a stream was found dead: all others were opened through the same network, so all start anew.
    restart: watch::Sender<u64>,
}

impl Kubernetes {
    /// A source that asks nothing yet.
    pub fn new(access: Arc<Access>, scope: &str, namespace: Option<&str>, selector: &str) -> Self {
        Self {
            access,
            scope: scope.to_owned(),
            namespace: namespace.map(str::to_owned),
            selector: selector.to_owned(),
        }
    }

    /// Watches until the receiver of observations is gone. Where the pod's credentials are not there yet, it says so and waits for them.
    pub async fn run(self, observations: mpsc::Sender<Observation>) {
        let feed = Feed {
            observations,
            restart: watch::Sender::new(0),
        };
        if let Some(why) = self.access.missing() {
            for kind in ObjectKind::ALL {
                if !feed.say(Claim::ApiSilent(kind, why.clone())).await {
                    return;
                }
            }
        }
        let Connection { client, namespace } = self.access.connection().await;
        let namespace = self.namespace.as_ref().unwrap_or(namespace);
        info!(%namespace, scope = %self.scope, selector = %self.selector, "watching Patroni's objects in Kubernetes");
        let mut watches = JoinSet::new();
        let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
        self.spawn_objects(endpoints, ObjectKind::Endpoints, &self.scope, &feed, &mut watches);
        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let leader = format!("{}-leader", self.scope);
        self.spawn_objects(config_maps, ObjectKind::ConfigMap, &leader, &feed, &mut watches);
        let pods = Api::namespaced(client.clone(), namespace);
        watches.spawn(follow_pods(pods, self.selector.clone(), feed));
        watches.join_next().await;
    }

    fn spawn_objects<K: Object>(
        &self,
        api: Api<K>,
        kind: ObjectKind,
        leader: &str,
        feed: &Feed,
        watches: &mut JoinSet<()>,
    ) {
        watches.spawn(follow_lock(api.clone(), kind, leader.to_owned(), feed.clone()));
        let failover = Named::new(&api, format!("{}-failover", self.scope));
        watches.spawn(follow(api.clone(), failover, feed.clone(), move |annotations| {
            let (news, problem) = annotations.map_or((None, None), |annotations| {
                annotations::announcement(annotations, Instant::now(), SystemTime::now())
            });
            (Claim::Announcement(kind, news), problem)
        }));
        let config = Named::new(&api, format!("{}-config", self.scope));
        watches.spawn(follow(api, config, feed.clone(), move |annotations| {
            let (settings, problem) = annotations.map_or((None, None), annotations::settings);
            (Claim::Settings(kind, settings), problem)
        }));
    }
}

/// Endpoints and ConfigMaps.
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

/// An object by its exact name: three of Patroni's objects carry an annotation `leader`, and only the name tells them apart.
#[derive(Clone, Debug)]
struct Named {
    name: String,
    /// For messages: `endpoints default/pg-failover`.
    title: Arc<str>,
}

impl Named {
    fn new<K: Object>(api: &Api<K>, name: String) -> Self {
        let namespace = api.namespace().unwrap_or_default();
        Self {
            title: format!("{} {namespace}/{name}", K::plural(&())).into(),
            name,
        }
    }
}

impl Feed {
    /// Hands one claim on; `false` once nobody listens.
    async fn say(&self, claim: Claim) -> bool {
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

/// Follows a failover or config object. Its faults are only told: the lock's watch speaks for the API.
async fn follow<K, F>(api: Api<K>, object: Named, feed: Feed, read: F)
where
    K: Object,
    F: Fn(Option<&Annotations>) -> (Claim, Option<Malformed>),
{
    let mut restart = feed.restart.subscribe();
    let mut faults = Faults::new(&object.title);
    let mut problems = Problems::default();
    loop {
        let mut events = Box::pin(watcher::watch_object(api.clone(), &object.name));
        let fault = loop {
            let found = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(found)) => found,
                    Some(Err(error)) if is_gone(&error) => {
                        faults.history_lost().await;
                        break None;
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                },
                _ = restart.changed() => break None,
            };
            faults.are_over();
            let (claim, problem) = read(found.as_ref().map(ResourceExt::annotations));
            problems.tell(&object.title, problem);
            if !feed.say(claim).await {
                return;
            }
        };
        if let Some(error) = fault {
            tokio::time::sleep(faults.happened(&error).pause).await;
        }
    }
}

/// Follows the leader object. It alone tells whether the API answers.
async fn follow_lock<K: Object>(api: Api<K>, kind: ObjectKind, name: String, feed: Feed) {
    let object = Named::new(&api, name);
    let mut restart = feed.restart.subscribe();
    let mut faults = Faults::new(&object.title);
    let mut problems = Problems::default();
    let mut known: Option<Annotations> = None;
    let mut quiet = DEADLINE;
    loop {
        let mut events = Box::pin(watcher::watch_object(api.clone(), &object.name));
        let mut check_at = tokio::time::Instant::now() + quiet;
        let fault = loop {
            let found = tokio::select! {
                biased;
                _ = restart.changed() => break None,
                event = events.next() => match event {
                    Some(Ok(found)) => found,
                    Some(Err(error)) if is_gone(&error) => {
                        faults.history_lost().await;
                        break None;
                    }
                    Some(Err(error)) => break Some(faults.happened(&error)),
                    None => break None,
                },
                () = tokio::time::sleep_until(check_at) => match check(&api, &object.name).await {
                    Ok(found) => found,
                    Err(error) => break Some(faults.happened(&error)),
                },
            };
            let found = found.map(|found| found.annotations().clone());
            let (lock, problem) = found.as_ref().map_or((None, None), annotations::lock);
            problems.tell(&object.title, problem);
            // Patroni renews every loop_wait, well within half of ttl. An overdue renewal is asked for until it comes.
            quiet = match &lock {
                None => QUIET_WITHOUT_LOCK,
                Some(_) if found == known => DEADLINE,
                Some(lock) => lock.ttl / 2,
            };
            let by_check = check_at <= tokio::time::Instant::now();
            check_at = tokio::time::Instant::now() + quiet;
            let missed = by_check && known.is_some() && found != known;
            known = found;
            if !feed.say(Claim::Lock(kind, lock)).await {
                return;
            }
            if faults.are_over() || missed {
                debug!(object = %object.title, "all watches start anew: their streams may be as dead as this one was");
                feed.restart_all();
            }
        };
        if let Some(Fault { pause, why }) = fault {
            quiet = DEADLINE;
            if !feed.say(Claim::ApiSilent(kind, why)).await {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }
}

/// Asks for the object, before a deadline.
async fn check<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>, watcher::Error> {
    let answer = tokio::time::timeout(DEADLINE, api.get_opt(name)).await;
    let answer = answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer within 1 s".into())));
    answer.map_err(watcher::Error::WatchFailed)
}

/// Follows the pods of the scope.
async fn follow_pods(api: Api<Pod>, selector: String, feed: Feed) {
    let title = format!("pods {} with labels {selector}", api.namespace().unwrap_or_default());
    let mut restart = feed.restart.subscribe();
    let mut faults = Faults::new(&title);
    let mut problems = Problems::default();
    loop {
        let config = watcher::Config::default().labels(&selector);
        let mut events = Box::pin(watcher::watcher(api.clone(), config));
        let mut listed = Vec::new();
        let fault = loop {
            let event = tokio::select! {
                event = events.next() => match event {
                    Some(Ok(event)) => event,
                    Some(Err(error)) if is_gone(&error) => {
                        faults.history_lost().await;
                        break None;
                    }
                    Some(Err(error)) => break Some(error),
                    None => break None,
                },
                _ = restart.changed() => break None,
            };
            let claim = match event {
                Event::Init => {
                    listed.clear();
                    continue;
                }
                Event::InitApply(pod) => {
                    listed.push(read_pod(&pod, &mut problems));
                    continue;
                }
                Event::InitDone => {
                    faults.are_over();
                    if listed.is_empty() {
                        warn!(%title, "there are no such pods: no member is known; check --selector and --namespace");
                    }
                    Claim::Pods(std::mem::take(&mut listed))
                }
                Event::Apply(pod) => Claim::Pod(read_pod(&pod, &mut problems)),
                Event::Delete(pod) => {
                    problems.tell(&format!("pod {}", pod.name_any()), None);
                    Claim::PodGone(pod.name_any())
                }
            };
            if !feed.say(claim).await {
                return;
            }
        };
        if let Some(error) = fault {
            tokio::time::sleep(faults.happened(&error).pause).await;
        }
    }
}

fn read_pod(pod: &Pod, problems: &mut Problems) -> crate::leader::observation::Pod {
    let name = pod.name_any();
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let (read, problem) = annotations::pod(&name, pod.annotations(), ip);
    problems.tell(&format!("pod {name}"), problem);
    read
}
