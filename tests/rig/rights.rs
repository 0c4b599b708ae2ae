//! The Role in `deploy/base/rbac.yaml`: with it, pgnorth lacks no right. Each right that is removed is reported by
//! verb, resource and name, and the effect is what docs/operating/kubernetes.md says. Against the real API server with
//! RBAC, and real Patroni.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kubernetes::{NAMESPACE, User};
use crate::support::{Dcs, Product, Rig, psql, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(15);
/// Interval at which an absent leader object is read: after 30 s without an event.
const QUIET: Duration = Duration::from_secs(45);

/// A right, and the routing without it.
struct Row {
    verb: &'static str,
    resource: &'static str,
    /// The object's name, if the Role has one: `patronidemo-failover`.
    name: Option<&'static str>,
    then: Then,
}

/// The routing of new clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Routed by the lock, as with all rights.
    ByLock,
    /// Routed by Patroni's REST API alone, as without Kubernetes.
    ByRest,
    /// Routed. Only lists show the lock, and each refused watch counts as an API that does not answer, so it may be
    /// either.
    ByEither,
    /// Routed by the lock until a renewal is overdue; then the API counts as unreachable, so that the ttl is not
    /// counted down.
    ByLockUntilOverdue,
    /// Clients wait, and are refused with the reason.
    Held,
}

const fn row(verb: &'static str, resource: &'static str, name: &'static str, then: Then) -> Row {
    Row {
        verb,
        resource,
        name: Some(name),
        then,
    }
}

const fn unnamed(verb: &'static str, resource: &'static str, then: Then) -> Row {
    Row {
        verb,
        resource,
        name: None,
        then,
    }
}

#[tokio::test]
async fn each_right_is_needed_beside_endpoints() {
    let rows = [
        row("get", "endpoints", "patronidemo", Then::ByLockUntilOverdue),
        row("list", "endpoints", "patronidemo", Then::ByRest),
        row("watch", "endpoints", "patronidemo", Then::ByEither),
        row("list", "endpoints", "patronidemo-failover", Then::ByLock),
        row("watch", "endpoints", "patronidemo-failover", Then::ByLock),
        row("list", "endpoints", "patronidemo-config", Then::ByLock),
        row("watch", "endpoints", "patronidemo-config", Then::ByLock),
        row("get", "configmaps", "patronidemo-leader", Then::ByLock),
        row("list", "configmaps", "patronidemo-leader", Then::ByLock),
        row("watch", "configmaps", "patronidemo-leader", Then::ByLock),
        row("list", "configmaps", "patronidemo-config", Then::ByLock),
        unnamed("list", "pods", Then::Held),
        unnamed("watch", "pods", Then::ByLock),
    ];
    take_each_away(Dcs::Endpoints, &rows).await;
}

#[tokio::test]
async fn each_right_is_needed_beside_config_maps() {
    let rows = [
        row("get", "configmaps", "patronidemo-leader", Then::ByLockUntilOverdue),
        row("list", "configmaps", "patronidemo-leader", Then::ByRest),
        row("watch", "configmaps", "patronidemo-leader", Then::ByEither),
        row("list", "configmaps", "patronidemo-failover", Then::ByLock),
        row("list", "endpoints", "patronidemo", Then::ByLock),
    ];
    take_each_away(Dcs::ConfigMaps, &rows).await;
}

async fn take_each_away(dcs: Dcs, rows: &[Row]) {
    let rig = Rig::start(dcs).await;
    let whole = rules(&rig).await;
    nothing_is_missing(&rig).await;
    let mut table = format!("\n{dcs:?}: taken away | clients | /readyz | /leader | the log's first line\n");
    let mut wrong = Vec::new();
    for row in rows {
        set_rules(&rig, &without(&whole, row)).await;
        wait_until_in_force(&rig, row).await;
        let seen = look(&rig, row).await;
        let name = row.name.unwrap_or_default();
        writeln!(table, "{} {} {name} | {}", row.verb, row.resource, seen.line).unwrap();
        if seen.then != row.then {
            wrong.push(format!(
                "{} {} {name}: {:?}, and not {:?}",
                row.verb, row.resource, seen.then, row.then
            ));
        }
    }
    println!("{table}");
    assert!(wrong.is_empty(), "{wrong:#?}{table}");
}

struct Seen {
    then: Then,
    line: String,
}

async fn look(rig: &Rig, row: &Row) -> Seen {
    let product = Product::start(rig, &["--hold", "5s"], &[]).await;
    let served = psql(product.address(), "select 1").await.as_deref() == Ok("1");
    let overdue = row.then == Then::ByLockUntilOverdue;
    if overdue {
        pause_renewals_until_logged(rig, &product, row).await;
    } else {
        wait_until("the log names verb and resource", QUIET, async || {
            rejection(&product, row)
        })
        .await;
    }
    let (ready, leader) = (product.admin_get("/readyz").await, product.admin_get("/leader").await);
    let reason = leader.json()["reason"].as_str().unwrap().to_owned();
    let then = match (served, row.then) {
        (false, _) => Then::Held,
        (true, Then::ByEither | Then::ByLockUntilOverdue) => row.then,
        (true, _) if reason.contains("decided by Patroni's REST API") => Then::ByRest,
        (true, _) => Then::ByLock,
    };
    let line = format!(
        "{then:?} | {} {} | {} {reason} | {}",
        ready.status,
        ready.body.trim(),
        leader.status,
        rejection(&product, row).expect("seen before"),
    );
    Seen { then, line }
}

/// Stops Patroni's renewals, so that pgnorth reads the lock, which is forbidden; resumes them when the log names the
/// right.
async fn pause_renewals_until_logged(rig: &Rig, product: &Product, row: &Row) {
    let leader = rig.leader().await;
    leader.freeze_patroni();
    wait_until("the log names verb and resource", SOON, async || {
        rejection(product, row)
    })
    .await;
    leader.thaw_patroni();
    wait_until("the leader is routed to by its lock", SOON, async || {
        let answer = product.admin_get("/leader").await;
        let by_lock = answer
            .body
            .contains("holds the leader lock and says that it is a running primary");
        (answer.status == 200 && by_lock).then_some(())
    })
    .await;
}

/// Returns the first log line with the missing right, in the API's own words.
fn rejection(product: &Product, row: &Row) -> Option<String> {
    let words = format!("cannot {} resource \"{}\"", row.verb, row.resource);
    let messages = product.events().into_iter().map(|event| {
        let level = event["level"].as_str().unwrap_or_default();
        let message = event["fields"]["message"].as_str().unwrap_or_default();
        format!("{level} {message}")
    });
    // The API quotes the name before it.
    let name = row.name.map_or(String::new(), |name| format!("\"{name}\""));
    let mut messages = messages.into_iter();
    messages.find(|message| message.contains(&words) && message.contains(&name))
}

async fn nothing_is_missing(rig: &Rig) {
    let product = Product::start(rig, &[], &[]).await;
    product.wait_until_writable(SOON).await;
    // An overdue lock is read, so all rights are used.
    let leader = rig.leader().await;
    leader.freeze_patroni();
    product.wait_for_event("still routing to the leader", SOON).await;
    wait_until("the lock's renewal is overdue", SOON, async || {
        let age = product.metric("pgnorth_lock_age_seconds", &[]).await?;
        (age > 11.0).then_some(())
    })
    .await;
    leader.thaw_patroni();
    assert!(!product.log().contains("forbidden"), "{}", product.log());
}

// ---- The Role

fn role() -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/pgnorth")
}

/// Returns one rule for each verb, resource and name of the Role. Those on the object of the synchronous standbys are
/// used only with a route that depends on it: tests/local/routes.rs takes them away.
async fn rules(rig: &Rig) -> Vec<Value> {
    let answer = rig.kubernetes().ask(User::Admin, "GET", &role(), None).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let role = answer.json();
    let mut rules = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        if rule["apiGroups"] == json!(["events.k8s.io"]) {
            // events.rs checks the purpose of this one, and its absence.
            continue;
        }
        assert_eq!(rule["apiGroups"], json!([""]));
        for resource in rule["resources"].as_array().unwrap() {
            for verb in rule["verbs"].as_array().unwrap() {
                let granted = json!({"apiGroups": [""], "resources": [resource], "verbs": [verb]});
                let Some(names) = rule["resourceNames"].as_array() else {
                    rules.push(granted);
                    continue;
                };
                for name in names {
                    let mut granted = granted.clone();
                    granted["resourceNames"] = json!([name]);
                    rules.push(granted);
                }
            }
        }
    }
    assert_eq!(
        rules.len(),
        20,
        "get of the lock, list and watch of four objects, in two kinds; two on pods: {rules:?}"
    );
    rules
}

fn without(whole: &[Value], row: &Row) -> Vec<Value> {
    let mut taken = json!({"apiGroups": [""], "resources": [row.resource], "verbs": [row.verb]});
    if let Some(name) = row.name {
        taken["resourceNames"] = json!([name]);
    }
    let rest: Vec<_> = whole.iter().filter(|rule| **rule != taken).cloned().collect();
    assert_eq!(rest.len() + 1, whole.len(), "{taken} was granted");
    rest
}

async fn set_rules(rig: &Rig, rules: &[Value]) {
    let change = json!({"rules": rules});
    let answer = rig
        .kubernetes()
        .ask(User::Admin, "PATCH", &role(), Some(&change))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Waits until the API server has noticed a changed Role.
async fn wait_until_in_force(rig: &Rig, row: &Row) {
    wait_until("the API forbids it", SOON, async || {
        let attributes = json!({
            "namespace": NAMESPACE, "verb": row.verb, "resource": row.resource, "name": row.name.unwrap_or_default(),
        });
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = rig.kubernetes().ask(User::Pgnorth, "POST", path, Some(&review)).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        (answer.json()["status"]["allowed"] == false).then_some(())
    })
    .await;
}
