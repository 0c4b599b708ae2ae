//! pgnorth with five routes, and HAProxy with the same in two configurations, in front of one cluster.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;

use crate::support::process::Process;
use crate::support::{Dcs, Product, Rig};

/// A contender, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contender {
    /// HAProxy with the checks of Patroni's own template (`extras/confd/templates/haproxy.tmpl`).
    Template,
    /// HAProxy with checks as operators tune them.
    Tuned,
    Pgnorth,
}

/// A route of the table: its name, pgnorth's setting, and the health check of HAProxy if it has the same.
pub struct TestedRoute {
    pub name: &'static str,
    pub setting: &'static str,
    pub check: Option<&'static str>,
    /// The primary may answer.
    pub has_primary: bool,
}

const fn tested(name: &'static str, setting: &'static str, check: Option<&'static str>) -> TestedRoute {
    TestedRoute {
        name,
        setting,
        check,
        has_primary: false,
    }
}

pub const ROUTES: [TestedRoute; 5] = [
    tested("replica, 16 MB", "replica,max-lag=16MB", Some("/replica?lag=16MB")),
    tested("the same, lagging=cut", "replica,max-lag=16MB,lagging=cut", None),
    TestedRoute {
        has_primary: true,
        ..tested("read-only", "read-only", Some("/read-only"))
    },
    tested("sync", "sync", Some("/synchronous")),
    tested("async", "async", Some("/asynchronous")),
];

/// All contenders, running.
pub struct Contenders {
    _pgnorth: Product,
    _haproxies: Vec<Process>,
    addresses: Vec<(Contender, usize, SocketAddr)>,
}

impl Contender {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Template => "HAProxy, template",
            Self::Tuned => "HAProxy, tuned",
            Self::Pgnorth => "pgnorth",
        }
    }
}

impl Contenders {
    /// Starts all three. `expected` is the number of members that HAProxy lists; those that do not run yet are down.
    pub async fn start(rig: &Rig, by_rest: bool, expected: u8) -> Self {
        let mut flags = Vec::new();
        for route in &ROUTES {
            flags.extend(["--route".to_owned(), format!("127.0.0.1:0={}", route.setting)]);
        }
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let pgnorth = match rig.dcs() {
            Dcs::Etcd if !by_rest => Product::start_on_etcd(rig, &flags).await,
            _ => Product::start(rig, &flags, &[]).await,
        };
        let routes = pgnorth.admin_get("/status").await.json()["routes"].clone();
        let own = (0..ROUTES.len()).map(|place| {
            let address = routes[place + 1]["address"].as_str().expect("an address");
            (Contender::Pgnorth, place, address.parse().expect("an address"))
        });
        let mut addresses: Vec<_> = own.collect();
        let mut haproxies = Vec::new();
        for contender in [Contender::Template, Contender::Tuned] {
            let ports = free_ports(ROUTES.len());
            haproxies.push(start_haproxy(rig, contender, &ports, expected));
            let of_routes = (0..).zip(&ROUTES).zip(ports);
            let checked = of_routes.filter(|((_, route), _)| route.check.is_some());
            addresses.extend(checked.map(|((place, _), address)| (contender, place, address)));
        }
        Self {
            _pgnorth: pgnorth,
            _haproxies: haproxies,
            addresses,
        }
    }

    /// Returns every address for clients, with its contender and the place of its route.
    pub fn addresses(&self) -> impl Iterator<Item = (Contender, usize, SocketAddr)> {
        self.addresses.iter().copied()
    }
}

fn start_haproxy(rig: &Rig, contender: Contender, ports: &[SocketAddr], expected: u8) -> Process {
    let (options, times) = match contender {
        Contender::Template => ("timeout check 5s", "inter 3s fall 3 rise 2"),
        _ => ("timeout check 1s", "inter 500ms fall 2 rise 1"),
    };
    let mut config = format!(
        "global\n    maxconn 2000\ndefaults\n    mode tcp\n    retries 2\n    timeout client 30m\n    \
         timeout connect 4s\n    timeout server 30m\n    {options}\n"
    );
    for (route, address) in ROUTES.iter().zip(ports) {
        let Some(check) = route.check else { continue };
        writeln!(
            config,
            "listen {}\n    bind {address}\n    balance leastconn\n    option httpchk OPTIONS {check}\n    \
             http-check expect status 200\n    default-server {times} on-marked-down shutdown-sessions",
            &check[1..].replace(['?', '='], "-")
        )
        .expect("write to a text");
        for index in 0..expected {
            let address = rig.network().host(index);
            writeln!(config, "    server {index} {address}:5432 check port 8008").expect("write to a text");
        }
    }
    let file = rig.folder().join(format!("{contender:?}.cfg"));
    std::fs::write(&file, config).expect("write HAProxy's configuration");
    let mut command = Command::new("haproxy");
    command.arg("-f").arg(&file);
    Process::start(contender.name(), command, &file.with_extension("log"))
}

/// Returns addresses without a listener. Other rigs run in the same world.
fn free_ports(count: usize) -> Vec<SocketAddr> {
    let bind = |_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind a port");
    let listeners: Vec<_> = (0..count).map(bind).collect();
    let address = |listener: &TcpListener| listener.local_addr().expect("an address");
    listeners.iter().map(address).collect()
}
