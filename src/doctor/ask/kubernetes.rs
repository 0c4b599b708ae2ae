//! Reads from the Kubernetes API by list and watch, as discovery does. It writes nothing.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime};

use futures_util::StreamExt;
use jiff::fmt::rfc2822;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Service as ServiceObject};
use kube::api::{Api as Objects, ApiResource, DynamicObject, ListParams};
use kube::client::Body;
use kube::core::Request;
use kube::runtime::watcher;
use kube::{Client, ResourceExt};

use super::ListedMember;
use super::publisher::{self, connect, is_granted};
use crate::config::{self, Doctor};
use crate::discovery::kubernetes::annotations::{self, Annotations};
use crate::doctor::facts::{Answer, Api, ApiFailure, Config, LeaderObject, Renewal, Right, Service};
use crate::doctor::judge::rights;
use crate::kubernetes::error_message;
use crate::leader::observation::{Lock, ObjectKind};
use crate::publish::{PATRONIS, PATRONIS_ANNOTATIONS};
use crate::root_cause::root_cause;

/// Deadline of one request: a laptop may be far from the API.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Patroni's default loop_wait, used if the configuration cannot be read.
const LOOP_WAIT: Duration = Duration::from_secs(10);
/// Time beyond loop_wait that a renewal may take.
const LATE: Duration = Duration::from_secs(3);
/// The longest wait for a renewal.
const LONGEST: Duration = Duration::from_secs(60);

/// A connection to an API server that has answered.
pub(super) struct ApiConnection<'a> {
    client: Client,
    namespace: String,
    version: Answer<String>,
    kubernetes: &'a config::Kubernetes,
    settings: &'a Doctor,
}

impl<'a> ApiConnection<'a> {
    /// Finds the credentials and makes one request with them.
    pub(super) async fn reach(kubernetes: &'a config::Kubernetes, settings: &'a Doctor) -> Result<Self, ApiFailure> {
        let (client, namespace, version) = connect(kubernetes.namespace.as_deref()).await?;
        Ok(Self {
            client,
            namespace,
            version,
            kubernetes,
            settings,
        })
    }

    /// Collects all facts except the renewal, and the members that the pods list.
    pub(super) async fn collect(&self) -> (Api, Vec<ListedMember>) {
        let (rights, endpoints, config_map, config, pods, services, published, ahead) = tokio::join!(
            self.rights(),
            self.leader(ObjectKind::Endpoints),
            self.leader(ObjectKind::ConfigMap),
            self.config(),
            self.pods(),
            self.services(),
            publisher::published(&self.client, &self.namespace, self.settings),
            self.ahead(),
        );
        let (names, known) = match pods {
            Ok(known) => (Ok(known.iter().map(|known| known.name.to_string()).collect()), known),
            Err(why) => (Err(why), Vec::new()),
        };
        let mut api = Api {
            namespace: self.namespace.clone(),
            scope: self.kubernetes.objects(),
            selector: self.kubernetes.selector.clone(),
            version: self.version.clone(),
            rights,
            leaders: vec![(ObjectKind::Endpoints, endpoints), (ObjectKind::ConfigMap, config_map)],
            scopes: Vec::new(),
            config,
            renewal: Err("there is no lock to watch".to_owned()),
            pods: names,
            holder_labels: None,
            services,
            published,
            ahead,
        };
        if api.lock().is_none() {
            api.scopes = self.scopes().await;
        }
        if let (Some(holder), Ok(pods)) = (api.holder().map(str::to_owned), &api.pods)
            && !pods.contains(&holder)
        {
            api.holder_labels = self.labels_of(&holder).await;
        }
        (api, known)
    }

    /// Watches the lock until it is renewed or overdue.
    pub(super) async fn wait_for_renewal(&self, api: &Api) -> Answer<Renewal> {
        let Some((kind, lock)) = api.lock() else {
            return api.renewal.clone();
        };
        let config = api.config.as_ref().ok().and_then(Option::as_ref);
        let loop_wait = config.and_then(|config| config.loop_wait).unwrap_or(LOOP_WAIT);
        let within = (loop_wait + LATE).min(LONGEST);
        let begun = Instant::now();
        let name = self.leader_name(kind);
        let events = watcher::watch_object(self.objects(kind), &name);
        match tokio::time::timeout(within, next_renewal(events, &lock.renewal)).await {
            Err(_) => Ok(Renewal::Missing(within)),
            Ok(Err(why)) => Err(why),
            Ok(Ok(lock)) => Ok(Renewal::Renewed {
                after: begun.elapsed(),
                ahead: lock.written.map(|written| seconds_after(SystemTime::now(), written)),
            }),
        }
    }

    async fn rights(&self) -> Vec<(Right, Answer<bool>)> {
        let needed = rights::needed(self.settings);
        let asking = needed.into_iter().map(async |right| (right, self.may(right).await));
        futures_util::future::join_all(asking).await
    }

    /// Checks a right for each object by name, because a Role may be limited to names. An object to create has no name
    /// yet.
    async fn may(&self, right: Right) -> Answer<bool> {
        for name in self.names(right) {
            if !is_granted(&self.client, &self.namespace, right, name).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn names(&self, right: Right) -> Vec<Option<String>> {
        let kind = match right.resource {
            "endpoints" => Some(ObjectKind::Endpoints),
            "configmaps" => Some(ObjectKind::ConfigMap),
            _ => None,
        };
        match (right.resource, right.verb, kind) {
            // pgnorth publish also reads the Service's Endpoints.
            ("endpoints", "get", _) => {
                let service = self.settings.service.clone().map(Some);
                [Some(self.leader_name(ObjectKind::Endpoints))]
                    .into_iter()
                    .chain(service)
                    .collect()
            }
            (_, "get", Some(kind)) => vec![Some(self.leader_name(kind))],
            (_, "list" | "watch", Some(kind)) => {
                let mut routes = self.settings.proxy.routes.iter();
                let standbys = routes.any(|route| route.conditions.kind.depends_on_standbys());
                let beside = ["-failover", "-config"].into_iter().chain(standbys.then_some("-sync"));
                let beside = beside.map(|suffix| Some(format!("{}{suffix}", self.kubernetes.objects())));
                [Some(self.leader_name(kind))].into_iter().chain(beside).collect()
            }
            _ => vec![publisher::name_of(self.settings, right)],
        }
    }

    async fn leader(&self, kind: ObjectKind) -> Answer<LeaderObject> {
        let found = self.annotations(kind, &self.leader_name(kind)).await?;
        Ok(found.map_or(LeaderObject::Absent, |annotations| {
            let (lock, problem) = annotations::lock(&annotations);
            lock.map_or(LeaderObject::Foreign, |lock| {
                LeaderObject::Lock(lock, problem.map(|problem| problem.to_string()))
            })
        }))
    }

    async fn config(&self) -> Answer<Option<Config>> {
        let name = format!("{}-config", self.kubernetes.objects());
        let mut answer = Ok(None);
        for kind in ObjectKind::IN_KUBERNETES {
            match self.annotations(kind, &name).await {
                Ok(Some(annotations)) => {
                    if let (Some(settings), _) = annotations::settings(&annotations) {
                        return Ok(Some(Config {
                            settings,
                            loop_wait: annotations::loop_wait(&annotations),
                            failsafe: annotations::failsafe_mode(&annotations),
                        }));
                    }
                }
                Ok(None) => {}
                Err(why) => answer = Err(why),
            }
        }
        answer
    }

    async fn pods(&self) -> Answer<Vec<ListedMember>> {
        let pods: Objects<Pod> = Objects::namespaced(self.client.clone(), &self.namespace);
        let found = bounded(pods.list(&ListParams::default().labels(&self.kubernetes.selector))).await?;
        let upstreams = self.settings.proxy.upstreams();
        let read = |pod: &Pod| {
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
            let (read, problem) = annotations::dcs_status(&pod.name_any(), pod.annotations(), ip);
            let problem = problem.map(|problem| problem.to_string());
            ListedMember::of_pod(read, problem, &upstreams)
        };
        Ok(found.items.iter().map(read).collect())
    }

    async fn labels_of(&self, name: &str) -> Option<BTreeMap<String, String>> {
        let pods: Objects<Pod> = Objects::namespaced(self.client.clone(), &self.namespace);
        let by_name = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = bounded(pods.list_metadata(&by_name)).await.ok()?;
        found.items.first().map(|pod| pod.labels().clone())
    }

    async fn services(&self) -> Answer<Vec<Service>> {
        let services: Objects<ServiceObject> = Objects::namespaced(self.client.clone(), &self.namespace);
        let found = bounded(services.list(&ListParams::default())).await?;
        let endpoints = self.all(ObjectKind::Endpoints).await.unwrap_or_default();
        let service = |service: &ServiceObject| {
            let name = service.name_any();
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            Service {
                has_selector: selector.is_some_and(|selector| !selector.is_empty()),
                has_patroni_endpoints: endpoints.iter().any(|(endpoints, annotations)| {
                    *endpoints == name
                        && PATRONIS_ANNOTATIONS
                            .iter()
                            .any(|patronis| annotations.contains_key(*patronis))
                }),
                name,
            }
        };
        Ok(found.items.iter().map(service).collect())
    }

    /// Returns the scopes with a leader object in this namespace. Of Patroni's objects, only the leader object has
    /// `renewTime`.
    async fn scopes(&self) -> Vec<String> {
        let is_renewed = |annotations: &Annotations| annotations.contains_key("renewTime");
        let mut scopes = Vec::new();
        for kind in ObjectKind::IN_KUBERNETES {
            let all = self.all(kind).await.unwrap_or_default();
            let leaders = all.into_iter().filter(|(_, annotations)| is_renewed(annotations));
            scopes.extend(leaders.filter_map(|(name, _)| match kind == ObjectKind::Endpoints {
                true => Some(name),
                false => name.strip_suffix(PATRONIS[1]).map(str::to_owned),
            }));
        }
        scopes
    }

    /// Returns the seconds by which the API server's clock is ahead of the local one, from a request that needs no
    /// rights.
    async fn ahead(&self) -> Answer<f64> {
        let request = Request::new("/version").list(&ListParams::default());
        let request = request.map_err(|error| error.to_string())?.map(Body::from);
        let asked = SystemTime::now();
        let answer = bounded(self.client.send(request)).await?;
        let middle = asked + SystemTime::now().duration_since(asked).unwrap_or_default() / 2;
        let date = answer.headers().get("date").and_then(|date| date.to_str().ok());
        let date = date.ok_or("its answers have no Date header")?;
        let date = rfc2822::parse(date).map_err(|_| "its Date header is not a date")?;
        // The header omits the fraction of a second, which is half a second on average.
        Ok(seconds_after(middle, SystemTime::from(date.timestamp())) + 0.5)
    }

    /// Returns an object's annotations, or `None` if it does not exist. Makes the same list request that begins a
    /// watch.
    async fn annotations(&self, kind: ObjectKind, name: &str) -> Answer<Option<Annotations>> {
        let by_name = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = bounded(self.objects(kind).list_metadata(&by_name)).await?;
        Ok(found.items.first().map(|object| object.annotations().clone()))
    }

    async fn all(&self, kind: ObjectKind) -> Answer<Vec<(String, Annotations)>> {
        let found = bounded(self.objects(kind).list_metadata(&ListParams::default())).await?;
        let of = |object: &_| (ResourceExt::name_any(object), ResourceExt::annotations(object).clone());
        Ok(found.items.iter().map(of).collect())
    }

    fn objects(&self, kind: ObjectKind) -> Objects<DynamicObject> {
        let resource = match kind == ObjectKind::Endpoints {
            true => ApiResource::erase::<Endpoints>(&()),
            false => ApiResource::erase::<ConfigMap>(&()),
        };
        Objects::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    fn leader_name(&self, kind: ObjectKind) -> String {
        match kind == ObjectKind::Endpoints {
            true => self.kubernetes.objects(),
            false => format!("{}{}", self.kubernetes.objects(), PATRONIS[1]),
        }
    }
}

/// Waits for the first renewal of the lock. Returns an error if the watch ends.
async fn next_renewal(
    events: impl futures_util::Stream<Item = Result<Option<DynamicObject>, watcher::Error>>,
    before: &[Option<String>; 3],
) -> Answer<Lock> {
    let mut events = pin!(events);
    loop {
        let event = events.next().await.ok_or("the watch of the lock ended")?;
        let found = event.map_err(|error| format!("the watch of the lock failed: {}", root_cause(&error)))?;
        let lock = found.and_then(|object| annotations::lock(object.annotations()).0);
        if let Some(lock) = lock
            && lock.renewal != *before
        {
            return Ok(lock);
        }
    }
}

pub(super) async fn bounded<T>(request: impl Future<Output = kube::Result<T>>) -> Answer<T> {
    match tokio::time::timeout(DEADLINE, request).await {
        Ok(answer) => answer.map_err(|error| error_message(&error)),
        Err(_) => Err(no_answer()),
    }
}

pub(super) fn no_answer() -> String {
    format!("no answer within {}", humantime::format_duration(DEADLINE))
}

/// Returns the seconds from `earlier` to `later`; negative if `later` comes first.
fn seconds_after(earlier: SystemTime, later: SystemTime) -> f64 {
    match later.duration_since(earlier) {
        Ok(after) => after.as_secs_f64(),
        Err(before) => -before.duration().as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::{Job, Settings};

    /// A Role may be limited to the names of a group's objects.
    #[tokio::test]
    async fn the_rights_of_a_citus_group_are_those_on_the_groups_objects() {
        let line = ["pgnorth", "doctor", "--scope=pg", "--citus-group=1", "--ports=autobase"];
        let settings = Settings::read(line.map(OsString::from), |_| None).unwrap();
        let Job::Doctor(settings) = settings.job else {
            panic!("the doctor")
        };
        let connection = ApiConnection {
            client: Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap(),
            namespace: "default".to_owned(),
            version: Err("not asked".to_owned()),
            kubernetes: settings.proxy.discovery.kubernetes.as_ref().unwrap(),
            settings: &settings,
        };
        let list = Right {
            verb: "list",
            group: "",
            resource: "endpoints",
        };
        let names: Vec<_> = connection.names(list).into_iter().flatten().collect();
        assert_eq!(names, ["pg-1", "pg-1-failover", "pg-1-config", "pg-1-sync"]);
    }
}
