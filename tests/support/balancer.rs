//! A fake of a Service's ClusterIP: DNAT by nftables to the pgnorths whose /readyz is 200, as kube-proxy does it. Its
//! endpoints change late: a probe every tenth of a second, and then a delay until the rules follow. No kubelet and no
//! kube-proxy runs.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::http::{Http, Request};
use super::process::run;
use super::rig::Rig;
use super::wait::wait_until;

const PROBE: Duration = Duration::from_millis(100);
/// Time from a changed readiness to changed rules.
const DELAY: Duration = Duration::from_millis(400);

/// A balancer. Its drop removes the rules.
pub struct Balancer {
    service: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    endpoints: AtomicUsize,
    changes: AtomicUsize,
}

impl Balancer {
    /// Starts to balance among the `addresses` whose admin address is ready; returns when all are in the rules.
    pub async fn start<const N: usize>(rig: &Rig, addresses: [SocketAddr; N], admins: [SocketAddr; N]) -> Self {
        // A route, so that packets reach the rules.
        let service = SocketAddr::from((rig.network().service(), 5432));
        let route = format!("{}/32", service.ip());
        run("ip", &["route", "add", &route, "dev", rig.network().bridge()]);
        let state = Arc::new(State::default());
        let balancer = Self {
            service,
            task: tokio::spawn(follow(rig.http().clone(), service, addresses, admins, state.clone())),
            state,
        };
        balancer.wait_for(N).await;
        balancer
    }

    /// Returns the address for clients.
    pub fn service(&self) -> SocketAddr {
        self.service
    }

    /// Waits until the rules have this number of endpoints.
    pub async fn wait_for(&self, endpoints: usize) {
        wait_until("the balancer's endpoints follow", Duration::from_secs(20), async || {
            (self.state.endpoints.load(Ordering::SeqCst) == endpoints).then_some(())
        })
        .await;
    }

    /// Returns the number of changes of the rules.
    pub fn changes(&self) -> usize {
        self.state.changes.load(Ordering::SeqCst)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.task.abort();
        let _ = Command::new("nft")
            .args(["delete", "table", "ip", &table(self.service)])
            .output();
        let _ = Command::new("ip")
            .args(["route", "delete", &format!("{}/32", self.service.ip())])
            .output();
    }
}

/// Returns the name of the table of this network's rules.
fn table(service: SocketAddr) -> String {
    format!("balancer-{}", service.ip()).replace(['.', ':'], "-")
}

async fn follow<const N: usize>(
    http: Http,
    service: SocketAddr,
    addresses: [SocketAddr; N],
    admins: [SocketAddr; N],
    state: Arc<State>,
) {
    let mut in_force = Vec::new();
    loop {
        let mut ready = Vec::new();
        for (address, admin) in addresses.iter().zip(admins) {
            let url = format!("http://{admin}/readyz");
            let request = Request {
                within: Duration::from_secs(1),
                ..Request::get(&url)
            };
            if http.ask(&request).await.is_ok_and(|answer| answer.status == 200) {
                ready.push(*address);
            }
        }
        if ready != in_force {
            tokio::time::sleep(DELAY).await;
            set(service, &ready);
            state.changes.fetch_add(1, Ordering::SeqCst);
            state.endpoints.store(ready.len(), Ordering::SeqCst);
            in_force = ready;
        }
        tokio::time::sleep(PROBE).await;
    }
}

/// Replaces all rules in one transaction. Connections that were translated before keep their endpoint.
fn set(service: SocketAddr, endpoints: &[SocketAddr]) {
    let table = table(service);
    let to_vip = format!("ip daddr {} tcp dport {}", service.ip(), service.port());
    let mut rules = format!(
        "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n chain output {{\n type nat hook output priority -100;\n"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        // Each rule takes its share of the connections that the rules before it have left.
        let left = endpoints.len() - index;
        let share = if left > 1 {
            format!("numgen random mod {left} 0 ")
        } else {
            String::new()
        };
        rules += &format!("  {to_vip} {share}dnat to {endpoint}\n");
    }
    rules += " }\n chain refuse {\n type filter hook output priority 0;\n";
    if endpoints.is_empty() {
        rules += &format!("  {to_vip} reject with tcp reset\n");
    }
    rules += " }\n}\n";
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("run nft");
    nft.stdin
        .take()
        .expect("piped")
        .write_all(rules.as_bytes())
        .expect("write the rules");
    assert!(nft.wait().expect("wait for nft").success(), "nft refused:\n{rules}");
}
