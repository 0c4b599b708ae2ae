//! One of the faults that may come at random, with its repair.

use std::time::Duration;

use super::{FAILOVER, WHOLE};
use crate::support::{Rig, wait_until};

/// What may happen to the primary, or to the API.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Switchover,
    KillHost,
    LinkDown,
    BriefFreeze,
    LongFreeze,
    KillBackend,
    KillPostgres,
    ApiOutage,
}

pub const FAULTS: [Fault; 8] = [
    Fault::Switchover,
    Fault::KillHost,
    Fault::LinkDown,
    Fault::BriefFreeze,
    Fault::LongFreeze,
    Fault::KillBackend,
    Fault::KillPostgres,
    Fault::ApiOutage,
];

impl Fault {
    /// The fault and its repair. Afterwards the cluster may still be about to become whole.
    pub async fn happen(self, rig: &Rig) {
        let leader = rig.leader().await;
        match self {
            Self::Switchover => rig.switchover(None).await,
            Self::KillHost => {
                leader.kill_host();
                rig.wait_for_new_leader(leader, FAILOVER).await;
                leader.start();
            }
            Self::LinkDown => {
                leader.link_down();
                rig.wait_for_new_leader(leader, FAILOVER).await;
                leader.link_up();
            }
            Self::BriefFreeze => {
                leader.freeze_patroni();
                tokio::time::sleep(Duration::from_secs(8)).await;
                leader.thaw_patroni();
            }
            Self::LongFreeze => {
                leader.freeze_patroni();
                rig.wait_for_new_leader(leader, FAILOVER).await;
                leader.thaw_patroni();
            }
            Self::KillBackend => {
                leader.kill_backend().await;
                wait_until_somebody_is_writable(rig).await;
            }
            Self::KillPostgres => {
                let old = leader.postmaster().expect("PostgreSQL runs");
                leader.kill_postgres();
                wait_until("PostgreSQL runs again", WHOLE, async || {
                    leader.postmaster().filter(|new| *new != old)
                })
                .await;
                wait_until_somebody_is_writable(rig).await;
            }
            Self::ApiOutage => {
                rig.kubernetes().api_stop();
                tokio::time::sleep(Duration::from_secs(10)).await;
                rig.kubernetes().api_start().await;
            }
        }
    }
}

/// Asks PostgreSQL itself: for a moment Patroni still says that all is well.
async fn wait_until_somebody_is_writable(rig: &Rig) {
    wait_until("a primary is writable", WHOLE, async || {
        let recovers = rig.find_leader().await?.psql("select pg_is_in_recovery()").await;
        (recovers.as_deref() == Ok("f")).then_some(())
    })
    .await;
}
