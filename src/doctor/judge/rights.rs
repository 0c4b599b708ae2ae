//! The rights that pgnorth uses, and the effect of each missing right, determined by removing it
//! (docs/operating/kubernetes.md).

use crate::config::Doctor;
use crate::doctor::check::Check;
use crate::doctor::facts::{Answer, Right};
use crate::leader::observation::ObjectKind;

/// The rights of deploy/base/rbac.yaml.
const PROXY: [Right; 9] = [
    core("get", "endpoints"),
    core("list", "endpoints"),
    core("watch", "endpoints"),
    core("get", "configmaps"),
    core("list", "configmaps"),
    core("watch", "configmaps"),
    core("list", "pods"),
    core("watch", "pods"),
    right("create", "events.k8s.io", "events"),
];

/// The additional rights of deploy/publish/rbac.yaml.
const PUBLISH: [Right; 4] = [
    core("get", "services"),
    right("get", "discovery.k8s.io", "endpointslices"),
    right("create", "discovery.k8s.io", "endpointslices"),
    right("update", "discovery.k8s.io", "endpointslices"),
];
const WITH_ENDPOINTS: [Right; 2] = [core("create", "endpoints"), core("update", "endpoints")];
const WITH_LEASE: [Right; 3] = [
    right("get", "coordination.k8s.io", "leases"),
    right("create", "coordination.k8s.io", "leases"),
    right("update", "coordination.k8s.io", "leases"),
];

/// The effect of a missing right.
enum Impact {
    /// No relevant effect; the text is the reason.
    None(&'static str),
    Degraded(&'static str),
    Broken(&'static str),
}

const fn core(verb: &'static str, resource: &'static str) -> Right {
    right(verb, "", resource)
}

const fn right(verb: &'static str, group: &'static str, resource: &'static str) -> Right {
    Right { verb, group, resource }
}

/// Returns the rights that these settings need.
pub(in crate::doctor) fn needed(settings: &Doctor) -> Vec<Right> {
    let publisher = of_publisher(settings);
    PROXY.into_iter().chain(publisher).collect()
}

/// Returns the rights that the publisher needs in addition; none without a Service.
pub(in crate::doctor) fn of_publisher(settings: &Doctor) -> Vec<Right> {
    let mut needed = Vec::new();
    if settings.service.is_some() {
        needed.extend(PUBLISH);
        if settings.endpoints {
            needed.extend(WITH_ENDPOINTS);
        }
        if settings.lease.is_some() {
            needed.extend(WITH_LEASE);
        }
    }
    needed
}

/// Returns one check per resource for the granted rights, and one per missing right.
pub(super) fn all(namespace: &str, rights: &[(Right, Answer<bool>)], lock: Option<ObjectKind>) -> Vec<Check> {
    let mut resources: Vec<&str> = Vec::new();
    for (right, _) in rights {
        if !resources.contains(&right.resource) {
            resources.push(right.resource);
        }
    }
    let mut checks = Vec::new();
    for resource in resources {
        let of_it = rights.iter().filter(|(right, _)| right.resource == resource);
        let mut granted = Vec::new();
        for (right, answer) in of_it {
            match answer {
                Ok(true) => granted.push(right.verb),
                Ok(false) => checks.push(missing(namespace, lock, *right)),
                Err(why) => checks.push(Check::not_checked(title(*right), why)),
            }
        }
        if !granted.is_empty() {
            let what = format!("rights on {resource}");
            checks.push(Check::ok(what, format!("{} granted", granted.join(", "))));
        }
    }
    checks
}

fn title(right: Right) -> String {
    format!("right to {} {}", right.verb, right.resource)
}

fn missing(namespace: &str, lock: Option<ObjectKind>, right: Right) -> Check {
    let what = title(right);
    let subject = format!("not granted in namespace {namespace}");
    let role = match (right.verb, right.resource) {
        (_, "events") => "deploy/base/rbac.yaml",
        ("create" | "update", _) | (_, "services" | "endpointslices" | "leases") => "deploy/publish/rbac.yaml",
        _ => "deploy/base/rbac.yaml",
    };
    let fix = format!(
        "grant verb {} on {} to the user or service account of these credentials: {role} contains the complete Role",
        right.verb,
        qualified(right),
    );
    match impact(right, lock) {
        Impact::None(why) => Check::ok(what, format!("{subject}, and not needed: {why}")),
        Impact::Degraded(then) => Check::warn(what, format!("{subject}: {then}"), fix),
        Impact::Broken(then) => Check::fail(what, format!("{subject}: {then}"), fix),
    }
}

fn qualified(right: Right) -> String {
    match right.group {
        "" => right.resource.to_owned(),
        group => format!("{}.{group}", right.resource),
    }
}

fn impact(right: Right, lock: Option<ObjectKind>) -> Impact {
    let kind = match right.resource {
        "endpoints" => Some(ObjectKind::Endpoints),
        "configmaps" => Some(ObjectKind::ConfigMap),
        _ => None,
    };
    match (right.verb, right.resource) {
        ("get" | "list" | "watch", _) if kind.is_some() && lock.is_some() && kind != lock => {
            Impact::None("the lock is in the other kind of object")
        }
        ("create", "events") => Impact::None("without it, pgnorth works, but writes no Kubernetes Events"),
        ("get", "endpoints" | "configmaps") => {
            Impact::Broken("an overdue renewal of the lock counts as an unreachable API, so a fence may come late")
        }
        ("list", "endpoints" | "configmaps") => Impact::Broken(
            "pgnorth cannot see the lock: it learns the leader only from Patroni's REST API, and does not see an announced switchover",
        ),
        ("watch", "endpoints" | "configmaps") => Impact::Broken(
            "pgnorth lists the lock twice a second instead, and each rejection counts as an unreachable API",
        ),
        ("list", "pods") => Impact::Broken("no member's address is known, so every client is held and then refused"),
        ("watch", "pods") => Impact::Degraded("pgnorth lists pods twice a second instead"),
        _ => Impact::Broken("pgnorth publish cannot maintain the Service"),
    }
}
