//! The rig: starts a Patroni cluster of three members with its DCS, tells the truth about it, and changes it.
//! What hurts one member is `Member`'s; what hurts the API is `Kubernetes`'.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::config;
use super::dns::Dns;
use super::etcd::Etcd;
use super::http::Http;
use super::kubernetes::{Kubernetes, User};
use super::network::{Host, Network};
use super::patroni::{Member, Plan};
use super::process::run;
use super::tls::{Tls, path};
use super::wait::wait_until;

/// Patroni's name of the cluster; members are this with `-0`, `-1` and `-2`.
pub const SCOPE: &str = "patronidemo";

const MEMBERS: u8 = 3;

/// Rigs that may run at a time in one world.
const PLACES: u8 = 4;
/// Longer than all tests together.
const PLACE: Duration = Duration::from_secs(2 * 60 * 60);

/// A whole start is far below this, even on two busy cores.
const START: Duration = Duration::from_secs(120);

/// Where Patroni keeps its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dcs {
    Endpoints,
    ConfigMaps,
    Etcd,
}

/// What differs from Patroni's defaults; `Settings::default()` has ttl 20, loop_wait 3 and retry_timeout 5.
#[derive(Clone, Default)]
pub struct Settings {
    pub failsafe: bool,
    pub synchronous: bool,
    /// The REST API speaks TLS.
    pub rest_tls: bool,
    /// Members tell each other, and the product, names instead of addresses; a DNS server knows them.
    pub names: bool,
    /// Any other key of Patroni's dynamic configuration, such as `{"maximum_lag_on_failover": 1000}`.
    pub dynamic: Value,
}

/// A running cluster. Dropping it ends all of it; the fields' order is the order of the end.
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

/// The files of one rig; dropping it removes them.
struct Folder(PathBuf);

impl Rig {
    /// Starts a cluster with the default settings.
    pub async fn start(dcs: Dcs) -> Self {
        Self::start_with(dcs, Settings::default()).await
    }

    /// Starts a cluster; afterwards patronidemo-0 leads and two replicas stream, in Patroni's own view.
    /// Several rigs of one world run beside each other; when all places are taken, this waits for one.
    pub async fn start_with(dcs: Dcs, settings: Settings) -> Self {
        let world = world();
        let (place, lock) = wait_until("a place for the rig", PLACE, async || free_place(&world)).await;
        let network = Network::start(place);
        let folder = Folder::create(&world.join(format!("cluster{place}")));
        let mut addresses = vec![network.gateway()];
        addresses.extend((0..MEMBERS).map(|index| network.host(index)));
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
        rig.start_dcs(dcs).await;
        if settings.names {
            rig.dns = Some(Dns::start(&rig.folder.0, rig.network.gateway()));
        }
        for index in 0..MEMBERS {
            let member = rig.make_member(index, dcs, &settings).await;
            rig.members.push(member);
        }
        rig.bootstrap().await;
        rig
    }

    /// Where its hosts are.
    pub fn network(&self) -> &Network {
        &self.network
    }

    async fn start_dcs(&mut self, dcs: Dcs) {
        let gateway = self.network.gateway();
        match dcs {
            Dcs::Etcd => self.etcd = Some(Etcd::start(&self.folder.0, &self.http, gateway).await),
            Dcs::Endpoints | Dcs::ConfigMaps => {
                self.kubernetes = Some(Kubernetes::start(&self.folder.0, &self.tls, &self.http, gateway).await);
            }
        }
    }

    async fn make_member(&self, index: u8, dcs: Dcs, settings: &Settings) -> Member {
        let name = name(index);
        let folder = self.folder.0.join(&name);
        run(
            "install",
            &["-d", "-m", "755", "-o", "postgres", "-g", "postgres", path(&folder)],
        );
        let host = Host::start(&self.network, index);
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
        let config = config::member(index, &self.network, &folder, &self.tls, dcs, settings);
        let plan = Plan {
            host,
            folder,
            config,
            kubeconfig,
            rest_tls: settings.rest_tls,
        };
        Member::new(&name, plan, &self.http)
    }

    /// The first member makes the cluster, so that it leads; the others clone it.
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

    /// Every member but this one.
    pub fn others<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(|other| other.name() != member.name())
    }

    /// The Kubernetes API and its outages; panics with `Dcs::Etcd`, where there is none.
    pub fn kubernetes(&self) -> &Kubernetes {
        self.kubernetes.as_ref().expect("a rig with Kubernetes")
    }

    /// Patroni loses its DCS: the Kubernetes API, or etcd. Nothing is forgotten.
    pub fn dcs_stop(&self) {
        match &self.etcd {
            Some(etcd) => etcd.stop(),
            None => self.kubernetes().api_stop(),
        }
    }

    /// Starts the DCS again after `dcs_stop`; afterwards it is ready.
    pub async fn dcs_start(&self) {
        match &self.etcd {
            Some(etcd) => etcd.start_again().await,
            None => self.kubernetes().api_start().await,
        }
    }

    /// The DNS server; panics without `Settings::names`.
    pub fn dns(&self) -> &Dns {
        self.dns.as_ref().expect("a rig with names")
    }

    /// The product's kubeconfig; none with `Dcs::Etcd`.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        Some(self.kubernetes.as_ref()?.kubeconfig(User::Pgnorth))
    }

    /// The certificate authority of every server of the rig, in PEM.
    pub fn authority(&self) -> &Path {
        &self.tls.authority
    }

    /// Where files of this rig may lie; they are removed with it.
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    pub fn http(&self) -> &Http {
        &self.http
    }

    /// The primary now, asked from the members themselves: of several the one with the newest timeline.
    pub async fn find_leader(&self) -> Option<&Member> {
        self.newest_primary(None).await
    }

    /// Of several primaries, in their own words, the one with the newest timeline; `except` is not asked.
    async fn newest_primary(&self, except: Option<&Member>) -> Option<&Member> {
        let ask = async |index: usize| {
            let member = &self.members[index];
            if except.is_some_and(|except| except.name() == member.name()) {
                return None;
            }
            let status = member.status().await?;
            let timeline = status["timeline"].as_u64().unwrap_or(0);
            (status["role"] == "primary" && status["state"] == "running").then_some((timeline, member))
        };
        // Together, since a frozen member answers only by its deadline.
        let (first, second, third) = tokio::join!(ask(0), ask(1), ask(2));
        let primaries = [first, second, third].into_iter().flatten();
        primaries
            .max_by_key(|(timeline, _)| *timeline)
            .map(|(_, member)| member)
    }

    /// The primary now; there has to be one.
    pub async fn leader(&self) -> &Member {
        self.find_leader().await.expect("the cluster has a primary")
    }

    /// Waits for any primary.
    pub async fn wait_for_leader(&self, within: Duration) -> &Member {
        wait_until("the cluster has a primary", within, async || self.find_leader().await).await
    }

    /// Waits until another member than `old` is the primary. The old one isn't asked: one that is frozen or cut off would only delay it.
    pub async fn wait_for_new_leader(&self, old: &Member, within: Duration) -> &Member {
        wait_until("the cluster has a new primary", within, async || {
            self.newest_primary(Some(old)).await
        })
        .await
    }

    /// Waits until Patroni itself sees one leader and two streaming replicas, which it needs for a switchover.
    pub async fn wait_until_whole(&self, within: Duration) {
        wait_until(
            "the cluster has a leader and two streaming replicas",
            within,
            async || {
                let cluster = self.cluster().await?;
                let members = cluster["members"].as_array()?;
                let count = |state: &str| members.iter().filter(|member| member["state"] == state).count();
                let timelines = members.iter().map(|member| member["timeline"].as_u64());
                let same_timeline = timelines.collect::<std::collections::HashSet<_>>().len() == 1;
                (count("running") == 1 && count("streaming") == 2 && same_timeline).then_some(())
            },
        )
        .await;
    }

    /// The cluster as Patroni's leader sees it: the body of `/cluster`.
    pub async fn cluster(&self) -> Option<Value> {
        Some(self.find_leader().await?.get("/cluster").await.ok()?.json())
    }

    /// A planned change of leader, to a member or to whom Patroni chooses; ends when Patroni says that it is done.
    pub async fn switchover(&self, to: Option<&str>) {
        let leader = self.leader().await;
        let order = json!({"leader": leader.name(), "candidate": to});
        let answer = leader
            .send("POST", "/switchover", &order)
            .await
            .expect("ask for a switchover");
        assert_eq!(answer.status, 200, "switchover: {}", answer.body);
    }

    /// Patroni stops to act; ends when every member that answers knows.
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

/// The name of the member number `index`.
pub fn name(index: u8) -> String {
    format!("{SCOPE}-{index}")
}

/// A number that no other rig of the world has, and the lock that keeps it; none while all are taken.
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

/// The folder of the private world.
fn world() -> PathBuf {
    let folder = std::env::var_os("PGNORTH_RIG");
    folder
        .expect("the rig runs in a world of its own: use `make test`, as root")
        .into()
}

/// Where programs lie that no package brings.
pub fn cache() -> PathBuf {
    std::env::var_os("PGNORTH_CACHE")
        .unwrap_or("/var/cache/pgnorth".into())
        .into()
}
