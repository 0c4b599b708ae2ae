//! Collects the facts. Independent requests run concurrently; if one fails, only its own fact is missing.

mod etcd;
mod kubernetes;
mod members;
mod publisher;

use std::collections::BTreeMap;

use tracing::info;

use super::Capacity;
use super::facts::{Answer, Facts};
use crate::admin::read_token;
use crate::config::Doctor;
use crate::discovery::etcd::Endpoints;
use crate::discovery::patroni::{Client, TlsError};
use crate::leader::observation::{ClusterMember, DcsStatus};
use crate::leader::{Address, BaseUrl, MemberName, UnknownAddress};
use crate::proxy::RefusalTls;
use crate::route::Upstream;
use kubernetes::ApiConnection;
use members::MemberClient;

/// A member as a pod, a key in etcd or `/cluster` lists it, before the member itself is asked.
struct ListedMember {
    name: MemberName,
    /// The address of each server that sessions go to.
    addresses: Vec<(Upstream, Answer<Address>)>,
    api_url: Option<BaseUrl>,
    malformed: Option<String>,
}

pub(super) async fn everything(
    settings: &Doctor,
    client: Result<Client, TlsError>,
    etcd: Option<Result<Endpoints, String>>,
    capacity: Capacity,
) -> Facts {
    let client_of_members = MemberClient::new(&settings.proxy, client);
    let connection = match &settings.proxy.discovery.kubernetes {
        Some(kubernetes) => Some(ApiConnection::reach(kubernetes, settings).await),
        None => None,
    };
    let upstreams = &settings.proxy.upstreams()[..];
    let mut known = BTreeMap::new();
    let mut seeds = Vec::new();
    for (url, answer, members) in client_of_members.clusters(&settings.proxy.discovery.patroni).await {
        known.extend(
            members
                .into_iter()
                .map(|member| (member.name.clone(), ListedMember::of_row(member, upstreams))),
        );
        seeds.push((url, answer));
    }
    let etcd = match etcd {
        Some(Ok(etcd)) => {
            info!("waiting for a renewal of the leader lock");
            let (found, members) = Box::pin(etcd::collect(&etcd, upstreams)).await;
            // As in the proxy, a member's key takes precedence over /cluster.
            known.extend(members.into_iter().map(|known| (known.name.clone(), known)));
            Some(Ok(found))
        }
        Some(Err(why)) => Some(Err(why)),
        None => None,
    };
    let (api, members) = match connection {
        None => (None, client_of_members.members(known).await),
        Some(Err(failure)) => (Some(Err(failure)), client_of_members.members(known).await),
        Some(Ok(connection)) => {
            let (mut api, pods) = Box::pin(connection.collect()).await;
            // A pod's status takes precedence over /cluster, as in the proxy.
            known.extend(pods.into_iter().map(|known| (known.name.clone(), known)));
            info!("waiting for a renewal of the leader lock");
            let (renewal, members) = tokio::join!(connection.wait_for_renewal(&api), client_of_members.members(known));
            api.renewal = renewal;
            (Some(Ok(api)), members)
        }
    };
    Facts {
        api,
        etcd,
        publisher: publisher::collect(settings).await,
        seeds,
        members,
        tls_files: client_of_members.tls_files(),
        admin_token: settings
            .proxy
            .admin_token_file
            .as_deref()
            .map(|file| read_token(file).map(drop).map_err(|problem| problem.to_string())),
        refusal_certificate: settings.proxy.refusal.clone().map(|identity| {
            let loaded = RefusalTls::new(Some((identity.cert, identity.key)));
            loaded.map(drop).map_err(|problem| problem.to_string())
        }),
        capacity,
    }
}

impl ListedMember {
    fn of_row(member: ClusterMember, upstreams: &[Upstream]) -> Self {
        Self {
            addresses: addresses(upstreams, |upstream| member.session_address(upstream)),
            name: member.name,
            api_url: member.api_url,
            malformed: None,
        }
    }

    fn of_pod(pod: DcsStatus, malformed: Option<String>, upstreams: &[Upstream]) -> Self {
        Self {
            addresses: addresses(upstreams, |upstream| pod.session_address(upstream)),
            name: pod.name,
            api_url: pod.api_url,
            malformed,
        }
    }
}

fn addresses(
    upstreams: &[Upstream],
    address: impl Fn(Upstream) -> Result<Address, UnknownAddress>,
) -> Vec<(Upstream, Answer<Address>)> {
    let of = |upstream| (upstream, address(upstream).map_err(|error| error.to_string()));
    upstreams.iter().copied().map(of).collect()
}
