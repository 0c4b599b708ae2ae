//! Turns the facts into the lines of the report (pure: no I/O, no clock).

mod cluster;
mod etcd;
mod host;
mod lock;
mod members;
mod names;
mod outage;
mod reports;
pub(super) mod rights;
mod routes;
mod tls;

use super::check::Check;
use super::facts::{Api, ApiFailure, Facts};
use crate::config::Doctor;

pub(super) fn everything(settings: &Doctor, facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(problem) = &facts.tls_files {
        checks.push(Check::fail(
            "TLS files",
            problem,
            "--patroni-ca, --patroni-cert and --patroni-key must name PEM files that this process can read",
        ));
    }
    if let Some(token) = &facts.admin_token {
        checks.push(host::admin_token(token));
    }
    if let Some(certificate) = &facts.refusal_certificate {
        checks.push(host::refusal_certificate(certificate));
    }
    match &facts.api {
        None => {}
        Some(Err(failure)) => checks.extend(unreachable(failure)),
        Some(Ok(api)) => checks.extend(kubernetes(settings, api)),
    }
    match &facts.publisher {
        None => {}
        Some(Err(failure)) => {
            let (first, because) = host::failure(failure);
            checks.extend([first, Check::not_checked(names::PUBLISHED, because)]);
        }
        Some(Ok(publisher)) => {
            checks.push(host::credentials(&publisher.namespace, &publisher.version));
            checks.extend(rights::all(&publisher.namespace, &publisher.rights, None));
            checks.extend(names::published(&publisher.namespace, publisher.service.as_ref()));
        }
    }
    match &facts.etcd {
        None => {}
        Some(Err(why)) => checks.push(Check::fail(
            "TLS files of etcd",
            why,
            "--etcd-ca, --etcd-cert and --etcd-key must name PEM files that this process can read",
        )),
        Some(Ok(found)) => checks.extend(etcd::all(settings, found)),
    }
    let discovery = &settings.proxy.discovery;
    checks.extend(cluster::seeds(&facts.seeds, discovery));
    checks.extend(members::all(facts, discovery));
    checks.extend(routes::all(&facts.members, &settings.proxy.routes));
    checks.extend(outage::start(facts, discovery));
    checks.push(lock::hold(settings.proxy.hold, ttl(facts)));
    checks.push(host::open_files(settings.proxy.max_sessions, facts.capacity));
    checks.push(host::ports(settings.proxy.max_sessions, facts.capacity));
    checks
}

fn kubernetes(settings: &Doctor, api: &Api) -> Vec<Check> {
    let mut checks = vec![host::credentials(&api.namespace, &api.version)];
    checks.extend(rights::all(
        &api.namespace,
        &api.rights,
        api.lock().map(|(kind, _)| kind),
    ));
    checks.extend(lock::objects(api));
    checks.extend(lock::renewal(api));
    checks.extend(lock::config(api));
    checks.extend(cluster::pods(api));
    checks.extend(names::all(api, settings));
    checks.extend(host::clocks(api));
    checks
}

/// Returns the failure, and a warning for each check that needs the API: a missing line would look like a success.
fn unreachable(failure: &ApiFailure) -> Vec<Check> {
    let (first, because) = host::failure(failure);
    let lost = [
        "rights",
        "leader object",
        "lock is renewed",
        "pods",
        "names of Services",
        "clock",
    ];
    let lost = lost.into_iter().map(|what| Check::not_checked(what, because));
    [first].into_iter().chain(lost).collect()
}

/// Returns the ttl of the lock, or else the longest ttl that a member reports.
fn ttl(facts: &Facts) -> Option<std::time::Duration> {
    let api = facts.api.as_ref().and_then(|api| api.as_ref().ok());
    let locks = api.and_then(Api::lock).map(|(_, lock)| lock.ttl);
    let locks = locks.or_else(|| facts.etcd.as_ref()?.as_ref().ok()?.ttl);
    let seeds = facts.seeds.iter().filter_map(|(_, seed)| seed.as_ref().ok());
    locks.or_else(|| seeds.filter_map(|seed| seed.ttl).max())
}

#[cfg(test)]
mod tests;
