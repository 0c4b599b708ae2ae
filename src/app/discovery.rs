//! Starts discovery: its sources, and the loop that they feed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use tokio::sync::{mpsc, watch};
use url::Url;

use super::routes::Routes;
use super::{AppState, Tasks, no_error};
use crate::command_queue::PendingCommand;
use crate::config::{self, ClientTls, DiscoverySettings};
use crate::discovery::Discovery;
use crate::discovery::etcd::{Endpoints, Etcd, Gateway, Login, ScopeKeys};
use crate::discovery::http::Connector;
use crate::discovery::http::tls::{TlsError, TlsFiles};
use crate::discovery::kubernetes::Kubernetes;
use crate::discovery::patroni::{Client, ClusterPoller, Plan, Prober};
use crate::events::EventSender;
use crate::kubernetes::Access;
use crate::leader::decide::Policy;
use crate::leader::observation::Observation;
use crate::leader::{BadBaseUrl, BaseUrl, LeaderFailure};
use crate::metrics::Metrics;
use crate::route::RouteKind;

/// Number of observations that may wait; a full channel only slows its sources.
const OBSERVATIONS: usize = 1024;
/// Number of reported leader failures that may wait. Further ones are dropped, because one has the same effect as many.
const LEADER_FAILURES: usize = 16;
/// Maximum age of a member's report if there is no lock to watch. Members are then asked every 1.3 s at the longest
/// (`pacing::ROUND`), with a deadline of one second, so a report survives one request without an answer.
const REPORT_LIFE: Duration = Duration::from_secs(3);
/// The interval at which histograms merge their observations.
const UPKEEP: Duration = Duration::from_secs(5);

/// Grace periods for clients and sessions in a planned change of leader.
#[derive(Default)]
pub(super) struct GracePeriods {
    /// Maximum time for which an announced switchover holds new clients.
    pub(super) switchover_hold: Duration,
    /// Time for which sessions to a leader that released the lock cleanly may continue.
    pub(super) failover_drain: Duration,
}

/// The channels through which the rest of the process reports to discovery.
pub(super) struct ReportSenders {
    /// The proxy's reports of leader failures.
    pub(super) leader_failures: mpsc::Sender<LeaderFailure>,
    /// Observations passed on by the replaced process.
    pub(super) observations: mpsc::Sender<Observation>,
}

/// Starts the sources and the loop that they feed.
pub(super) fn start(
    discovery: &DiscoverySettings,
    access: Option<Arc<Access>>,
    grace: GracePeriods,
    routes: Routes,
    commands: mpsc::Receiver<PendingCommand>,
    state: &AppState,
    tasks: &mut Tasks,
) -> Result<ReportSenders> {
    let (claims, observations) = mpsc::channel(OBSERVATIONS);
    let (failures, leader_failures) = mpsc::channel(LEADER_FAILURES);
    let (plan, planned) = watch::channel(Plan::default());
    let objects = discovery.kubernetes.as_ref().map(config::Kubernetes::objects);
    if let Some(name) = objects.as_ref().or(discovery.scope.as_ref()) {
        state.metrics.set_cluster(name);
    }
    let standbys = routes.followed.iter();
    let standbys = standbys
        .map(|route| route.conditions.kind)
        .any(RouteKind::depends_on_standbys);
    let events = match discovery.kubernetes.as_ref().zip(access) {
        Some((settings, access)) => start_kubernetes(settings, access, standbys, claims.clone(), state, tasks),
        None => EventSender::default(),
    };
    if let Some(settings) = &discovery.etcd {
        start_etcd(settings, claims.clone(), state, tasks)?;
    }
    let reports = ReportSenders {
        leader_failures: failures,
        observations: claims.clone(),
    };
    start_patroni(discovery, planned, claims, state, tasks)?;
    let discovery = Discovery {
        slot: state.slot.clone(),
        primaries: routes.primaries,
        routes: routes.followed,
        metrics: state.metrics.clone(),
        recorder: state.recorder.clone(),
        events,
        log_limiter: state.log_limiter.clone(),
        readiness: state.readiness.clone(),
        policy: Policy {
            switchover_hold: grace.switchover_hold,
            report_life: REPORT_LIFE,
        },
        failover_drain: grace.failover_drain,
        scope: discovery.scope.clone(),
        citus_group: discovery.citus_group(),
        upstream: discovery.upstream,
        observations,
        leader_failures,
        commands,
        plan,
        seen: state.view.clone(),
    };
    tasks.spawn(async { ("discovery", no_error(discovery.run()).await) });
    let metrics = state.metrics.clone();
    tasks.spawn(async { ("the upkeep of metrics", no_error(upkeep(metrics)).await) });
    let heartbeat = state.liveness.watch("control");
    tasks.spawn(async {
        (
            "the control thread's heartbeat",
            no_error(heartbeat.keep_recording()).await,
        )
    });
    Ok(reports)
}

/// Starts the watches and, if the settings name pgnorth's own pod, the writer of Events.
fn start_kubernetes(
    settings: &config::Kubernetes,
    access: Arc<Access>,
    standbys: bool,
    claims: mpsc::Sender<Observation>,
    state: &AppState,
    tasks: &mut Tasks,
) -> EventSender {
    let mut events = EventSender::default();
    if let Some(pod) = &settings.pod {
        let (handle, writer) = EventSender::of(pod.clone());
        events = handle;
        let writing = writer.run(access.clone());
        tasks.spawn(async { ("the writer of Kubernetes Events", no_error(writing).await) });
    }
    let source = Kubernetes::new(
        access,
        &settings.objects(),
        settings.namespace.as_deref(),
        &settings.selector,
        state.log_limiter.clone(),
    )
    .with_standbys(standbys);
    let watching = source.run(claims);
    tasks.spawn(async { ("the Kubernetes watches", no_error(watching).await) });
    events
}

/// Starts the watch of Patroni's keys in etcd.
fn start_etcd(
    settings: &config::Etcd,
    claims: mpsc::Sender<Observation>,
    state: &AppState,
    tasks: &mut Tasks,
) -> Result<()> {
    let source = Etcd::new(etcd_endpoints(settings)?, state.log_limiter.clone());
    tasks.spawn(async { ("the watch of etcd", no_error(source.run(claims)).await) });
    Ok(())
}

/// Returns the endpoints of etcd, and the keys to read there.
pub(super) fn etcd_endpoints(settings: &config::Etcd) -> Result<Endpoints> {
    let connector = Connector::new("etcd", tls_files(&settings.tls))
        .context("cannot use the TLS files for etcd (--etcd-ca, --etcd-cert, --etcd-key)")?;
    let login = settings.login.clone();
    let login = login.map(|(user, password_file)| Login { user, password_file });
    Ok(Endpoints {
        gateway: Gateway::new(connector, login),
        urls: base_urls(&settings.endpoints).map_err(|why| anyhow!("a URL of --etcd {why}"))?,
        scope: ScopeKeys {
            prefix: settings.prefix.clone(),
            citus_group: settings.citus_group,
        },
    })
}

fn base_urls(urls: &[Url]) -> Result<Vec<BaseUrl>, BadBaseUrl> {
    urls.iter().map(|url| BaseUrl::parse(url.as_str())).collect()
}

fn tls_files(tls: &ClientTls) -> TlsFiles {
    let identity = tls.identity.as_ref();
    TlsFiles {
        ca: tls.ca.clone(),
        identity: identity.map(|identity| (identity.cert.clone(), identity.key.clone())),
    }
}

/// Starts the tasks that ask Patroni's REST API: the prober and, if --patroni names members, the poller of `/cluster`.
fn start_patroni(
    discovery: &DiscoverySettings,
    plan: watch::Receiver<Plan>,
    claims: mpsc::Sender<Observation>,
    state: &AppState,
    tasks: &mut Tasks,
) -> Result<()> {
    let client = patroni_client(&discovery.patroni_tls, state.metrics.clone())
        .context("cannot use the TLS files for Patroni's REST API (--patroni-ca, --patroni-cert, --patroni-key)")?;
    if !discovery.patroni.is_empty() {
        let seeds = base_urls(&discovery.patroni).map_err(|why| anyhow!("a URL of --patroni {why}"))?;
        let (client, plan, limiter) = (client.clone(), plan.clone(), state.log_limiter.clone());
        let poller = ClusterPoller::new(client, seeds, plan, limiter, claims.clone());
        tasks.spawn(async { ("the poller of /cluster", no_error(poller.run()).await) });
    }
    let prober = Prober::new(client, plan, claims);
    tasks.spawn(async { ("the prober", no_error(prober.run()).await) });
    Ok(())
}

/// Returns the client for Patroni's REST API.
pub(super) fn patroni_client(tls: &ClientTls, metrics: Arc<Metrics>) -> Result<Client, TlsError> {
    Client::new(tls_files(tls), metrics)
}

/// Bounds the memory of the histograms even if nothing scrapes them.
async fn upkeep(metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.upkeep();
    }
}
