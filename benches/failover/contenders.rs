//! The contenders: pgnorth with its defaults, and HAProxy in two configurations, all three in front of the same cluster
//! at the same time.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults::Source;
use crate::support::process::Process;
use crate::support::{Member, Product, Rig};

/// One contender, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// HAProxy as Patroni's own template has it (`extras/confd/templates/haproxy.tmpl`).
    Template,
    /// HAProxy with checks as fast as possible.
    Tuned,
    Pgnorth,
}

/// All three contenders, running.
pub struct Contenders {
    pgnorth: Product,
    _haproxies: [Process; 2],
}

impl Contender {
    pub const ALL: [Self; 3] = [Self::Template, Self::Tuned, Self::Pgnorth];

    pub fn name(self) -> &'static str {
        match self {
            Self::Template => "HAProxy, template",
            Self::Tuned => "HAProxy, tuned",
            Self::Pgnorth => "pgnorth",
        }
    }

    /// Returns the contender's name for a file or a key.
    pub fn key(self) -> &'static str {
        match self {
            Self::Template => "haproxy-template",
            Self::Tuned => "haproxy-tuned",
            Self::Pgnorth => "pgnorth",
        }
    }
}

impl Contenders {
    /// Starts all three, with their logs in the rig's folder. They may not know the primary yet.
    pub async fn start(rig: &Rig, source: Source) -> Self {
        let haproxies = [Contender::Template, Contender::Tuned].map(|contender| start_haproxy(rig, contender));
        Self {
            pgnorth: match source {
                Source::Etcd => Product::start_on_etcd(rig, &[]).await,
                Source::Kubernetes | Source::Patroni => Product::start(rig, &[], &[]).await,
            },
            _haproxies: haproxies,
        }
    }

    /// Returns the address for clients.
    pub fn address(&self, contender: Contender) -> SocketAddr {
        match contender {
            Contender::Pgnorth => self.pgnorth.address(),
            haproxy => haproxy_address(haproxy),
        }
    }

    /// Returns a contender's log so far.
    pub fn log(&self, rig: &Rig, contender: Contender) -> String {
        match contender {
            Contender::Pgnorth => self.pgnorth.log(),
            haproxy => fs::read_to_string(file(rig, haproxy, "log")).unwrap_or_default(),
        }
    }
}

fn haproxy_address(contender: Contender) -> SocketAddr {
    let port = if contender == Contender::Tuned { 5002 } else { 5001 };
    (Ipv4Addr::LOCALHOST, port).into()
}

fn start_haproxy(rig: &Rig, contender: Contender) -> Process {
    let config = file(rig, contender, "cfg");
    fs::write(&config, render(contender, rig.members())).expect("write HAProxy's configuration");
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(&config);
    Process::start(contender.key(), command, &file(rig, contender, "log"))
}

/// Returns the configuration. The timeouts, the check and the end of sessions are the template's. In the tuned one, a
/// check takes no longer than the interval.
fn render(contender: Contender, members: &[Member]) -> String {
    let (options, times) = match contender {
        Contender::Tuned => ("option splice-auto", "inter 500ms fall 1 rise 1"),
        _ => ("timeout check 5s", "inter 3s fall 3 rise 2"),
    };
    let servers: String = members
        .iter()
        .map(|member| format!("    server {} {} check port 8008\n", member.name(), member.address()))
        .collect();
    format!(
        "global\n    maxconn 2000\n    log stdout format raw local0 notice\n\
         defaults\n    log global\n    mode tcp\n    retries 2\n    timeout client 30m\n    timeout connect 4s\n    \
         timeout server 30m\n    {options}\n\
         listen primary\n    bind {}\n    option httpchk OPTIONS /primary\n    http-check expect status 200\n    \
         default-server {times} on-marked-down shutdown-sessions\n{servers}",
        haproxy_address(contender)
    )
}

fn file(rig: &Rig, contender: Contender, extension: &str) -> PathBuf {
    Path::new(rig.folder()).join(format!("{}.{extension}", contender.key()))
}
