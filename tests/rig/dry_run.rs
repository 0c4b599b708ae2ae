//! The real API server accepts the manifests in deploy/, as kubectl renders them, in a dry run. It does not know the
//! kinds of Istio and of the Prometheus operator: `make test-manifests` checks these against their published schemas.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::kubernetes::User;
use crate::support::{Dcs, Rig};

#[tokio::test]
async fn the_api_server_accepts_the_base_and_every_example() {
    let rig = Rig::start(Dcs::ConfigMaps).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "postgres-operator"}});
    let made = rig
        .kubernetes()
        .ask(User::Admin, "POST", "/api/v1/namespaces", Some(&namespace))
        .await;
    assert_eq!(made.unwrap().status, 201);
    // Debian's API server is older than the versions that the manifests use.
    let has_v1 = rig
        .kubernetes()
        .ask(User::Admin, "GET", "/apis/policy/v1", None)
        .await
        .unwrap()
        .status
        == 200;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut folders = vec![deploy.join("base")];
    folders.extend(
        fs::read_dir(deploy.join("examples"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    for folder in folders {
        let rendered = render(&folder);
        let rendered = if has_v1 {
            rendered
        } else {
            for_an_older_server(&rendered)
        };
        let output = dry_run(&rig, &rendered).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        println!("{}: policy/v1 {has_v1}\n{output}", folder.display());
        let objects = rendered.lines().filter(|line| line.starts_with("kind: ")).count();
        assert!(objects >= 8, "{rendered}");
        assert_eq!(output.matches("(server dry run)").count(), objects, "{output}");
        // Shows that the server does not accept everything.
        let wrong = rendered.replace(
            "whenUnsatisfiable: ScheduleAnyway",
            "whenUnsatisfiable: ScheduleSomewhere",
        );
        let error = dry_run(&rig, &wrong).unwrap_err();
        assert!(error.contains("ScheduleSomewhere"), "{error}");
    }
}

/// Adapts the manifests as docs/operating/kubernetes.md ("Versions") says: before 1.21 a PodDisruptionBudget has only
/// its former version, and before 1.31 a field is unknown. The server checks every field that remains.
fn for_an_older_server(rendered: &str) -> String {
    let rendered = rendered.replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n");
    let mut of_a_list = false;
    let kept = rendered.lines().filter(|line| {
        let begins = line.trim_start_matches([' ', '-']) == "matchLabelKeys:";
        of_a_list = begins || (of_a_list && line.trim_start() == "- pod-template-hash");
        !of_a_list
    });
    kept.map(|line| format!("{line}\n")).collect()
}

fn dry_run(rig: &Rig, manifests: &str) -> Result<String, String> {
    let file = rig.folder().join("rendered.yaml");
    fs::write(&file, manifests).unwrap();
    kubectl(
        rig,
        &["apply", "--dry-run=server", "--filename", file.to_str().unwrap()],
    )
}

fn render(folder: &Path) -> String {
    let render = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/render.sh");
    let output = Command::new(render).arg(folder).output().unwrap();
    assert!(
        output.status.success(),
        "{}: {}",
        folder.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn kubectl(rig: &Rig, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("kubectl")
        .env("HOME", rig.folder()) // kubectl keeps a cache in there
        .env("KUBECONFIG", rig.kubernetes().kubeconfig(User::Admin))
        .args(arguments)
        .output()
        .unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
