//! The faults: what each demands of the cluster and of pgnorth, how it is done, and how it is made good.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::{WHOLE, wait_for_a_synchronous_standby};
use crate::support::{Dcs, Member, Rig, wait_until};

/// What may happen to the primary, or to the DCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Switchover,
    /// Every process on the primary's host is killed with SIGKILL.
    KillHost,
    /// The cable of the primary's host is pulled.
    LinkDown,
    /// The primary's Patroni is stopped with SIGSTOP for 8 s: its REST API hangs, its lock stays good.
    BriefFreeze,
    /// The same for good, while PostgreSQL goes on: a split brain, as soon as another member is promoted.
    LongFreeze,
    /// One backend is killed, so that PostgreSQL ends every session and recovers in place.
    KillBackend,
    /// The postmaster is killed below a living Patroni, which starts it again.
    KillPostgres,
    /// The Kubernetes API, or etcd where Patroni keeps its lock there, is down for 60 s; failsafe mode is on.
    DcsOutage,
    /// The Kubernetes API is cut off from pgnorth alone; 10 s later comes a switchover.
    ApiCut,
}

/// What a fault demands.
pub struct Demand {
    pub fault: Fault,
    /// How often it comes in one run of CI, in each mode where it makes sense.
    pub times: usize,
    pub primary: Primary,
    pub sessions: Sessions,
    pub newcomers: Newcomers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Primary {
    /// Another member becomes it.
    Moves,
    Stays,
}

/// What becomes of sessions that were open before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sessions {
    Live,
    End,
    /// They end, and no later than another member is a primary.
    EndBeforePromotion,
}

/// Which new connections may fail. Nobody may be refused by pgnorth, whatever happens. A login that PostgreSQL or its host breaks off after its first answer
/// can't be begun anew for the client, so that some are lost where nothing announces the fault: an ApiCut hides the switchover's announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Newcomers {
    None,
    /// Those in the middle of logging in as it happens.
    LoggingInAsItHappens,
    /// Those in the middle of logging in as the open sessions end.
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

/// In this order, again and again. The three modes together see each fault at least 5 times.
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
    /// The newcomers who may fail, given where Patroni keeps its lock.
    pub fn newcomers(&self, dcs: Dcs) -> Newcomers {
        match self.fault {
            // Only a watch sees a switchover announced; without one, PostgreSQL's shutdown comes as a surprise.
            Fault::Switchover if dcs == Dcs::Etcd => Newcomers::LoggingInAsSessionsEnd,
            _ => self.newcomers,
        }
    }
}

impl Fault {
    pub fn makes_sense_with(self, dcs: Dcs) -> bool {
        // pgnorth never talks to etcd, so that there is nothing to cut it off from.
        self != Self::ApiCut || dcs != Dcs::Etcd
    }

    /// What is in force before the fault itself.
    pub async fn prepare(self, rig: &Rig) {
        match self {
            // A synchronous primary that loses its standby to a promotion blocks by itself, which would hide a split brain.
            Self::LongFreeze => set_synchronous(rig, false).await,
            Self::ApiCut => {
                rig.kubernetes().cut_off();
                // Patroni renews its lock every 3 s, so that pgnorth notices the silence.
                sleep(Duration::from_secs(10)).await;
            }
            _ => {}
        }
    }

    /// Does it. Where the primary stays, ends only when harm would have shown.
    pub async fn strike(self, rig: &Rig, primary: &Member) {
        match self {
            Self::Switchover | Self::ApiCut => rig.switchover(None).await,
            Self::KillHost => primary.kill_host(),
            Self::LinkDown => primary.link_down(),
            Self::BriefFreeze => {
                primary.freeze_patroni();
                sleep(Duration::from_secs(8)).await;
                primary.thaw_patroni();
                // The lock is renewed again before its ttl; a whole loop_wait later all is as before.
                sleep(Duration::from_secs(5)).await;
            }
            Self::LongFreeze => primary.freeze_patroni(),
            Self::KillBackend => primary.kill_backend().await,
            Self::KillPostgres => primary.kill_postgres(),
            Self::DcsOutage => {
                rig.dcs_stop();
                sleep(Duration::from_secs(60)).await;
                rig.dcs_start().await;
                // Long enough for a lease that was not renewed during the outage to run out, had it gone on counting.
                sleep(Duration::from_secs(25)).await;
            }
        }
    }

    /// Makes it good; afterwards the cluster is whole, with a synchronous standby.
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

/// Afterwards the primary's commits wait for a standby, or no longer.
async fn set_synchronous(rig: &Rig, synchronous: bool) {
    rig.configure(&json!({"synchronous_mode": synchronous})).await;
    wait_until("Patroni sets the synchronous standbys", WHOLE, async || {
        let names = rig.find_leader().await?.psql("show synchronous_standby_names").await;
        (names.ok()?.is_empty() != synchronous).then_some(())
    })
    .await;
}
