//! The contenders, each with its own way to replace the running process.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::folder;
use crate::patroni::FakePatroni;
use crate::postgres::{as_postgres, connect};
use crate::process::{Process, run, send};
use crate::usage::processes;

const START: Duration = Duration::from_secs(10);
const PGNORTH: &str = env!("CARGO_BIN_EXE_pgnorth");

/// One way to replace a proxy, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// `pgnorth reload`
    Pgnorth,
    /// HAProxy with -W and expose-fd listeners, SIGUSR2
    Haproxy,
    /// PgBouncer with so_reuseport: a second process, then SIGINT for the first
    PgbouncerReuseport,
    /// PgBouncer's -R, which takes the sockets of the process before
    PgbouncerReboot,
}

/// A contender in front of PostgreSQL. Its drop ends its processes.
pub struct Running {
    kind: Kind,
    pub address: SocketAddr,
    target: SocketAddr,
    /// All that were started here, the newest last.
    started: Vec<Process>,
    patroni: Option<FakePatroni>,
}

impl Kind {
    pub fn title(self) -> &'static str {
        match self {
            Self::Pgnorth => "`pgnorth reload`",
            Self::Haproxy => "HAProxy, `-W`, SIGUSR2",
            Self::PgbouncerReuseport => "PgBouncer, `so_reuseport`, SIGINT",
            Self::PgbouncerReboot => "PgBouncer, `-R`",
        }
    }

    /// Returns the name of its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Pgnorth => "pgnorth",
            Self::Haproxy => "haproxy",
            Self::PgbouncerReuseport | Self::PgbouncerReboot => "pgbouncer",
        }
    }
}

/// Returns the first line of its version.
pub fn version(kind: Kind) -> String {
    let (program, flag) = match kind {
        Kind::Pgnorth => (PGNORTH, "--version"),
        Kind::Haproxy => ("haproxy", "-v"),
        _ => ("pgbouncer", "--version"),
    };
    let output = Command::new(program).arg(flag).output().expect("run a contender");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

impl Running {
    /// Starts a contender; returns when a client reaches PostgreSQL through it.
    pub async fn start(kind: Kind, target: SocketAddr) -> Self {
        let port = 7001 + u16::try_from(kind as usize).expect("few contenders");
        let mut contender = Self {
            kind,
            address: (Ipv4Addr::LOCALHOST, port).into(),
            target,
            started: Vec::new(),
            patroni: None,
        };
        if kind == Kind::Pgnorth {
            contender.patroni = Some(FakePatroni::start(target).expect("start a fake Patroni"));
        }
        contender.spawn(&[]);
        let begun = Instant::now();
        while let Err(error) = connect(contender.address).await {
            let log = contender.started[0].log();
            assert!(
                begun.elapsed() < START,
                "{} does not serve: {error}: {log}",
                kind.title()
            );
            sleep(Duration::from_millis(50)).await;
        }
        contender
    }

    /// Replaces the running process.
    pub async fn reload(&mut self) {
        let running = processes(self.kind.program());
        match self.kind {
            Kind::Pgnorth => {
                let newest = running.last().expect("it runs").to_string();
                let reload = tokio::process::Command::new(PGNORTH)
                    .args(["reload", "--pid", &newest])
                    .output();
                let output = reload.await.expect("run pgnorth reload");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            }
            // The master is the oldest one.
            Kind::Haproxy => send(running[0], Signal::USR2),
            Kind::PgbouncerReuseport => {
                self.spawn(&[]);
                self.newest_is_up().await;
                send(*running.last().expect("it runs"), Signal::INT);
            }
            Kind::PgbouncerReboot => {
                self.spawn(&["-R"]);
                self.newest_is_up().await;
            }
        }
    }

    /// Waits until the PgBouncer that was started last serves.
    async fn newest_is_up(&self) {
        let newest = self.started.last().expect("it was started");
        let begun = Instant::now();
        while !newest.log().contains("process up") {
            assert!(begun.elapsed() < START, "PgBouncer does not start: {}", newest.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn spawn(&mut self, flags: &[&str]) {
        let number = self.started.len();
        let file = |extension: &str| folder().join(format!("{:?}-{number}.{extension}", self.kind));
        let command = match self.kind {
            Kind::Pgnorth => self.pgnorth(),
            Kind::Haproxy => {
                let socket = file("socket");
                fs::write(file("conf"), haproxy(self.address, self.target, &socket)).expect("write a configuration");
                let mut command = Command::new("haproxy");
                command.arg("-W").arg("-f").arg(file("conf"));
                command
            }
            Kind::PgbouncerReuseport | Kind::PgbouncerReboot => {
                let sockets = folder().join("pgbouncer");
                let path = sockets.to_str().expect("an ASCII path");
                run("install", &["-d", "-o", "postgres", "-g", "postgres", path]);
                let own = match self.kind {
                    Kind::PgbouncerReuseport => "so_reuseport = 1\nunix_socket_dir =\n".to_owned(),
                    _ => format!("unix_socket_dir = {path}\n"),
                };
                fs::write(file("conf"), pgbouncer(self.address, self.target) + &own).expect("write a configuration");
                let mut command = as_postgres("pgbouncer");
                command.args(flags).arg(file("conf"));
                command
            }
        };
        self.started
            .push(Process::start(self.kind.program(), command, &file("log")));
    }

    fn pgnorth(&self) -> Command {
        let patroni = self.patroni.as_ref().expect("it was started");
        let mut command = Command::new(PGNORTH);
        // Variables about pgnorth in this process's environment are not meant for this one.
        command.env_clear();
        command.args(["--listen", &self.address.to_string(), "--admin", "127.0.0.1:0"]);
        command.args(["--patroni", &patroni.url()]);
        command
    }
}

/// Returns HAProxy's configuration, with as many threads as pgnorth has workers here.
fn haproxy(listen: SocketAddr, target: SocketAddr, socket: &Path) -> String {
    format!(
        "global\n    nbthread 2\n    maxconn 4000\n    stats socket {} mode 600 level admin expose-fd listeners\n\
         defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n\
         listen bench\n    bind {listen}\n    server backend {target}\n",
        socket.display(),
    )
}

/// Returns PgBouncer's configuration. With `auth_type = any` clients need no password, and all are the user in it.
fn pgbouncer(listen: SocketAddr, target: SocketAddr) -> String {
    format!(
        "[databases]\npostgres = host={} port={} user=postgres\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nauth_type = any\npool_mode = session\n\
         max_client_conn = 4000\ndefault_pool_size = 1000\nignore_startup_parameters = extra_float_digits\n\
         log_connections = 0\nlog_disconnections = 0\n",
        target.ip(),
        target.port(),
        listen.ip(),
        listen.port()
    )
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing else runs in this world; successors and old workers are no children of this process.
        for id in processes(self.kind.program()) {
            send(id, Signal::KILL);
        }
    }
}
