//! The real binary in front of a fake cluster, with members a and b behind a fake API server, and its outputs: log,
//! admin pages and sessions.

use std::ffi::OsStr;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake_api::FakeApi;
use crate::fake_patroni::FakeMember;
use crate::support::{HANG, within};

/// Interval of renewals, well within half of a ttl.
const RENEWAL: Duration = Duration::from_millis(500);

/// A cluster that member a leads. The lock is kept in Endpoints and renewed all the time.
pub struct FakeCluster {
    pub api: FakeApi,
    pub a: FakeMember,
    pub b: FakeMember,
    lock: Arc<Mutex<Value>>,
    frozen: Arc<AtomicBool>,
}

/// A running pgnorth. Its drop kills it, and shows its log if the test has failed.
pub struct Product {
    child: Child,
    folder: TempDir,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// A client with a session.
pub struct Session {
    stream: TcpStream,
    pub member: String,
}

impl FakeCluster {
    pub async fn start(ttl: u32) -> Self {
        let api = FakeApi::start().await;
        let (a, b) = (FakeMember::start("a").await, FakeMember::start("b").await);
        a.is_primary(1);
        api.put("pods", "a", &a.pod("primary"));
        api.put("pods", "b", &b.pod("replica"));
        let lock = json!({"leader": "a", "ttl": ttl.to_string(), "acquireTime": "then", "transitions": "0"});
        let cluster = Self {
            api,
            a,
            b,
            lock: Arc::new(Mutex::new(lock)),
            frozen: Arc::default(),
        };
        let (api, lock, frozen) = (cluster.api.clone(), cluster.lock.clone(), cluster.frozen.clone());
        tokio::spawn(async move {
            for renewal in (0_u64..).take_while(|_| !frozen.load(Ordering::Relaxed)) {
                let annotations = {
                    let mut lock = lock.lock().unwrap();
                    lock["renewTime"] = json!(renewal.to_string());
                    lock.clone()
                };
                api.put("endpoints", "pg", &annotations);
                tokio::time::sleep(RENEWAL).await;
            }
        });
        cluster
    }

    /// Changes one annotation of the leader object at once.
    pub fn annotate(&self, annotation: &str, value: &str) {
        let annotations = {
            let mut lock = self.lock.lock().unwrap();
            lock[annotation] = json!(value);
            lock.clone()
        };
        self.api.put("endpoints", "pg", &annotations);
    }

    /// Stops the renewals of the lock.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// Sets `pause` in Patroni's dynamic configuration.
    pub fn pause(&self, paused: bool) {
        let config = json!({"ttl": 20, "pause": paused}).to_string();
        self.api.put("endpoints", "pg-config", &json!({"config": config}));
    }

    /// Moves the lock to another member.
    pub fn lock_moves_to(&self, member: &str) {
        self.annotate("leader", member);
    }
}

impl Product {
    /// Starts the binary and waits until it listens. It need not know a leader yet.
    pub async fn start(cluster: &FakeCluster, flags: &[&str]) -> Self {
        Self::spawn(cluster, flags, None).once_it_listens().await
    }

    /// Starts `pgnorth watch` and waits until its admin port listens.
    pub async fn start_watcher(cluster: &FakeCluster, flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let kubeconfig = write_kubeconfig(folder.path(), cluster.api.address);
        let variables = [("KUBECONFIG", kubeconfig.as_os_str())];
        let launched = Self::launch(folder, &variables, &["watch", "--scope", "pg"], flags, None);
        launched.once_it_listens().await
    }

    /// Starts `pgnorth publish` and waits until its admin port listens.
    pub async fn start_publisher(cluster: &FakeCluster, flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let kubeconfig = write_kubeconfig(folder.path(), cluster.api.address);
        let variables = [("KUBECONFIG", kubeconfig.as_os_str())];
        let launched = Self::launch(folder, &variables, &["publish", "--scope", "pg"], flags, None);
        launched.once_it_listens().await
    }

    /// Starts the binary without Kubernetes: it asks members alone.
    pub async fn start_by_rest(members: &[&FakeMember], flags: &[&str]) -> Self {
        let urls: Vec<_> = members.iter().map(|member| format!("http://{}", member.rest)).collect();
        let folder = TempDir::new().unwrap();
        let launched = Self::launch(folder, &[], &["--patroni", &urls.join(",")], flags, None);
        launched.once_it_listens().await
    }

    /// Starts the binary with etcd as its source, and the scope of the fake members.
    pub async fn start_by_etcd(urls: &str, flags: &[&str]) -> Self {
        let sources = ["--scope", "pg", "--etcd", urls];
        let launched = Self::launch(TempDir::new().unwrap(), &[], &sources, flags, None);
        launched.once_it_listens().await
    }

    /// The same with this program and these variables.
    pub async fn start_program(
        program: &Path,
        variables: &[(&str, &OsStr)],
        members: &[&FakeMember],
        flags: &[&str],
    ) -> Self {
        let urls: Vec<_> = members.iter().map(|member| format!("http://{}", member.rest)).collect();
        let mut command = Command::new(program);
        command.env_clear().envs(variables.iter().copied());
        command.args(["--patroni", &urls.join(",")]).stdin(Stdio::null());
        let launched = Self::launch_command(command, TempDir::new().unwrap(), flags, None);
        launched.once_it_listens().await
    }

    async fn once_it_listens(self) -> Self {
        let line = self
            .logs("listening", |event| event["fields"]["message"] == "listening")
            .await;
        self.listens(&line)
    }

    /// Starts the binary. Its log goes to `stderr`, or to a file of its own if that is `None`.
    pub fn spawn(cluster: &FakeCluster, flags: &[&str], stderr: Option<Stdio>) -> Self {
        let folder = TempDir::new().unwrap();
        let kubeconfig = write_kubeconfig(folder.path(), cluster.api.address);
        let variables = [("KUBECONFIG", kubeconfig.as_os_str())];
        Self::launch(folder, &variables, &["--scope", "pg"], flags, stderr)
    }

    fn launch(
        folder: TempDir,
        variables: &[(&str, &OsStr)],
        sources: &[&str],
        flags: &[&str],
        stderr: Option<Stdio>,
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
        command.env_clear().envs(variables.iter().copied()).args(sources);
        command.stdin(Stdio::null());
        Self::launch_command(command, folder, flags, stderr)
    }

    fn launch_command(mut command: Command, folder: TempDir, flags: &[&str], stderr: Option<Stdio>) -> Self {
        let log = File::create(folder.path().join("log")).unwrap();
        let has_no_clients = ["watch", "publish"].map(OsStr::new);
        if !command
            .get_args()
            .next()
            .is_some_and(|first| has_no_clients.contains(&first))
        {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let child = command
            .args(["--admin", "127.0.0.1:0"])
            .args(["--log-format", "json"])
            .args(flags)
            .stderr(stderr.unwrap_or_else(|| log.try_clone().unwrap().into()))
            .stdout(log)
            .spawn()
            .unwrap();
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self {
            child,
            folder,
            address: nowhere,
            admin: nowhere,
        }
    }

    /// Reads the ports from the log's line. A watcher has none for clients.
    pub fn listens(mut self, line: &Value) -> Self {
        let address = |field: &str| Some(line["fields"][field].as_str()?.parse().unwrap());
        self.address = address("postgres").unwrap_or(self.address);
        self.admin = address("admin").unwrap();
        self
    }

    /// Returns the log as it was written.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// Returns every log line so far.
    pub fn events(&self) -> Vec<Value> {
        let log = self.log();
        log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a log line, and returns it.
    pub async fn logs(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the log says: {what}"), async || {
            self.events().into_iter().find(|event| is_it(event))
        })
        .await
    }

    /// Waits for a log line of this level that has all of these words.
    pub async fn tells(&self, level: &str, words: &[&str]) {
        self.logs(&format!("{level} {words:?}"), |event| {
            let message = event["fields"]["message"].as_str().unwrap_or_default();
            event["level"] == level && words.iter().all(|word| message.contains(word))
        })
        .await;
    }

    /// Returns status and body of an admin page.
    pub async fn page(&self, path: &str) -> (u16, String) {
        self.request("GET", path, "").await
    }

    /// Does the same for any method, with more header lines.
    pub async fn request(&self, method: &str, path: &str, more: &str) -> (u16, String) {
        let mut stream = within("the admin port accepts", TcpStream::connect(self.admin))
            .await
            .unwrap();
        let request = format!("{method} {path} HTTP/1.0\r\nHost: admin\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("the admin port answers", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// Returns `/leader`.
    pub async fn leader(&self) -> Value {
        serde_json::from_str(&self.page("/leader").await.1).unwrap()
    }

    /// Waits until `/leader` shows this state, this member and a reason with these words.
    pub async fn decides(&self, state: &str, member: Option<&str>, reason: &str) {
        let mut last = Value::Null;
        let start = Instant::now();
        loop {
            let leader = self.leader().await;
            let text = leader["reason"].as_str().unwrap();
            if leader["state"] == state && leader["member"] == json!(member) && text.contains(reason) {
                return;
            }
            if leader != last {
                println!("/leader: {leader}");
                last = leader;
            }
            assert!(
                start.elapsed() < HANG,
                "never decides: {state} {member:?} because {reason:?}; last {last}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Returns a client that has connected and sent a byte; the answer shows its leader.
    pub async fn client(&self) -> TcpStream {
        let mut stream = within("a client connects", TcpStream::connect(self.address))
            .await
            .unwrap();
        stream.write_all(b"?").await.unwrap();
        stream
    }

    /// Returns a client once it has a session.
    pub async fn session(&self) -> Session {
        Session::of(self.client().await).await
    }

    /// Fails if the secret is visible anywhere.
    pub async fn keeps_secret(&self, secret: &str) {
        for text in [self.log(), self.page("/leader").await.1, self.page("/metrics").await.1] {
            assert!(!text.contains(secret), "{secret} shows in\n{text}");
        }
    }

    /// Kills it, as a crash would.
    pub fn ends(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process ids of its successors so far.
    pub fn successors(&self) -> Vec<u32> {
        let events = self.events().into_iter();
        let started = events.filter(|event| event["fields"]["message"] == "reload: the new process has started");
        started
            .filter_map(|event| u32::try_from(event["fields"]["successor"].as_u64()?).ok())
            .collect()
    }

    /// Waits until it has been replaced so many times.
    pub async fn is_replaced(&self, times: usize) {
        eventually(&format!("it is replaced {times} times"), async || {
            let events = self.events().into_iter();
            let listening = events.filter(|event| event["fields"]["message"] == "listening");
            (listening.count() > times).then_some(())
        })
        .await;
    }

    /// Returns its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM.
    pub fn is_asked_to_end(&self) {
        self.gets(Signal::TERM);
    }

    /// Sends a signal.
    pub fn gets(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the process has ended; returns its exit status.
    pub async fn ended(&mut self) -> Option<i32> {
        eventually("the process ends", async || self.child.try_wait().unwrap())
            .await
            .code()
    }

    /// Fails if the process has ended.
    pub fn lives(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "pgnorth ended");
    }
}

impl Drop for Product {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in self.successors() {
            // Only what is still one: the number may be another process's by now.
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            if environ.contains("PGNORTH_PREDECESSOR=") {
                let _ = kill_process(pid_of(pid), Signal::KILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("---- pgnorth's log\n{}", self.log());
        }
    }
}

impl Session {
    /// Returns the client's socket.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Waits until a member answers.
    pub async fn of(mut stream: TcpStream) -> Self {
        let mut name = [0];
        within("a member answers", stream.read_exact(&mut name)).await.unwrap();
        let member = String::from_utf8(name.into()).unwrap();
        Self { stream, member }
    }

    /// Returns the client's own address.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Fails unless a byte returns.
    pub async fn lives(&mut self) {
        self.stream.write_all(b"x").await.unwrap();
        let mut byte = [0];
        within("the session echoes", self.stream.read_exact(&mut byte))
            .await
            .expect("the session lives");
        assert_eq!(&byte, b"x");
    }

    /// Waits until pgnorth ends it.
    pub async fn ends(mut self) {
        let mut rest = Vec::new();
        let _ = within("the session ends", self.stream.read_to_end(&mut rest)).await;
    }
}

/// A process id as rustix takes it.
pub fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Writes a kubeconfig with this API's address.
pub fn write_kubeconfig(folder: &Path, api: SocketAddr) -> PathBuf {
    let kubeconfig = folder.join("kubeconfig");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": format!("http://{api}")}}],
        "users": [{"name": "fake", "user": {"token": "fake"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "default"}}],
    });
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    kubeconfig
}

/// Repeats `look` until it returns a value. The deadline only guards against hanging.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}
