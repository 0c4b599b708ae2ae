//! Checks of the member list: the pods, and `/cluster`.

use super::tls;
use crate::config::{ClientTls, DiscoverySettings};
use crate::doctor::check::Check;
use crate::doctor::facts::{Api, RestFailure, Seed};
use crate::leader::BaseUrl;

pub(super) fn pods(api: &Api) -> Option<Check> {
    let what = "pods";
    let pods = match &api.pods {
        Ok(pods) => pods,
        Err(why) => return Some(Check::not_checked(what, why)),
    };
    let (selector, namespace) = (&api.selector, &api.namespace);
    let selected = format!("{} in namespace {namespace} with {selector}", count(pods.len(), "pod"));
    let lost = api.holder().filter(|holder| !pods.iter().any(|pod| pod == holder));
    Some(match lost {
        Some(holder) => Check::fail(
            what,
            format!("{selected}; {holder}, which holds the lock, is not among them, so its address is unknown"),
            selector_for(api, holder),
        ),
        None if pods.is_empty() => Check::fail(
            what,
            selected,
            format!(
                "--selector must match the labels of Patroni's pods; to list them: kubectl get pods --namespace {namespace} --show-labels"
            ),
        ),
        None => Check::ok(what, format!("{selected}: {}", pods.join(", "))),
    })
}

/// Suggests a selector. A label whose value is the scope is most likely Patroni's scope_label.
fn selector_for(api: &Api, holder: &str) -> String {
    let Some(labels) = &api.holder_labels else {
        return format!(
            "--selector must match the labels of Patroni's pods, and {holder} must be a pod in namespace {}",
            api.namespace
        );
    };
    let shown: Vec<_> = labels.iter().map(|(label, value)| format!("{label}={value}")).collect();
    match labels.iter().find(|(_, value)| **value == api.scope) {
        Some((label, value)) => format!("--selector {label}={value}"),
        None => format!("--selector must match the labels of {holder}: {}", shown.join(",")),
    }
}

/// Checks `/cluster` of each URL. One answer is enough, so a failing URL is a warning if another answers.
pub(super) fn seeds(seeds: &[(BaseUrl, Result<Seed, RestFailure>)], discovery: &DiscoverySettings) -> Vec<Check> {
    let files = &discovery.patroni_tls;
    let answered: Vec<_> = seeds
        .iter()
        .filter_map(|(_, answered)| answered.as_ref().ok())
        .collect();
    let mut checks = Vec::new();
    for (url, answer) in seeds {
        let what = format!("{url}/cluster");
        checks.push(match answer {
            Ok(seed) => foreign(&what, seed, discovery.scope.as_deref()).unwrap_or_else(|| cluster(what, seed)),
            Err(failure) => {
                let (found, fix) = no_cluster(failure, files);
                let grade = if answered.is_empty() { Check::fail } else { Check::warn };
                grade(what, found, fix)
            }
        });
    }
    let mut scopes: Vec<_> = answered.iter().filter_map(|seed| seed.scope.as_deref()).collect();
    scopes.sort_unstable();
    scopes.dedup();
    if discovery.scope.is_none() && scopes.len() > 1 {
        checks.push(Check::fail(
            "/cluster",
            format!("the URLs of --patroni belong to several clusters, with the scopes {}", scopes.join(", ")),
            "remove the wrong cluster's URLs from --patroni, and name the right scope with --scope (without Kubernetes, add --kubernetes=false)",
        ));
    }
    let leaders: Vec<_> = answered.iter().filter_map(|seed| seed.leader.as_ref()).collect();
    if leaders.windows(2).any(|pair| pair[0] != pair[1]) {
        checks.push(Check::fail(
            "/cluster",
            "members disagree about the leader",
            "during a change of leader this is normal; otherwise the URLs of --patroni belong to different clusters, or a member cannot reach Patroni's DCS",
        ));
    }
    if answered.iter().any(|seed| seed.paused) {
        checks.push(paused());
    }
    checks
}

pub(super) fn paused() -> Check {
    Check::warn(
        "pause",
        "Patroni is paused: there is no automatic failover if the primary fails",
        "run patronictl resume when the maintenance is over",
    )
}

/// Checks that the URL belongs to the cluster of --scope; otherwise, discovery ignores its answers.
fn foreign(what: &str, seed: &Seed, scope: Option<&str>) -> Option<Check> {
    let theirs = seed.scope.as_deref()?;
    let ours = scope.filter(|ours| *ours != theirs)?;
    Some(Check::fail(
        what,
        format!("a different cluster answers there: its scope is {theirs}, but --scope is {ours}"),
        "remove this URL from --patroni, or correct --scope; until then, pgnorth ignores the answers from this URL",
    ))
}

fn no_cluster(failure: &RestFailure, files: &ClientTls) -> (String, String) {
    match &failure.tls {
        Some(trouble) => {
            let (found, fix) = tls::explain(trouble, files);
            (format!("{found} ({})", failure.why), fix)
        }
        None => (
            failure.why.clone(),
            "check that Patroni is running there, that --patroni has the host and port of restapi.connect_address, and that firewalls and network policies let this host connect".to_owned(),
        ),
    }
}

fn cluster(what: String, seed: &Seed) -> Check {
    let members = format!("{}: {}", count(seed.members.len(), "member"), seed.members.join(", "));
    match &seed.leader {
        Some(leader) => Check::ok(what, format!("{members}; {leader} leads")),
        None => Check::fail(
            what,
            format!("{members}; no member leads"),
            "find the reason with patronictl list and in the members' logs",
        ),
    }
}

fn count(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}
