//! The faults: the cause of each, the time of observation, and the repair.

use std::time::Duration;

use clap::ValueEnum;
use tokio::time::sleep;

use crate::support::rig::Settings;
use crate::support::{Dcs, Member, Rig};

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// A planned switchover.
    Switchover,
    /// The same, for clients that speak TLS.
    SwitchoverTls,
    /// Every process on the primary's host is killed with SIGKILL.
    HostKilled,
    /// The primary's host is disconnected.
    HostVanished,
    /// The primary's Patroni is stopped with SIGSTOP for ever; PostgreSQL runs.
    PatroniFrozen,
    /// The primary's Patroni is stopped for 8 s; its lock does not expire.
    RestHangs,
    /// One backend of the primary is killed with SIGKILL, so that PostgreSQL restarts with crash recovery.
    BackendKilled,
    /// The Kubernetes API, or etcd, is down for 60 s, with failsafe mode on.
    DcsDown,
    /// Only pgnorth is cut off from the Kubernetes API; a switchover follows 10 s later.
    ApiCut,
}

/// Long enough for pgnorth to notice: Patroni renews its lock every 3 s, and pgnorth checks a watch without events for
/// longer.
const CUT_BEFORE_SWITCHOVER: Duration = Duration::from_secs(10);

/// The source that pgnorth follows. HAProxy always asks the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The lock in Kubernetes.
    Kubernetes,
    /// The lock in etcd.
    Etcd,
    /// Patroni's REST API alone; its DCS is etcd.
    Patroni,
}

impl Source {
    const ALL: [Self; 3] = [Self::Kubernetes, Self::Etcd, Self::Patroni];

    pub fn title(self) -> &'static str {
        match self {
            Self::Kubernetes => "Kubernetes",
            Self::Etcd => "etcd",
            Self::Patroni => "REST alone",
        }
    }

    pub fn dcs(self) -> Dcs {
        match self {
            Self::Kubernetes => Dcs::Endpoints,
            Self::Etcd | Self::Patroni => Dcs::Etcd,
        }
    }
}

impl Fault {
    /// Returns the sources that it is measured with: all, if the source makes a difference.
    pub fn sources(self) -> &'static [Source] {
        match self {
            Self::Switchover | Self::HostKilled | Self::PatroniFrozen | Self::DcsDown => &Source::ALL,
            _ => &[Source::Kubernetes],
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Self::Switchover => "switchover",
            Self::SwitchoverTls => "switchover, clients with TLS",
            Self::HostKilled => "kill -9 of the primary's host",
            Self::HostVanished => "host vanishes (link down)",
            Self::PatroniFrozen => "Patroni frozen (SIGSTOP), PostgreSQL alive: split brain",
            Self::RestHangs => "Patroni's REST API hangs for 8 s, lock still good",
            Self::BackendKilled => "one backend killed -9 (crash recovery in place)",
            Self::DcsDown => "the DCS down, failsafe mode on",
            Self::ApiCut => "the API cut off from pgnorth alone, then a switchover",
        }
    }

    /// Returns the settings of the rig that it needs.
    pub fn settings(self) -> Settings {
        Settings {
            failsafe: self == Self::DcsDown,
            ..Settings::default()
        }
    }

    pub fn with_tls(self) -> bool {
        self == Self::SwitchoverTls
    }

    /// Returns true if another member becomes the primary.
    pub fn moves_the_primary(self) -> bool {
        !matches!(self, Self::RestHangs | Self::BackendKilled | Self::DcsDown)
    }

    /// Returns the default number of rounds: more for a switchover, for a median.
    pub fn rounds(self) -> u32 {
        if self == Self::Switchover { 3 } else { 1 }
    }

    /// Prepares the fault.
    pub async fn prepare(self, rig: &Rig) {
        if self == Self::ApiCut {
            rig.kubernetes().cut_off();
            sleep(CUT_BEFORE_SWITCHOVER).await;
        }
    }

    /// Applies it to the primary. Returns when all of it is done; if the primary stays, after the time of observation.
    pub async fn strike(self, rig: &Rig, primary: &Member, outage: Duration) {
        match self {
            Self::Switchover | Self::SwitchoverTls | Self::ApiCut => rig.switchover(None).await,
            Self::HostKilled => primary.kill_host(),
            Self::HostVanished => primary.link_down(),
            Self::PatroniFrozen => primary.freeze_patroni(),
            Self::RestHangs => {
                primary.freeze_patroni();
                sleep(Duration::from_secs(8)).await;
                primary.thaw_patroni();
                sleep(Duration::from_secs(12)).await;
            }
            Self::BackendKilled => {
                primary.kill_backend().await;
                sleep(Duration::from_secs(10)).await;
            }
            Self::DcsDown => {
                rig.dcs_stop();
                sleep(outage).await;
                rig.dcs_start().await;
                // The leader takes its lock again, and all leave failsafe mode, within 20 s.
                sleep(Duration::from_secs(25)).await;
            }
        }
    }

    /// Repairs the cluster.
    pub async fn heal(self, rig: &Rig, struck: &Member) {
        match self {
            Self::HostKilled => struck.start(),
            Self::HostVanished => struck.link_up(),
            Self::PatroniFrozen => struck.thaw_patroni(),
            Self::ApiCut => rig.kubernetes().restore(),
            _ => {}
        }
        rig.wait_until_whole(Duration::from_secs(90)).await;
    }
}
