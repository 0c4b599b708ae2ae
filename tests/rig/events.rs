//! Kubernetes Events about pgnorth's own pod, of a real switchover, through the real API server with RBAC. kubectl
//! reads them. Without the right to create them, pgnorth works as before.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::kubernetes::{NAMESPACE, User};
use crate::support::{Dcs, Product, Rig, wait_until};

/// Deadlines against hanging.
const SOON: Duration = Duration::from_secs(15);
const SWITCHOVER: Duration = Duration::from_secs(40);
const POD: &str = "pgnorth-0";

#[tokio::test]
async fn a_switchover_is_an_event_that_kubectl_shows_and_without_the_right_one_line() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let uid = create_pod(&rig).await;
    let product = Product::start(&rig, &["--pod-name", POD, "--pod-uid", &uid], &[]).await;
    product.wait_until_writable(SOON).await;

    let (from, to) = switchover(&rig, &product).await;
    let listed = wait_until("kubectl lists the Event", SOON, async || {
        let selector = format!("involvedObject.name={POD},reportingComponent=pgnorth");
        Some(kubectl(&rig, &["get", "events", "--field-selector", &selector]))
            .filter(|message| message.contains("LeaderChanged"))
    })
    .await;
    println!("{listed}");
    assert!(listed.contains(&format!("leader changed from {from} at ")) && listed.contains(&format!(" to {to} at ")));
    let described = kubectl(&rig, &["describe", "pod", POD]);
    let (_, events) = described.split_once("Events:").expect("a pod has events");
    println!("Events:{events}");
    assert!(
        events.contains("LeaderChanged") && events.contains("Normal"),
        "{described}"
    );

    forbid(&rig).await;
    switchover(&rig, &product).await;
    wait_until("the log says what is missing", SOON, async || {
        (rejections(&product).len() == 1).then_some(())
    })
    .await;
    switchover(&rig, &product).await;
    let rejections = rejections(&product);
    println!("{}", rejections[0]);
    assert_eq!(rejections.len(), 1, "once: {rejections:?}");
    assert_eq!(rejections[0]["level"], "INFO");
    let listed = kubectl(&rig, &["get", "events", "--output", "name"]);
    // Some API servers write Events about themselves.
    let about_the_pod = listed.lines().filter(|name| name.starts_with("event/pgnorth-0."));
    assert_eq!(about_the_pod.count(), 1, "{listed}");
}

/// Creates a pod that runs nowhere and does not belong to Patroni.
async fn create_pod(rig: &Rig) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD},
        "spec": {"containers": [{"name": "pgnorth", "image": "pgnorth"}]},
    });
    let created = rig.kubernetes().create("pods", &pod).await;
    created["metadata"]["uid"]
        .as_str()
        .expect("the API gives a uid")
        .to_owned()
}

/// Switches over; returns the former leader and the new one, once pgnorth knows it.
async fn switchover(rig: &Rig, product: &Product) -> (String, String) {
    let count = || changes(product).len();
    let before = count();
    rig.switchover(None).await;
    wait_until("pgnorth follows the switchover", SWITCHOVER, async || {
        (count() > before).then_some(())
    })
    .await;
    rig.wait_until_whole(SWITCHOVER).await;
    let last = changes(product).pop().expect("there is one more");
    let member = |field: &str| {
        last["fields"][field]
            .as_str()
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .to_owned()
    };
    (member("from"), member("to"))
}

fn changes(product: &Product) -> Vec<Value> {
    let events = product.events().into_iter();
    events
        .filter(|event| event["fields"]["message"] == "leader changed")
        .collect()
}

fn rejections(product: &Product) -> Vec<Value> {
    let about = |event: &Value| {
        let message = event["fields"]["message"].as_str().unwrap_or_default();
        message.contains("Events") || message.contains("resource \"events\"")
    };
    product.events().into_iter().filter(about).collect()
}

/// Removes the rule from the Role, and waits until the API server has noticed.
async fn forbid(rig: &Rig) {
    let role = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/pgnorth");
    let ask = async |user, method, path: &str, body: Option<&Value>| {
        let answer = rig.kubernetes().ask(user, method, path, body).await.unwrap();
        assert!(answer.status < 300, "{}", answer.body);
        answer.json()
    };
    let whole = ask(User::Admin, "GET", &role, None).await;
    let rules: Vec<_> = whole["rules"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|rule| rule["resources"] != json!(["events"]))
        .collect();
    assert_eq!(rules.len() + 1, whole["rules"].as_array().unwrap().len());
    ask(User::Admin, "PATCH", &role, Some(&json!({"rules": rules}))).await;
    let attributes = json!({"namespace": NAMESPACE, "verb": "create", "group": "events.k8s.io", "resource": "events"});
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes},
    });
    wait_until("the API forbids it", SOON, async || {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = ask(User::Pgnorth, "POST", path, Some(&review)).await;
        (answer["status"]["allowed"] == false).then_some(())
    })
    .await;
}

fn kubectl(rig: &Rig, arguments: &[&str]) -> String {
    let output = Command::new("kubectl")
        .env("HOME", rig.folder())
        .env("KUBECONFIG", rig.kubernetes().kubeconfig(User::Admin))
        .args(arguments)
        .output()
        .expect("run kubectl");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "kubectl {arguments:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}
