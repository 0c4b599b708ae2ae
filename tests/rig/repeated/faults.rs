//! The faults: the demands of each on the cluster and on pgnorth, its cause, and its repair.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{WHOLE, wait_for_a_synchronous_standby};
use crate::support::{Dcs, Member, Rig, wait_until};

/// A fault of the primary or of the DCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Switchover,
    /// Every process on the primary's host is killed with SIGKILL.
    KillHost,
    /// The primary's host is disconnected.
    LinkDown,
    /// The primary's Patroni is stopped with SIGSTOP for 8 s: its REST API hangs, and its lock does not expire.
    BriefFreeze,
    /// The same for ever, while PostgreSQL runs: a split brain, once another member is promoted.
    LongFreeze,
    /// One backend is killed, so that PostgreSQL ends every session and restarts with crash recovery.
    KillBackend,
    /// The postmaster is killed while its Patroni runs, which starts it again.
    KillPostgres,
    /// The Kubernetes API, or etcd if Patroni keeps its lock there, is down for 60 s; failsafe mode is on.
    DcsOutage,
    /// Only pgnorth is cut off from the Kubernetes API; a switchover follows 10 s later.
    ApiCut,
}

/// The demands of a fault.
pub struct Demand {
    pub fault: Fault,
    /// Number of repetitions in one run of CI, in each mode in which it makes sense.
    pub times: usize,
    pub primary: Primary,
    pub sessions: Sessions,
    pub newcomers: Newcomers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primary {
    /// Another member becomes the primary.
    Moves,
    Stays,
}

/// The fate of sessions that were open before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    Live,
    End,
    /// They end, no later than another member becomes a primary.
    EndBeforePromotion,
}

/// The new connections that may fail. pgnorth itself must refuse none. A login that PostgreSQL or its host breaks off
/// after its first answer cannot be repeated for the client, so some fail if nothing announces the fault: an ApiCut
/// hides the switchover's announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomers {
    None,
    /// Connections that are logging in when the fault happens.
    LoggingInAsItHappens,
    /// Connections that are logging in when the open sessions end.
    LoggingInAsSessionsEnd,
}

const fn row(fault: Fault, times: usize, primary: Primary, sessions: Sessions, newcomers: Newcomers) -> Demand {
    Demand {
        fault,
        times,
        primary,
        sessions,
        newcomers,
    }
}

/// The order of the faults in one cycle. The three modes together have each fault at least 5 times.
#[rustfmt::skip]
pub const DEMANDS: [Demand; 9] = [
    row(Fault::Switchover,   5, Primary::Moves, Sessions::End,                Newcomers::None),
    row(Fault::KillHost,     5, Primary::Moves, Sessions::End,                Newcomers::LoggingInAsItHappens),
    row(Fault::BriefFreeze,  3, Primary::Stays, Sessions::Live,               Newcomers::None),
    row(Fault::LinkDown,     5, Primary::Moves, Sessions::End,                Newcomers::LoggingInAsItHappens),
    row(Fault::KillBackend,  5, Primary::Stays, Sessions::End,                Newcomers::LoggingInAsSessionsEnd),
    row(Fault::LongFreeze,   3, Primary::Moves, Sessions::EndBeforePromotion, Newcomers::LoggingInAsSessionsEnd),
    row(Fault::KillPostgres, 5, Primary::Stays, Sessions::End,                Newcomers::LoggingInAsSessionsEnd),
    row(Fault::ApiCut,       3, Primary::Moves, Sessions::End,                Newcomers::LoggingInAsSessionsEnd),
    row(Fault::DcsOutage,    3, Primary::Stays, Sessions::Live,               Newcomers::None),
];

impl Demand {
    /// Returns the new connections that may fail, for this DCS.
    pub fn newcomers(&self, dcs: Dcs) -> Newcomers {
        match self.fault {
            // Only a watch delivers the announcement of a switchover; without one, PostgreSQL's shutdown is not
            // expected.
            Fault::Switchover if dcs == Dcs::Etcd => Newcomers::LoggingInAsSessionsEnd,
            _ => self.newcomers,
        }
    }
}

impl Fault {
    pub fn makes_sense_with(self, dcs: Dcs) -> bool {
        // pgnorth never talks to etcd, so it cannot be cut off from it.
        self != Self::ApiCut || dcs != Dcs::Etcd
    }

    /// Prepares the fault.
    pub async fn prepare(self, rig: &Rig) {
        match self {
            // A synchronous primary that loses its standby to a promotion blocks by itself, which would hide a split
            // brain.
            Self::LongFreeze => set_synchronous(rig, false).await,
            Self::ApiCut => {
                rig.kubernetes().cut_off();
                // Patroni renews its lock every 3 s, so pgnorth notices the missing renewals in this time.
                sleep(Duration::from_secs(10)).await;
            }
            _ => {}
        }
    }

    /// Applies the fault. If the primary stays, returns only after harm would have been visible.
    pub async fn strike(self, rig: &Rig, primary: &Member) {
        match self {
            Self::Switchover | Self::ApiCut => rig.switchover(None).await,
            Self::KillHost => primary.kill_host(),
            Self::LinkDown => primary.link_down(),
            Self::BriefFreeze => {
                primary.freeze_patroni();
                sleep(Duration::from_secs(8)).await;
                primary.thaw_patroni();
                // The lock is renewed again before its ttl; a whole loop_wait later the state is as before.
                sleep(Duration::from_secs(5)).await;
            }
            Self::LongFreeze => primary.freeze_patroni(),
            Self::KillBackend => primary.kill_backend().await,
            Self::KillPostgres => primary.kill_postgres(),
            Self::DcsOutage => {
                rig.dcs_stop();
                sleep(Duration::from_secs(60)).await;
                rig.dcs_start().await;
                // Long enough for a lock that was not renewed during the outage to expire, if its ttl counted on.
                sleep(Duration::from_secs(25)).await;
            }
        }
    }

    /// Repairs the fault; afterwards the cluster is whole, with a synchronous standby.
    pub async fn heal(self, rig: &Rig, struck: &Member) {
        match self {
            Self::KillHost => struck.start(),
            Self::LinkDown => struck.link_up(),
            Self::LongFreeze => struck.thaw_patroni(),
            Self::ApiCut => rig.kubernetes().restore(),
            _ => {}
        }
        rig.wait_until_whole(WHOLE).await;
        if self == Self::LongFreeze {
            set_synchronous(rig, true).await;
        }
        wait_for_a_synchronous_standby(rig).await;
    }
}

/// Makes the primary's commits wait for a standby, or no longer.
async fn set_synchronous(rig: &Rig, synchronous: bool) {
    rig.configure(&json!({"synchronous_mode": synchronous})).await;
    wait_until("Patroni sets the synchronous standbys", WHOLE, async || {
        let names = rig.find_leader().await?.psql("show synchronous_standby_names").await;
        (names.ok()?.is_empty() != synchronous).then_some(())
    })
    .await;
}
