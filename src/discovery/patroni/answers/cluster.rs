//! Parses lists of members: the bodies of `GET /cluster` and `GET /failsafe`.

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use url::Url;

use super::json;
use crate::discovery::http::{Answer, Unreachable};
use crate::discovery::kubernetes::annotations::tags;
use crate::leader::observation::{Announcement, Cluster, ClusterMember, Condition, NamedLeader};
use crate::leader::{Address, BadAddress, BadBaseUrl, BaseUrl, MemberName};

/// PostgreSQL's default port, for answers without a port.
const POSTGRESQL_PORT: u16 = 5432;

/// A row of `/cluster` that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct UnusableRow {
    /// Name of the member, or its position in the list.
    pub member: String,
    /// The reason.
    pub problem: RowError,
}

/// The reason why a row of `/cluster` cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RowError {
    /// The row has no `name`.
    #[error("the row has no name")]
    NoName,
    /// `port` is not a TCP port.
    #[error("port {0} is too large")]
    Port(u64),
    /// `host` is not an address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// `api_url` is not usable.
    #[error("its api_url {0}")]
    ApiUrl(#[from] BadBaseUrl),
}

/// Parses the body of `GET /cluster` from this URL. Also returns the rows that cannot be used.
pub fn read_cluster(from: &BaseUrl, answer: &Answer) -> Result<(Cluster, Vec<UnusableRow>), Unreachable> {
    #[derive(Deserialize)]
    struct Body {
        scope: Option<String>,
        members: Vec<Value>,
        #[serde(default)]
        pause: bool,
        scheduled_switchover: Option<Scheduled>,
    }
    #[derive(Deserialize)]
    struct Scheduled {
        at: String,
        from: Option<String>,
        to: Option<String>,
    }
    if !answer.status.is_success() {
        return Err(Unreachable::NotPatroni(format!("/cluster returned {}", answer.status)));
    }
    let body: Body = json(answer, "/cluster")?;
    let mut problems = Vec::new();
    let mut members = Vec::new();
    for (place, row) in body.members.iter().enumerate() {
        match read_member(row) {
            Ok(member) => members.push(member),
            Err(problem) => problems.push(UnusableRow {
                member: row["name"]
                    .as_str()
                    .map_or_else(|| format!("number {}", place + 1), str::to_owned),
                problem,
            }),
        }
    }
    let (now, wall) = (Instant::now(), SystemTime::now());
    let switchover = body.scheduled_switchover.and_then(|scheduled| {
        let at = scheduled.at.parse::<jiff::Timestamp>().ok()?;
        let wait = SystemTime::from(at).duration_since(wall).unwrap_or_default();
        Some(Announcement {
            leader: scheduled.from.map(MemberName::from),
            candidate: scheduled.to.map(MemberName::from),
            scheduled_at: Some(scheduled.at),
            starts: now.checked_add(wait),
        })
    });
    let cluster = Cluster {
        from: from.clone(),
        system: None,
        scope: body.scope,
        members,
        leader: leader_among(&body.members).map(|leader| leader.member),
        paused: body.pause,
        switchover,
        ttl: None,
        race_backoff: None,
    };
    Ok((cluster, problems))
}

/// Parses the leader from the body of `GET /cluster`; `None` if no member is the leader.
pub fn read_leader(answer: &Answer) -> Result<Option<NamedLeader>, Unreachable> {
    #[derive(Deserialize)]
    struct Body {
        members: Vec<Value>,
    }
    if !answer.status.is_success() {
        return Err(Unreachable::NotPatroni(format!("/cluster returned {}", answer.status)));
    }
    let body: Body = json(answer, "/cluster")?;
    Ok(leader_among(&body.members))
}

/// Parses the body of `GET /failsafe`: names and base URLs. Patroni answers `/failsafe` from memory, so, unlike
/// `/cluster`, also while its DCS is down.
pub fn read_failsafe(answer: &Answer) -> Result<Vec<ClusterMember>, Unreachable> {
    if !answer.status.is_success() {
        return Err(Unreachable::NotPatroni(format!("/failsafe returned {}", answer.status)));
    }
    let body: BTreeMap<String, String> = json(answer, "/failsafe")?;
    let member = |(name, url): (String, String)| {
        let api_url = BaseUrl::parse(&url).ok()?;
        let host = Url::parse(&api_url).ok()?.host_str()?.to_owned();
        Some(ClusterMember {
            name: name.into(),
            address: Address::new(host.trim_start_matches('[').trim_end_matches(']'), POSTGRESQL_PORT).ok(),
            api_url: Some(api_url),
            condition: Condition::default(),
        })
    };
    Ok(body.into_iter().filter_map(member).collect())
}

fn leader_among(members: &[Value]) -> Option<NamedLeader> {
    let leads = |row: &&Value| matches!(row["role"].as_str(), Some("leader" | "standby_leader"));
    let leader = members.iter().find(leads)?;
    let is_running = leader["role"] == "leader" && leader["state"] == "running";
    let timeline = leader["timeline"]
        .as_u64()
        .and_then(|timeline| timeline.try_into().ok());
    Some(NamedLeader {
        member: leader["name"].as_str()?.into(),
        running_on: timeline.filter(|_| is_running),
    })
}

fn read_member(row: &Value) -> Result<ClusterMember, RowError> {
    let name = row["name"].as_str().ok_or(RowError::NoName)?;
    // A member that is still being created has no address yet.
    let address = match (row["host"].as_str(), row["port"].as_u64()) {
        (Some(host), port) => {
            let port = port.unwrap_or(POSTGRESQL_PORT.into());
            let port = u16::try_from(port).map_err(|_| RowError::Port(port))?;
            Some(Address::new(host, port)?)
        }
        (None, _) => None,
    };
    let api_url = match row["api_url"].as_str() {
        Some(url) => Some(BaseUrl::parse(url)?),
        None => None,
    };
    Ok(ClusterMember {
        name: name.into(),
        address,
        api_url,
        condition: read_condition(row),
    })
}

/// Parses a member's condition. A field that cannot be parsed counts as missing: Patroni writes "unknown" for an
/// unknown lag.
fn read_condition(row: &Value) -> Condition {
    let text = |field: &str| row[field].as_str().map(str::to_owned);
    Condition {
        role: text("role"),
        state: text("state"),
        timeline: row["timeline"].as_u64().and_then(|timeline| timeline.try_into().ok()),
        lag: row["lag"].as_u64(),
        replay_lag: row["replay_lag"].as_u64(),
        tags: tags(&row["tags"]),
    }
}
