//! The faults: the cause of each, the time of observation, and the repair.

use std::time::Duration;

use clap::ValueEnum;
use serde_json::json;
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
    /// Only pgnorth is cut off from the Kubernetes API; a switchover follows 10 s later, or 25 s with Patroni's
    /// defaults.
    ApiCut,
}

/// Patroni's times, and those of the benchmark that depend on them.
#[derive(Clone)]
pub struct Times {
    /// In seconds: ttl, loop_wait and retry_timeout.
    pub patroni: [u32; 3],
    /// Time between the cut of the API and the switchover, so that pgnorth notices the cut: Patroni renews its lock
    /// every loop_wait, and pgnorth checks a watch that has been without events for longer.
    pub cut_before_switchover: Duration,
    /// Time for which the DCS is down: longer than ttl.
    pub outage: Duration,
    /// Time in which the leader takes its lock again, and all leave failsafe mode.
    pub recovery: Duration,
}

impl Times {
    /// The shortest that Patroni allows, so that failovers are quick.
    pub fn fast(quick: bool) -> Self {
        Self {
            patroni: [20, 3, 5],
            cut_before_switchover: Duration::from_secs(10),
            outage: Duration::from_secs(if quick { 25 } else { 60 }),
            recovery: Duration::from_secs(25),
        }
    }

    /// Those of a Patroni whose configuration sets none.
    pub fn defaults(quick: bool) -> Self {
        Self {
            patroni: [30, 10, 10],
            cut_before_switchover: Duration::from_secs(25),
            outage: Duration::from_secs(if quick { 40 } else { 60 }),
            recovery: Duration::from_secs(40),
        }
    }
}

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
            Self::RestHangs => "Patroni's REST API hangs for 8 s, the lock is renewed",
            Self::BackendKilled => "one backend killed -9 (crash recovery in place)",
            Self::DcsDown => "the DCS down, failsafe mode on",
            Self::ApiCut => "the API cut off from pgnorth only, then a switchover",
        }
    }

    /// Returns the settings of the rig that it needs.
    pub fn settings(self, times: &Times) -> Settings {
        let [ttl, loop_wait, retry_timeout] = times.patroni;
        Settings {
            failsafe: self == Self::DcsDown,
            dynamic: json!({"ttl": ttl, "loop_wait": loop_wait, "retry_timeout": retry_timeout}),
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
    pub async fn prepare(self, rig: &Rig, times: &Times) {
        if self == Self::ApiCut {
            rig.kubernetes().cut_off();
            sleep(times.cut_before_switchover).await;
        }
    }

    /// Applies it to the primary. Returns when all of it is done; if the primary stays, after the time of observation.
    pub async fn strike(self, rig: &Rig, primary: &Member, times: &Times) {
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
                sleep(times.outage).await;
                rig.dcs_start().await;
                sleep(times.recovery).await;
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
        rig.wait_until_whole(Duration::from_secs(120)).await;
    }
}
