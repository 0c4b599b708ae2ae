//! Two pgnorths behind a balancer in the kernel are restarted in turn, as a Deployment does it: every client connects,
//! and no session that is shorter than the drain breaks.
//!
//! The balancer plays the Service's ClusterIP: DNAT by nftables, as kube-proxy does it. Its endpoints change late, as
//! they do on Kubernetes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::balancer::Balancer;
use crate::support::load::{Attempt, Load, Outcome};
use crate::support::{Dcs, Product, Rig, session, wait_until};

const RESTARTS: usize = 20;
/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(20);
const LAME_DUCK: &str = "1s";
const DRAIN: &str = "3s";
/// Number of statements of a session that has to survive: it lasts well below the drain.
const STATEMENTS: usize = 10;
const BETWEEN_STATEMENTS: Duration = Duration::from_millis(100);

#[tokio::test]
async fn twenty_rolling_restarts_lose_no_client() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let mut pair = [start(&rig, 0, LAME_DUCK).await, start(&rig, 1, LAME_DUCK).await];
    let balancer = Balancer::start(&rig, pair.each_ref().map(Product::address), admins(&pair)).await;
    let load = Load::start(balancer.service(), 4).await;
    let sessions = ShortSessions::start(balancer.service(), 8);
    for restart in 0..RESTARTS {
        replace(&rig, &mut pair[restart % 2], restart % 2, LAME_DUCK).await;
        balancer.wait_for(2).await;
    }
    let (broken, whole) = sessions.finish().await;
    let attempts = load.finish().await;
    let failed: Vec<_> = attempts.iter().filter(|attempt| !acknowledged(attempt)).collect();
    println!(
        "{RESTARTS} restarts: {} connections, {} failed; {whole} sessions of {:?}, {} broken; endpoints changed {} times",
        attempts.len(),
        failed.len(),
        BETWEEN_STATEMENTS * u32::try_from(STATEMENTS).unwrap(),
        broken.len(),
        balancer.changes(),
    );
    assert!(failed.is_empty(), "{failed:?}");
    assert!(broken.is_empty(), "{broken:?}");
    assert!(
        attempts.len() > 50 * RESTARTS && whole > 10 * RESTARTS,
        "hardly anything happened"
    );
    assert!(
        balancer.changes() >= 2 * RESTARTS,
        "an endpoint goes and comes with each restart"
    );
}

/// The control: the test above must be able to notice a failure.
#[tokio::test]
async fn without_a_lame_duck_connections_fail_and_a_session_longer_than_the_drain_ends() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let mut pair = [start(&rig, 0, "0s").await, start(&rig, 1, "0s").await];
    let balancer = Balancer::start(&rig, pair.each_ref().map(Product::address), admins(&pair)).await;
    let long = session(pair[0].address()).await.unwrap();
    let load = Load::start(balancer.service(), 4).await;
    let status = pair[0].terminate(SOON).await;
    assert!(status.success(), "{status}");
    balancer.wait_for(1).await;
    assert!(long.simple_query("select 1").await.is_err(), "the drain is over");
    let attempts = load.finish().await;
    let failed = attempts.iter().filter(|attempt| !acknowledged(attempt)).count();
    println!(
        "one restart without a lame duck: {} connections, {failed} failed",
        attempts.len()
    );
    assert!(failed > 0, "the endpoint stayed after its listener had gone");
}

async fn start(rig: &Rig, index: u16, lame_duck: &str) -> Product {
    let at = |port: u16| SocketAddr::from((rig.network().gateway(), port + index));
    let product = Product::start_at(rig, at(7001), at(7101), &["--lame-duck", lame_duck, "--drain", DRAIN]).await;
    wait_until("pgnorth is ready", SOON, async || {
        (product.admin_get("/readyz").await.status == 200).then_some(())
    })
    .await;
    product
}

/// Replaces a pgnorth as a Deployment does without surge: the old one ends, then a new one starts.
async fn replace(rig: &Rig, product: &mut Product, index: usize, lame_duck: &str) {
    let status = product.terminate(SOON).await;
    assert!(status.success(), "{status}");
    *product = start(rig, u16::try_from(index).unwrap(), lame_duck).await;
}

fn admins(pair: &[Product; 2]) -> [SocketAddr; 2] {
    pair.each_ref().map(Product::admin)
}

fn acknowledged(attempt: &Attempt) -> bool {
    matches!(attempt.outcome, Outcome::Acknowledged { .. })
}

/// Clients whose sessions last about a second, with a statement every tenth of it, all the time.
struct ShortSessions {
    stop: CancellationToken,
    clients: JoinSet<(Vec<String>, usize)>,
}

impl ShortSessions {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let stop = CancellationToken::new();
        let mut all = JoinSet::new();
        for _ in 0..clients {
            let stop = stop.clone();
            all.spawn(async move {
                let (mut broken, mut whole) = (Vec::new(), 0);
                while !stop.is_cancelled() {
                    match one(address).await {
                        Ok(()) => whole += 1,
                        Err(error) => broken.push(format!("{error:?}")),
                    }
                }
                (broken, whole)
            });
        }
        Self { stop, clients: all }
    }

    /// Returns the errors of the sessions that broke, and the number of those that ended by themselves.
    async fn finish(mut self) -> (Vec<String>, usize) {
        self.stop.cancel();
        let (mut broken, mut whole) = (Vec::new(), 0);
        while let Some(of_one) = self.clients.join_next().await {
            let (its_broken, its_whole) = of_one.unwrap();
            broken.extend(its_broken);
            whole += its_whole;
        }
        (broken, whole)
    }
}

async fn one(address: SocketAddr) -> Result<(), tokio_postgres::Error> {
    let client = session(address).await?;
    for _ in 0..STATEMENTS {
        client.simple_query("select 1").await?;
        tokio::time::sleep(BETWEEN_STATEMENTS).await;
    }
    Ok(())
}
