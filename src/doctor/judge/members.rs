//! Checks of each member: its PostgreSQL, its REST API, and its report against the lock.

use super::{reports, tls};
use crate::config::{ClientTls, DiscoverySettings};
use crate::doctor::check::Check;
use crate::doctor::facts::{Api, Facts, Greeting, Member, MemberServer, Rest, RestFailure};
use crate::leader::observation::Report;
use crate::route::Upstream;

/// The facts about the cluster against which each member is checked.
pub(super) struct ClusterFacts<'a> {
    /// The lock's holder, from the lock or from `/cluster`.
    pub(super) leader: Option<&'a str>,
    /// The leader's report.
    pub(super) report: Option<&'a Report>,
    tls: &'a ClientTls,
    /// The scope in the settings.
    pub(super) scope: Option<&'a str>,
    /// The system identifier of Patroni's config object.
    pub(super) system: Option<&'a str>,
}

pub(super) fn all(facts: &Facts, discovery: &DiscoverySettings) -> Vec<Check> {
    let leader = leader(facts);
    let of_leader = facts.members.iter().find(|member| Some(member.name.as_str()) == leader);
    let cluster = ClusterFacts {
        leader,
        report: of_leader.and_then(Member::report),
        tls: &discovery.patroni_tls,
        scope: discovery.scope.as_deref(),
        system: system(facts),
    };
    if facts.members.is_empty() {
        return vec![Check::not_checked("members", "none is known")];
    }
    facts
        .members
        .iter()
        .flat_map(|member| {
            let servers = member
                .servers
                .iter()
                .map(|server| check_server(member, server, &cluster));
            servers.chain([rest(member, &cluster)])
        })
        .collect()
}

fn leader(facts: &Facts) -> Option<&str> {
    let api = facts.api.as_ref().and_then(|api| api.as_ref().ok());
    let seeds = facts.seeds.iter().filter_map(|(_, answer)| answer.as_ref().ok());
    let etcd = facts.etcd.as_ref().and_then(|etcd| etcd.as_ref().ok());
    api.and_then(Api::holder)
        .or_else(|| etcd?.holder.as_deref())
        .or_else(|| seeds.filter_map(|seed| seed.leader.as_deref()).next())
}

fn system(facts: &Facts) -> Option<&str> {
    let in_kubernetes = || facts.api.as_ref()?.as_ref().ok()?.config.as_ref().ok()?.as_ref();
    let in_etcd = || facts.etcd.as_ref()?.as_ref().ok()?.config.as_ref();
    in_kubernetes().or_else(in_etcd)?.settings.system.as_deref()
}

impl Member {
    fn report(&self) -> Option<&Report> {
        match &self.rest {
            Rest::Answered { report, .. } => Some(report),
            Rest::NotAsked(_) | Rest::Failed { .. } => None,
        }
    }
}

impl ClusterFacts<'_> {
    pub(super) fn is_leader(&self, member: &Member) -> bool {
        self.leader == Some(member.name.as_str())
    }

    /// Returns a failure for the leader and a warning for any other member.
    fn grade(&self, member: &Member, what: String, found: String, fix: &str) -> Check {
        if self.is_leader(member) {
            Check::fail(what, format!("{found}; this is the leader"), fix)
        } else {
            Check::warn(what, found, fix)
        }
    }
}

fn check_server(member: &Member, server: &MemberServer, cluster: &ClusterFacts<'_>) -> Check {
    let what = match server.upstream {
        Upstream::Postgres => format!("{}, PostgreSQL", member.name),
        Upstream::Proxy => format!("{}, pooler at proxy_url", member.name),
        Upstream::Port(port) => format!("{}, pooler at port {port}", member.name),
    };
    let address = match &server.address {
        Ok(address) => address,
        Err(why) if server.upstream.is_pooler() => {
            return cluster.grade(
                member,
                what,
                why.clone(),
                "correct the target (--target, or target= of the route), or postgresql.proxy_address in Patroni",
            );
        }
        Err(why) => {
            return Check::fail(
                what,
                why,
                "Patroni writes conn_url from postgresql.connect_address: it has to be host:port, as reached from here",
            );
        }
    };
    let greeting = match &server.greeting {
        Ok(greeting) => greeting,
        Err(why) => {
            let found = format!("cannot connect to {address}: {why}");
            let fix = "does it run there? A network policy, firewall or mesh must let pgnorth through to this port (from a laptop, pod addresses are often out of reach: run it in a pod)";
            return cluster.grade(member, what, found, fix);
        }
    };
    let found = match greeting {
        Greeting::Tls => format!("{address} answers; TLS is on"),
        Greeting::Plain => format!("{address} answers; TLS is off"),
        Greeting::TimedOut | Greeting::Closed | Greeting::Foreign => {
            let then = match greeting {
                Greeting::TimedOut => "says nothing to an SSLRequest",
                Greeting::Closed => "closes the connection",
                _ => "does not answer like PostgreSQL",
            };
            let found = format!("{address} accepts, but {then}");
            let fix = "it is starting, out of connections, or something else has this port: a mesh's sidecar that demands mTLS, or a pooler. See deploy/components/istio";
            return cluster.grade(member, what, found, fix);
        }
    };
    match &member.malformed {
        Some(problem) => Check::warn(
            what,
            format!("{found}; {problem}"),
            "Patroni writes this annotation: check its log on this member",
        ),
        None => Check::ok(what, found),
    }
}

fn rest(member: &Member, cluster: &ClusterFacts<'_>) -> Check {
    let what = format!("{}, REST API", member.name);
    match &member.rest {
        Rest::NotAsked(why) => {
            let fix = "Patroni writes api_url from restapi.connect_address once it runs: check its log on this member";
            cluster.grade(member, what, format!("not checked: because {why}"), fix)
        }
        Rest::Failed {
            url,
            failure: RestFailure { why, tls: None },
        } => {
            let fix = "is Patroni running there? A network policy, firewall or mesh must let pgnorth through to this port (from a laptop, pod addresses are often out of reach: run it in a pod)";
            cluster.grade(member, what, format!("{url} gives no answer: {why}"), fix)
        }
        Rest::Failed {
            url,
            failure: RestFailure {
                why,
                tls: Some(trouble),
            },
        } => {
            let (found, fix) = tls::explain(trouble, cluster.tls);
            Check::fail(what, format!("{url}: {found} ({why})"), fix)
        }
        Rest::Answered { url, report } => reports::check(member, cluster, what, url, report),
    }
}
