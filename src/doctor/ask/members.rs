//! Asks members: sends PostgreSQL an SSLRequest, which needs no login, and gets `/primary`, `/cluster` and `/config`
//! from Patroni's REST API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use super::ListedMember;
use crate::config::Proxy;
use crate::discovery::patroni::answers::{read_cluster, read_report, read_ttl};
use crate::discovery::patroni::{Client, TlsError, Unreachable};
use crate::doctor::facts::{Answer, Greeting, Member, MemberServer, Rest, RestFailure, Seed};
use crate::leader::observation::ClusterMember;
use crate::leader::{Address, BaseUrl, MemberName};
use crate::metrics::Metrics;
use crate::proxy::{self, SSL_REQUEST};
use crate::resolver::Resolver;
use crate::root_cause::with_causes;

/// Deadline for PostgreSQL's one-byte answer.
const GREETING: Duration = Duration::from_secs(2);

/// Asks members as the proxy does.
pub(super) struct MemberClient<'a> {
    settings: &'a Proxy,
    client: Result<Client, TlsError>,
    resolver: Resolver,
    metrics: Metrics,
}

impl<'a> MemberClient<'a> {
    pub(super) fn new(settings: &'a Proxy, client: Result<Client, TlsError>) -> Self {
        Self {
            settings,
            client,
            resolver: Resolver::default(),
            metrics: Metrics::new(),
        }
    }

    /// Returns the error of the TLS files, if they cannot be used.
    pub(super) fn tls_files(&self) -> Option<String> {
        self.client.as_ref().err().map(TlsError::to_string)
    }

    /// Gets `/cluster` from each URL. Returns each answer with its members.
    pub(super) async fn clusters(&self, urls: &[Url]) -> Vec<(BaseUrl, Result<Seed, RestFailure>, Vec<ClusterMember>)> {
        let asking = urls
            .iter()
            .filter_map(|url| BaseUrl::parse(url.as_str()).ok())
            .map(async |url| match self.cluster(&url).await {
                Ok((seed, members)) => (url, Ok(seed), members),
                Err(why) => (url, Err(why), Vec::new()),
            });
        futures_util::future::join_all(asking).await
    }

    async fn cluster(&self, url: &BaseUrl) -> Result<(Seed, Vec<ClusterMember>), RestFailure> {
        let client = self.client.as_ref().map_err(|error| RestFailure {
            why: unusable(error),
            tls: None,
        })?;
        let answer = client.get(url, "/cluster").await;
        let (cluster, _) = answer
            .and_then(|answer| read_cluster(url, &answer))
            .map_err(|unreachable| RestFailure::from(&unreachable))?;
        let config = client.get(url, "/config").await.ok();
        let seed = Seed {
            scope: cluster.scope,
            members: cluster.members.iter().map(|member| member.name.clone()).collect(),
            leader: cluster.leader,
            ttl: config.as_ref().and_then(read_ttl),
            paused: cluster.paused,
        };
        Ok((seed, cluster.members))
    }

    /// Asks all members concurrently. Returns them sorted by name.
    pub(super) async fn members(&self, known: BTreeMap<MemberName, ListedMember>) -> Vec<Member> {
        futures_util::future::join_all(known.into_values().map(|known| self.member(known))).await
    }

    async fn member(&self, known: ListedMember) -> Member {
        let servers = known.addresses.iter().map(async |(upstream, address)| MemberServer {
            upstream: *upstream,
            address: address.clone(),
            greeting: match address {
                Ok(address) => self.greet(address).await,
                Err(why) => Err(why.clone()),
            },
        });
        let (servers, rest) = tokio::join!(futures_util::future::join_all(servers), self.report(&known));
        Member {
            name: known.name,
            servers,
            malformed: known.malformed,
            rest,
        }
    }

    /// Connects as a session would, and sends an SSLRequest.
    async fn greet(&self, address: &Address) -> Answer<Greeting> {
        let limit = self.settings.connect_timeout;
        let dial = async |target: SocketAddr| TcpStream::connect(target).await.map_err(proxy::DialError::from);
        let dialled = proxy::dial(address, limit, &self.resolver, &self.metrics, dial).await;
        let stream = dialled.map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(GREETING, ask_for_tls(stream)).await;
        Ok(answer.unwrap_or(Greeting::TimedOut))
    }

    async fn report(&self, known: &ListedMember) -> Rest {
        let client = match &self.client {
            Ok(client) => client,
            Err(error) => return Rest::NotAsked(unusable(error)),
        };
        let Some(url) = known.api_url.clone() else {
            return Rest::NotAsked("the member has published no api_url".to_owned());
        };
        let answer = client.get(&url, "/primary").await;
        match answer.and_then(|answer| read_report(&known.name, &answer)) {
            Ok(report) => Rest::Answered { url, report },
            Err(unreachable) => Rest::Failed {
                failure: RestFailure::from(&unreachable),
                url,
            },
        }
    }
}

fn unusable(error: &TlsError) -> String {
    format!("the TLS files cannot be used: {error}")
}

impl From<&Unreachable> for RestFailure {
    fn from(unreachable: &Unreachable) -> Self {
        Self {
            why: with_causes(unreachable),
            tls: unreachable.tls_problem(),
        }
    }
}

async fn ask_for_tls(mut stream: TcpStream) -> Greeting {
    let mut request = [0; 8];
    request[..4].copy_from_slice(&8_u32.to_be_bytes());
    request[4..].copy_from_slice(&SSL_REQUEST.to_be_bytes());
    if stream.write_all(&request).await.is_err() {
        return Greeting::Closed;
    }
    match stream.read_u8().await {
        Ok(b'S') => Greeting::Tls,
        Ok(b'N') => Greeting::Plain,
        Ok(_) => Greeting::Foreign,
        Err(_) => Greeting::Closed,
    }
}
