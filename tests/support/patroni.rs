//! A member: one host with Patroni and PostgreSQL, requests to it, and its faults.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::http::{Answer, Http, Request};
use super::network::Host;
use super::process::{Process, send};
use super::psql::{psql, session};
use super::rig::cache;
use super::wait::wait_until;

pub const POSTGRES_PORT: u16 = 5432;
pub const REST_PORT: u16 = 8008;

pub struct Member {
    name: String,
    patroni: Mutex<Option<Process>>,
    host: Host,
    folder: PathBuf,
    kubeconfig: Option<PathBuf>,
    http: Http,
    scheme: &'static str,
}

/// The plan of a member. Its files are in `folder`, which belongs to the user postgres.
pub struct Plan {
    pub host: Host,
    pub folder: PathBuf,
    /// Patroni's configuration file.
    pub config: Value,
    pub kubeconfig: Option<PathBuf>,
    pub rest_tls: bool,
}

impl Member {
    /// Returns a member that is not started yet.
    pub fn new(name: &str, plan: Plan, http: &Http) -> Self {
        // JSON is YAML.
        fs::write(plan.folder.join("patroni.yml"), plan.config.to_string()).expect("write Patroni's configuration");
        Self {
            name: name.to_owned(),
            patroni: Mutex::new(None),
            host: plan.host,
            folder: plan.folder,
            kubeconfig: plan.kubeconfig,
            http: http.clone(),
            scheme: if plan.rest_tls { "https" } else { "http" },
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn ip(&self) -> Ipv4Addr {
        self.host.address
    }

    /// Returns PostgreSQL's address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip()), POSTGRES_PORT)
    }

    /// Returns its host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns a command that runs on its host as the user postgres.
    pub fn command(&self, program: &str) -> Command {
        self.host.command(program)
    }

    /// Returns the REST API's URL, without a path.
    pub fn rest_url(&self) -> String {
        format!("{}://{}:{REST_PORT}", self.scheme, self.ip())
    }

    /// Starts Patroni, which starts PostgreSQL; also after a fault. Waits for neither.
    pub fn start(&self) {
        let mut patroni = self.patroni();
        let running = patroni.as_mut().is_some_and(|process| process.exit_status().is_none());
        assert!(!running, "Patroni of {} runs already", self.name);
        let mut command = self
            .host
            .command(cache().join("patroni/bin/patroni").to_str().expect("an ASCII path"));
        command
            .arg(self.folder.join("patroni.yml"))
            .current_dir(&self.folder)
            .env("HOME", &self.folder);
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        *patroni = Some(Process::start(&self.name, command, &self.folder.join("patroni.log")));
    }

    /// Returns the log of Patroni and PostgreSQL so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("patroni.log")).unwrap_or_default()
    }

    // Questions.

    /// Sends GET to the REST API: the path with its query.
    pub async fn get(&self, path: &str) -> io::Result<Answer> {
        self.http
            .ask(&Request::get(&format!("{}{path}", self.rest_url())))
            .await
    }

    /// Sends POST, PATCH or DELETE to the REST API. The answer to a switchover comes at its end.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> io::Result<Answer> {
        let url = format!("{}{path}", self.rest_url());
        let within = Duration::from_secs(60);
        self.http
            .ask(&Request {
                within,
                ..Request::send(method, &url, "application/json", body)
            })
            .await
    }

    /// Replaces the tags in its configuration file. Patroni publishes them in its next loop.
    pub async fn set_tags(&self, tags: &Value) {
        let file = self.folder.join("patroni.yml");
        let config = fs::read_to_string(&file).expect("read Patroni's configuration");
        let mut config: Value = serde_json::from_str(&config).expect("the configuration is JSON");
        config["tags"] = tags.clone();
        fs::write(&file, config.to_string()).expect("write Patroni's configuration");
        let answer = self.send("POST", "/reload", &Value::Null).await;
        let status = answer.expect("ask Patroni to reload").status;
        assert!([200, 202].contains(&status), "reload of {}: {status}", self.name);
    }

    /// Returns Patroni's status of this member; `None` if it does not answer.
    pub async fn status(&self) -> Option<Value> {
        Some(self.get("/patroni").await.ok()?.json())
    }

    /// Returns true if the member itself reports that it is a running primary. A frozen lock holder does not answer,
    /// and a former one may be wrong.
    pub async fn is_primary(&self) -> bool {
        self.status().await.is_some_and(|status| is_running_primary(&status))
    }

    /// Runs SQL on this member, without any proxy.
    pub async fn psql(&self, sql: &str) -> Result<String, String> {
        psql(self.address(), sql).await
    }

    // Faults.

    /// Crashes the host: every process is killed at once.
    pub fn kill_host(&self) {
        self.host.kill_all();
        if let Some(patroni) = self.patroni().as_mut() {
            patroni.kill();
        }
    }

    /// Disconnects the host: no FIN, no RST, and all its processes run on.
    pub fn link_down(&self) {
        self.host.link_down();
    }

    /// Adds an address: the pod's servers answer there, too, as after a change of its IP.
    pub fn add_address(&self, address: Ipv4Addr) {
        self.host.add_address(address);
    }

    pub fn link_up(&self) {
        self.host.link_up();
    }

    /// Drops every packet to the REST API, those of open connections too; everything else of the host runs on.
    pub fn silence_rest(&self) {
        self.nft(&["add", "table", "inet", "silence"]);
        let chain = "{ type filter hook input priority 0; }";
        self.nft(&["add", "chain", "inet", "silence", "input", chain]);
        let port = REST_PORT.to_string();
        self.nft(&["add", "rule", "inet", "silence", "input", "tcp", "dport", &port, "drop"]);
    }

    pub fn restore_rest(&self) {
        self.nft(&["delete", "table", "inet", "silence"]);
    }

    fn nft(&self, arguments: &[&str]) {
        let mut command = self.host.command_as_root("nft");
        let output = command.args(arguments).output().expect("run nft");
        assert!(output.status.success(), "nft {arguments:?}: {output:?}");
    }

    /// Stops Patroni and its REST API with SIGSTOP; PostgreSQL runs on.
    ///
    /// Returns when each of its threads has stopped: a signal takes a while to arrive on a busy machine, and an answer
    /// might be sent meanwhile.
    pub fn freeze_patroni(&self) {
        let begun = Instant::now();
        loop {
            self.signal_patroni(Signal::STOP);
            let patroni = self.host.processes().into_iter().filter(|p| p.program != "postgres");
            if patroni.map(|process| process.id).all(is_stopped) {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(20),
                "Patroni of {} stops",
                self.name
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn thaw_patroni(&self) {
        self.signal_patroni(Signal::CONT);
    }

    /// Ends Patroni with SIGTERM, and PostgreSQL with it; returns when both are gone.
    pub async fn stop_patroni_gracefully(&self) {
        self.patroni()
            .as_mut()
            .expect("Patroni was started")
            .signal(Signal::TERM);
        wait_until("Patroni has stopped", Duration::from_secs(60), async || {
            self.patroni()
                .as_mut()
                .is_none_or(|process| process.exit_status().is_some())
                .then_some(())
        })
        .await;
    }

    /// Kills Patroni; PostgreSQL runs on.
    pub fn kill_patroni(&self) {
        self.signal_patroni(Signal::KILL);
        if let Some(patroni) = self.patroni().as_mut() {
            patroni.kill();
        }
    }

    /// Stops every process of PostgreSQL with SIGSTOP, while Patroni runs.
    pub fn freeze_postgres(&self) {
        // A process that has just been forked may have been missed.
        while self.signal_postgres(Signal::STOP) {
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn thaw_postgres(&self) {
        self.signal_postgres(Signal::CONT);
    }

    /// Signals every process of PostgreSQL; returns true if one of them runs.
    fn signal_postgres(&self, signal: Signal) -> bool {
        let processes = self.host.processes();
        let postgres: Vec<_> = processes
            .iter()
            .filter(|process| process.program == "postgres")
            .collect();
        postgres.iter().for_each(|process| send(process.id, signal));
        !postgres.iter().all(|process| is_stopped(process.id))
    }

    /// Kills PostgreSQL's postmaster while Patroni runs.
    pub fn kill_postgres(&self) {
        send(self.postmaster().expect("PostgreSQL runs"), Signal::KILL);
    }

    /// Kills one backend: PostgreSQL ends every session and restarts with crash recovery, under the same postmaster.
    pub async fn kill_backend(&self) {
        let victim = session(self.address()).await.expect("open the session to be killed");
        let row = victim
            .query_one("select pg_backend_pid()", &[])
            .await
            .expect("ask for the backend's id");
        send(row.get::<_, i32>(0).unsigned_abs(), Signal::KILL);
    }

    /// Returns the id of PostgreSQL's first process: the only `postgres` whose parent is not one.
    pub fn postmaster(&self) -> Option<u32> {
        let processes = self.host.processes();
        let postgres: Vec<_> = processes
            .iter()
            .filter(|process| process.program == "postgres")
            .collect();
        let is_child = |parent| postgres.iter().any(|process| process.id == parent);
        Some(postgres.iter().find(|process| !is_child(process.parent))?.id)
    }

    /// Returns the number of processes of this host, of any program.
    pub fn process_count(&self) -> usize {
        self.host.processes().len()
    }

    fn signal_patroni(&self, signal: Signal) {
        let patroni: Vec<_> = self
            .host
            .processes()
            .into_iter()
            .filter(|p| p.program != "postgres")
            .collect();
        assert!(!patroni.is_empty(), "Patroni of {} doesn't run", self.name);
        patroni.iter().for_each(|process| send(process.id, signal));
    }

    fn patroni(&self) -> MutexGuard<'_, Option<Process>> {
        self.patroni.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns true if the status is that of a running primary, which Patroni called `master` before 4.0.
pub fn is_running_primary(status: &Value) -> bool {
    (status["role"] == "primary" || status["role"] == "master") && status["state"] == "running"
}

/// Returns true if every thread of the process has stopped, or the process is gone (proc(5), `stat`: the state follows
/// the name in parentheses).
fn is_stopped(id: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else {
        return true;
    };
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_none_or(|state| "TtZX".contains(state))
    })
}
