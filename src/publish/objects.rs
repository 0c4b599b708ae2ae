//! The endpoints that a Service should have, as EndpointSlices and as Endpoints (pure).
//!
//! Version v1 of EndpointSlices and its predecessor v1beta1 agree in every field that is written here.

use std::net::IpAddr;

use kube::api::{ApiResource, DynamicObject};
use kube::core::{GroupVersionKind, ObjectMeta};
use serde_json::{Value, json};

/// Annotation with the timeline of the newest leader that the last publisher to write a timeline knew.
const TIMELINE: &str = "pgnorth/timeline";
/// Annotation with the member that has the addresses.
const LEADER: &str = "pgnorth/leader";
/// Annotation with the publisher that last wrote the endpoints.
const PUBLISHER: &str = "pgnorth/publisher";
/// Annotation with a unique question: is the last write still correct? A publisher that can confirm the write removes
/// the question.
const ASKED: &str = "pgnorth/asked-by";
const PGNORTH: &str = "pgnorth";

/// The three objects that can hold a Service's endpoints. A slice holds addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// EndpointSlice with IPv4 addresses.
    Slice4,
    /// EndpointSlice with IPv6 addresses.
    Slice6,
    /// Endpoints, named like the Service.
    Endpoints,
}

/// The endpoints that clients should reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Desired {
    /// The verified writable primary, if there is one.
    pub(super) leader: Option<Primary>,
    /// The timeline of the newest leader that this publisher has known.
    pub(super) timeline: Option<u32>,
    /// True in the first round after this publisher lost its leader.
    pub(super) just_ended: bool,
}

/// This publisher, as the rules for an object see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer<'a> {
    pub(super) identity: &'a str,
    /// True if the publisher holds a Lease, so that no other publisher writes.
    pub(super) alone: bool,
    /// The question about this object that no publisher has answered in time.
    pub(super) unanswered: Option<&'a str>,
}

/// The primary's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) member: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) port: u16,
}

/// The fields of the Service that its objects must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) uid: String,
    /// The port's name. kube-proxy matches the ports of the Service and the slice by name.
    pub(super) port_name: Option<String>,
    pub(super) app_protocol: Option<String>,
}

/// The action for one object.
#[derive(Debug)]
pub(super) enum Step {
    /// The object is as it should be.
    Nothing,
    /// The object must be left to a publisher that disagrees. The optional write asks that publisher to confirm the
    /// object, if it is still the version that was read; there is no write if the question was asked before.
    Yield(Option<Box<DynamicObject>>, Dispute),
    /// The object must be created.
    Create(Box<DynamicObject>),
    /// The object must be replaced, if it is still the version that was read.
    Replace(Box<DynamicObject>),
}

/// A contradiction between another publisher and this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dispute {
    /// The other publisher, if the object names it.
    pub(super) with: Option<String>,
    pub(super) subject: DisputeSubject,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DisputeSubject {
    /// The other publisher knew a leader on a higher timeline.
    Timeline { theirs: u32, ours: u32 },
    /// The other publisher wrote a primary, and this publisher knows none.
    Leader,
}

impl Kind {
    pub(super) fn name(self, service: &str) -> String {
        match self {
            Self::Slice4 => format!("{service}-pgnorth-ipv4"),
            Self::Slice6 => format!("{service}-pgnorth-ipv6"),
            Self::Endpoints => service.to_owned(),
        }
    }

    fn holds(self, ip: &IpAddr) -> bool {
        match self {
            Self::Slice4 => ip.is_ipv4(),
            Self::Slice6 => ip.is_ipv6(),
            Self::Endpoints => true,
        }
    }
}

/// Returns the resource of EndpointSlices in this version.
pub(super) fn slices(version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("discovery.k8s.io", version, "EndpointSlice"),
        "endpointslices",
    )
}

pub(super) fn endpoints() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Endpoints"), "endpoints")
}

/// Returns the action that makes one object match `desired`.
pub(super) fn step(
    kind: Kind,
    resource: &ApiResource,
    found: Option<&DynamicObject>,
    desired: &Desired,
    service: &Service,
    writer: Writer<'_>,
) -> Step {
    let primary = desired.leader.as_ref();
    let addresses: Vec<String> = primary
        .iter()
        .flat_map(|primary| primary.addresses.iter().filter(|ip| kind.holds(ip)))
        .map(IpAddr::to_string)
        .collect();
    let Some(found) = found else {
        if addresses.is_empty() {
            return Step::Nothing;
        }
        let mut object = DynamicObject::new(&kind.name(&service.name), resource);
        set_metadata(&mut object.metadata, kind, desired, service);
        annotate(&mut object.metadata, PUBLISHER, writer.identity);
        object.data = data(kind, &addresses, primary, service);
        return Step::Create(Box::new(object));
    };
    let question = annotation(found, ASKED);
    if let Some(dispute) = dispute(found, desired, writer)
        && (question.is_none() || question != writer.unanswered)
    {
        return Step::Yield(question.is_none().then(|| ask(found, resource, writer)), dispute);
    }
    let mut object = found.clone();
    set_metadata(&mut object.metadata, kind, desired, service);
    let same_metadata = object.metadata == found.metadata;
    object.data = data(kind, &addresses, primary, service);
    if same_metadata && shape(&object) == shape(found) {
        return Step::Nothing;
    }
    annotate(&mut object.metadata, PUBLISHER, writer.identity);
    Step::Replace(writable(object, resource))
}

/// Returns the contradiction between `found` and `desired`, if another publisher wrote `found` and may be right.
///
/// A publisher that has just stopped routing removes the address immediately. If the address then comes back, or was
/// there before this publisher knew any leader, another publisher is verifying a primary, and that publisher is right.
fn dispute(found: &DynamicObject, desired: &Desired, writer: Writer<'_>) -> Option<Dispute> {
    let with = annotation(found, PUBLISHER);
    if with == Some(writer.identity) || addresses(found).is_empty() {
        return None;
    }
    let subject = match (timeline(found), desired.timeline) {
        (Some(theirs), Some(ours)) if theirs > ours => DisputeSubject::Timeline { theirs, ours },
        _ if desired.leader.is_none() && !desired.just_ended && !writer.alone && with.is_some() => {
            DisputeSubject::Leader
        }
        _ => return None,
    };
    let with = with.map(str::to_owned);
    Some(Dispute { with, subject })
}

/// Returns the object with a question. The object's version makes the question unique.
fn ask(found: &DynamicObject, resource: &ApiResource, writer: Writer<'_>) -> Box<DynamicObject> {
    let version = found.metadata.resource_version.as_deref().unwrap_or_default();
    let mut object = found.clone();
    annotate(&mut object.metadata, ASKED, &format!("{} {version}", writer.identity));
    writable(object, resource)
}

/// Returns the unanswered question in an object.
pub(super) fn question(object: &DynamicObject) -> Option<&str> {
    annotation(object, ASKED)
}

fn writable(mut object: DynamicObject, resource: &ApiResource) -> Box<DynamicObject> {
    object.types = Some(kube::core::TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    });
    // The API keeps managed fields that a write omits.
    object.metadata.managed_fields = None;
    Box::new(object)
}

/// Returns the addresses in an object of any kind.
pub(super) fn addresses(object: &DynamicObject) -> Vec<String> {
    let texts = |list: &Value| -> Vec<String> {
        let items = list.as_array().into_iter().flatten();
        items
            .filter_map(|item| item.as_str().or_else(|| item["ip"].as_str()))
            .map(str::to_owned)
            .collect()
    };
    let of = |list: &str| {
        object.data[list]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|part| texts(&part["addresses"]))
    };
    of("endpoints").chain(of("subsets")).collect()
}

fn timeline(object: &DynamicObject) -> Option<u32> {
    annotation(object, TIMELINE)?.parse().ok()
}

fn annotation<'a>(object: &'a DynamicObject, name: &str) -> Option<&'a str> {
    object.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn annotate(metadata: &mut ObjectMeta, name: &str, value: &str) {
    metadata
        .annotations
        .get_or_insert_default()
        .insert(name.into(), value.into());
}

/// Sets pgnorth's labels, annotations and owner reference, and keeps all others.
fn set_metadata(metadata: &mut ObjectMeta, kind: Kind, desired: &Desired, service: &Service) {
    let labels = metadata.labels.get_or_insert_default();
    match kind {
        Kind::Slice4 | Kind::Slice6 => {
            labels.insert("kubernetes.io/service-name".into(), service.name.clone());
            labels.insert("endpointslice.kubernetes.io/managed-by".into(), PGNORTH.into());
        }
        Kind::Endpoints => {
            labels.insert("app.kubernetes.io/managed-by".into(), PGNORTH.into());
            // Without this label, Kubernetes mirrors the Endpoints into another slice, a moment later than ours.
            labels.insert("endpointslice.kubernetes.io/skip-mirror".into(), "true".into());
        }
    }
    let annotations = metadata.annotations.get_or_insert_default();
    // A write answers any question.
    annotations.remove(ASKED);
    match &desired.leader {
        Some(primary) => annotations.insert(LEADER.into(), primary.member.clone()),
        None => annotations.remove(LEADER),
    };
    if let Some(timeline) = desired.timeline {
        annotations.insert(TIMELINE.into(), timeline.to_string());
    }
    // Kubernetes deletes the object with the Service.
    let owners = metadata.owner_references.get_or_insert_default();
    if !owners.iter().any(|owner| owner.uid == service.uid) {
        owners.push(k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            api_version: "v1".into(),
            kind: "Service".into(),
            name: service.name.clone(),
            uid: service.uid.clone(),
            ..Default::default()
        });
    }
}

fn data(kind: Kind, addresses: &[String], primary: Option<&Primary>, service: &Service) -> Value {
    let port = primary.map(|primary| {
        let mut port = json!({"port": primary.port, "protocol": "TCP"});
        if let Some(name) = &service.port_name {
            port["name"] = json!(name);
        }
        if let Some(app_protocol) = &service.app_protocol {
            port["appProtocol"] = json!(app_protocol);
        }
        port
    });
    let ports: Vec<Value> = port.into_iter().collect();
    let slice = |family: &str| {
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
            .collect();
        json!({"addressType": family, "endpoints": endpoints, "ports": ports})
    };
    match kind {
        Kind::Slice4 => slice("IPv4"),
        Kind::Slice6 => slice("IPv6"),
        Kind::Endpoints if addresses.is_empty() => json!({"subsets": []}),
        Kind::Endpoints => {
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            json!({"subsets": [{"addresses": addresses, "ports": ports}]})
        }
    }
}

/// Returns the parts of an object that clients notice. The API writes an empty list as null, and an absent name as an
/// empty string.
fn shape(object: &DynamicObject) -> (Vec<String>, Vec<(u64, String, String)>) {
    let mut addresses = addresses(object);
    addresses.sort();
    let subset = &object.data["subsets"][0]["ports"];
    let ports = if subset.is_null() {
        &object.data["ports"]
    } else {
        subset
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ports = ports.as_array().into_iter().flatten();
    let ports = ports.map(|port| {
        let number = port["port"].as_u64().unwrap_or_default();
        (number, text(&port["name"]), text(&port["appProtocol"]))
    });
    // Ports without addresses have no effect.
    let ports = if addresses.is_empty() {
        Vec::new()
    } else {
        ports.collect()
    };
    (addresses, ports)
}

#[cfg(test)]
mod tests;
