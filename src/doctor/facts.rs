//! The facts, as values that `ask` collects and `judge` reads (no I/O).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::discovery::patroni::TlsProblem;
use crate::leader::observation::{ClusterSettings, Lock, ObjectKind, Report};
use crate::leader::{Address, BaseUrl, MemberName};
use crate::route::Upstream;

/// A value, or the reason why it is missing.
pub type Answer<T> = Result<T, String>;

/// All facts. A field is `None` if the settings do not ask for it.
#[derive(Debug)]
pub struct Facts {
    /// The facts from the Kubernetes API; an error if it cannot be used.
    pub api: Option<Result<Api, ApiFailure>>,
    /// The facts from etcd; the error of its files if they cannot be used.
    pub etcd: Option<Answer<EtcdFacts>>,
    /// The Service of `pgnorth publish`, if Kubernetes is not a source of discovery; an error if its API cannot be used.
    pub publisher: Option<Result<Publisher, ApiFailure>>,
    /// The answers to `/cluster`, for each URL of `--patroni`.
    pub seeds: Vec<(BaseUrl, Result<Seed, RestFailure>)>,
    /// Every member that a pod, a key in etcd or `/cluster` lists.
    pub members: Vec<Member>,
    /// The error of the TLS files, if they cannot be used.
    pub tls_files: Option<String>,
    /// The check of the operators' token file, if one is set.
    pub admin_token: Option<Answer<()>>,
    /// The check of the certificate for refusals, if one is set.
    pub refusal_certificate: Option<Answer<()>>,
    /// The number of sessions that this host's limits allow.
    pub capacity: Capacity,
}

/// The reason why the Kubernetes API cannot be used.
#[derive(Debug)]
pub enum ApiFailure {
    /// There is neither a kubeconfig nor a service account.
    NoCredentials(String),
    /// The API rejects the token or the certificate.
    Unauthorized(String),
    /// The API does not answer.
    Unreachable(String),
}

/// The facts from the Kubernetes API.
#[derive(Debug)]
pub struct Api {
    pub namespace: String,
    pub scope: String,
    pub selector: String,
    pub version: Answer<String>,
    /// Each right that pgnorth uses; true if it is granted.
    pub rights: Vec<(Right, Answer<bool>)>,
    /// The leader object of each kind.
    pub leaders: Vec<(ObjectKind, Answer<LeaderObject>)>,
    /// Scopes with a leader object in this namespace; collected only if there is no lock.
    pub scopes: Vec<String>,
    pub config: Answer<Option<Config>>,
    pub renewal: Answer<Renewal>,
    /// Names of the pods that the selector matches.
    pub pods: Answer<Vec<String>>,
    /// Labels of the holder's pod, if the selector does not match it.
    pub holder_labels: Option<BTreeMap<String, String>>,
    pub services: Answer<Vec<Service>>,
    /// The Service of `pgnorth publish`; an error if that command would reject it.
    pub published: Option<(String, Answer<()>)>,
    /// Seconds by which the API server's clock is ahead of the local one; its header has whole seconds.
    pub ahead: Answer<f64>,
}

/// The Service of `pgnorth publish`, and the rights on it.
#[derive(Debug)]
pub struct Publisher {
    pub namespace: String,
    pub version: Answer<String>,
    /// Each right that the publisher uses; true if it is granted.
    pub rights: Vec<(Right, Answer<bool>)>,
    /// The Service; an error if `pgnorth publish` would reject it.
    pub service: Option<(String, Answer<()>)>,
}

/// The facts from etcd.
#[derive(Debug)]
pub struct EtcdFacts {
    pub prefix: String,
    /// For each endpoint, the number of keys that it lists, or the error if they cannot be listed or watched there.
    pub endpoints: Vec<(BaseUrl, Result<usize, EtcdFailure>)>,
    /// The lock's holder.
    pub holder: Option<MemberName>,
    pub ttl: Option<Duration>,
    pub config: Option<Config>,
    /// Citus groups whose keys are below the prefix.
    pub groups: Vec<u32>,
    pub renewal: Answer<Renewal>,
}

/// The failure of an etcd endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdFailure {
    pub why: String,
    /// The TLS failure, if it is one.
    pub tls: Option<TlsProblem>,
    /// True if the user may not read the keys.
    pub is_denied: bool,
    /// True if the user or the password is missing or wrong.
    pub is_login: bool,
}

/// A verb on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
}

/// The object with the leader object's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderObject {
    Absent,
    /// It exists without Patroni's annotations.
    Foreign,
    /// The lock, and the problem if a part of it is malformed.
    Lock(Lock, Option<String>),
}

/// Patroni's dynamic configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub settings: ClusterSettings,
    pub loop_wait: Option<Duration>,
    /// True in failsafe mode: the primary stays up while Patroni cannot reach its DCS.
    pub failsafe: bool,
}

/// The result of watching the lock.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewal {
    /// The time until the renewal, and the seconds by which the lock holder's clock (from `renewTime`) is ahead of
    /// the local one.
    Renewed { after: Duration, ahead: Option<f64> },
    /// No renewal within this time.
    Missing(Duration),
}

/// A Service in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub has_selector: bool,
    /// True if the Endpoints with the same name carry Patroni's annotations.
    pub has_patroni_endpoints: bool,
}

/// A member's answers to `/cluster` and `/config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The scope in the answer.
    pub scope: Option<String>,
    pub members: Vec<MemberName>,
    pub leader: Option<MemberName>,
    pub ttl: Option<Duration>,
    pub paused: bool,
}

/// One member.
#[derive(Debug)]
pub struct Member {
    pub name: MemberName,
    /// The servers that sessions go to: PostgreSQL, a pooler, or several of these.
    pub servers: Vec<MemberServer>,
    /// The problem with its status in the DCS (annotation or key), if that is malformed.
    pub malformed: Option<String>,
    pub rest: Rest,
}

/// A server of a member.
#[derive(Debug)]
pub struct MemberServer {
    pub upstream: Upstream,
    pub address: Answer<Address>,
    pub greeting: Answer<Greeting>,
}

/// PostgreSQL's answer to an SSLRequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// `S`.
    Tls,
    /// `N`.
    Plain,
    /// Another byte: an error, or another protocol.
    Foreign,
    /// The connection was closed.
    Closed,
    /// No answer before the deadline.
    TimedOut,
}

/// The outcome of asking the REST API for `/primary`.
#[derive(Debug)]
pub enum Rest {
    NotAsked(String),
    Answered { url: BaseUrl, report: Report },
    Failed { url: BaseUrl, failure: RestFailure },
}

/// The failure of a REST API that gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestFailure {
    /// The client's error.
    pub why: String,
    /// The TLS failure, if it is one.
    pub tls: Option<TlsProblem>,
}

/// The limits of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The number of sessions that the hard limit of open files allows.
    pub sessions: usize,
    /// The hard limit of open files.
    pub files: usize,
    /// Local ports for connections to one leader; `None` if their range cannot be read.
    pub ports: Option<usize>,
}

impl Api {
    /// Returns the lock. If both kinds have one, returns the one renewed last.
    pub fn lock(&self) -> Option<(ObjectKind, &Lock)> {
        let locks = self.leaders.iter().filter_map(|(kind, object)| match object {
            Ok(LeaderObject::Lock(lock, _)) => Some((*kind, lock)),
            Ok(LeaderObject::Absent | LeaderObject::Foreign) | Err(_) => None,
        });
        locks.max_by_key(|(_, lock)| lock.written)
    }

    /// Returns the lock's holder.
    pub fn holder(&self) -> Option<&str> {
        self.lock()?.1.holder.as_deref()
    }
}
