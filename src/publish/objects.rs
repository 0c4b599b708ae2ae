//! What clients of the Service shall reach, and how that looks as EndpointSlice and as Endpoints. Pure.
//!
//! Version v1 of EndpointSlices and its predecessor v1beta1 agree in every field that is written here.

use std::net::IpAddr;

use kube::api::{ApiResource, DynamicObject};
use kube::core::{GroupVersionKind, ObjectMeta};
use serde_json::{Value, json};

/// Which timeline the newest leader was on that any publisher has seen.
const TIMELINE: &str = "pgnorth/timeline";
/// Which member the addresses are of.
const LEADER: &str = "pgnorth/leader";
const PGNORTH: &str = "pgnorth";

/// The three objects that can stand for a Service. A slice holds addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// EndpointSlice with IPv4 addresses.
    Slice4,
    /// EndpointSlice with IPv6 addresses.
    Slice6,
    /// Endpoints, named like the Service.
    Endpoints,
}

/// What clients shall reach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The verified writable primary, if there is one.
    pub(super) leader: Option<Primary>,
    /// The timeline of the newest leader that this publisher knew.
    pub(super) timeline: Option<u32>,
}

/// Where the primary is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Primary {
    pub(super) member: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) port: u16,
}

/// What of the Service the objects have to agree with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) uid: String,
    /// kube-proxy joins the ports of Service and slice by name.
    pub(super) port_name: Option<String>,
    pub(super) app_protocol: Option<String>,
}

/// What is to be done with an object.
#[derive(Debug)]
pub(super) enum Step {
    /// It says what it should.
    Nothing,
    /// Another publisher has seen a newer leader.
    Yield { theirs: u32, ours: u32 },
    /// To be created.
    Create(Box<DynamicObject>),
    /// To be replaced, if it is still the version that was read.
    Replace(Box<DynamicObject>),
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

/// EndpointSlices of the version that the API serves.
pub(super) fn slices(version: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("discovery.k8s.io", version, "EndpointSlice"),
        "endpointslices",
    )
}

pub(super) fn endpoints() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Endpoints"), "endpoints")
}

/// Brings one object from what it says to what is wanted.
pub(super) fn step(
    kind: Kind,
    resource: &ApiResource,
    found: Option<&DynamicObject>,
    wanted: &Wanted,
    service: &Service,
) -> Step {
    let primary = wanted.leader.as_ref();
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
        dress(&mut object.metadata, kind, wanted, service);
        object.data = data(kind, &addresses, primary, service);
        return Step::Create(Box::new(object));
    };
    if let (Some(theirs), Some(ours)) = (timeline(found), wanted.timeline)
        && theirs > ours
        && !self::addresses(found).is_empty()
    {
        return Step::Yield { theirs, ours };
    }
    let mut object = found.clone();
    dress(&mut object.metadata, kind, wanted, service);
    let same_metadata = object.metadata == found.metadata;
    object.data = data(kind, &addresses, primary, service);
    if same_metadata && shape(&object) == shape(found) {
        return Step::Nothing;
    }
    object.types = Some(kube::core::TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    });
    // Absent, they stay as they are.
    object.metadata.managed_fields = None;
    Step::Replace(Box::new(object))
}

/// The addresses that an object of any of the kinds leads to.
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
    object.metadata.annotations.as_ref()?.get(TIMELINE)?.parse().ok()
}

/// Labels, annotations and owner; those of others stay.
fn dress(metadata: &mut ObjectMeta, kind: Kind, wanted: &Wanted, service: &Service) {
    let labels = metadata.labels.get_or_insert_default();
    match kind {
        Kind::Slice4 | Kind::Slice6 => {
            labels.insert("kubernetes.io/service-name".into(), service.name.clone());
            labels.insert("endpointslice.kubernetes.io/managed-by".into(), PGNORTH.into());
        }
        Kind::Endpoints => {
            labels.insert("app.kubernetes.io/managed-by".into(), PGNORTH.into());
            // Kubernetes would copy it into a slice of its own, a moment later than ours.
            labels.insert("endpointslice.kubernetes.io/skip-mirror".into(), "true".into());
        }
    }
    let annotations = metadata.annotations.get_or_insert_default();
    match &wanted.leader {
        Some(primary) => annotations.insert(LEADER.into(), primary.member.clone()),
        None => annotations.remove(LEADER),
    };
    if let Some(timeline) = wanted.timeline {
        annotations.insert(TIMELINE.into(), timeline.to_string());
    }
    // It goes when the Service goes.
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

/// What clients of an object notice: the API writes an empty list as null, and an absent name as an empty one.
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
    // Ports that nothing stands behind say nothing.
    let ports = if addresses.is_empty() {
        Vec::new()
    } else {
        ports.collect()
    };
    (addresses, ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            name: "pg".into(),
            uid: "u".into(),
            port_name: Some("postgresql".into()),
            app_protocol: None,
        }
    }

    fn wanted(addresses: &[&str], timeline: Option<u32>) -> Wanted {
        let primary = Primary {
            member: "pg-0".into(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            port: 5432,
        };
        Wanted {
            leader: (!addresses.is_empty()).then_some(primary),
            timeline,
        }
    }

    fn take(kind: Kind, found: Option<&DynamicObject>, wanted: &Wanted) -> Step {
        step(kind, &slices("v1"), found, wanted, &service())
    }

    /// As the API would keep it.
    fn after(kind: Kind, wanted: &Wanted) -> DynamicObject {
        match take(kind, None, wanted) {
            Step::Create(object) => *object,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_family_has_a_slice_of_its_own_and_none_is_made_for_nothing() {
        let both = wanted(&["10.0.0.7", "fd00::7"], Some(1));
        for (kind, name, family, address) in [
            (Kind::Slice4, "pg-pgnorth-ipv4", "IPv4", "10.0.0.7"),
            (Kind::Slice6, "pg-pgnorth-ipv6", "IPv6", "fd00::7"),
        ] {
            let slice = after(kind, &both);
            assert_eq!(slice.metadata.name.as_deref(), Some(name));
            assert_eq!(slice.data["addressType"], family);
            assert_eq!(addresses(&slice), [address]);
            assert_eq!(slice.data["ports"][0]["name"], "postgresql");
        }
        assert!(matches!(
            take(Kind::Slice6, None, &wanted(&["10.0.0.7"], None)),
            Step::Nothing
        ));
        assert!(matches!(take(Kind::Slice4, None, &wanted(&[], None)), Step::Nothing));
    }

    #[test]
    fn what_says_what_it_should_is_left_alone_even_as_the_api_spells_it() {
        for kind in [Kind::Slice4, Kind::Endpoints] {
            let wanted_now = wanted(&["10.0.0.7"], Some(1));
            let found = after(kind, &wanted_now);
            assert!(matches!(take(kind, Some(&found), &wanted_now), Step::Nothing));
            let Step::Replace(mut empty) = take(kind, Some(&found), &wanted(&[], Some(1))) else {
                panic!("{kind:?} is to be emptied")
            };
            assert!(addresses(&empty).is_empty());
            for list in ["endpoints", "subsets", "ports"] {
                if empty.data[list].is_array() {
                    empty.data[list] = Value::Null;
                }
            }
            assert!(matches!(take(kind, Some(&empty), &wanted(&[], Some(1))), Step::Nothing));
        }
    }

    #[test]
    fn a_higher_timeline_is_never_overwritten_while_it_leads_somewhere() {
        let newer = after(Kind::Slice4, &wanted(&["10.0.0.8"], Some(5)));
        for late in [wanted(&["10.0.0.7"], Some(4)), wanted(&[], Some(4))] {
            assert!(matches!(
                take(Kind::Slice4, Some(&newer), &late),
                Step::Yield { theirs: 5, ours: 4 }
            ));
        }
        // The same timeline, a newer one, or one that is not known, may write.
        for next in [
            wanted(&[], Some(5)),
            wanted(&["10.0.0.9"], Some(6)),
            wanted(&["10.0.0.9"], None),
        ] {
            assert!(matches!(take(Kind::Slice4, Some(&newer), &next), Step::Replace(_)));
        }
        // A cluster restored from a backup begins with a low timeline again.
        let Step::Replace(empty) = take(Kind::Slice4, Some(&newer), &wanted(&[], Some(5))) else {
            panic!()
        };
        assert!(matches!(
            take(Kind::Slice4, Some(&empty), &wanted(&["10.0.0.7"], Some(1))),
            Step::Replace(_)
        ));
    }

    #[test]
    fn labels_annotations_and_owners_of_others_stay() {
        let mut found = after(Kind::Slice4, &wanted(&["10.0.0.7"], Some(1)));
        found.metadata.resource_version = Some("7".into());
        found
            .metadata
            .labels
            .get_or_insert_default()
            .insert("theirs".into(), "x".into());
        let Step::Replace(next) = take(Kind::Slice4, Some(&found), &wanted(&["10.0.0.8"], Some(2))) else {
            panic!()
        };
        let labels = next.metadata.labels.unwrap();
        assert_eq!(labels["theirs"], "x");
        assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "pgnorth");
        assert_eq!(
            next.metadata.resource_version.as_deref(),
            Some("7"),
            "a write of what was read, or none"
        );
        assert_eq!(next.metadata.owner_references.unwrap().len(), 1);
        assert_eq!(next.metadata.annotations.unwrap()[TIMELINE], "2");
    }
}
