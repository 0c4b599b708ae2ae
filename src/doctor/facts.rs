//! What was found, as values: written by `ask`, read by `judge`. No I/O.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::discovery::patroni::TlsTrouble;
use crate::leader::observation::{ClusterSettings, Lock, ObjectKind, Report};
use crate::leader::{Address, BaseUrl, MemberName};

/// What somebody said, or why it cannot be told: as the end of a sentence that begins with "because".
pub type Answer<T> = Result<T, String>;

/// Everything that was found. What was not asked for is none.
#[derive(Debug)]
pub struct Facts {
    /// What the Kubernetes API said; an error where it says nothing at all.
    pub api: Option<Result<Api, ApiFailure>>,
    /// What the members named by `--patroni` said to `/cluster`, by their URL.
    pub seeds: Vec<(BaseUrl, Result<Seed, Silent>)>,
    /// Every member that a pod or `/cluster` told of.
    pub members: Vec<Member>,
    /// The files for TLS, if they cannot be used.
    pub tls_files: Option<String>,
    /// The file with the operators' token, if there is to be one, and whether it can be used.
    pub admin_token: Option<Answer<()>>,
    /// The certificate for refusals, if one is given, and whether it can be used.
    pub refusal_certificate: Option<Answer<()>>,
    /// Sessions that fit below the hard limit of open files here, and that limit.
    pub capacity: Capacity,
}

/// The way to the API ends here.
#[derive(Debug)]
pub enum ApiFailure {
    /// No kubeconfig, no service account.
    NoCredentials(String),
    /// It knows neither token nor certificate.
    Unknown(String),
    /// Nothing answers.
    Silent(String),
}

/// What the Kubernetes API said.
#[derive(Debug)]
pub struct Api {
    pub namespace: String,
    pub scope: String,
    pub selector: String,
    pub version: Answer<String>,
    /// Each right that pgnorth uses, and whether it is granted.
    pub rights: Vec<(Right, Answer<bool>)>,
    /// The leader object of each kind.
    pub leaders: Vec<(ObjectKind, Answer<LeaderObject>)>,
    /// Scopes whose leader objects are in this namespace; looked for only where there is no lock.
    pub scopes: Vec<String>,
    pub config: Answer<Option<Config>>,
    pub renewal: Answer<Renewal>,
    /// Names of the pods that the selector finds.
    pub pods: Answer<Vec<String>>,
    /// Labels of the holder's pod, where the selector does not find it.
    pub holder_labels: Option<BTreeMap<String, String>>,
    pub services: Answer<Vec<Service>>,
    /// What `pgnorth publish` would say about its Service.
    pub published: Option<(String, Answer<()>)>,
    /// By how many seconds the API server's clock is ahead of ours; its header has whole seconds.
    pub ahead: Answer<f64>,
}

/// A verb on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub verb: &'static str,
    pub group: &'static str,
    pub resource: &'static str,
}

/// What stands under the leader object's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderObject {
    Absent,
    /// It exists, and nothing on it is Patroni's.
    Foreign,
    /// The lock, and what could not be read of it.
    Lock(Lock, Option<String>),
}

/// Patroni's dynamic configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub settings: ClusterSettings,
    pub loop_wait: Option<Duration>,
    /// The primary stays one while Patroni cannot reach the Kubernetes API.
    pub failsafe: bool,
}

/// What the watch of the lock brought.
#[derive(Clone, Debug, PartialEq)]
pub enum Renewal {
    /// It was renewed this long after the watch began; by how many seconds its holder's clock, read from `renewTime`, is ahead of ours.
    Renewed { after: Duration, ahead: Option<f64> },
    /// It was not, for so long.
    Missing(Duration),
}

/// A Service of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    pub has_selector: bool,
    /// The Endpoints of its name carry Patroni's annotations.
    pub is_patronis: bool,
}

/// What a member said to `/cluster` and `/config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The scope that it tells.
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
    /// Where its PostgreSQL should be.
    pub address: Answer<Address>,
    /// What could not be read of what it tells about itself.
    pub malformed: Option<String>,
    pub postgres: Answer<Greeting>,
    pub rest: Rest,
}

/// What came back on an SSLRequest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// `S`.
    Tls,
    /// `N`.
    Plain,
    /// Neither: an error, or another protocol.
    Foreign,
    /// The connection was closed.
    Closed,
    /// Nothing, before the deadline.
    Silent,
}

/// What the member's REST API said to `/primary`.
#[derive(Debug)]
pub enum Rest {
    NotAsked(String),
    Answered { url: BaseUrl, report: Report },
    Silent { url: BaseUrl, silent: Silent },
}

/// Why a REST API gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    /// In the words of who asked.
    pub why: String,
    /// If TLS is what is wrong.
    pub tls: Option<TlsTrouble>,
}

/// Sessions that fit below the limit of open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// At most so many.
    pub sessions: usize,
    /// The hard limit of open files.
    pub files: usize,
    /// Local ports for connections to one leader.
    pub ports: usize,
}

impl Api {
    /// The lock that counts: of two, the one renewed last.
    pub fn lock(&self) -> Option<(ObjectKind, &Lock)> {
        let locks = self.leaders.iter().filter_map(|(kind, object)| match object {
            Ok(LeaderObject::Lock(lock, _)) => Some((*kind, lock)),
            Ok(LeaderObject::Absent | LeaderObject::Foreign) | Err(_) => None,
        });
        locks.max_by_key(|(_, lock)| lock.written)
    }

    /// Who holds the lock.
    pub fn holder(&self) -> Option<&str> {
        self.lock()?.1.holder.as_deref()
    }
}
