//! The leader's REST API hangs for much longer than the ttl while its lock is renewed, and pgnorth has REST as its only
//! source.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::patroni::REST_PORT;
use crate::support::{Dcs, Member, Product, Rig, session};

const SOON: Duration = Duration::from_secs(10);
/// The ttl is 20 s.
const HANGS_FOR: Duration = Duration::from_secs(35);

#[tokio::test]
async fn a_rest_api_that_hangs_for_longer_than_ttl_ends_no_session_while_the_others_name_its_member() {
    let rig = Rig::start(Dcs::Etcd).await;
    let leader = rig.leader().await;
    let product = Product::start(&rig, &[], &[]).await;
    product.wait_until_writable(SOON).await;
    let open = session(product.address()).await.expect("a session");

    let _busy = occupy(leader);
    let began = Instant::now();
    while began.elapsed() < HANGS_FOR {
        open.query("select 1", &[]).await.expect("the session lives");
        product.wait_until_writable(SOON).await;
        sleep(Duration::from_secs(1)).await;
    }
    let kept = product.admin_get("/leader").await.json();
    let reason = kept["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("a majority of the members names it as the lock holder"),
        "{reason}"
    );
    assert_eq!(product.metric("pgnorth_fences_total", &[]).await, Some(0.0));
}

/// Occupies the REST API: Patroni serves five requests at a time, and these connections send nothing and never end.
pub fn occupy(member: &Member) -> JoinSet<()> {
    let address = SocketAddr::from((member.ip(), REST_PORT));
    let mut busy = JoinSet::new();
    for _ in 0..16 {
        busy.spawn(async move {
            loop {
                if let Ok(Ok(stream)) = timeout(SOON, TcpStream::connect(address)).await {
                    // Until Patroni closes them.
                    let _ = stream.readable().await;
                }
            }
        });
    }
    busy
}
