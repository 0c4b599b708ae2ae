//! What stands for a Service's ClusterIP: DNAT by nftables to the pgnorths whose /readyz is 200, as kube-proxy does it. Its endpoints change late:
//! a probe every tenth of a second, and then a while until the rules follow. It is an imitation; no kubelet and no kube-proxy runs.

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
/// From a changed readiness to changed rules.
const DELAY: Duration = Duration::from_millis(400);

/// Removed when dropped.
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
    /// Starts to balance among `addresses` whose admin address says ready; afterwards all are in.
    pub async fn start<const N: usize>(rig: &Rig, addresses: [SocketAddr; N], admins: [SocketAddr; N]) -> Self {
        // A route, so that the kernel gets as far as the rules.
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

    /// Where clients connect.
    pub fn service(&self) -> SocketAddr {
        self.service
    }

    /// Waits until so many endpoints are in the rules.
    pub async fn wait_for(&self, endpoints: usize) {
        wait_until("the balancer's endpoints follow", Duration::from_secs(20), async || {
            (self.state.endpoints.load(Ordering::SeqCst) == endpoints).then_some(())
        })
        .await;
    }

    /// How often the rules changed.
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

/// Each network's rules have a table of their own.
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

/// Replaces all rules in one transaction. Connections that were translated before stay where they are.
fn set(service: SocketAddr, endpoints: &[SocketAddr]) {
    let table = table(service);
    let to_vip = format!("ip daddr {} tcp dport {}", service.ip(), service.port());
    let mut rules = format!(
        "table ip {table}\ndelete table ip {table}\ntable ip {table} {{\n chain output {{\n type nat hook output priority -100;\n"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        // Each rule takes its share of what the rules before it have left.
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
