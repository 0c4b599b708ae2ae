//! The contenders: pgnorth with its defaults, HAProxy in several configurations, and libpq without a proxy, all of them
//! with the same cluster at the same time.

mod haproxy;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::connector::Connector;
use crate::faults::Source;
use crate::support::process::Process;
use crate::support::rig::cache;
use crate::support::{Product, Rig};
use crate::tls::Tls;

/// One contender, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Contender {
    /// HAProxy with the options of Patroni's own template (`extras/confd/templates/haproxy.tmpl`)
    HaproxyTemplate,
    /// HAProxy with checks as fast as possible
    HaproxyTuned,
    /// HAProxy with autobase's options
    HaproxyAutobase,
    /// HAProxy with Pigsty's options
    HaproxyPigsty,
    /// HAProxy of Debian 13 with the template's options; left out if `install.sh haproxy-3` has not built it
    #[value(name = "haproxy-3")]
    Haproxy3,
    /// libpq with all members in the connection string; no proxy
    Libpq,
    /// The release binary with its defaults
    Pgnorth,
}

/// Contenders that run.
pub struct Contenders {
    chosen: Vec<Contender>,
    pgnorth: Option<Product>,
    _haproxies: Vec<Process>,
}

impl Contender {
    pub fn name(self) -> &'static str {
        match self {
            Self::HaproxyTemplate => "HAProxy, template",
            Self::HaproxyTuned => "HAProxy, tuned",
            Self::HaproxyAutobase => "HAProxy, autobase",
            Self::HaproxyPigsty => "HAProxy, Pigsty",
            Self::Haproxy3 => "HAProxy 3, template",
            Self::Libpq => "libpq multi-host",
            Self::Pgnorth => "pgnorth",
        }
    }

    /// Returns the contender's name for a file or a key, which the options take.
    pub fn key(self) -> String {
        let value = self.to_possible_value().expect("no contender is hidden");
        value.get_name().to_owned()
    }

    /// Returns the program, unless it is part of the client.
    pub fn program(self) -> Option<PathBuf> {
        match self {
            Self::Libpq => None,
            Self::Pgnorth => Some(env!("CARGO_BIN_EXE_pgnorth").into()),
            Self::Haproxy3 => Some(cache().join("bin/haproxy-3")),
            _ => Some("haproxy".into()),
        }
    }

    /// Returns the chosen contenders, in the order of the table; all if none is named. Prints a line for each one whose
    /// program is not there.
    pub fn choose(named: &[Self]) -> Vec<Self> {
        let is_named = |one: &&Self| named.is_empty() || named.contains(one);
        let chosen = Self::value_variants().iter().filter(is_named).copied();
        let is_there = |one: &Self| {
            let Some(program) = one.program() else { return true };
            let run = Command::new(&program).arg("-v").output();
            if let Err(error) = &run {
                eprintln!("{} is left out: {}: {error}", one.name(), program.display());
            }
            run.is_ok()
        };
        chosen.filter(is_there).collect()
    }
}

impl Contenders {
    /// Starts the chosen ones, with their logs in the rig's folder. They may not know the primary yet.
    pub async fn start(rig: &Rig, source: Source, chosen: &[Contender]) -> Self {
        let is_haproxy = |one: &&Contender| !matches!(one, Contender::Libpq | Contender::Pgnorth);
        let haproxies = chosen.iter().filter(is_haproxy);
        let haproxies = haproxies.map(|one| start_haproxy(rig, *one)).collect();
        let pgnorth = match source {
            _ if !chosen.contains(&Contender::Pgnorth) => None,
            Source::Etcd => Some(Product::start_on_etcd(rig, &[]).await),
            Source::Kubernetes | Source::Patroni => Some(Product::start(rig, &[], &[]).await),
        };
        Self {
            chosen: chosen.to_vec(),
            pgnorth,
            _haproxies: haproxies,
        }
    }

    pub fn all(&self) -> &[Contender] {
        &self.chosen
    }

    /// Returns the way for a client of a contender.
    pub fn connector(&self, rig: &Rig, contender: Contender, tls: Option<&Tls>) -> Connector {
        match contender {
            Contender::Libpq => Connector::libpq(rig, tls.is_some()),
            _ => Connector::address(self.address(contender), tls.cloned()),
        }
    }

    fn address(&self, contender: Contender) -> SocketAddr {
        match (contender, &self.pgnorth) {
            (Contender::Pgnorth, Some(pgnorth)) => pgnorth.address(),
            (haproxy, _) => haproxy::address(haproxy),
        }
    }

    /// Returns a contender's log so far.
    pub fn log(&self, rig: &Rig, contender: Contender) -> String {
        match (contender, &self.pgnorth) {
            (Contender::Pgnorth, Some(pgnorth)) => pgnorth.log(),
            (haproxy, _) => fs::read_to_string(file(rig, haproxy, "log")).unwrap_or_default(),
        }
    }
}

fn start_haproxy(rig: &Rig, contender: Contender) -> Process {
    let config = file(rig, contender, "cfg");
    fs::write(&config, haproxy::render(contender, rig.members())).expect("write HAProxy's configuration");
    let mut command = Command::new(contender.program().expect("HAProxy is a program"));
    command.arg("-f").arg(&config);
    Process::start(&contender.key(), command, &file(rig, contender, "log"))
}

fn file(rig: &Rig, contender: Contender, extension: &str) -> PathBuf {
    Path::new(rig.folder()).join(format!("{}.{extension}", contender.key()))
}
