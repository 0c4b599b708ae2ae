//! The contenders, their configurations, and their start in front of a target.

mod setup;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::Signal;

use crate::patroni::FakePatroni;
use crate::process::{Process, run, send};
use crate::session::is_answered;
use crate::usage;
use crate::world::folder;

const START: Duration = Duration::from_secs(10);
/// Limit of sessions, above that of every workload.
const MAX_SESSIONS: u32 = 12_000;

/// One way to the target, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// No proxy
    Direct,
    /// nftables' redirect
    Dnat,
    /// HAProxy, TCP mode, no checks, no logs
    Haproxy,
    /// The same with splice-request and splice-response
    HaproxySplice,
    /// nginx' stream module
    Nginx,
    /// PgBouncer, session mode; in front of PostgreSQL alone
    Pgbouncer,
    /// The release binary with its defaults
    Pgnorth,
}

/// The target of all contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    /// Its user and its database.
    pub login: (&'static str, &'static str),
    pub is_postgres: bool,
}

/// A contender in front of a target. Its drop ends its processes.
pub struct Running {
    pub kind: Kind,
    pub address: SocketAddr,
    pub target: Target,
    process: Option<Process>,
    /// The cluster of a contender that follows one.
    pub patroni: Option<FakePatroni>,
}

/// A guard that keeps the kernel's redirect in force. It is held no longer than needed, because the redirect makes
/// every connection pass through conntrack.
pub struct Engaged(bool);

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Dnat => "kernel DNAT",
            Self::Haproxy => "HAProxy",
            Self::HaproxySplice => "HAProxy, splice",
            Self::Nginx => "nginx",
            Self::Pgbouncer => "PgBouncer",
            Self::Pgnorth => "pgnorth",
        }
    }

    /// Returns the contender's name for a file or a key, which the options take.
    pub fn key(self) -> String {
        self.to_possible_value()
            .expect("no contender is hidden")
            .get_name()
            .to_owned()
    }

    /// Returns true if there is a process to measure.
    pub fn has_process(self) -> bool {
        !matches!(self, Self::Direct | Self::Dnat)
    }

    pub fn serves(self, target: Target) -> bool {
        self != Self::Pgbouncer || target.is_postgres
    }

    /// Returns the program, and the flag that prints its version.
    pub fn program(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Direct => None,
            Self::Dnat => Some(("nft", "--version")),
            Self::Haproxy | Self::HaproxySplice => Some(("haproxy", "-v")),
            Self::Nginx => Some(("nginx", "-v")),
            Self::Pgbouncer => Some(("pgbouncer", "--version")),
            Self::Pgnorth => Some((env!("CARGO_BIN_EXE_pgnorth"), "--version")),
        }
    }
}

impl Running {
    /// Starts a contender, and waits until the target answers through it. Otherwise returns the reason.
    pub fn start(kind: Kind, target: Target, port: u16, pgnorth_arguments: &[String]) -> Result<Self, String> {
        if let Some((program, flag)) = kind.program()
            && let Err(error) = Command::new(program).arg(flag).output()
        {
            return Err(format!("{program} cannot be run: {error}"));
        }
        let address = match kind {
            Kind::Direct => target.address,
            _ => (Ipv4Addr::LOCALHOST, port).into(),
        };
        let patroni = match kind {
            Kind::Pgnorth => Some(FakePatroni::start(target.address).map_err(|error| error.to_string())?),
            _ => None,
        };
        let mut contender = Self {
            kind,
            address,
            target,
            process: None,
            patroni,
        };
        if let Some(command) = contender.command(pgnorth_arguments) {
            contender.process = Some(Process::start(&kind.key(), command, &contender.file("log")));
        }
        contender.wait_until_answering()?;
        Ok(contender)
    }

    /// Starts the same contender again, beside the first and still without sessions.
    pub fn start_afresh(&self, pgnorth_arguments: &[String]) -> Result<Self, String> {
        // The first one listens on a port of its own.
        Self::start(self.kind, self.target, self.address.port() + 50, pgnorth_arguments)
    }

    /// Returns a guard to hold during the measurement.
    pub fn engage(&self) -> Engaged {
        if self.kind == Kind::Dnat {
            let rules = self.file("nft");
            fs::write(&rules, setup::redirect(self.address, self.target)).expect("write nftables' rules");
            run("nft", &["-f", &rules.to_string_lossy()]);
        }
        Engaged(self.kind == Kind::Dnat)
    }

    /// Returns the CPU time so far; `None` if the kernel does the work.
    pub fn cpu(&self) -> Option<Duration> {
        self.process.as_ref().map(|process| usage::cpu(process.id()))
    }

    /// Returns the id of the first process, if there is one.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    fn wait_until_answering(&mut self) -> Result<(), String> {
        let _engaged = self.engage();
        let start = Instant::now();
        let (user, database) = self.target.login;
        loop {
            let ended = self.process.as_mut().and_then(Process::exit_status);
            let answer = is_answered(self.address, user, database);
            let Err(error) = answer else { return Ok(()) };
            if ended.is_some() || start.elapsed() > START {
                let log = self.process.as_ref().map(Process::log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                let state = ended.map_or_else(
                    || "it does not answer".to_owned(),
                    |status| format!("it ended: {status}"),
                );
                return Err(format!("{state}: {error}; {}", last.join("; ")));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the command of its process; `None` if the kernel does the work.
    fn command(&self, pgnorth_arguments: &[String]) -> Option<Command> {
        let config = self.file("conf");
        let write = |text: String| fs::write(&config, text).expect("write a configuration");
        match self.kind {
            Kind::Direct | Kind::Dnat => None,
            Kind::Haproxy | Kind::HaproxySplice => {
                write(setup::haproxy(
                    self.address,
                    self.target,
                    self.kind == Kind::HaproxySplice,
                ));
                Some(command("haproxy", &["-f".as_ref(), &config]))
            }
            Kind::Nginx => {
                write(setup::nginx(self.address, self.target, &self.file("pid")));
                Some(command("nginx", &["-c".as_ref(), &config]))
            }
            Kind::Pgbouncer => {
                write(setup::pgbouncer(self.address, self.target));
                // It refuses to be root.
                let user = [
                    "--reuid",
                    "postgres",
                    "--regid",
                    "postgres",
                    "--clear-groups",
                    "pgbouncer",
                ];
                Some(command("setpriv", &[&user.map(Path::new)[..], &[&config]].concat()))
            }
            Kind::Pgnorth => Some(self.pgnorth(pgnorth_arguments)),
        }
    }

    fn pgnorth(&self, arguments: &[String]) -> Command {
        let patroni = self.patroni.as_ref().expect("pgnorth was given one");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
        // Variables about pgnorth, or about logs, in this process's environment are not meant for this one.
        command.env_clear();
        command.args(["--listen", &self.address.to_string(), "--admin", "127.0.0.1:0"]);
        command.args(["--patroni", &patroni.url(), "--max-sessions", &MAX_SESSIONS.to_string()]);
        command.args(arguments);
        command
    }

    fn file(&self, extension: &str) -> PathBuf {
        folder().join(format!("{}-{}.{extension}", self.kind.key(), self.address.port()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // nginx' workers would outlive their master.
        for id in self.id().map(usage::tree).unwrap_or_default() {
            send(id, Signal::KILL);
        }
    }
}

impl Drop for Engaged {
    fn drop(&mut self) {
        if self.0 {
            run("nft", &["delete", "table", "ip", "bench"]);
        }
    }
}

fn command(program: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Returns the first line of a program's version, from either stream.
pub fn version(program: &str, flag: &str) -> io::Result<String> {
    let output = Command::new(program).arg(flag).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
