//! Checks that a pgnorth that starts during an outage of the Kubernetes API or of etcd can find members.

use url::{Host, Url};

use crate::config::DiscoverySettings;
use crate::doctor::check::Check;
use crate::doctor::facts::{Api, EtcdFacts, Facts, Rest};

/// Checks `--patroni` if Patroni's failsafe mode is on. Without failsafe mode, such an outage leaves no primary.
pub(super) fn start(facts: &Facts, discovery: &DiscoverySettings) -> Option<Check> {
    if let Some(Ok(etcd)) = &facts.etcd {
        return in_etcd(etcd, facts, discovery);
    }
    let api = facts.api.as_ref()?.as_ref().ok()?;
    let failsafe = matches!(&api.config, Ok(Some(config)) if config.failsafe);
    (failsafe && discovery.patroni.is_empty()).then(|| {
        Check::warn(
            "--patroni",
            "not set, but Patroni's failsafe mode is on: it keeps the primary up during an outage of the Kubernetes API, but a pgnorth that starts in such an outage knows no member to ask",
            value(api, facts),
        )
    })
}

/// Checks `--patroni` for a cluster in etcd, where the members' keys expire during an outage.
fn in_etcd(etcd: &EtcdFacts, facts: &Facts, discovery: &DiscoverySettings) -> Option<Check> {
    let failsafe = etcd.config.as_ref().is_some_and(|config| config.failsafe);
    let urls = facts.members.iter().filter_map(|member| url(&member.rest));
    let urls: Vec<_> = urls.map(|url| url.as_str().trim_end_matches('/').to_owned()).collect();
    let fix = match urls[..] {
        [] => "set --patroni to the URLs of the members' REST API (restapi.connect_address in Patroni's configuration), such as http://10.0.0.1:8008".to_owned(),
        _ => format!("--patroni {}", urls.join(",")),
    };
    (failsafe && discovery.patroni.is_empty()).then(|| {
        Check::warn(
            "--patroni",
            "not set, but Patroni's failsafe mode is on: it keeps the primary up during an outage of etcd, but a pgnorth that starts in such an outage knows no member to ask",
            fix,
        )
    })
}

/// Suggests a value for `--patroni`. It prefers names, because a pod's address changes with the pod.
fn value(api: &Api, facts: &Facts) -> String {
    let urls: Vec<_> = facts.members.iter().filter_map(|member| url(&member.rest)).collect();
    let is_name = |url: &Url| matches!(url.host(), Some(Host::Domain(_)));
    if !urls.is_empty() && urls.iter().all(is_name) {
        let shown: Vec<_> = urls.iter().map(|url| url.as_str().trim_end_matches('/')).collect();
        return format!("--patroni {}", shown.join(","));
    }
    let of_an_address = urls.iter().find(|url| !is_name(url));
    let scheme = of_an_address.map_or("http", Url::scheme);
    let port = of_an_address.and_then(Url::port_or_known_default).unwrap_or(8008);
    let (scope, namespace, selector) = (&api.scope, &api.namespace, &api.selector);
    let certificate = match scheme {
        "https" => ". The members' certificates must include that name",
        _ => "",
    };
    format!(
        "--patroni {scheme}://{scope}-members:{port}, and a headless Service {scope}-members in namespace {namespace} that selects {selector} with publishNotReadyAddresses: true, as in deploy/examples/patroni/members.yaml{certificate}"
    )
}

fn url(rest: &Rest) -> Option<Url> {
    match rest {
        Rest::Answered { url, .. } | Rest::Failed { url, .. } => url.parse().ok(),
        Rest::NotAsked(_) => None,
    }
}
