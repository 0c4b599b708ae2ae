//! A real Kubernetes API: etcd and kube-apiserver, with RBAC, users, pods, and the outages of the API.
//! No kubelet and no controller runs, so the rig creates the Pod objects and sets their status itself.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::etcd::{self, Etcd, Place};
use super::http::{Answer, Http, Request};
use super::network::Host;
use super::process::{Process, run};
use super::rig::{SCOPE, cache};
use super::tls::{Tls, path};
use super::wait::wait_until;

/// The namespace of all objects of the rig.
pub const NAMESPACE: &str = "default";

/// Every Service that a test gives to a publisher: the publisher's Role names them.
const SERVICES: [&str; 9] = [
    "postgres-primary",
    "selecting",
    "elsewhere",
    "two-ports",
    SCOPE,
    "patronidemo-config",
    "other-cluster",
    "handmade",
    "late",
];
/// The Lease of those tests.
const LEASE: &str = "pgnorth-publish";

const PORT: u16 = 6443;
const MERGE_PATCH: &str = "application/merge-patch+json";
const START: Duration = Duration::from_secs(60);

/// A user of the API. Its name is its kubeconfig's context and its token, too.
#[derive(Clone, Copy, Debug)]
pub enum User {
    /// The administrator, with all rights.
    Admin,
    /// Patroni's service account, with the Role of Patroni's documentation.
    Patroni,
    /// The product's service account, with the Role of `deploy/base/rbac.yaml`.
    Pgnorth,
    /// The publisher's service account, with the Role of `deploy/publish/rbac.yaml`.
    Publisher,
}

pub struct Kubernetes {
    api: Mutex<Process>,
    address: Ipv4Addr,
    folder: PathBuf,
    tls: Tls,
    http: Http,
    /// Version in which this server prefers EndpointSlices: `v1`, before 1.21 `v1beta1`.
    slices: String,
    etcd: Etcd,
}

impl User {
    const ALL: [Self; 4] = [Self::Admin, Self::Patroni, Self::Pgnorth, Self::Publisher];

    /// Returns its name, which is its token.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Patroni => "patroni",
            Self::Pgnorth => "pgnorth",
            Self::Publisher => "pgnorth-publish",
        }
    }

    /// Returns a line of the token file: token, user name, user id, groups.
    fn line(self) -> String {
        let name = self.name();
        let account = match self {
            Self::Admin => return format!("{name},{name},{name},system:masters\n"),
            Self::Patroni => "patronidemo",
            Self::Pgnorth => "pgnorth",
            Self::Publisher => "pgnorth-publish",
        };
        let groups = format!("system:serviceaccounts,system:serviceaccounts:{NAMESPACE}");
        format!("{name},system:serviceaccount:{NAMESPACE}:{account},{name},\"{groups}\"\n")
    }
}

impl Kubernetes {
    /// Starts the API and its etcd in one place; returns when it is ready and the Roles are in force.
    pub async fn start(folder: &Path, tls: &Tls, http: &Http, place: Place) -> Self {
        let etcd = Etcd::start(folder, http, vec![place], None).await;
        fs::write(folder.join("tokens"), User::ALL.map(User::line).concat()).expect("write the token file");
        let mut kubernetes = Self {
            api: Mutex::new(start_api(folder, tls, &etcd)),
            address: etcd.address(),
            folder: folder.to_owned(),
            tls: tls.clone(),
            http: http.clone(),
            slices: String::new(),
            etcd,
        };
        for user in User::ALL {
            fs::write(kubernetes.kubeconfig(user), kubernetes.render(user)).expect("write a kubeconfig");
        }
        kubernetes.wait_until_ready().await;
        kubernetes.slices = kubernetes.preferred_version("discovery.k8s.io").await;
        kubernetes.apply_roles();
        kubernetes
    }

    async fn preferred_version(&self, group: &str) -> String {
        let answer = self.ask(User::Admin, "GET", &format!("/apis/{group}"), None).await;
        let group = answer.expect("ask the API").json();
        let version = group["preferredVersion"]["version"].as_str();
        version.expect("the group has a preferred version").to_owned()
    }

    /// Returns the path of the EndpointSlice that a publisher keeps for a Service.
    pub fn slice_path(&self, service: &str) -> String {
        let version = &self.slices;
        format!("/apis/discovery.k8s.io/{version}/namespaces/{NAMESPACE}/endpointslices/{service}-pgnorth-ipv4")
    }

    /// Returns the kubeconfig file of a user. Its current context is that user, in the namespace of the cluster.
    pub fn kubeconfig(&self, user: User) -> PathBuf {
        self.folder.join(format!("kubeconfig-{}", user.name()))
    }

    fn render(&self, user: User) -> String {
        let (name, authority) = (user.name(), path(&self.tls.authority));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": "rig", "cluster": {"server": self.url(""), "certificate-authority": authority}}],
            "users": [{"name": name, "user": {"token": name}}],
            "contexts": [{"name": name, "context": {"cluster": "rig", "user": name, "namespace": NAMESPACE}}],
        });
        // JSON is YAML.
        config.to_string()
    }

    /// Sends a request as a user; `path` begins with `/api`. An API that does not answer is an error.
    pub async fn ask(&self, user: User, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<Answer> {
        self.ask_with(user.name(), method, path, body).await
    }

    /// Sends a request with any token.
    pub async fn ask_with(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> std::io::Result<Answer> {
        let url = self.url(path);
        let content_type = if method == "PATCH" {
            MERGE_PATCH
        } else {
            "application/json"
        };
        let request = Request {
            method,
            token: Some(token),
            body: body.map(|body| (content_type, body)),
            within: Duration::from_secs(10),
            ..Request::get(&url)
        };
        self.http.ask(&request).await
    }

    /// Returns an object of the namespace as JSON, such as `endpoints/patronidemo`; `None` if it does not exist.
    pub async fn object(&self, name: &str) -> Option<Value> {
        let answer = self
            .ask(User::Admin, "GET", &object(name), None)
            .await
            .expect("ask the API");
        match answer.status {
            200 => Some(answer.json()),
            404 => None,
            status => panic!("{name}: {status}: {}", answer.body),
        }
    }

    /// Merges `change` into an object of the namespace, as an administrator would.
    pub async fn patch(&self, name: &str, change: &Value) {
        let answer = self
            .ask(User::Admin, "PATCH", &object(name), Some(change))
            .await
            .expect("ask the API");
        assert_eq!(answer.status, 200, "patch {name}: {}", answer.body);
    }

    /// Creates a pod of the Patroni cluster `scope`, with the address and the state that kubelet would give it.
    pub async fn create_pod(&self, name: &str, scope: &str, address: Ipv4Addr) {
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"application": "patroni", "cluster-name": scope}},
            "spec": {"nodeName": "rig", "containers": [{"name": "patroni", "image": "patroni"}]},
        });
        let answer = self
            .ask(User::Admin, "POST", &object("pods"), Some(&pod))
            .await
            .expect("ask the API");
        assert_eq!(answer.status, 201, "create the pod {name}: {}", answer.body);
        let ready = json!({"type": "Ready", "status": "True"});
        let status = json!({
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": [ready],
        });
        self.patch(&format!("pods/{name}/status"), &json!({"status": status}))
            .await;
    }

    /// Creates an object of the namespace.
    pub async fn create(&self, kind: &str, body: &Value) -> Value {
        let answer = self.ask(User::Admin, "POST", &object(kind), Some(body)).await;
        let answer = answer.expect("ask the API");
        assert_eq!(answer.status, 201, "create in {kind}: {}", answer.body);
        answer.json()
    }

    pub async fn delete(&self, name: &str) {
        let answer = self.ask(User::Admin, "DELETE", &object(name), None).await;
        assert_eq!(answer.expect("ask the API").status, 200, "delete {name}");
    }

    /// Returns a real token of a service account, which is void once the Secret `bound_to` is gone.
    pub async fn issue_token(&self, account: &str, bound_to: &str) -> String {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": bound_to}});
        self.create("secrets", &secret).await;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": 3600,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Secret", "name": bound_to},
            },
        });
        let answer = self.create(&format!("serviceaccounts/{account}/token"), &request).await;
        answer["status"]["token"].as_str().expect("a token").to_owned()
    }

    /// Returns host and port of the API, in the variables that every pod has.
    pub fn service_env(&self) -> [(&'static str, String); 2] {
        [
            ("KUBERNETES_SERVICE_HOST", self.address.to_string()),
            ("KUBERNETES_SERVICE_PORT", PORT.to_string()),
        ]
    }

    /// Kills the API server: connections to it are refused. etcd runs, so no object is lost.
    pub fn api_stop(&self) {
        self.api().kill();
    }

    /// Starts the API server again after `api_stop`; returns when it is ready.
    pub async fn api_start(&self) {
        assert!(self.api().exit_status().is_some(), "the API server runs already");
        self.api_launch_ended();
        self.wait_until_ready().await;
    }

    /// Starts the API server again if it has ended. Does not wait for it.
    pub fn api_launch_ended(&self) {
        let mut api = self.api();
        if api.exit_status().is_some() {
            *api = start_api(&self.folder, &self.tls, &self.etcd);
        }
    }

    /// Sends a signal to the API server.
    pub fn api_signal(&self, signal: Signal) {
        self.api().signal(signal);
    }

    /// Returns the host of an API server that has one of its own.
    pub fn host(&self) -> &Host {
        self.etcd.host(0)
    }

    /// Stops the API server with SIGSTOP: connections stay open, and no request is answered.
    pub fn api_freeze(&self) {
        self.api_signal(Signal::STOP);
    }

    pub fn api_thaw(&self) {
        self.api_signal(Signal::CONT);
    }

    /// Cuts only the product off from the API: packets between them are dropped. Only the product (and this rig)
    /// reaches the API through the loopback device, because Patroni's members have hosts of their own.
    pub fn cut_off(&self) {
        let (table, address) = (self.table(), self.address.to_string());
        run("nft", &["add", "table", "inet", &table]);
        let hook = "{ type filter hook output priority 0; }";
        run("nft", &["add", "chain", "inet", &table, "out", hook]);
        for (peer, port) in [("daddr", "dport"), ("saddr", "sport")] {
            let rule = format!("add rule inet {table} out oifname lo ip {peer} {address} tcp {port} {PORT} drop");
            run("nft", &rule.split(' ').collect::<Vec<_>>());
        }
    }

    /// Ends the effect of `cut_off`.
    pub fn restore(&self) {
        run("nft", &["delete", "table", "inet", &self.table()]);
    }

    /// Returns the name of this rig's nftables table.
    fn table(&self) -> String {
        format!("cut_{}", self.address.octets()[1])
    }

    /// Returns the URL of a path of the API.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}:{PORT}{path}", self.address)
    }

    fn api(&self) -> MutexGuard<'_, Process> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the API is ready, with its own Roles and the namespace, which a server makes shortly after its first
    /// start.
    async fn wait_until_ready(&self) {
        wait_until("kube-apiserver is ready", START, async || {
            assert_eq!(self.api().exit_status(), None, "kube-apiserver ended");
            for path in ["/readyz", &format!("/api/v1/namespaces/{NAMESPACE}")] {
                let answer = self.ask(User::Admin, "GET", path, None).await.ok()?;
                (answer.status == 200).then_some(())?;
            }
            Some(())
        })
        .await;
    }

    /// Applies the same files as users do, with the names that kustomize would insert; and Patroni's.
    fn apply_roles(&self) {
        let proxy = self.folder.join("rbac.yaml");
        let named = with_names(include_str!("../../deploy/base/rbac.yaml"));
        fs::write(&proxy, named).expect("write the proxy's Role");
        let publisher = self.folder.join("publish-rbac.yaml");
        let named = with_names(include_str!("../../deploy/publish/rbac.yaml"));
        fs::write(&publisher, named).expect("write the publisher's Role");
        let output = Command::new("kubectl")
            .env("HOME", &self.folder) // kubectl keeps a cache in there
            .env("KUBECONFIG", self.kubeconfig(User::Admin))
            .args(["apply", "--namespace", NAMESPACE])
            .args(["--filename", path(&proxy), "--filename", path(&publisher)])
            .args([
                "--filename",
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/patroni-rbac.yaml"),
            ])
            .output()
            .expect("run kubectl");
        assert!(
            output.status.success(),
            "kubectl apply: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// Replaces the placeholders in lists of names: SCOPE, LEASE, and SERVICE by each Service.
fn with_names(manifest: &str) -> String {
    let named = |line: &str| -> String {
        let Some((start, names)) = line.split_once("resourceNames: [") else {
            return format!("{line}\n");
        };
        let names = names.trim_end_matches(']').split(", ");
        let names = names.flat_map(|name| match name.contains("SERVICE") {
            true => SERVICES.map(|service| name.replace("SERVICE", service)).to_vec(),
            false => vec![name.replace("SCOPE", SCOPE).replace("LEASE", LEASE)],
        });
        format!("{start}resourceNames: [{}]\n", names.collect::<Vec<_>>().join(", "))
    };
    manifest.lines().map(named).collect()
}

fn start_api(folder: &Path, tls: &Tls, etcd: &Etcd) -> Process {
    let program = etcd::program("kube-apiserver").unwrap_or_else(|| cache().join("bin/kube-apiserver"));
    let (mut command, address) = (etcd.command(path(&program)), etcd.address());
    command.arg(format!("--etcd-servers=http://{address}:{}", etcd::PORT));
    command.arg(format!("--bind-address={address}"));
    command.arg(format!("--advertise-address={address}"));
    command.arg(format!("--secure-port={PORT}"));
    command.arg(format!("--tls-cert-file={}", path(&tls.certificate)));
    command.arg(format!("--tls-private-key-file={}", path(&tls.key)));
    command.arg(format!("--cert-dir={}", path(folder)));
    command.arg(format!("--token-auth-file={}", path(&folder.join("tokens"))));
    command.arg("--authorization-mode=RBAC");
    command.arg("--service-cluster-ip-range=10.96.0.0/16");
    // No test uses signed service account tokens, but the server insists on a key for them.
    command.arg("--service-account-issuer=https://kubernetes.default.svc");
    command.arg(format!(
        "--service-account-signing-key-file={}",
        path(&tls.authority_key)
    ));
    command.arg(format!("--service-account-key-file={}", path(&tls.authority)));
    // This admission plugin wants a controller that creates a service account in each namespace before any pod.
    command.arg("--disable-admission-plugins=ServiceAccount");
    Process::start("kube-apiserver", command, &folder.join("kube-apiserver.log"))
}

fn object(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/{name}")
}
