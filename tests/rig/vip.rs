//! Two pgnorths and keepalived, with the configuration of `deploy/keepalived`: the address moves when one pgnorth dies.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::network::Host;
use crate::support::process::Process;
use crate::support::rig::SCOPE;
use crate::support::{Dcs, Rig, psql, session, wait_until};

/// A deadline against hanging.
const SOON: Duration = Duration::from_secs(30);
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/keepalived/keepalived.conf");

/// A host with a pgnorth and a keepalived. The address of the pair is `vip`.
struct Balanced {
    host: Host,
    pgnorth: Process,
    keepalived: Process,
    vip: Ipv4Addr,
}

#[tokio::test]
async fn the_address_moves_when_a_pgnorth_dies_and_sessions_of_the_other_live() {
    let rig = Rig::start(Dcs::Etcd).await;
    let vip = rig.network().host(90);
    let mut first = Balanced::start(&rig, 20, vip, "100");
    wait_until("the first host has the address", SOON, async || {
        first.has_vip().then_some(())
    })
    .await;
    let second = Balanced::start(&rig, 21, vip, "90");
    let (pair, own) = (
        SocketAddr::from((vip, 5432)),
        SocketAddr::from((second.host.address, 5432)),
    );
    wait_until("the second pgnorth is ready", SOON, async || {
        psql(own, "select 1").await.ok()
    })
    .await;
    wait_until("the second keepalived finds it ready", SOON, async || {
        second.found_ready(1)
    })
    .await;
    let (through_pair, through_second) = (session(pair).await.unwrap(), session(own).await.unwrap());

    first.pgnorth.kill();
    let killed = Instant::now();
    wait_until("a client connects to the address", SOON, async || {
        psql(pair, "select 1").await.ok()
    })
    .await;
    println!(
        "the address leads to the other pgnorth {:?} after the kill",
        killed.elapsed()
    );
    assert!(second.has_vip() && !first.has_vip());
    assert!(
        through_pair.simple_query("select 1").await.is_err(),
        "it ended with its pgnorth"
    );
    through_second.simple_query("select 1").await.unwrap();

    let at_second = session(pair).await.unwrap();
    first.pgnorth = pgnorth(&rig, &first.host);
    wait_until("the first keepalived finds its pgnorth ready", SOON, async || {
        first.found_ready(2)
    })
    .await;
    assert!(second.has_vip() && !first.has_vip(), "a move back would end sessions");
    at_second.simple_query("select 1").await.unwrap();
    drop(second);
    wait_until("the first host takes over from a dead one", SOON, async || {
        psql(pair, "select 1").await.ok()
    })
    .await;
}

impl Balanced {
    fn start(rig: &Rig, index: u8, vip: Ipv4Addr, priority: &str) -> Self {
        let host = Host::start(rig.network(), index);
        let text = fs::read_to_string(CONFIGURATION).unwrap();
        let text = text
            .replace("10.0.0.100/24", &format!("{vip}/16"))
            .replace("priority 100", &format!("priority {priority}"));
        let folder = rig.folder().join(format!("keepalived-{index}"));
        fs::create_dir(&folder).unwrap();
        let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        fs::write(file("keepalived.conf"), text).unwrap();
        let mut command = host.command_as_root("keepalived");
        command.args([
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--vrrp",
            "--use-file",
            &file("keepalived.conf"),
        ]);
        command.args(["--pid", &file("pid"), "--vrrp_pid", &file("vrrp.pid")]);
        Self {
            pgnorth: pgnorth(rig, &host),
            keepalived: Process::start("keepalived", command, &folder.join("log")),
            host,
            vip,
        }
    }

    fn has_vip(&self) -> bool {
        let mut command: Command = self.host.command_as_root("ip");
        let output = command.args(["-4", "address", "show", "dev", "eth0"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains(&format!("{}/", self.vip))
    }

    /// Returns whether the check has begun to succeed this often.
    fn found_ready(&self, times: usize) -> Option<()> {
        let log = self.keepalived.log();
        (log.matches("VRRP_Script(pgnorth) succeeded").count() >= times).then_some(())
    }
}

impl Drop for Balanced {
    fn drop(&mut self) {
        self.pgnorth.kill();
        self.keepalived.kill();
        // keepalived leaves its address behind when it is killed; a dead host does not.
        self.host.link_down();
    }
}

fn pgnorth(rig: &Rig, host: &Host) -> Process {
    let mut command = host.command_as_root(env!("CARGO_BIN_EXE_pgnorth"));
    command
        .env_remove("KUBECONFIG")
        .args(["--scope", SCOPE, "--etcd", &rig.etcd().urls()]);
    Process::start(
        "pgnorth",
        command,
        &rig.folder().join(format!("pgnorth-{}.log", host.address)),
    )
}
