//! Services whose Endpoints are Patroni's: two writers of one object, and sooner or later no lock.

use crate::config::Doctor;
use crate::doctor::check::Check;
use crate::doctor::facts::{Api, Service};
use crate::leader::observation::ObjectKind;
use crate::publish::PATRONIS;

pub(super) fn all(api: &Api, settings: &Doctor) -> Vec<Check> {
    let mut checks = services(api);
    if let Some((name, told)) = &api.published {
        let what = format!("service {}/{name}", api.namespace);
        checks.push(match told {
            Ok(()) => Check::ok(what, "pgnorth publish may keep it"),
            Err(why) => Check::fail(what, why, "pgnorth publish needs a Service of type ClusterIP without a selector, with one port: deploy/publish has one"),
        });
    } else if settings.endpoints || settings.lease.is_some() {
        checks.push(Check::not_checked(
            "the Service of pgnorth publish",
            "--service does not name it",
        ));
    }
    checks
}

fn services(api: &Api) -> Vec<Check> {
    let what = "names of Services";
    let services = match &api.services {
        Ok(services) => services,
        Err(why) => {
            let because = format!(
                "{why} (pgnorth itself does not need this right; with an administrator's kubeconfig it is checked)"
            );
            return vec![Check::not_checked(what, because)];
        }
    };
    let mut checks: Vec<_> = services.iter().filter_map(|service| clash(api, service)).collect();
    if checks.is_empty() {
        let found = format!("none of {} has a selector and Patroni's Endpoints", services.len());
        checks.push(Check::ok(what, found));
    }
    checks
}

fn clash(api: &Api, service: &Service) -> Option<Check> {
    let Service { name, has_selector, .. } = service;
    let (namespace, scope) = (&api.namespace, &api.scope);
    let is_named_so = PATRONIS.iter().any(|suffix| format!("{scope}{suffix}") == *name);
    // With the lock in ConfigMaps, Patroni has no Endpoints of the scope's name.
    let lock_is_elsewhere = api.lock().is_some_and(|(kind, _)| kind == ObjectKind::ConfigMap);
    let clashes = service.is_patronis || is_named_so && !lock_is_elsewhere;
    if !clashes || !has_selector {
        return None;
    }
    Some(Check::fail(
        format!("service {namespace}/{name}"),
        format!(
            "it has a selector, and the Endpoints of its name are where Patroni keeps its {}: Kubernetes writes pod addresses into them, and deletes them together with the Service",
            purpose(scope, name)
        ),
        format!(
            "give your Service another name, such as {scope}-primary. Do not delete this one, take its selector away: kubectl --namespace {namespace} patch service {name} --type=json -p '[{{\"op\":\"remove\",\"path\":\"/spec/selector\"}}]'"
        ),
    ))
}

fn purpose(scope: &str, name: &str) -> &'static str {
    match name.strip_prefix(scope) {
        Some("") => "lock",
        Some("-config") => "configuration",
        _ => "state",
    }
}
