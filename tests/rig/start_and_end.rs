//! The real binary starts with each kind of DCS, routes to the primary, and ends well on SIGTERM.

use std::time::Duration;

use crate::support::rig::SCOPE;
use crate::support::{Dcs, Product, Rig, Settings};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn beside_endpoints() {
    leads_to_the_primary_and_ends(Dcs::Endpoints, Settings::default()).await;
}

#[tokio::test]
async fn beside_config_maps_with_a_rest_api_over_tls() {
    let settings = Settings {
        rest_tls: true,
        ..Settings::default()
    };
    leads_to_the_primary_and_ends(Dcs::ConfigMaps, settings).await;
}

#[tokio::test]
async fn beside_etcd_by_the_rest_api_alone() {
    leads_to_the_primary_and_ends(Dcs::Etcd, Settings::default()).await;
}

async fn leads_to_the_primary_and_ends(dcs: Dcs, settings: Settings) {
    let rig = Rig::start_with(dcs, settings).await;
    let mut product = Product::start(&rig, &[], &[]).await;
    assert_eq!(product.wait_until_writable(SOON).await, rig.member(0).ip().to_string());
    assert_eq!(product.admin_get("/livez").await.status, 200);
    assert_eq!(product.admin_get("/readyz").await.status, 200);
    // With the REST API alone, the members report it.
    let scope = product.metric("pgnorth_cluster_info", &[("scope", SCOPE)]).await;
    assert_eq!(scope, Some(1.0));

    let status = product.terminate(SOON).await;
    assert!(status.success(), "{status}");
}
