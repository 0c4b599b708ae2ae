//! The DCS under test, whose servers are hosts of their own: three etcds, or one Kubernetes API server (with its etcd).

use rustix::process::Signal;

use crate::support::network::Host;
use crate::support::rig::SCOPE;
use crate::support::{Dcs, Rig};

/// Returns the DCS that PGNORTH_DCS names: etcd if it is not set.
pub fn of_environment() -> Dcs {
    match std::env::var("PGNORTH_DCS").as_deref() {
        Err(_) | Ok("etcd") => Dcs::Etcd,
        Ok("kubernetes") => Dcs::Endpoints,
        Ok(other) => panic!("PGNORTH_DCS is neither etcd nor kubernetes: {other:?}"),
    }
}

/// Returns the number of its servers.
pub fn servers(rig: &Rig) -> usize {
    match rig.dcs() {
        Dcs::Etcd => 3,
        Dcs::Endpoints | Dcs::ConfigMaps => 1,
    }
}

/// Returns the arguments of a pgnorth that reads it; Kubernetes is in KUBECONFIG.
pub fn arguments(rig: &Rig) -> Vec<String> {
    let mut arguments = ["--scope", SCOPE].map(str::to_owned).to_vec();
    if rig.dcs() == Dcs::Etcd {
        arguments.extend(["--etcd".to_owned(), rig.etcd().urls()]);
    }
    arguments
}

pub fn host(rig: &Rig, number: usize) -> &Host {
    match rig.dcs() {
        Dcs::Etcd => rig.etcd().host(number),
        Dcs::Endpoints | Dcs::ConfigMaps => rig.kubernetes().host(),
    }
}

pub fn kill(rig: &Rig, number: usize) {
    match rig.dcs() {
        Dcs::Etcd => rig.etcd().kill(number),
        Dcs::Endpoints | Dcs::ConfigMaps => rig.kubernetes().api_stop(),
    }
}

pub fn signal(rig: &Rig, number: usize, signal: Signal) {
    match rig.dcs() {
        Dcs::Etcd => rig.etcd().signal(number, signal),
        Dcs::Endpoints | Dcs::ConfigMaps => rig.kubernetes().api_signal(signal),
    }
}

/// Kills a server, if it has not ended yet, and starts it again; waits for nothing.
pub fn start_again(rig: &Rig, number: usize) {
    kill(rig, number);
    match rig.dcs() {
        Dcs::Etcd => rig.etcd().launch_ended(),
        Dcs::Endpoints | Dcs::ConfigMaps => rig.kubernetes().api_launch_ended(),
    }
}
