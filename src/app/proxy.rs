//! The proxy as a process: two runtimes, its listeners, and a shutdown that lets sessions finish.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{Patience, Shared, Signals, Tasks, ended_early, files, start_discovery, workers};
use crate::admin::{Admin, Operators};
use crate::command_queue::CommandQueue;
use crate::config;
use crate::drain::Drain;
use crate::kubernetes::Access;
use crate::metrics::Metrics;
use crate::proxy::{Context, Proxy, RefusalTls, STARTUP, Settings};

pub(super) fn run(settings: &config::Proxy, metrics: Arc<Metrics>, control: &Runtime) -> Result<ExitCode> {
    let workers = workers(settings);
    // It keeps time for sessions, which run on workers of their own, and looks names up for them.
    let traffic = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("traffic")
        .enable_all()
        .build()
        .context("cannot start the traffic thread")?;
    let outcome = control.block_on(serve(settings, metrics, workers, traffic.handle()));
    // Sessions have ended or were forced; a name look-up that hangs must not keep the process.
    traffic.shutdown_background();
    outcome
}

async fn serve(settings: &config::Proxy, metrics: Arc<Metrics>, workers: usize, traffic: &Handle) -> Result<ExitCode> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let shared = Shared::new(metrics);
    let drain = Drain::default();
    let mut tasks = Tasks::new();
    let stop_admin = CancellationToken::new();

    let admin = Admin::bind(settings.admin).context("cannot serve the admin port (--admin)")?;
    let ports = files::local_ports(&settings.sources);
    shared.metrics.local_ports.set(i64::try_from(ports).unwrap_or(i64::MAX));
    let session_settings = Settings {
        startup: STARTUP,
        hold: settings.hold,
        connect_timeout: settings.connect_timeout,
        tcp_user_timeout: kernel_timeout(settings.tcp_user_timeout),
        client_tcp_user_timeout: kernel_timeout(settings.client_tcp_user_timeout),
        socket_buffers: settings.socket_buffers,
        sources: settings.sources.clone(),
        max_sessions: files::make_room(settings.max_sessions, workers, ports),
        workers,
    };
    let proxy = Proxy::bind(&[settings.listen], &session_settings).context("cannot listen for clients (--listen)")?;
    check_sources(&settings.sources)?;
    let (postgres, admin_address) = (proxy.local_addrs()[0], admin.local_addr()?);
    let patience = Patience {
        switchover_hold: settings.switchover_hold,
        failover_drain: settings.failover_drain,
    };
    let access = match &settings.finding.kubernetes {
        Some(_) => Some(Access::new().await?),
        None => None,
    };
    let refusal_files = settings.refusal.clone().map(|identity| (identity.cert, identity.key));
    let refusal_tls =
        RefusalTls::new(refusal_files).context("cannot use the certificate for refusals (--refusal-cert)")?;
    let (queue, commands) = CommandQueue::new();
    let operators = match &settings.admin_token_file {
        Some(file) => Some(Operators::new(file.clone(), queue).await),
        None => None,
    };
    let leader_failures = start_discovery(&settings.finding, access, patience, commands, &shared, &mut tasks)?;
    let context = Arc::new(Context {
        slot: shared.slot.clone(),
        drain: drain.clone(),
        metrics: shared.metrics.clone(),
        recorder: shared.recorder.clone(),
        wait_queue: shared.wait_queue.clone(),
        log_limiter: shared.log_limiter.clone(),
        liveness: shared.liveness.clone(),
        leader_failures,
        refusal_tls,
        settings: session_settings,
    });
    let facts = shared.admin_facts(operators, &settings.admin_hosts);
    let serving = super::admin::serve(admin, facts, stop_admin.clone())?;
    tasks.spawn(async { ("the admin port", serving.await) });
    let proxying = traffic.spawn(proxy.run(context));
    tasks.spawn(async { ("the proxy", proxied(proxying).await) });
    info!(%postgres, admin = %admin_address, "listening");

    tokio::select! {
        signal = signals.next() => info!(signal, "asked to end"),
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    tokio::select! {
        () = shut_down(settings, &shared, &drain, traffic, &mut signals) => {}
        Some(task) = tasks.join_next() => return Err(ended_early(task)),
    }
    stop_admin.cancel();
    Ok(ExitCode::SUCCESS)
}

/// The kernel acts on its timeout only at the retransmission after it (measured: 10.4 s for 10 s). It gets less, so that the setting is a bound.
fn kernel_timeout(timeout: Duration) -> Duration {
    timeout * 9 / 10
}

/// Otherwise every dial from such an address would fail, and clients would wait for a leader that is well.
fn check_sources(sources: &[IpAddr]) -> Result<()> {
    for source in sources {
        TcpListener::bind((*source, 0))
            .with_context(|| format!("cannot reach leaders from {source} (--source): this host has no such address"))?;
    }
    Ok(())
}

/// Not ready; accept on while endpoints catch up; then let sessions finish, while the leader is still followed. A second signal cuts each wait short.
async fn shut_down(settings: &config::Proxy, shared: &Shared, drain: &Drain, traffic: &Handle, signals: &mut Signals) {
    shared.readiness.shutting_down();
    info!(lame_duck = ?settings.lame_duck, "no longer ready; still accepting, while load balancers take notice");
    let second = tokio::select! {
        () = tokio::time::sleep(settings.lame_duck) => false,
        _ = signals.next() => true,
    };
    drain.stop_accepting();
    let patience = if second { Duration::ZERO } else { settings.drain };
    info!(drain = ?patience, "no longer accepting; open sessions may finish");
    let finishing = drain.clone();
    let mut finishing = traffic.spawn(async move { finishing.finish(patience).await });
    let forced = tokio::select! {
        forced = &mut finishing => forced,
        _ = signals.next() => {
            info!("asked to end again: ending at once");
            drain.force();
            finishing.await
        }
    };
    match forced {
        Ok(0) => info!("every session finished"),
        Ok(sessions) => warn!(
            sessions,
            "the drain is over: sessions that were still open have been ended"
        ),
        Err(error) => warn!(%error, "the drain failed"),
    }
}

async fn proxied(proxying: JoinHandle<io::Result<Infallible>>) -> Result<()> {
    proxying
        .await?
        .context("cannot start the threads that serve sessions (--workers)")?;
    Ok(())
}
