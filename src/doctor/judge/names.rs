//! Checks for Services whose Endpoints Patroni also uses: Kubernetes and Patroni then write the same object, and the
//! lock is lost sooner or later.

use crate::config::Doctor;
use crate::doctor::check::Check;
use crate::doctor::facts::{Answer, Api, Service};
use crate::leader::observation::ObjectKind;
use crate::publish::PATRONIS;

/// The check of the publisher's Service, if that is not checked.
pub(super) const PUBLISHED: &str = "the Service of pgnorth publish";

pub(super) fn all(api: &Api, settings: &Doctor) -> Vec<Check> {
    let mut checks = services(api);
    if api.published.is_none() && (settings.endpoints || settings.lease.is_some()) {
        checks.push(Check::not_checked(PUBLISHED, "--service is not set"));
    }
    checks.extend(published(&api.namespace, api.published.as_ref()));
    checks
}

/// Checks the Service of the publisher.
pub(super) fn published(namespace: &str, service: Option<&(String, Answer<()>)>) -> Option<Check> {
    let (name, answer) = service?;
    let what = format!("service {namespace}/{name}");
    Some(match answer {
        Ok(()) => Check::ok(what, "pgnorth publish can use it"),
        Err(why) => Check::fail(
            what,
            why,
            "pgnorth publish needs a Service of type ClusterIP without a selector, with one port: deploy/publish has an example",
        ),
    })
}

fn services(api: &Api) -> Vec<Check> {
    let what = "names of Services";
    let services = match &api.services {
        Ok(services) => services,
        Err(why) => {
            let because = format!(
                "{why} (pgnorth does not need this right; run the doctor with an administrator's kubeconfig for this check)"
            );
            return vec![Check::not_checked(what, because)];
        }
    };
    let mut checks: Vec<_> = services.iter().filter_map(|service| clash(api, service)).collect();
    if checks.is_empty() {
        let found = format!(
            "none of {} Services has both a selector and Patroni's Endpoints",
            services.len()
        );
        checks.push(Check::ok(what, found));
    }
    checks
}

fn clash(api: &Api, service: &Service) -> Option<Check> {
    let Service { name, has_selector, .. } = service;
    let (namespace, scope) = (&api.namespace, &api.scope);
    let is_named_so = PATRONIS.iter().any(|suffix| format!("{scope}{suffix}") == *name);
    if !has_selector || !is_named_so && !service.has_patroni_endpoints {
        return None;
    }
    let what = format!("service {namespace}/{name}");
    match api.lock() {
        // With the lock in ConfigMaps, Patroni uses no Endpoints: its old annotations are not a reason to remove the
        // selector of a working Service.
        Some((ObjectKind::ConfigMap, _)) if is_named_so => return leftovers(service, what),
        Some((ObjectKind::Endpoints, _)) if is_named_so => {}
        // For another cluster, or without a visible lock, the place of Patroni's lock is unknown: the Service may work
        // as it is.
        _ => {
            return Some(Check::warn(
                what,
                format!(
                    "it has a selector, and Patroni may keep its {} in the Endpoints with the same name",
                    purpose(scope, name)
                ),
                "first find out whether that Patroni keeps its lock in Endpoints (kubernetes.use_endpoints). Only then does the Service need another name, or no selector; if the lock is in ConfigMaps, leave the Service as it is",
            ));
        }
    }
    Some(Check::fail(
        what,
        format!(
            "it has a selector, and Patroni keeps its {} in the Endpoints with the same name: Kubernetes writes pod addresses into them, and deletes them together with the Service",
            purpose(scope, name)
        ),
        format!(
            "give your Service another name, such as {scope}-primary. Do not delete this Service; remove its selector: kubectl --namespace {namespace} patch service {name} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/selector\"}}]'"
        ),
    ))
}

fn leftovers(service: &Service, what: String) -> Option<Check> {
    service.has_patroni_endpoints.then(|| {
        Check::warn(
            what,
            "its Endpoints have old annotations of Patroni, which now keeps its lock in ConfigMaps: they are left over from kubernetes.use_endpoints",
            "leave the Service and its selector as they are: they work, and the annotations do no harm",
        )
    })
}

fn purpose(scope: &str, name: &str) -> &'static str {
    match name.strip_prefix(scope) {
        Some("") => "lock",
        Some("-config") => "configuration",
        _ => "state",
    }
}
