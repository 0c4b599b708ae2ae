//! The Service and the objects with its endpoints: reads them, refuses a Service that pgnorth must not write, and
//! writes the objects that differ.
//!
//! A write replaces exactly the version that was read. The publisher whose write is rejected (409) reads again and
//! decides again.

use std::collections::BTreeMap;
use std::time::Instant;

use k8s_openapi::api::core::v1::Service as ServiceObject;
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::{Client, ResourceExt};

use super::errors::{InvalidService, PublishError, request};
use super::objects::{self, Desired, Dispute, DisputeSubject, Kind, Service, Step, Writer};
use super::questions::{ANSWER, Questions};

/// The suffixes of Patroni's objects after the scope.
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

/// The result of one round of writes.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// True if at least one object was written.
    pub(super) changed: bool,
    /// The reason if an object was left to another publisher.
    pub(super) yielded: Option<String>,
}

/// The result for one object.
enum ObjectOutcome {
    Same,
    /// The reason, and the object with the question if this round has asked one.
    Yielded(String, Option<Box<DynamicObject>>),
    Written(Box<DynamicObject>),
}

/// The Service that the publisher writes.
pub(super) struct Destination {
    pub(super) client: Client,
    pub(super) namespace: String,
    pub(super) service: String,
    /// Patroni's scope, if it is known.
    pub(super) scope: Option<String>,
    /// True if Endpoints are written in addition to EndpointSlices.
    pub(super) endpoints: bool,
    /// A unique name of this publisher.
    pub(super) identity: String,
    /// True if a Lease keeps other publishers from writing.
    pub(super) alone: bool,
    pub(super) questions: Questions,
    pub(super) seen: Option<Seen>,
}

/// The objects as they were read last, including the writes since.
pub(super) struct Seen {
    service: Service,
    objects: BTreeMap<Kind, (ApiResource, Option<DynamicObject>)>,
}

impl Destination {
    /// Returns the name for messages, such as `default/postgres-primary`.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.service)
    }

    /// Reads the Service and all its objects.
    pub(super) async fn read(&mut self) -> Result<(), PublishError> {
        self.seen = None;
        let services: Api<ServiceObject> = Api::namespaced(self.client.clone(), &self.namespace);
        let service = format!("service {}", self.title());
        let (found, endpoints, slices) = tokio::try_join!(
            request(&service, services.get_opt(&self.service)),
            self.get(Kind::Endpoints, objects::endpoints()),
            self.slices(),
        )?;
        let found =
            found.ok_or_else(|| PublishError::failed(&service, "it does not exist; create it, without a selector"))?;
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

    /// Writes the objects that differ from `desired`, all concurrently. Each write replaces only the version that was
    /// read last.
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
                    Some(object) => Some(Box::new(
                        request(&title, api.replace(&name, &parameters, &object)).await?,
                    )),
                    None => None,
                };
                return Ok(ObjectOutcome::Yielded(describe(&title, &dispute), asked));
            }
            Step::Create(object) => request(&title, api.create(&parameters, &object)).await?,
            Step::Replace(object) => request(&title, api.replace(&name, &parameters, &object)).await?,
        };
        Ok(ObjectOutcome::Written(Box::new(now)))
    }

    /// Returns the addresses of all objects, as they were read or written last.
    pub(super) fn endpoints(&self) -> Vec<String> {
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
        request(&title, api.get_opt(&name)).await
    }

    /// Returns the resource of EndpointSlices in the newest version that the API serves; `None` if it serves none, and
    /// this publisher writes Endpoints.
    async fn slices(&self) -> Result<Option<ApiResource>, PublishError> {
        let groups = request("the list of API groups", self.client.list_api_groups())
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

/// Describes a dispute, its outcome, and what an operator can check.
fn describe(title: &str, dispute: &Dispute) -> String {
    let with = dispute.with.as_deref().unwrap_or("an unnamed publisher");
    let seconds = ANSWER.as_secs();
    match &dispute.subject {
        DisputeSubject::Timeline { theirs, ours } => format!(
            "{title}: {with} wrote a leader on timeline {theirs}, but this publisher knows timeline {ours}. This \
             publisher overwrites that leader after {seconds} s unless another publisher confirms timeline {theirs}. \
             If pgnorth_publish_behind stays 1, timeline {theirs} was confirmed: compare /leader of both publishers"
        ),
        DisputeSubject::Leader => format!(
            "{title}: {with} wrote a primary, but this publisher knows none. This publisher removes the address after \
             {seconds} s unless another publisher confirms that primary. If pgnorth_publish_behind stays 1, the \
             primary was confirmed, and this publisher does not find it: run `pgnorth doctor` with the settings of \
             this publisher; with --lease, only one publisher writes"
        ),
    }
}
