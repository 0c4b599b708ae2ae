//! Checks of the leader object, of its renewal, and of times that depend on each other.

use std::time::Duration;

use humantime::format_duration;

use super::cluster::paused;
use crate::doctor::check::Check;
use crate::doctor::facts::{Api, Config, LeaderObject, Renewal};
use crate::leader::observation::{Lock, ObjectKind};

/// Time from taking the lock to accepting writes: a few seconds, more if there is much WAL to replay.
const PROMOTION: Duration = Duration::from_secs(5);
/// Subject of the checks of the leader object.
const OBJECT: &str = "leader object";

/// Checks that exactly one kind of leader object has a lock, and that a member holds it.
pub(super) fn objects(api: &Api) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut locks = Vec::new();
    let mut unknown = false;
    for (kind, answer) in &api.leaders {
        match answer {
            Ok(LeaderObject::Lock(lock, problem)) => {
                locks.push(*kind);
                checks.extend(found_lock(&title(api, *kind), lock, problem.as_deref()));
            }
            Ok(LeaderObject::Absent | LeaderObject::Foreign) => {}
            Err(why) => {
                unknown = true;
                checks.push(Check::not_checked(format!("{OBJECT}, {}", title(api, *kind)), why));
            }
        }
    }
    match locks[..] {
        [] if !unknown => checks.push(absent(api)),
        [one, other] => checks.push(Check::warn(
            OBJECT,
            format!(
                "both kinds have a lock, {} and {}; pgnorth uses the one renewed last",
                title(api, one),
                title(api, other)
            ),
            "one is left over from a change of kubernetes.use_endpoints: delete the one that Patroni no longer renews",
        )),
        _ => {}
    }
    checks
}

/// Checks one lock: its fields, and that a member holds it.
fn found_lock(title: &str, lock: &Lock, problem: Option<&str>) -> Vec<Check> {
    let malformed = problem.map(|problem| {
        let found = format!("{title}: {problem}");
        Check::warn(
            OBJECT,
            found,
            "only Patroni should write this object: find the other writer",
        )
    });
    let held = match &lock.holder {
        Some(holder) => Check::ok(
            OBJECT,
            format!("{title}: {holder} holds the lock, ttl {}", format_duration(lock.ttl)),
        ),
        None => Check::fail(
            OBJECT,
            format!("{title}: no member holds the lock"),
            "Patroni has released the lock and no member has taken it: find the reason with patronictl list and in the members' logs",
        ),
    };
    malformed.into_iter().chain([held]).collect()
}

fn absent(api: &Api) -> Check {
    let foreign = api
        .leaders
        .iter()
        .find(|(_, answer)| *answer == Ok(LeaderObject::Foreign));
    let both = format!(
        "{} nor {}",
        title(api, ObjectKind::Endpoints),
        title(api, ObjectKind::ConfigMap)
    );
    let found = match foreign {
        Some((kind, _)) => format!("{} exists, but without Patroni's annotations", title(api, *kind)),
        None => format!("there is neither {both}"),
    };
    let groups = citus_groups(api);
    let fix = if !groups.is_empty() {
        format!(
            "{} is a Citus cluster, and each of its groups has its own objects: add --citus-group with one of its groups ({}); 0 is the coordinator",
            api.scope,
            groups.join(", ")
        )
    } else if api.scopes.is_empty() {
        format!(
            "--scope must be Patroni's scope, and --namespace its namespace; no leader object of any scope is visible in namespace {}. If Patroni keeps its lock elsewhere, use --etcd (etcd) or --patroni (Consul, ZooKeeper) instead",
            api.namespace
        )
    } else {
        let mut scopes = api.scopes.clone();
        scopes.sort();
        scopes.dedup();
        format!(
            "--scope must be Patroni's scope; leader objects in namespace {} have the scopes: {}",
            api.namespace,
            scopes.join(", ")
        )
    };
    Check::fail(OBJECT, found, fix)
}

/// Returns the groups of a Citus cluster with this scope that have a leader object here.
fn citus_groups(api: &Api) -> Vec<&str> {
    let suffixes = api
        .scopes
        .iter()
        .filter_map(|scope| scope.strip_prefix(&api.scope)?.strip_prefix('-'));
    let mut groups: Vec<_> = suffixes.filter(|group| group.parse::<u32>().is_ok()).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

pub(super) fn renewal(api: &Api) -> Option<Check> {
    let what = "lock is renewed";
    Some(match &api.renewal {
        Err(why) => Check::not_checked(what, why),
        Ok(Renewal::Renewed { after, .. }) => Check::ok(what, format!("seen after {:.1} s", after.as_secs_f64())),
        Ok(Renewal::Missing(within)) => Check::fail(
            what,
            format!(
                "no renewal within {} (Patroni's loop_wait and a few seconds)",
                format_duration(*within)
            ),
            match api.holder() {
                Some(holder) => format!(
                    "check Patroni on {holder} (kubectl logs {holder}): is it running, and can it reach the Kubernetes API? When the ttl expires, another member takes the lock"
                ),
                None => "no member holds the lock: check the members' logs".to_owned(),
            },
        ),
    })
}

/// Checks Patroni's dynamic configuration for a standby cluster and for a pause.
pub(super) fn config(api: &Api) -> Vec<Check> {
    let config = match &api.config {
        Ok(Some(config)) => config,
        Ok(None) if api.lock().is_none() => return Vec::new(),
        Ok(None) => {
            let (what, scope) = ("Patroni's configuration", &api.scope);
            let found =
                format!("no object {scope}-config has it; the check of the renewal assumes a loop_wait of 10 s");
            return vec![Check::warn(what, found, "Patroni writes this object: check its log")];
        }
        Err(why) => return vec![Check::not_checked("Patroni's configuration", why)],
    };
    of_config(config)
}

/// Checks a configuration that could be read.
pub(super) fn of_config(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    if config.settings.standby_cluster {
        checks.push(Check::fail(
            "standby cluster",
            "this cluster replicates from another cluster, so its leader accepts no writes: clients of the primary are held",
            "point pgnorth at the primary cluster, or promote this one: remove standby_cluster with patronictl edit-config",
        ));
    }
    if config.settings.paused {
        checks.push(paused());
    }
    checks
}

/// Compares --hold with the ttl: a client that connects during a crash of the primary waits until the lock has expired
/// and a member is promoted.
pub(super) fn hold(hold: Duration, ttl: Option<Duration>) -> Check {
    let what = "--hold and Patroni's ttl";
    let Some(ttl) = ttl else {
        return Check::not_checked(what, "the ttl is unknown");
    };
    let found = format!("hold {}, ttl {}", format_duration(hold), format_duration(ttl));
    let fix = format!(
        "set --hold {} (the ttl and a few seconds for the promotion), if your clients' timeouts allow it",
        format_duration(ttl + 2 * PROMOTION)
    );
    if hold.is_zero() {
        Check::warn(
            what,
            format!("{found}: clients are refused immediately while there is no leader"),
            fix,
        )
    } else if hold < ttl {
        Check::fail(
            what,
            format!("{found}: when the primary crashes, clients are refused before another member can be promoted"),
            fix,
        )
    } else if hold < ttl + PROMOTION {
        Check::warn(
            what,
            format!("{found}: a failover after a crash may take longer than clients wait"),
            fix,
        )
    } else {
        Check::ok(what, found)
    }
}

/// Returns the object's name, such as `endpoints default/demo`.
fn title(api: &Api, kind: ObjectKind) -> String {
    let (namespace, scope) = (&api.namespace, &api.scope);
    match kind {
        ObjectKind::Endpoints => format!("endpoints {namespace}/{scope}"),
        ObjectKind::ConfigMap => format!("configmap {namespace}/{scope}-leader"),
        ObjectKind::EtcdKey => format!("key {namespace}/{scope}/leader"),
    }
}
