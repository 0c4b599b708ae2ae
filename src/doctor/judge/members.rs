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
    /// True if the TLS files can be used; without them no REST API is asked.
    has_tls_files: bool,
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
        has_tls_files: facts.tls_files.is_none(),
        scope: discovery.scope.as_deref(),
        system: system(facts),
    };
    if facts.members.is_empty() {
        return vec![Check::not_checked("members", "no member is known")];
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
                "correct the target (--target, or target= of the route), or postgresql.proxy_address in Patroni's configuration",
            );
        }
        Err(why) => {
            return Check::fail(
                what,
                why,
                "Patroni writes conn_url from postgresql.connect_address, which must be a host:port that can be reached from here",
            );
        }
    };
    let greeting = match &server.greeting {
        Ok(greeting) => greeting,
        Err(why) => {
            let found = format!("cannot connect to {address}: {why}");
            let fix = "check that this server is running, and that network policies, firewalls and meshes let pgnorth connect to this port (from a laptop, pod addresses are often out of reach: run the doctor in the pod)";
            return cluster.grade(member, what, found, fix);
        }
    };
    let found = match greeting {
        Greeting::Tls => format!("{address} answers; TLS is on"),
        Greeting::Plain => format!("{address} answers; TLS is off"),
        Greeting::TimedOut | Greeting::Closed | Greeting::Foreign => {
            let then = match greeting {
                Greeting::TimedOut => "does not answer an SSLRequest",
                Greeting::Closed => "closes them",
                _ => "does not answer like PostgreSQL",
            };
            let found = format!("{address} accepts connections, but {then}");
            let fix = match server.upstream.is_pooler() {
                true => {
                    "check the pooler's log: it may be starting or have no free connections. Otherwise something else listens on this port, such as a mesh's sidecar that requires mTLS (deploy/components/istio)"
                }
                false => {
                    "check PostgreSQL's log on this member: it may be starting or have no free connections. Otherwise something else listens on this port, such as a pooler or a mesh's sidecar that requires mTLS (deploy/components/istio)"
                }
            };
            return cluster.grade(member, what, found, fix);
        }
    };
    match &member.malformed {
        Some(problem) => Check::warn(
            what,
            format!("{found}; {problem}"),
            "Patroni writes this status: check its log on this member",
        ),
        None => Check::ok(what, found),
    }
}

fn rest(member: &Member, cluster: &ClusterFacts<'_>) -> Check {
    let what = format!("{}, REST API", member.name);
    match &member.rest {
        Rest::NotAsked(why) => {
            let fix = match cluster.has_tls_files {
                true => {
                    "Patroni publishes api_url (from restapi.connect_address) when it runs: check its log on this member"
                }
                false => "correct the TLS files first",
            };
            cluster.grade(member, what, format!("not checked: {why}"), fix)
        }
        Rest::Failed {
            url,
            failure: RestFailure { why, tls: None },
        } => {
            let fix = "check that Patroni is running there, and that network policies, firewalls and meshes let pgnorth connect to this port (from a laptop, pod addresses are often out of reach: run the doctor in the pod)";
            cluster.grade(member, what, format!("{url} gives no usable answer: {why}"), fix)
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
