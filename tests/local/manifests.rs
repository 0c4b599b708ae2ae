//! The manifests in deploy/ agree with the product: settings exist and are valid, ports and grace periods fit,
//! selectors match labels, and no privilege is requested. The checks read kubectl's output, so overlays and components
//! are checked as they are applied. (Schemas: `make test-manifests`. The real API server: `tests/rig`.)

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgnorth::config::{Job, Proxy, Settings};
use serde_json::{Value, json};

/// Time that Kubernetes needs for SIGTERM and for the steps after it.
const MARGIN: Duration = Duration::from_secs(5);

#[test]
fn every_example_gives_settings_that_can_be_read() {
    for (name, objects) in examples() {
        let env = settings_of(&objects);
        let settings = read(&env).unwrap_or_else(|error| panic!("{name}: {error}"));
        let kubernetes = settings
            .discovery
            .kubernetes
            .unwrap_or_else(|| panic!("{name}: no PGNORTH_SCOPE"));
        let service = one(&objects, "Service");
        assert_ne!(
            service["metadata"]["name"], *kubernetes.scope,
            "{name}: a Service named like the scope takes Patroni's Endpoints"
        );
        for variable in env.keys() {
            assert!(variables().contains(variable), "{name}: {variable} is no setting");
        }
    }
}

#[test]
fn the_base_alone_lacks_only_the_scope() {
    let error = read(&settings_of(&base())).unwrap_err();
    assert!(
        error.contains("--scope") && error.contains("1 invalid setting"),
        "{error}"
    );
}

#[test]
fn ports_agree() {
    for (name, objects) in examples() {
        let settings = read(&settings_of(&objects)).unwrap();
        let container = container(&objects);
        let ports: BTreeMap<_, _> = items(&container["ports"])
            .map(|port| (text(&port["name"]), port["containerPort"].clone()))
            .collect();
        let expected = [
            ("admin", settings.admin.port()),
            ("postgres", settings.routes[0].listen.port()),
        ];
        assert_eq!(
            ports,
            expected.map(|(port, number)| (port, json!(number))).into(),
            "{name}"
        );
        let service = &one(&objects, "Service")["spec"]["ports"];
        assert_eq!(
            *service,
            json!([{"name": "tcp-postgres", "appProtocol": "tcp", "port": 5432, "targetPort": "postgres"}]),
            "{name}"
        );
        for probe in ["livenessProbe", "readinessProbe"] {
            assert_eq!(container[probe]["httpGet"]["port"], "admin", "{name}: {probe}");
        }
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
    }
}

#[test]
fn the_grace_period_covers_lame_duck_and_drain() {
    for (name, objects) in examples() {
        let settings = read(&settings_of(&objects)).unwrap();
        let needed = settings.lame_duck + settings.drain;
        let grace = pod(&objects)["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        assert!(
            Duration::from_secs(grace) >= needed + MARGIN,
            "{name}: {grace} s for {needed:?}"
        );
    }
}

#[test]
fn selectors_meet_the_pods_labels() {
    for (name, objects) in examples() {
        let labels = &pod(&objects)["metadata"]["labels"];
        let deployment = one(&objects, "Deployment");
        let selectors = [
            &deployment["spec"]["selector"]["matchLabels"],
            &one(&objects, "Service")["spec"]["selector"],
            &one(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            &one(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        ];
        for selector in selectors {
            assert_eq!(selector, labels, "{name}");
        }
        let account = &pod(&objects)["spec"]["serviceAccountName"];
        let namespace = &one(&objects, "ServiceAccount")["metadata"]["namespace"];
        assert_eq!(
            one(&objects, "RoleBinding")["subjects"],
            json!([{"kind": "ServiceAccount", "name": account, "namespace": namespace}]),
            "{name}"
        );
    }
}

/// The scheduler counts pods of the old ReplicaSet unless it is configured not to, and a constraint on a label that no
/// node has is void for all nodes.
#[test]
fn a_rollout_leaves_the_new_pods_on_different_nodes() {
    for (name, objects) in examples().into_iter().chain([("publish".to_owned(), publish())]) {
        let template = pod(&objects);
        let selector = json!({"matchLabels": template["metadata"]["labels"]});
        let by_node = json!([{
            "topologyKey": "kubernetes.io/hostname", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": selector, "matchLabelKeys": ["pod-template-hash"],
        }]);
        assert_eq!(template["spec"]["topologySpreadConstraints"], by_node, "{name}");
        let by_zone = json!([{"weight": 100, "podAffinityTerm": {
            "topologyKey": "topology.kubernetes.io/zone", "labelSelector": selector, "matchLabelKeys": ["pod-template-hash"],
        }}]);
        let apart = &template["spec"]["affinity"]["podAntiAffinity"];
        assert_eq!(
            *apart,
            json!({"preferredDuringSchedulingIgnoredDuringExecution": by_zone}),
            "{name}"
        );
    }
}

/// Objects that are watched by name are granted by name. Only pods, which are selected by labels, and objects to be
/// created have no name.
#[test]
fn rights_are_granted_by_name() {
    for (name, objects) in examples().into_iter().chain([("publish".to_owned(), publish())]) {
        let env = settings_of(&objects);
        let of = |variable: &str, suffixes: &[&str]| -> Vec<String> {
            let value = &env[variable];
            suffixes.iter().map(|suffix| format!("{value}{suffix}")).collect()
        };
        let service = |suffixes: &[&str]| of("PGNORTH_SERVICE", suffixes);
        // pgnorth publish has no routes to replicas.
        let beside: &[&str] = match name.as_str() {
            "publish" => &["-failover", "-config"],
            _ => &["-failover", "-config", "-sync"],
        };
        let watched = |leader| of("PGNORTH_SCOPE", &[&[leader], beside].concat());
        let mut unnamed = Vec::new();
        for rule in items(&one(&objects, "Role")["rules"]) {
            let (resource, verbs) = (text(&rule["resources"][0]), rule["verbs"].to_string());
            assert_eq!(items(&rule["resources"]).count(), 1, "{name}: {rule}");
            let expected = match (resource, verbs.as_str()) {
                ("endpoints", r#"["list","watch"]"#) => watched(""),
                ("configmaps", r#"["list","watch"]"#) => watched("-leader"),
                ("endpoints", r#"["get"]"#) => of("PGNORTH_SCOPE", &[""]),
                ("configmaps", r#"["get"]"#) => of("PGNORTH_SCOPE", &["-leader"]),
                ("endpoints", r#"["get","update"]"#) | ("services", r#"["get"]"#) => service(&[""]),
                ("endpointslices", r#"["get","update"]"#) => service(&["-pgnorth-ipv4", "-pgnorth-ipv6"]),
                ("leases", r#"["get","update"]"#) => of("PGNORTH_LEASE", &[""]),
                _ => {
                    assert!(rule["resourceNames"].is_null(), "{name}: {rule}");
                    unnamed.push(format!("{verbs} {resource}"));
                    continue;
                }
            };
            assert_eq!(rule["resourceNames"], json!(expected), "{name}: {verbs} {resource}");
        }
        let expected: &[_] = match name.as_str() {
            "publish" => &[
                r#"["list","watch"] pods"#,
                r#"["create"] endpointslices"#,
                r#"["create"] endpoints"#,
                r#"["create"] leases"#,
            ],
            _ => &[r#"["list","watch"] pods"#, r#"["create"] events"#],
        };
        assert_eq!(unnamed, expected, "{name}");
    }
}

/// `kubectl apply` of a Service without a selector removes the selector that another folder has set for the same name.
#[test]
fn proxy_and_publisher_have_services_of_different_names() {
    let proxy = one(&base(), "Service")["metadata"]["name"].clone();
    for (name, objects) in [("publish", publish()), ("sidecar", sidecar())] {
        let service = one(&objects, "Service");
        assert_ne!(service["metadata"]["name"], proxy, "{name}");
        assert!(service["spec"]["selector"].is_null(), "{name}");
    }
}

#[test]
fn every_image_is_this_version() {
    let image = format!("registry.example.com/pgnorth:{}", env!("CARGO_PKG_VERSION"));
    let publishers = [("publish".to_owned(), publish()), ("sidecar".to_owned(), sidecar())];
    for (name, objects) in examples().into_iter().chain(publishers) {
        let of_pods = objects
            .iter()
            .flat_map(|object| items(&object["spec"]["template"]["spec"]["containers"]));
        let pgnorths = of_pods.filter(|container| container["image"] != "patroni");
        assert_eq!(
            pgnorths.map(|container| text(&container["image"])).collect::<Vec<_>>(),
            [&image],
            "{name}"
        );
    }
}

#[test]
fn the_publisher_is_deployed_with_what_the_proxy_has() {
    let objects = publish();
    let env = settings_of(&objects);
    let lookup = |name: &str| env.get(name).map(OsString::from);
    let arguments = [OsString::from("pgnorth")].into_iter();
    let arguments =
        arguments.chain(items(&pod(&objects)["spec"]["containers"][0]["args"]).map(|text_of| text(text_of).into()));
    let job = Settings::read(arguments, lookup).unwrap().job;
    let Job::Publish(settings) = job else { panic!("{job:?}") };
    assert_eq!(settings.service, text(&one(&objects, "Service")["metadata"]["name"]));

    let proxy = examples().swap_remove(0).1;
    let labels = &pod(&objects)["metadata"]["labels"];
    let container = &pod(&objects)["spec"]["containers"][0];
    assert_eq!(
        container["ports"],
        json!([{"name": "admin", "containerPort": settings.admin.port()}])
    );
    for same in ["livenessProbe", "readinessProbe", "securityContext"] {
        assert_eq!(container[same], pod(&proxy)["spec"]["containers"][0][same], "{same}");
    }
    let mut proxys = pod(&proxy)["spec"]["securityContext"].clone();
    // The publisher opens no connection for a client, so its ports suffice.
    assert!(proxys.as_object_mut().unwrap().remove("sysctls").is_some());
    assert_eq!(pod(&objects)["spec"]["securityContext"], proxys);
    for amount in ["/requests/cpu", "/requests/memory", "/limits/memory"] {
        assert!(container["resources"].pointer(amount).is_some(), "{amount}");
    }
    assert_eq!(
        one(&objects, "PodDisruptionBudget")["spec"],
        json!({"maxUnavailable": 1, "selector": {"matchLabels": labels}})
    );
    let policy = &one(&objects, "NetworkPolicy")["spec"];
    assert_eq!(policy["podSelector"]["matchLabels"], *labels);
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(
        policy["ingress"],
        json!([{"from": [{"podSelector": {}}], "ports": [{"port": "admin"}]}])
    );
}

/// A first probe before the Kubernetes API has answered would leave a Warning event at each start.
#[test]
fn the_first_probe_waits_until_a_start_is_over() {
    for (name, objects) in examples().into_iter().chain([("publish".to_owned(), publish())]) {
        let probe = &pod(&objects)["spec"]["containers"][0]["readinessProbe"];
        assert!(
            probe["initialDelaySeconds"]
                .as_u64()
                .is_some_and(|seconds| seconds >= 2),
            "{name}: {probe}"
        );
    }
}

/// The members' own policy may be narrower than pgnorth's, and must admit pgnorth's connections.
#[test]
fn clients_of_other_namespaces_are_let_in_on_purpose() {
    let clients = |objects: &[Value]| -> Vec<Value> {
        let rules = items(&one(objects, "NetworkPolicy")["spec"]["ingress"]);
        let rules = rules.filter(|rule| rule["ports"] == json!([{"port": "postgres"}]));
        rules
            .flat_map(|rule| items(&rule["from"]).cloned().collect::<Vec<_>>())
            .collect()
    };
    for (name, objects) in examples() {
        assert_eq!(clients(&objects), [json!({"podSelector": {}})], "{name}");
    }
    let opened = with_components("clients-elsewhere", &["clients-elsewhere"]);
    let labelled = json!({"namespaceSelector": {"matchLabels": {"postgres-clients": "true"}}});
    assert_eq!(clients(&opened), [json!({"podSelector": {}}), labelled]);
}

#[test]
fn policies_admit_istios_ports() {
    let policy = |component| one(&with_components(component, &[component]), "NetworkPolicy")["spec"].clone();
    let istiod = json!({
        "to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "istio-system"}}}], "ports": [{"port": 15012}],
    });
    assert!(
        items(&policy("istio")["egress"]).any(|rule| *rule == istiod),
        "the sidecar asks istiod"
    );
    let ambient = policy("istio-ambient");
    let tunnel = json!([{"port": 15008}]);
    for direction in ["ingress", "egress"] {
        assert!(
            items(&ambient[direction]).any(|rule| rule["ports"] == tunnel),
            "{direction}: {ambient}"
        );
    }
    let probes = json!({"from": [{"ipBlock": {"cidr": "169.254.7.127/32"}}], "ports": [{"port": "admin"}]});
    assert!(items(&ambient["ingress"]).any(|rule| *rule == probes), "{ambient}");
}

/// `PGNORTH_PATRONI` names the members without the help of the API: by a headless Service of these pods only, or by the
/// names in PGO's certificates.
#[test]
fn a_start_without_the_kubernetes_api_has_members_to_ask() {
    for (name, objects) in examples() {
        let discovery = read(&settings_of(&objects)).unwrap().discovery;
        let kubernetes = discovery.kubernetes.unwrap();
        assert!(!discovery.patroni.is_empty(), "{name}: PGNORTH_PATRONI is not set");
        for url in discovery.patroni {
            let (host, port) = (url.host_str().unwrap(), url.port().unwrap());
            let is_open = |rule: &Value| items(&rule["ports"]).any(|open| open["port"] == port);
            let policy = &one(&objects, "NetworkPolicy")["spec"]["egress"];
            assert!(items(policy).any(is_open), "{name}: the NetworkPolicy stops {url}");
            // A certificate has the members' names, and not the Service's.
            let tls = discovery.patroni_tls.ca.is_some();
            assert_eq!(url.scheme(), if tls { "https" } else { "http" }, "{name}: {url}");
            if tls {
                let pods = format!(".{}-pods", kubernetes.scope.strip_suffix("-ha").unwrap());
                assert!(host.ends_with(&pods), "{name}: {url}");
                continue;
            }
            let service = objects
                .iter()
                .find(|object| object["kind"] == "Service" && object["metadata"]["name"] == host)
                .unwrap_or_else(|| panic!("{name}: no Service {host}"));
            let namespace = &one(&objects, "Deployment")["metadata"]["namespace"];
            assert_eq!(service["metadata"]["namespace"], *namespace, "{name}");
            let spec = &service["spec"];
            assert_eq!(spec["clusterIP"], "None", "{name}: it leads to every member");
            assert_eq!(spec["publishNotReadyAddresses"], true, "{name}");
            assert_eq!(spec["ports"][0]["port"], port, "{name}");
            for label in kubernetes.selector.split(',') {
                let (label, value) = label.split_once('=').unwrap();
                assert_eq!(spec["selector"][label], value, "{name}: {label}");
            }
        }
    }
}

#[test]
fn stackgres_members_listen_elsewhere() {
    let (_, objects) = examples().into_iter().find(|(name, _)| name == "stackgres").unwrap();
    let members = &one(&objects, "NetworkPolicy")["spec"]["egress"][0];
    assert_eq!(members["to"], json!([{"podSelector": {}}]));
    assert_eq!(
        members["ports"],
        json!([5432, 7433, 8008, 8009].map(|port| json!({"port": port})))
    );
}

/// The requirements of the Pod Security Standard "restricted", and a read-only root.
#[test]
fn no_manifest_requests_a_privilege() {
    for (name, objects) in examples() {
        let spec = &pod(&objects)["spec"];
        let of_pod = &spec["securityContext"];
        assert_eq!(of_pod["runAsNonRoot"], true, "{name}");
        assert_eq!(of_pod["runAsUser"], 65532, "{name}: the user of the Dockerfile");
        assert_eq!(of_pod["seccompProfile"], json!({"type": "RuntimeDefault"}), "{name}");
        let expected = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
        });
        assert_eq!(container(&objects)["securityContext"], expected, "{name}");
        for never in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec[never].is_null(), "{name}: {never}");
        }
        assert!(
            items(&spec["volumes"]).all(|volume| !volume["secret"].is_null()),
            "{name}: {}",
            spec["volumes"]
        );
    }
}

#[test]
fn files_that_settings_name_are_mounted() {
    for (name, objects) in examples() {
        let files: Vec<_> = settings_of(&objects)
            .into_iter()
            .filter(|(variable, _)| ["_CA", "_CERT", "_KEY"].iter().any(|end| variable.ends_with(end)))
            .collect();
        let mounted = mounted(&objects);
        for (variable, file) in &files {
            assert!(
                mounted.contains(file),
                "{name}: {variable}={file}, and there are {mounted:?}"
            );
        }
        assert_eq!(
            mounted.len(),
            files.len(),
            "{name}: a file in the pod that no setting names: {mounted:?}"
        );
    }
}

#[test]
fn istio_s_component_excludes_the_port_and_outlives_the_drain() {
    let objects = with_components("istio", &["istio"]);
    let settings = read(&settings_of(&objects)).unwrap();
    let annotations = &pod(&objects)["metadata"]["annotations"];
    let port = settings.routes[0].listen.port().to_string();
    for direction in ["Inbound", "Outbound"] {
        assert_eq!(
            annotations[format!("traffic.sidecar.istio.io/exclude{direction}Ports")],
            *port
        );
    }
    assert!(!annotations.to_string().contains("IPRanges"));
    let proxy: Value = yaml(text(&annotations["proxy.istio.io/config"])).remove(0);
    assert_eq!(proxy["holdApplicationUntilProxyStarts"], true);
    let drain = humantime_of(&proxy["terminationDrainDuration"]);
    assert!(drain >= settings.lame_duck + settings.drain + MARGIN, "{drain:?}");
    assert!(drain.as_secs() <= pod(&objects)["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap());
    let policies: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == "PeerAuthentication")
        .collect();
    assert_eq!(policies.len(), 2);
    for policy in policies {
        assert_eq!(policy["spec"]["mtls"]["mode"], "STRICT");
        assert_eq!(policy["spec"]["portLevelMtls"][&port]["mode"], "DISABLE");
    }
    assert_eq!(
        one(&objects, "DestinationRule")["spec"]["host"],
        objects
            .iter()
            .find(|object| object["kind"] == "Service" && object["spec"]["clusterIP"].is_null())
            .unwrap()["metadata"]["name"]
    );
}

#[test]
fn openshift_s_component_leaves_the_user_to_the_project() {
    let objects = with_components("openshift", &["openshift"]);
    let context = &pod(&objects)["spec"]["securityContext"];
    let ports = json!([{"name": "net.ipv4.ip_local_port_range", "value": "16384 65535"}]);
    assert_eq!(
        *context,
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}, "sysctls": ports})
    );
    let egress = &one(&objects, "NetworkPolicy")["spec"]["egress"];
    assert!(egress.to_string().contains("5353"), "{egress}");
}

#[test]
fn prometheus_s_component_scrapes_a_port_that_the_policy_opens() {
    let objects = with_components("prometheus-operator", &["prometheus-operator"]);
    let monitor = one(&objects, "PodMonitor");
    assert_eq!(
        monitor["spec"]["selector"]["matchLabels"],
        pod(&objects)["metadata"]["labels"]
    );
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["port"], "admin");
    let ingress = &one(&objects, "NetworkPolicy")["spec"]["ingress"];
    assert!(
        items(ingress)
            .any(|rule| rule.to_string().contains("monitoring") && rule["ports"] == json!([{"port": "admin"}]))
    );
}

#[test]
fn the_operators_component_mounts_the_token_at_its_path_and_works_without_it() {
    let objects = with_components("operators", &["operators"]);
    let file = read(&settings_of(&objects)).unwrap().admin_token_file.unwrap();
    assert_eq!(mounted(&objects), [file.to_str().unwrap()]);
    let volume = &pod(&objects)["spec"]["volumes"][0];
    assert_eq!(volume["secret"]["optional"], true, "no token must not mean no pod");
    assert!(
        container(&objects)["volumeMounts"][0]["subPath"].is_null(),
        "it would never be updated"
    );
    for (name, objects) in examples() {
        let settings = read(&settings_of(&objects)).unwrap();
        assert_eq!(settings.admin_token_file, None, "{name}: orders are off by default");
    }
}

#[test]
fn grafana_s_component_is_the_dashboard_with_the_label_that_its_sidecar_looks_for() {
    let objects = with_components("grafana", &["grafana"]);
    let is_it = |object: &&Value| object["metadata"]["name"] == "pgnorth-dashboard";
    let config = objects.iter().find(is_it).unwrap();
    assert_eq!(
        (&config["kind"], &config["metadata"]["labels"]["grafana_dashboard"]),
        (&json!("ConfigMap"), &json!("1"))
    );
    let file = fs::read_to_string(deploy().join("monitoring/dashboard.json")).unwrap();
    assert_eq!(config["data"], json!({"pgnorth.json": file}));
}

#[test]
fn the_replicas_component_has_a_service_for_a_port_that_leads_to_replicas() {
    let objects = with_components("replicas", &["replicas"]);
    let routes = read(&settings_of(&objects)).unwrap().routes;
    let [primary, replicas] = &routes[..] else {
        panic!("{routes:?}")
    };
    assert_eq!(
        (primary.listen.port(), replicas.conditions.kind.as_str()),
        (5432, "replica")
    );
    let service = objects
        .iter()
        .find(|object| object["metadata"]["name"] == "postgres-replicas")
        .unwrap();
    assert_eq!(service["spec"]["ports"][0]["targetPort"], "replicas");
    let port = json!({"name": "replicas", "containerPort": replicas.listen.port()});
    assert!(items(&container(&objects)["ports"]).any(|found| *found == port));
    let ingress = &one(&objects, "NetworkPolicy")["spec"]["ingress"];
    assert!(items(ingress).any(|rule| rule["ports"] == json!([{"port": "replicas"}])));
}

#[test]
fn all_components_go_together() {
    let folder = deploy().join("components");
    let all: Vec<_> = folders(&folder).into_iter().map(|(name, _)| name).collect();
    assert!(all.len() >= 3, "{all:?}");
    let names: Vec<_> = all.iter().map(String::as_str).collect();
    assert!(with_components("all", &names).len() > base().len());
}

// ---- Reading

pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn base() -> Vec<Value> {
    render(&deploy().join("base"))
}

fn examples() -> Vec<(String, Vec<Value>)> {
    let all: Vec<_> = folders(&deploy().join("examples"))
        .into_iter()
        .map(|(name, folder)| (name, render(&folder)))
        .collect();
    assert!(all.len() >= 3, "plain Patroni, Zalando's operator, Crunchy's");
    all
}

fn publish() -> Vec<Value> {
    render(&deploy().join("publish"))
}

/// Returns the sidecar's component on a StatefulSet of the name that it patches.
fn sidecar() -> Vec<Value> {
    let stateful_set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "patronidemo"},
        "spec": {"template": {"spec": {"containers": [{"name": "patroni", "image": "patroni"}]}}},
    });
    let resources = [("statefulset.yaml", stateful_set)];
    render_beside_deploy(
        "sidecar",
        &resources,
        &json!({"resources": ["statefulset.yaml"], "components": ["deploy/publish/sidecar"]}),
    )
}

fn folders(parent: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<_> = entries
        .filter(|path| path.join("kustomization.yaml").exists())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .collect();
    folders.sort();
    folders
}

/// Returns the plain example with components.
pub fn with_components(name: &str, components: &[&str]) -> Vec<Value> {
    let components: Vec<_> = components
        .iter()
        .map(|name| format!("deploy/components/{name}"))
        .collect();
    render_beside_deploy(
        name,
        &[],
        &json!({"resources": ["deploy/examples/patroni"], "components": components}),
    )
}

/// Renders with a copy of deploy/ beside the kustomization, because kustomize takes relative paths only.
fn render_beside_deploy(name: &str, files: &[(&str, Value)], kustomization: &Value) -> Vec<Value> {
    let folder = tempfile::Builder::new()
        .prefix(name)
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(deploy())
        .arg(folder.path().join("deploy"))
        .status()
        .unwrap();
    assert!(copied.success());
    // JSON is YAML.
    for (name, file) in files {
        fs::write(folder.path().join(name), file.to_string()).unwrap();
    }
    fs::write(folder.path().join("kustomization.yaml"), kustomization.to_string()).unwrap();
    render(folder.path())
}

fn render(folder: &Path) -> Vec<Value> {
    let render = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/render.sh");
    let output = Command::new(render).arg(folder).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{} cannot be rendered: {error}\n(components need kubectl 1.21 or newer; `tests/support/install.sh test` fetches kustomize instead)",
        folder.display()
    );
    yaml(&String::from_utf8(output.stdout).unwrap())
}

pub fn yaml(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Returns the only object of this kind. The headless Service of the members is for pgnorth alone and is not counted.
pub fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let is_for_clients = |object: &&Value| object["spec"]["clusterIP"] != "None";
    let mut found = objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .filter(is_for_clients);
    let first = found.next().unwrap_or_else(|| panic!("a {kind}"));
    assert!(found.next().is_none(), "one {kind}");
    first
}

fn pod(objects: &[Value]) -> &Value {
    &one(objects, "Deployment")["spec"]["template"]
}

fn container(objects: &[Value]) -> &Value {
    let containers = &pod(objects)["spec"]["containers"];
    assert_eq!(items(containers).count(), 1);
    let container = &containers[0];
    assert!(
        container["args"].is_null() && container["command"].is_null(),
        "the image's own, without flags"
    );
    container
}

pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

fn humantime_of(value: &Value) -> Duration {
    humantime::parse_duration(text(value)).unwrap()
}

/// Returns the container's environment: the ConfigMap that it names, and the additions of components.
fn settings_of(objects: &[Value]) -> BTreeMap<String, String> {
    let map = one(objects, "ConfigMap");
    let expected = json!([{"configMapRef": {"name": map["metadata"]["name"]}}]);
    let container = &pod(objects)["spec"]["containers"][0];
    assert_eq!(container["envFrom"], expected);
    let data = map["data"].as_object().unwrap().iter();
    let added = items(&container["env"]).map(|entry| (text(&entry["name"]), value_of(entry)));
    data.map(|(name, value)| (name.as_str(), text(value)))
        .chain(added)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Returns the value of an entry; the fields that the kubelet would fill in have made-up values.
fn value_of(entry: &Value) -> &str {
    match entry["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
        None => text(&entry["value"]),
        Some("metadata.name") => "pgnorth-6c9f7d-x2v4q",
        Some("metadata.uid") => "0b1c0a4e-6f5b-4b7a-9a55-2f3f6f0c1d7e",
        Some(other) => panic!("{other}: who needs it?"),
    }
}

fn read(env: &BTreeMap<String, String>) -> Result<Proxy, String> {
    let lookup = |name: &str| env.get(name).map(OsString::from);
    let settings = Settings::read([OsString::from("pgnorth")], lookup).map_err(|error| error.to_string())?;
    match settings.job {
        Job::Proxy(proxy) => Ok(proxy),
        job => Err(format!("not the proxy's: {job:?}")),
    }
}

/// Returns every variable in `--help`.
fn variables() -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .arg("--help")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let variables: Vec<_> = help
        .split("[env: ")
        .skip(1)
        .map(|rest| rest.split(']').next().unwrap().to_owned())
        .collect();
    assert!(variables.len() > 10, "{help}");
    variables
}

/// Returns every file that a Secret puts into the container.
fn mounted(objects: &[Value]) -> Vec<String> {
    let mut files = Vec::new();
    for volume in items(&pod(objects)["spec"]["volumes"]) {
        let mount = items(&container(objects)["volumeMounts"])
            .find(|mount| mount["name"] == volume["name"])
            .expect("every volume is mounted");
        assert_eq!(mount["readOnly"], true);
        let named = items(&volume["secret"]["items"]);
        files.extend(named.map(|item| format!("{}/{}", text(&mount["mountPath"]), text(&item["path"]))));
    }
    files
}
