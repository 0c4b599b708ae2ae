//! `pgnorth doctor` on a real cluster, healthy and broken in seven ways: each defect is one line that names the fix,
//! and no other line fails.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::support::kubernetes::{NAMESPACE, User};
use crate::support::process::Process;
use crate::support::publisher::create_service;
use crate::support::rig::SCOPE;
use crate::support::tls::Tls;
use crate::support::{Dcs, Rig, Settings, wait_until};

const SOON: Duration = Duration::from_secs(15);

/// The output, and the exit status.
struct Report {
    name: &'static str,
    text: String,
    code: Option<i32>,
}

#[tokio::test]
async fn a_healthy_cluster_and_seven_broken_ones() {
    let settings = Settings {
        rest_tls: true,
        ..Settings::default()
    };
    let rig = Rig::start_with(Dcs::Endpoints, settings).await;
    let authority = rig.authority().to_str().unwrap().to_owned();
    let ask = |name, user, flags: &str| {
        let flags = format!("--scope {SCOPE} --patroni-ca {authority} {flags}");
        examine(&rig, name, user, &flags)
    };

    ask("healthy", User::Admin, "").is_well(0);
    // Its Role does not let pgnorth read Services, which it does not need.
    ask("healthy, pgnorth's own rights", User::Pgnorth, "").is_well(1);
    let json = ask("healthy, JSON", User::Admin, "--format json");
    let lines: Value = serde_json::from_str(json.text.trim()).unwrap();
    assert!(lines["checks"].as_array().unwrap().len() > 15, "{lines}");

    create_service(&rig, "postgres-primary", &json!({})).await;
    let flags = "--service postgres-primary --endpoints --lease pgnorth-publish";
    ask("healthy, the publisher", User::Publisher, flags).is_well(1);
    ask("the publisher's Service, pgnorth's rights", User::Pgnorth, flags).fails_among(&[
        "right to create endpointslices",
        "grant verb create on endpointslices.discovery.k8s.io",
        "deploy/publish/rbac.yaml",
    ]);

    ask("wrong selector", User::Admin, "--selector app=postgres").fails(&[
        "pods — 0 pods in namespace default with app=postgres; patronidemo-0, which holds the lock, is not among them",
        "--selector cluster-name=patronidemo",
    ]);
    ask("hold shorter than ttl", User::Admin, "--hold 10s").fails(&["hold 10s, ttl 20s", "--hold 30s"]);
    let wrong_scope = examine(
        &rig,
        "wrong scope",
        User::Admin,
        &format!("--scope demo --patroni-ca {authority}"),
    );
    wrong_scope.fails_among(&[
        "there is neither endpoints default/demo nor configmap default/demo-leader",
        "have the scopes: patronidemo",
    ]);
    let unknown = examine(
        &rig,
        "REST TLS with an unknown CA",
        User::Admin,
        &format!("--scope {SCOPE}"),
    );
    unknown.fails_among(&["patronidemo-0, REST API", "unknown CA", "set --patroni-ca"]);

    let role = take_away(&rig, "get", "endpoints").await;
    ask("a right is missing", User::Pgnorth, "").fails(&[
        "right to get endpoints — not granted in namespace default",
        "a fence may come late",
        "grant verb get on endpoints",
    ]);
    set_rules(&rig, &role).await;

    rig.leader().await.freeze_patroni();
    ask("Patroni hangs", User::Admin, "")
        .fails_among(&["lock is renewed — no renewal within 6s", "kubectl logs patronidemo-0"]);
    rig.member(0).thaw_patroni();

    // Last, because the API server deletes the lock together with such a Service.
    create_service(&rig, SCOPE, &json!({"selector": {"app": "pgnorth"}})).await;
    rig.wait_until_whole(Duration::from_secs(60)).await;
    ask("a Service named like the scope", User::Admin, "").fails(&[
        "service default/patronidemo — it has a selector",
        "another name, such as patronidemo-primary",
    ]);
}

#[tokio::test]
async fn without_kubernetes_members_are_asked_alone() {
    let rig = Rig::start(Dcs::Etcd).await;
    let urls: Vec<String> = rig.members().iter().map(|member| member.rest_url()).collect();
    let flags = format!("--patroni {}", urls.join(","));
    run("REST only", &flags, None).is_well(0);
    rig.leader().await.freeze_patroni();
    run("REST only, the leader's Patroni hangs", &flags, None)
        .fails_among(&["patronidemo-0, REST API", "no answer within 1 s; this is the leader"]);
}

/// Uses openssl's own server, because Patroni's certificate of the rig is valid.
#[tokio::test]
async fn tls_failures_are_distinguished() {
    let folder = TempDir::new().unwrap();
    let tls = Tls::make(folder.path(), &[]);
    let mut command = Command::new("openssl");
    command.args([
        "s_server",
        "-www",
        "-accept",
        "18443",
        "-Verify",
        "1",
        "-verify_return_error",
    ]);
    command
        .arg("-cert")
        .arg(&tls.certificate)
        .arg("-key")
        .arg(&tls.key)
        .arg("-CAfile")
        .arg(&tls.authority);
    let server = Process::start("openssl", command, &folder.path().join("log"));
    wait_until("openssl listens", SOON, async || {
        TcpStream::connect("127.0.0.1:18443").await.ok().map(drop)
    })
    .await;

    let ca = format!("--patroni-ca {}", tls.authority.display());
    let demanded = run(
        "client certificate demanded",
        &format!("{ca} --patroni https://127.0.0.1:18443"),
        None,
    );
    demanded.fails(&["demands a client certificate", "set --patroni-cert and --patroni-key"]);
    // The certificate is for 127.0.0.1 and localhost.
    let name = run("wrong name", &format!("{ca} --patroni https://127.0.0.2:18443"), None);
    name.fails(&["its certificate is for other names", "subjectAltName"]);
    let unknown = run("unknown CA", "--patroni https://127.0.0.1:18443", None);
    unknown.fails(&["unknown CA", "set --patroni-ca"]);
    let missing = run(
        "no such file",
        "--patroni-ca /nonexistent --patroni https://127.0.0.1:18443",
        None,
    );
    missing.fails_among(&["TLS files — /nonexistent: No such file"]);
    drop(server);
}

fn examine(rig: &Rig, name: &'static str, user: User, flags: &str) -> Report {
    run(name, flags, Some(rig.kubernetes().kubeconfig(user)))
}

fn run(name: &'static str, flags: &str, kubeconfig: Option<PathBuf>) -> Report {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    command
        .env_remove("KUBECONFIG")
        .arg("doctor")
        .args(flags.split_whitespace());
    // As many sessions as any host has files for.
    command.args(["--max-sessions", "100"]);
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    println!(
        "==== {name}: exit code {:?}\n{text}---- its log\n{log}====",
        output.status.code()
    );
    Report {
        name,
        text,
        code: output.status.code(),
    }
}

impl Report {
    fn lines(&self, level: &str) -> Vec<&str> {
        self.text.lines().filter(|line| line.starts_with(level)).collect()
    }

    /// Checks that nothing failed, and the number of warnings.
    fn is_well(&self, warnings: usize) {
        assert_eq!(self.code, Some(0), "{}: {}", self.name, self.text);
        assert_eq!(self.lines("FAIL").len(), 0, "{}: {}", self.name, self.text);
        assert_eq!(self.lines("warn").len(), warnings, "{}: {}", self.name, self.text);
        assert!(self.lines("ok").len() > 10, "{}: {}", self.name, self.text);
    }

    /// Checks that one line fails, and that it has all these words.
    fn fails(&self, words: &[&str]) {
        assert_eq!(self.lines("FAIL").len(), 1, "{}: {}", self.name, self.text);
        self.fails_among(words);
    }

    /// Checks that a line that fails has all these words.
    fn fails_among(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{}: {}", self.name, self.text);
        let fails = self.lines("FAIL");
        let fits = |line: &&str| words.iter().all(|word| line.contains(word));
        assert!(fails.iter().any(fits), "{}: {words:?} in {}", self.name, self.text);
    }
}

// ---- The Role

fn role() -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/pgnorth")
}

/// Removes one right, and returns the former rules once that is in force.
async fn take_away(rig: &Rig, verb: &str, resource: &str) -> Value {
    let answer = rig.kubernetes().ask(User::Admin, "GET", &role(), None).await.unwrap();
    let whole = answer.json()["rules"].clone();
    let mut rules = whole.clone();
    let mut taken = 0;
    for rule in rules.as_array_mut().unwrap() {
        let of_it = rule["resources"] == json!([resource]);
        let verbs = rule["verbs"].as_array_mut().unwrap();
        if of_it && verbs.contains(&json!(verb)) {
            verbs.retain(|granted| granted != verb);
            taken += 1;
        }
    }
    assert_eq!(taken, 1, "{whole}");
    // The API server refuses a rule without verbs.
    let granting = |rule: &Value| rule["verbs"] != json!([]);
    rules.as_array_mut().unwrap().retain(granting);
    set_rules(rig, &rules).await;
    // The Role names its objects, so the question has to name one.
    let name = match resource {
        "endpoints" => SCOPE.to_owned(),
        "configmaps" => format!("{SCOPE}-leader"),
        _ => String::new(),
    };
    let attributes = json!({"namespace": NAMESPACE, "verb": verb, "resource": resource, "name": name});
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes},
    });
    wait_until("the API forbids it", SOON, async || {
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = rig
            .kubernetes()
            .ask(User::Pgnorth, "POST", path, Some(&review))
            .await
            .unwrap();
        (answer.json()["status"]["allowed"] == false).then_some(())
    })
    .await;
    whole
}

async fn set_rules(rig: &Rig, rules: &Value) {
    let change = json!({"rules": rules});
    let answer = rig.kubernetes().ask(User::Admin, "PATCH", &role(), Some(&change)).await;
    assert_eq!(answer.unwrap().status, 200);
}
