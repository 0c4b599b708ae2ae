//! Patroni's REST API as a source: members are asked according to the plan, and `/cluster` lists the members.
//!
//! Every request has a deadline, a separate connection (Patroni uses HTTP/1.0) and a bounded answer. `answers` parses
//! the answers.

pub mod answers;
mod client;
mod cluster_poller;
mod prober;

pub use client::Client;

use std::time::Instant;

pub use crate::discovery::http::tls::{TlsError, TlsFiles, TlsProblem};
pub use crate::discovery::http::{Answer, Unreachable};
use crate::discovery::patroni::answers::{read_leader, read_report};
use crate::leader::identity::Identity;
use crate::leader::observation::{Claim, NoReport};
use crate::leader::probing::Urgency;
use crate::leader::{BaseUrl, MemberName};

pub use cluster_poller::{CLUSTER_EVERY, CLUSTER_ON_ALERT, CONFIG_EVERY, ClusterPoller, SEEDS_EVERY, SEEDS_ON_ALERT};
pub use prober::Prober;

/// The path that is requested from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `/primary`: the member's own role and state.
    Primary,
    /// `/cluster`: the leader that the member reads from the DCS.
    Leader,
}

impl Question {
    const fn path(self) -> &'static str {
        match self {
            Self::Primary => "/primary",
            Self::Leader => "/cluster",
        }
    }
}

/// A member to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the member. The answer to `/primary` must come from a member of this name.
    pub member: MemberName,
    /// Question to the member.
    pub question: Question,
    /// Base URL of the member's REST API.
    pub url: BaseUrl,
    /// Urgency of the answer.
    pub urgency: Urgency,
}

impl Target {
    /// Returns a key that is unique for the member, its address and the question.
    fn key(&self) -> String {
        format!("{} {}{}", self.member, self.url, self.question.path())
    }

    /// Sends the request and returns the reply.
    async fn ask(self, client: &Client) -> Reply {
        let asked = Instant::now();
        let answer = client.get(&self.url, self.question.path()).await;
        let (key, member) = (self.key(), self.member);
        let (answered, claim) = match self.question {
            Question::Primary => {
                let report = answer.and_then(|answer| read_report(&member, &answer));
                let answered = report.is_ok();
                let report = report.map_err(|unreachable| NoReport::Unreachable(unreachable.to_string()));
                (answered, Some(Claim::Report(member, report)))
            }
            Question::Leader => match answer.and_then(|answer| read_leader(&answer)) {
                Ok(leader) => {
                    let by = member;
                    (true, Some(Claim::NamedLeader { by, asked, leader }))
                }
                Err(_) => (false, None),
            },
        };
        Reply { key, answered, claim }
    }
}

/// The result of one request.
struct Reply {
    key: String,
    answered: bool,
    /// Claim for discovery; `None` if `/cluster` was not answered.
    claim: Option<Claim>,
}

/// The requests to make. Discovery writes the plan, and the prober and the poller of `/cluster` read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Members to ask, and the question to each.
    pub targets: Vec<Target>,
    /// Base URLs of every known member, for `/cluster`.
    pub urls: Vec<BaseUrl>,
    /// True while there is no leader for new clients. An operator's hold does not count.
    pub alert: bool,
    /// Cluster that pgnorth follows. Answers from another cluster add no members.
    pub followed: Identity,
}

/// Sleeps until `at`, or forever if it is `None`.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
