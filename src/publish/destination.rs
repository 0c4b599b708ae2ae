//! The Service and the objects that stand for it: reads them, refuses what is not pgnorth's to write, and writes what differs.
//!
//! A write replaces exactly the version that was read. So of two publishers one is refused (409), reads again, and decides again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{Client, ResourceExt};
use thiserror::Error;
use tokio::time::timeout;

use super::objects::{self, Desired, Dispute, DisputeSubject, Kind, Service, Step, Writer};
use super::questions::{ANSWER, Questions};
use crate::kubernetes::why;

/// One request.
const DEADLINE: Duration = Duration::from_secs(1);
/// What Patroni's objects are called beside the scope itself.
pub(crate) const PATRONIS: [&str; 5] = ["", "-leader", "-config", "-failover", "-sync"];
/// Annotations that only Patroni writes.
pub(crate) const PATRONIS_ANNOTATIONS: [&str; 7] = [
    "leader",
    "optime",
    "renewTime",
    "acquireTime",
    "transitions",
    "initialize",
    "history",
];

/// Why this Service is not written. Only its owner can change that.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidService {
    /// Kubernetes keeps its endpoints.
    #[error(
        "service {0} has a selector, so Kubernetes keeps its endpoints itself: name a Service without one, or remove it: kubectl patch service {1} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/selector\"}}]'"
    )]
    Selector(String, String),
    /// A name in DNS, and no addresses.
    #[error(
        "service {0} is of type ExternalName, which has no endpoints: name one of type ClusterIP without a selector"
    )]
    ExternalName(String),
    /// One port is PostgreSQL's; what of the others?
    #[error("service {0} has {1} ports, and pgnorth knows the leader's PostgreSQL alone: leave one port")]
    Ports(String, usize),
    /// Patroni would write the same object.
    #[error(
        "service {0}: the Endpoints of this name are Patroni's own ({1}): choose another name for the Service, such as {2}-primary"
    )]
    Patronis(String, String, String),
    /// Kubernetes copies them into a slice beside ours.
    #[error(
        "endpoints {0} has addresses of its own, which Kubernetes adds to what pgnorth publishes: delete it (kubectl delete endpoints {1}), or let pgnorth keep it with --endpoints (PGNORTH_ENDPOINTS=true)"
    )]
    Foreign(String, String),
    /// An old API, and nothing else to write.
    #[error("this Kubernetes API has no EndpointSlices (discovery.k8s.io): use --endpoints (PGNORTH_ENDPOINTS=true)")]
    NoSlices,
}

/// Why something could not be read or written now.
#[derive(Debug, Error)]
pub(super) enum PublishError {
    #[error(transparent)]
    InvalidService(#[from] InvalidService),
    /// Somebody else has written since it was read.
    #[error("{0} was changed by somebody else")]
    Conflict(String),
    #[error("{0}")]
    Failed(String),
}

/// What a round of writing came to.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// At least one object was.
    pub(super) changed: bool,
    /// Why one was left alone, if one was.
    pub(super) yielded: Option<String>,
}

/// What became of one object.
enum ObjectOutcome {
    Same,
    /// Why, and the object with a question if one was asked.
    Yielded(String, Option<Box<DynamicObject>>),
    Written(Box<DynamicObject>),
}

/// The Service to keep.
pub(super) struct Destination {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) service: String,
    /// Patroni's, where it is known.
    pub(super) scope: Option<String>,
    /// Whether Endpoints are kept too.
    pub(super) endpoints: bool,
    /// This publisher, unlike any other.
    pub(super) identity: String,
    /// A Lease keeps others from writing.
    pub(super) alone: bool,
    pub(super) questions: Questions,
    pub(super) seen: Option<Seen>,
}

/// What was read last, and written since.
pub(super) struct Seen {
    service: Service,
    objects: BTreeMap<Kind, (ApiResource, Option<DynamicObject>)>,
}

impl Destination {
    /// For messages: `default/postgres-primary`.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }

    /// Reads everything anew.
    pub(super) async fn read(&mut self) -> Result<(), PublishError> {
        self.seen = None;
        let services: Api<ServiceObject> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = format!("service {}", self.title());
        let (found, endpoints, slices) = tokio::try_join!(
            read(&service, services.get_opt(&self.service)),
            self.get(Kind::Endpoints, objects::endpoints()),
            self.slices(),
        )?;
        let found = found.ok_or_else(|| {
            PublishError::Failed(format!(
                "service {} does not exist; create it, without a selector",
                self.title()
            ))
        })?;
        let service = self.check(&found, endpoints.as_ref())?;
        let mut objects = BTreeMap::new();
        if let Some(resource) = slices {
            let (four, six) = tokio::try_join!(
                self.get(Kind::Slice4, resource.clone()),
                self.get(Kind::Slice6, resource.clone())
            )?;
            objects.insert(Kind::Slice4, (resource.clone(), four));
            objects.insert(Kind::Slice6, (resource, six));
        }
        if self.endpoints {
            objects.insert(Kind::Endpoints, (objects::endpoints(), endpoints));
        }
        for (kind, (_, found)) in &objects {
            let question = found.as_ref().and_then(objects::question);
            self.questions.seen(*kind, question, Instant::now());
        }
        self.seen = Some(Seen { service, objects });
        Ok(())
    }

    /// Writes what differs from `desired`, whatever was read last being the truth; all objects at once.
    pub(super) async fn write(&mut self, desired: &Desired) -> Result<Written, PublishError> {
        let mut written = Written::default();
        let Some(mut seen) = self.seen.take() else {
            return Ok(written);
        };
        let one = |kind| self.write_one(kind, &seen, desired);
        let (four, six, endpoints) = tokio::join!(one(Kind::Slice4), one(Kind::Slice6), one(Kind::Endpoints));
        for (kind, outcome) in [(Kind::Slice4, four), (Kind::Slice6, six), (Kind::Endpoints, endpoints)] {
            match outcome? {
                ObjectOutcome::Same => {}
                ObjectOutcome::Yielded(why, now) => {
                    written.yielded = Some(why);
                    if let (Some(now), Some((_, found))) = (now, seen.objects.get_mut(&kind)) {
                        self.questions.seen(kind, objects::question(&now), Instant::now());
                        *found = Some(*now);
                    }
                }
                ObjectOutcome::Written(now) => {
                    if let Some((_, found)) = seen.objects.get_mut(&kind) {
                        *found = Some(*now);
                    }
                    written.changed = true;
                }
            }
        }
        self.seen = Some(seen);
        Ok(written)
    }

    async fn write_one(&self, kind: Kind, seen: &Seen, desired: &Desired) -> Result<ObjectOutcome, PublishError> {
        let Some((resource, found)) = seen.objects.get(&kind) else {
            return Ok(ObjectOutcome::Same);
        };
        let name = kind.name(&self.service);
        let title = format!("{} {}/{name}", resource.plural, self.namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, resource);
        let parameters = PostParams::default();
        let writer = Writer {
            identity: &self.identity,
            alone: self.alone,
            unanswered: self.questions.unanswered(kind, Instant::now()),
        };
        let now = match objects::step(kind, resource, found.as_ref(), desired, &seen.service, writer) {
            Step::Nothing => return Ok(ObjectOutcome::Same),
            Step::Yield(question, dispute) => {
                let asked = match question {
                    Some(object) => Some(Box::new(read(&title, api.replace(&name, &parameters, &object)).await?)),
                    None => None,
                };
                return Ok(ObjectOutcome::Yielded(tell(&title, &dispute), asked));
            }
            Step::Create(object) => read(&title, api.create(&parameters, &object)).await?,
            Step::Replace(object) => read(&title, api.replace(&name, &parameters, &object)).await?,
        };
        Ok(ObjectOutcome::Written(Box::new(now)))
    }

    /// Where clients are led to, as far as is known.
    pub(super) fn leads_to(&self) -> Vec<String> {
        let objects = self.seen.iter().flat_map(|seen| seen.objects.values());
        let mut all: Vec<String> = objects
            .filter_map(|(_, found)| found.as_ref())
            .flat_map(objects::addresses)
            .collect();
        all.sort();
        all.dedup();
        all
    }

    async fn get(&self, kind: Kind, resource: ApiResource) -> Result<Option<DynamicObject>, PublishError> {
        let name = kind.name(&self.service);
        let title = format!("{} {}/{name}", resource.plural, self.namespace);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        read(&title, api.get_opt(&name)).await
    }

    /// EndpointSlices in the best version that the API serves.
    async fn slices(&self) -> Result<Option<ApiResource>, PublishError> {
        let groups = read("the list of API groups", self.client.list_api_groups())
            .await?
            .groups;
        let group = groups.into_iter().find(|group| group.name == "discovery.k8s.io");
        let versions: Vec<String> = group
            .into_iter()
            .flat_map(|group| group.versions)
            .map(|v| v.version)
            .collect();
        let best = ["v1", "v1beta1"]
            .into_iter()
            .find(|version| versions.iter().any(|served| served == version));
        match best {
            Some(version) => Ok(Some(objects::slices(version))),
            None if self.endpoints => Ok(None),
            None => Err(InvalidService::NoSlices.into()),
        }
    }

    fn check(&self, found: &ServiceObject, endpoints: Option<&DynamicObject>) -> Result<Service, InvalidService> {
        let title = self.title();
        let name = self.service.clone();
        if let Some(scope) = &self.scope
            && PATRONIS.iter().any(|suffix| format!("{scope}{suffix}") == name)
        {
            return Err(InvalidService::Patronis(
                title,
                format!("the scope is {scope}"),
                scope.clone(),
            ));
        }
        let spec = found.spec.clone().unwrap_or_default();
        if spec.selector.is_some_and(|selector| !selector.is_empty()) {
            return Err(InvalidService::Selector(title, name));
        }
        if spec.type_.as_deref() == Some("ExternalName") {
            return Err(InvalidService::ExternalName(title));
        }
        let ports = spec.ports.unwrap_or_default();
        let [port] = &ports[..] else {
            return Err(InvalidService::Ports(title, ports.len()));
        };
        if let Some(endpoints) = endpoints {
            let annotations = endpoints.annotations();
            if let Some(patronis) = PATRONIS_ANNOTATIONS
                .iter()
                .find(|name| annotations.contains_key(**name))
            {
                return Err(InvalidService::Patronis(
                    title,
                    format!("they carry its annotation `{patronis}`"),
                    name,
                ));
            }
            let mirrored = endpoints
                .labels()
                .get("endpointslice.kubernetes.io/skip-mirror")
                .is_none_or(|skip| skip != "true");
            if !self.endpoints && mirrored && !objects::addresses(endpoints).is_empty() {
                return Err(InvalidService::Foreign(title, name));
            }
        }
        Ok(Service {
            uid: found.uid().unwrap_or_default(),
            port_name: port.name.clone().filter(|name| !name.is_empty()),
            app_protocol: port.app_protocol.clone(),
            name,
        })
    }
}

/// In words, with what is done about it, and what can be.
fn tell(title: &str, dispute: &Dispute) -> String {
    let with = dispute.with.as_deref().unwrap_or("a publisher that left no name");
    let seconds = ANSWER.as_secs();
    match &dispute.subject {
        DisputeSubject::Timeline { theirs, ours } => format!(
            "{title} leads to a leader on timeline {theirs}, written by {with}, and this publisher knows timeline {ours}. It is overwritten unless a publisher that \
            still knows timeline {theirs} says so within {seconds} s. While pgnorth_publish_behind stays 1, one does: compare the /leader of both"
        ),
        DisputeSubject::Leader => format!(
            "{title} leads to a primary, written by {with}, and this publisher knows none. The address is taken away unless a publisher that knows the primary says so \
            within {seconds} s. While pgnorth_publish_behind stays 1, one does, and this one sees less: run `pgnorth doctor` beside it; with --lease only one of them writes"
        ),
    }
}

/// One request, before the deadline.
pub(super) async fn read<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> Result<T, PublishError> {
    match timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(PublishError::Conflict(what.to_owned())),
        Ok(Err(error)) => Err(PublishError::Failed(format!("{what}: {}", why(&error)))),
        Err(_) => Err(PublishError::Failed(format!("{what}: no answer within 1 s"))),
    }
}
