//! The rig: starts a Patroni cluster of three members with its DCS, reads its true state, and changes it. `Member` has
//! the faults of one member; `Kubernetes` has those of the API.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::config;
use super::dns::Dns;
use super::etcd::{Etcd, Place};
use super::http::Http;
use super::kubernetes::{Kubernetes, User};
use super::network::{Host, Network};
use super::patroni::{Member, Plan, is_running_primary};
use super::process::run;
use super::tls::{Tls, path};
use super::wait::wait_until;

/// Patroni's name of the cluster. The members' names are this with `-0`, `-1` and `-2`.
pub const SCOPE: &str = "patronidemo";

const MEMBERS: u8 = 3;
/// Members of etcd, if that is the DCS.
const ETCDS: u8 = 3;
/// Number of the first host of the DCS, if it has hosts of its own.
const DCS_HOST: u8 = 40;

/// Number of rigs that may run at a time in one world.
const PLACES: u8 = 4;
/// Deadline for a free place: longer than all tests together.
const PLACE: Duration = Duration::from_secs(2 * 60 * 60);

/// Deadline of a start, which takes far less, even on two busy cores.
const START: Duration = Duration::from_secs(120);

/// The DCS in which Patroni keeps its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dcs {
    Endpoints,
    ConfigMaps,
    Etcd,
}

/// The differences from Patroni's defaults; `Settings::default()` has ttl 20, loop_wait 3 and retry_timeout 5.
#[derive(Clone, Default)]
pub struct Settings {
    pub failsafe: bool,
    pub synchronous: bool,
    /// The REST API speaks TLS.
    pub rest_tls: bool,
    /// Members give each other, and the product, names instead of addresses; a DNS server knows them.
    pub names: bool,
    /// Port of a pooler beside each PostgreSQL, which the members publish. The test starts it.
    pub pooler_port: Option<u16>,
    /// Each etcd, or the Kubernetes API, has a host of its own, instead of a port of the gateway.
    pub dcs_hosts: bool,
    /// Each member has a wall clock of its own, which a test may step.
    pub clocks: bool,
    /// Clients of etcd speak TLS, and show a certificate.
    pub etcd_tls: bool,
    /// Any other key of Patroni's dynamic configuration, such as `{"maximum_lag_on_failover": 1000}`.
    pub dynamic: Value,
}

/// A running cluster. Its drop ends everything, in the order of the fields.
pub struct Rig {
    members: Vec<Member>,
    kubernetes: Option<Kubernetes>,
    etcd: Option<Etcd>,
    dns: Option<Dns>,
    network: Network,
    tls: Tls,
    http: Http,
    folder: Folder,
    dcs: Dcs,
    _place: File,
}

/// The files of one rig. Its drop removes them.
struct Folder(PathBuf);

impl Rig {
    /// Starts a cluster with the default settings.
    pub async fn start(dcs: Dcs) -> Self {
        Self::start_with(dcs, Settings::default()).await
    }

    /// Starts a cluster; returns when patronidemo-0 leads and two replicas stream, in Patroni's own view. Several rigs
    /// run in one world; if all places are taken, this waits for one.
    pub async fn start_with(dcs: Dcs, settings: Settings) -> Self {
        let world = world();
        let (place, lock) = wait_until("a place for the rig", PLACE, async || free_place(&world)).await;
        let network = Network::start(place);
        let folder = Folder::create(&world.join(format!("cluster{place}")));
        let mut addresses = vec![network.gateway(), network.host(DCS_HOST)];
        // One more: a test may let another member join.
        addresses.extend((0..=MEMBERS).map(|index| network.host(index)));
        let tls = Tls::make(&folder.0, &addresses);
        let http = Http::new(tls.connector());
        let mut rig = Self {
            members: Vec::new(),
            kubernetes: None,
            etcd: None,
            dns: None,
            network,
            tls,
            http,
            folder,
            dcs,
            _place: lock,
        };
        rig.start_dcs(dcs, &settings).await;
        if settings.names {
            rig.dns = Some(Dns::start(&rig.folder.0, rig.network.gateway()));
        }
        for index in 0..MEMBERS {
            let member = rig.make_member(index, &settings).await;
            rig.members.push(member);
        }
        rig.bootstrap().await;
        rig
    }

    /// Returns the network of its hosts.
    pub fn network(&self) -> &Network {
        &self.network
    }

    async fn start_dcs(&mut self, dcs: Dcs, settings: &Settings) {
        let gateway = self.network.gateway();
        let place = |number: u8| match settings.dcs_hosts {
            true => Place::alone(Host::start(&self.network, DCS_HOST + number)),
            false => Place::shared(gateway, number.into()),
        };
        match dcs {
            Dcs::Etcd => {
                let places = (0..ETCDS).map(place).collect();
                let tls = settings.etcd_tls.then_some(&self.tls);
                self.etcd = Some(Etcd::start(&self.folder.0, &self.http, places, tls).await);
            }
            Dcs::Endpoints | Dcs::ConfigMaps => {
                self.kubernetes = Some(Kubernetes::start(&self.folder.0, &self.tls, &self.http, place(0)).await);
            }
        }
    }

    /// Adds a member, which clones the leader; returns when it runs.
    pub async fn join(&mut self, settings: &Settings) -> &Member {
        let index = u8::try_from(self.members.len()).expect("few members");
        let member = self.make_member(index, settings).await;
        member.start();
        self.members.push(member);
        self.wait_until_whole(START).await;
        &self.members[usize::from(index)]
    }

    async fn make_member(&self, index: u8, settings: &Settings) -> Member {
        let name = name(index);
        let folder = self.folder.0.join(&name);
        run(
            "install",
            &["-d", "-m", "755", "-o", "postgres", "-g", "postgres", path(&folder)],
        );
        let host = Host::start(&self.network, index);
        let host = match settings.clocks {
            true => host.with_clock(&self.folder.0),
            false => host,
        };
        if let Some(dns) = &self.dns {
            dns.set(&name, host.address);
        }
        if let Some(kubernetes) = &self.kubernetes {
            kubernetes.create_pod(&name, SCOPE, host.address).await;
        }
        let kubeconfig = self
            .kubernetes
            .as_ref()
            .map(|kubernetes| kubernetes.kubeconfig(User::Patroni));
        let etcd = self.etcd.as_ref().map_or_else(Vec::new, Etcd::hosts);
        let config = config::member(index, self, &folder, &etcd, settings);
        let plan = Plan {
            host,
            folder,
            config,
            kubeconfig,
            rest_tls: settings.rest_tls,
        };
        Member::new(&name, plan, &self.http)
    }

    /// Starts the first member, which makes the cluster and leads, then the others, which clone it.
    async fn bootstrap(&self) {
        self.members[0].start();
        wait_until("the first member is primary", START, async || {
            self.members[0].is_primary().await.then_some(())
        })
        .await;
        self.members[1..].iter().for_each(Member::start);
        self.wait_until_whole(START).await;
    }

    pub fn dcs(&self) -> Dcs {
        self.dcs
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// Returns every member but this one.
    pub fn others<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(|other| other.name() != member.name())
    }

    /// Returns the Kubernetes API and its outages; panics with `Dcs::Etcd`, which has none.
    pub fn kubernetes(&self) -> &Kubernetes {
        self.kubernetes.as_ref().expect("a rig with Kubernetes")
    }

    /// etcd; panics with another DCS.
    pub fn etcd(&self) -> &Etcd {
        self.etcd.as_ref().expect("a rig with etcd")
    }

    /// Stops the DCS: the Kubernetes API, or etcd. It keeps its data.
    pub fn dcs_stop(&self) {
        match &self.etcd {
            Some(etcd) => etcd.stop(),
            None => self.kubernetes().api_stop(),
        }
    }

    /// Starts the DCS again after `dcs_stop`; returns when it is ready.
    pub async fn dcs_start(&self) {
        match &self.etcd {
            Some(etcd) => etcd.start_again().await,
            None => self.kubernetes().api_start().await,
        }
    }

    /// Returns the DNS server; panics without `Settings::names`.
    pub fn dns(&self) -> &Dns {
        self.dns.as_ref().expect("a rig with names")
    }

    /// Returns the product's kubeconfig; `None` with `Dcs::Etcd`.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        Some(self.kubernetes.as_ref()?.kubeconfig(User::Pgnorth))
    }

    /// Returns the certificates of the rig's servers.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Returns the certificate authority of every server of the rig, in PEM.
    pub fn authority(&self) -> &Path {
        &self.tls.authority
    }

    /// Returns a folder for files that are removed with the rig.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Returns the present primary, from the members' own answers; of several, the one with the newest timeline.
    pub async fn find_leader(&self) -> Option<&Member> {
        self.newest_primary(None).await
    }

    /// Returns the primary with the newest timeline, from the members' own answers; `except` is not asked.
    async fn newest_primary(&self, except: Option<&Member>) -> Option<&Member> {
        let ask = async |index: usize| {
            let member = &self.members[index];
            if except.is_some_and(|except| except.name() == member.name()) {
                return None;
            }
            let status = member.status().await?;
            let timeline = status["timeline"].as_u64().unwrap_or(0);
            is_running_primary(&status).then_some((timeline, member))
        };
        // Together, because a frozen member answers only by its deadline.
        let answers = futures_util::future::join_all((0..self.members.len()).map(ask)).await;
        let primaries = answers.into_iter().flatten();
        primaries
            .max_by_key(|(timeline, _)| *timeline)
            .map(|(_, member)| member)
    }

    /// Returns the present primary; there must be one.
    pub async fn leader(&self) -> &Member {
        self.find_leader().await.expect("the cluster has a primary")
    }

    /// Waits for any primary.
    pub async fn wait_for_leader(&self, within: Duration) -> &Member {
        wait_until("the cluster has a primary", within, async || self.find_leader().await).await
    }

    /// Waits until another member than `old` is the primary. The former one is not asked: if it is frozen or cut off,
    /// it would only delay the result.
    pub async fn wait_for_new_leader(&self, old: &Member, within: Duration) -> &Member {
        wait_until("the cluster has a new primary", within, async || {
            self.newest_primary(Some(old)).await
        })
        .await
    }

    /// Waits until Patroni itself reports one leader, and that all others stream, which it needs for a switchover.
    pub async fn wait_until_whole(&self, within: Duration) {
        wait_until("the cluster has a leader and streaming replicas", within, async || {
            let cluster = self.cluster().await?;
            let members = cluster["members"].as_array()?;
            let count = |state: &str| members.iter().filter(|member| member["state"] == state).count();
            let timelines = members.iter().map(|member| member["timeline"].as_u64());
            let same_timeline = timelines.collect::<std::collections::HashSet<_>>().len() == 1;
            (count("running") == 1 && count("streaming") == self.members.len() - 1 && same_timeline).then_some(())
        })
        .await;
    }

    /// Returns the body of `/cluster` from Patroni's leader.
    pub async fn cluster(&self) -> Option<Value> {
        Some(self.find_leader().await?.get("/cluster").await.ok()?.json())
    }

    /// Switches over, to a member or to Patroni's choice; returns when Patroni reports the end.
    pub async fn switchover(&self, to: Option<&str>) {
        let leader = self.leader().await;
        let order = json!({"leader": leader.name(), "candidate": to});
        let answer = leader
            .send("POST", "/switchover", &order)
            .await
            .expect("ask for a switchover");
        assert_eq!(answer.status, 200, "switchover: {}", answer.body);
    }

    /// Pauses Patroni; returns when every member that answers knows.
    pub async fn pause(&self) {
        self.set_pause(true).await;
    }

    pub async fn resume(&self) {
        self.set_pause(false).await;
    }

    async fn set_pause(&self, pause: bool) {
        self.configure(&json!({"pause": pause})).await;
        wait_until("every member knows of the pause", Duration::from_secs(20), async || {
            for member in &self.members {
                let Some(status) = member.status().await else { continue };
                (status["pause"].as_bool().unwrap_or(false) == pause).then_some(())?;
            }
            Some(())
        })
        .await;
    }

    /// Changes Patroni's dynamic configuration.
    pub async fn configure(&self, change: &Value) {
        let answer = self
            .leader()
            .await
            .send("PATCH", "/config", change)
            .await
            .expect("change the configuration");
        assert_eq!(answer.status, 200, "change the configuration: {}", answer.body);
    }
}

impl Folder {
    fn create(path: &Path) -> Self {
        fs::create_dir(path).expect("create the rig's folder");
        Self(path.to_owned())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns the name of the member number `index`.
pub fn name(index: u8) -> String {
    format!("{SCOPE}-{index}")
}

/// Returns a number that no other rig of the world has, and the lock that keeps it; `None` while all are taken.
fn free_place(world: &Path) -> Option<(u8, File)> {
    (0..PLACES).find_map(|place| {
        let lock = File::create(world.join(format!("lock{place}"))).expect("create the lock file");
        match lock.try_lock() {
            Ok(()) => Some((place, lock)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Error(error)) => panic!("lock the lock file: {error}"),
        }
    })
}

/// Returns the folder of the private world.
fn world() -> PathBuf {
    let folder = std::env::var_os("PGNORTH_RIG");
    folder
        .expect("the rig runs in a world of its own: use `make test`, as root")
        .into()
}

/// Returns the folder of programs that come in no package.
pub fn cache() -> PathBuf {
    std::env::var_os("PGNORTH_CACHE")
        .unwrap_or("/var/cache/pgnorth".into())
        .into()
}
