//! Checks of etcd: each endpoint, the leader key, the renewal of its lease, Patroni's configuration.

use humantime::format_duration;

use super::{lock, tls};
use crate::config::Doctor;
use crate::doctor::check::Check;
use crate::doctor::facts::{EtcdFacts, EtcdFailure, Renewal};

pub(super) fn all(settings: &Doctor, facts: &EtcdFacts) -> Vec<Check> {
    let mut checks = endpoints(settings, facts);
    if facts.endpoints.iter().all(|(_, answer)| answer.is_err()) {
        let because = "no etcd endpoint gave a usable answer";
        checks.extend(["leader key", "lock is renewed", "members"].map(|what| Check::not_checked(what, because)));
        return checks;
    }
    checks.push(leader(facts));
    checks.push(renewal(facts));
    checks.extend(facts.config.iter().flat_map(lock::of_config));
    checks
}

/// Checks each endpoint. One answer is enough, so a failing endpoint is a warning if another answers.
fn endpoints(settings: &Doctor, facts: &EtcdFacts) -> Vec<Check> {
    let none_answers = facts.endpoints.iter().all(|(_, answer)| answer.is_err());
    let grade = if none_answers { Check::fail } else { Check::warn };
    let check = |(url, answer): &(_, Result<usize, EtcdFailure>)| {
        let what = format!("etcd {url}");
        match answer {
            Ok(keys) => Check::ok(
                what,
                format!("{keys} keys below {} can be listed and watched", facts.prefix),
            ),
            Err(failure) => grade(what, failure.why.clone(), fix(settings, facts, failure)),
        }
    };
    let mut checks: Vec<_> = facts.endpoints.iter().map(check).collect();
    if facts.endpoints.len() == 1 {
        let found = "names only one endpoint: if it does not answer, pgnorth cannot see the lock";
        checks.push(Check::warn(
            "--etcd",
            found,
            "if etcd has more members, name all of them, separated by commas",
        ));
    }
    checks
}

fn fix(settings: &Doctor, facts: &EtcdFacts, failure: &EtcdFailure) -> String {
    let prefix = &facts.prefix;
    let etcd = settings.proxy.discovery.etcd.as_ref();
    let user = etcd.and_then(|etcd| etcd.login.as_ref()).map(|(user, _)| user.as_str());
    if let (Some(problem), Some(etcd)) = (&failure.tls, etcd) {
        return tls::fix_for_etcd(problem, &etcd.tls);
    }
    match (failure.is_denied, failure.is_login, user) {
        (true, _, Some(user)) => format!(
            "etcdctl role grant-permission <a role of {user}> --prefix=true read {prefix}"
        ),
        (true, ..) | (_, true, None) => "set --etcd-user and --etcd-password-file: this etcd has authentication enabled".to_owned(),
        (_, true, Some(user)) => format!("the file of --etcd-password-file must contain the password of {user}; to set a new one: etcdctl user passwd {user}"),
        _ => "check that etcd is running there, that --etcd has the client URLs of Patroni's configuration, and that firewalls let this host connect".to_owned(),
    }
}

fn leader(facts: &EtcdFacts) -> Check {
    let what = "leader key";
    let key = format!("{}leader", facts.prefix);
    let has_keys = facts.endpoints.iter().any(|(_, answer)| matches!(answer, Ok(1..)));
    match &facts.holder {
        Some(holder) => Check::ok(what, format!("{key}: {holder} holds the lock")),
        None if !facts.groups.is_empty() => {
            let groups: Vec<_> = facts.groups.iter().map(u32::to_string).collect();
            Check::fail(
                what,
                format!("there is no {key}; this scope is a Citus cluster, and each of its groups has its own keys"),
                format!(
                    "add --citus-group with one of its groups ({}); 0 is the coordinator",
                    groups.join(", ")
                ),
            )
        }
        None if !has_keys => Check::fail(
            what,
            format!("no key begins with {}", facts.prefix),
            "--scope and --etcd-namespace must be the scope and the namespace in Patroni's configuration; to list the keys: etcdctl get --prefix --keys-only /service/",
        ),
        None => Check::fail(
            what,
            format!("there is no {key}: no member holds the lock"),
            "find the reason with patronictl list and in the members' logs",
        ),
    }
}

fn renewal(facts: &EtcdFacts) -> Check {
    let what = "lock is renewed";
    match &facts.renewal {
        Err(why) => Check::not_checked(what, why),
        Ok(Renewal::Renewed { after, .. }) => Check::ok(
            what,
            format!(
                "its lease was renewed {:.1} s after this check began",
                after.as_secs_f64()
            ),
        ),
        Ok(Renewal::Missing(within)) => Check::fail(
            what,
            format!(
                "no renewal of its lease within {} (Patroni's loop_wait and a few seconds)",
                format_duration(*within)
            ),
            "check Patroni on the lock's holder: is it running, and can it reach etcd? When the ttl expires, another member takes the lock",
        ),
    }
}
