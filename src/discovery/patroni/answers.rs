//! Parses members' answers into values. Pure.
//!
//! Source of the formats: Patroni 4.1, patroni/api.py and patroni/utils.py (`cluster_as_json`).

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;
use url::Url;

use crate::discovery::http::{Answer, Unreachable};
use crate::discovery::kubernetes::annotations::{race_backoff, tags};
use crate::leader::identity::Identity;
use crate::leader::observation::{Announcement, Cluster, ClusterMember, Condition, Replication, Report, Role, Standby};
use crate::leader::{Address, BadAddress, BadBaseUrl, BaseUrl, MemberName};

/// PostgreSQL's default port, for answers without a port.
const POSTGRESQL_PORT: u16 = 5432;
/// Largest ttl, in seconds. A larger number is a mistake.
const MAX_TTL: u64 = 24 * 60 * 60;

/// A row of `/cluster` that cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct UnusableRow {
    /// Name of the member, or its place in the list.
    pub member: String,
    /// The reason.
    pub problem: RowError,
}

/// The reason for which a row of `/cluster` cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RowError {
    /// The row has no `name`.
    #[error("it has no name")]
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

/// Parses the body of `GET /primary`, which is evidence at any HTTP status.
///
/// A body that names another member is an error: that member has the address now. Patroni names the member since 3.2.
/// With an older Patroni, scope and system identifier must be the followed cluster's (`leader/view/followed.rs`), and
/// another member of the same cluster that has inherited the address is not noticed. A body with `state: unknown` is
/// an error, too: Patroni's own query failed, and `role` is the last known one (api.py:1462-1467).
pub fn read_report(member: &MemberName, answer: &Answer) -> Result<Report, Unreachable> {
    #[derive(Deserialize)]
    struct Body {
        state: String,
        role: String,
        timeline: Option<u32>,
        database_system_identifier: Option<Value>,
        #[serde(default)]
        pause: bool,
        #[serde(default)]
        failsafe_mode_is_active: bool,
        patroni: Option<Patroni>,
        #[serde(flatten)]
        replication: Map<String, Value>,
    }
    #[derive(Deserialize)]
    struct Patroni {
        name: Option<String>,
        scope: Option<String>,
    }
    let body: Body = json(answer, "/primary")?;
    let (name, scope) = body
        .patroni
        .map_or((None, None), |patroni| (patroni.name, patroni.scope));
    let names_member = name.is_some();
    if let Some(other) = name.filter(|name| *member != **name) {
        return Err(Unreachable::NotPatroni(format!(
            "member {other:?} answers at this address, which is no longer {member}'s"
        )));
    }
    if body.state == "unknown" {
        return Err(Unreachable::NotPatroni(
            "Patroni cannot query PostgreSQL (state unknown)".into(),
        ));
    }
    let role = Role::from_patroni(&body.role);
    Ok(Report {
        holds_lock: answer.status.is_success(),
        role,
        state: body.state,
        timeline: body.timeline,
        system: body.database_system_identifier.as_ref().and_then(system),
        scope,
        names_member,
        paused: body.pause,
        failsafe_active: body.failsafe_mode_is_active,
        replication: read_replication(&body.replication, role),
    })
}

/// Parses what the body of `GET /primary` says of replication.
fn read_replication(body: &Map<String, Value>, role: Role) -> Replication {
    let location = |field: &str| body.get("xlog")?[field].as_u64();
    let is = |field: &str| body.get(field).and_then(Value::as_bool) == Some(true);
    let rows = body.get("replication").and_then(Value::as_array);
    let streaming = rows.into_iter().flatten().filter(|row| row["state"] == "streaming");
    Replication {
        location: location("location"),
        replayed: location("replayed_location"),
        state: body.get("replication_state").and_then(Value::as_str).map(str::to_owned),
        standby: (role == Role::Replica).then(|| match (is("sync_standby"), is("quorum_standby")) {
            (true, _) => Standby::Sync,
            (_, true) => Standby::Quorum,
            _ => Standby::Async,
        }),
        // Patroni names a replica's connection after its member.
        streaming: streaming
            .filter_map(|row| row["application_name"].as_str().map(MemberName::from))
            .collect(),
    }
}

/// Parses the identity of the answering member's cluster from the body of `GET /patroni`, as far as it is there.
pub fn read_identity(answer: &Answer) -> Result<Identity, Unreachable> {
    let body: Value = json(answer, "/patroni")?;
    Ok(Identity {
        scope: body["patroni"]["scope"].as_str().map(str::to_owned),
        system: system(&body["database_system_identifier"]),
    })
}

/// Parses a system identifier. Patroni writes it as a string, which is empty until PostgreSQL is initialised.
fn system(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Parses the body of `GET /cluster` from this URL. Returns the rows that cannot be used, too.
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
        return Err(Unreachable::NotPatroni(format!("/cluster answers {}", answer.status)));
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
        leader: leader_among(&body.members),
        paused: body.pause,
        switchover,
        ttl: None,
        race_backoff: None,
    };
    Ok((cluster, problems))
}

/// Parses the leader's name from the body of `GET /cluster`; `None` if no member is the leader.
pub fn read_leader(answer: &Answer) -> Result<Option<MemberName>, Unreachable> {
    #[derive(Deserialize)]
    struct Body {
        members: Vec<Value>,
    }
    if !answer.status.is_success() {
        return Err(Unreachable::NotPatroni(format!("/cluster answers {}", answer.status)));
    }
    let body: Body = json(answer, "/cluster")?;
    Ok(leader_among(&body.members))
}

/// Parses the body of `GET /failsafe`: names and base URLs. Unlike `/cluster`, Patroni answers it from memory while
/// its DCS is down.
pub fn read_failsafe(answer: &Answer) -> Result<Vec<ClusterMember>, Unreachable> {
    if !answer.status.is_success() {
        return Err(Unreachable::NotPatroni(format!("/failsafe answers {}", answer.status)));
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

fn leader_among(members: &[Value]) -> Option<MemberName> {
    let leads = |row: &&Value| matches!(row["role"].as_str(), Some("leader" | "standby_leader"));
    let leader = members.iter().find(leads)?;
    leader["name"].as_str().map(MemberName::from)
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

/// Parses the fields that can be parsed. Patroni writes "unknown" for an unknown lag.
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

/// Parses `ttl` from the answer to `GET /config`.
pub fn read_ttl(answer: &Answer) -> Option<Duration> {
    let config: Value = serde_json::from_slice(&answer.body).ok()?;
    let ttl = config["ttl"].as_u64().filter(|ttl| (1..=MAX_TTL).contains(ttl))?;
    Some(Duration::from_secs(ttl))
}

/// Parses `primary_race_backoff` from the answer to `GET /config`; zero if it is not set.
pub fn read_race_backoff(answer: &Answer) -> Option<Duration> {
    let config: Value = serde_json::from_slice(&answer.body).ok()?;
    answer
        .status
        .is_success()
        .then(|| race_backoff(&config["primary_race_backoff"]))
}

fn json<'answer, T: Deserialize<'answer>>(answer: &'answer Answer, path: &str) -> Result<T, Unreachable> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Unreachable::NotPatroni(format!(
            "the answer to {path} is not the JSON that Patroni sends: {error}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status: hyper::StatusCode::from_u16(status).unwrap(),
            body: body.to_owned().into(),
        }
    }

    const PRIMARY: &str = r#"{"state":"running","postmaster_start_time":"2026-11-20 06:07:33.1+00:00","role":"primary","server_version":150010,"xlog":{"location":67108960},"timeline":2,"dcs_last_seen":1795000000,"database_system_identifier":"7440000000000000000","patroni":{"version":"4.1.5","scope":"demo","name":"demo-0"}}"#;

    #[test]
    fn a_report_of_a_primary_that_holds_the_lock_is_parsed() {
        let report = read_report(&"demo-0".into(), &answer(200, PRIMARY)).unwrap();
        assert!(report.is_writable() && report.holds_lock);
        assert_eq!(report.timeline, Some(2));
        assert_eq!(report.system.as_deref(), Some("7440000000000000000"));
    }

    #[test]
    fn status_200_alone_is_not_writable() {
        for (role, state) in [
            ("replica", "running"),
            ("primary", "stopping"),
            ("promoted", "running"),
            ("primary", "starting"),
        ] {
            let body = format!(r#"{{"role":"{role}","state":"{state}"}}"#);
            assert!(
                !read_report(&"demo-0".into(), &answer(200, &body))
                    .unwrap()
                    .is_writable(),
                "{body}"
            );
        }
    }

    #[test]
    fn the_body_of_a_503_is_evidence_too() {
        let report = read_report(&"demo-0".into(), &answer(503, PRIMARY)).unwrap();
        assert!(report.is_writable() && !report.holds_lock);
    }

    #[test]
    fn an_answer_that_is_not_this_members_is_an_error() {
        for body in [
            "",
            "[]",
            "null",
            "{",
            r#"{"role":"primary"}"#,
            r#"{"role":"primary","state":"unknown"}"#,
            r#"{"role":"primary","state":"running","patroni":{"name":"other-0"}}"#,
            r#"{"role":7,"state":"running"}"#,
        ] {
            assert!(read_report(&"demo-0".into(), &answer(200, body)).is_err(), "{body}");
        }
    }

    #[test]
    fn an_unusable_row_of_cluster_is_returned_apart() {
        let body = r#"{"members":[
            {"name":"demo-0","role":"leader","state":"running","api_url":"http://10.244.0.10:8008/patroni","host":"10.244.0.10","port":5432,"timeline":1},
            {"name":"demo-1","role":"replica","state":"creating replica"},
            {"name":"demo-2","host":"a b","port":5432}],
            "scope":"demo","pause":true,"scheduled_switchover":{"at":"2000-01-01T00:00:00+00:00","from":"demo-0"}}"#;
        let (cluster, problems) =
            read_cluster(&BaseUrl::parse("http://10.244.0.10:8008").unwrap(), &answer(200, body)).unwrap();
        assert_eq!(cluster.members.len(), 2);
        assert_eq!(
            cluster.members[0].address.as_ref().unwrap().to_string(),
            "10.244.0.10:5432"
        );
        assert_eq!(cluster.members[0].api_url.as_deref(), Some("http://10.244.0.10:8008"));
        assert!(cluster.paused);
        assert_eq!(cluster.scope.as_deref(), Some("demo"));
        assert_eq!(cluster.leader.as_deref(), Some("demo-0"));
        assert_eq!(cluster.switchover.unwrap().leader.as_deref(), Some("demo-0"));
        assert_eq!(problems[0].member, "demo-2");
    }

    #[test]
    fn the_leaders_name_is_parsed_from_cluster() {
        let named = |status: u16, body: &str| read_leader(&answer(status, body));
        let leads = r#"{"members":[{"name":"demo-1","role":"sync_standby"},{"name":"demo-0","role":"leader"}]}"#;
        assert_eq!(named(200, leads).unwrap().as_deref(), Some("demo-0"));
        let leaderless = r#"{"members":[{"name":"demo-0","role":"replica"}]}"#;
        assert_eq!(named(200, leaderless).unwrap(), None);
        // Patroni cannot read its DCS: the answer says nothing about the leader.
        assert!(named(500, leaderless).is_err() && named(200, "{}").is_err());
    }

    #[test]
    fn the_members_are_parsed_from_failsafe() {
        let body =
            r#"{"demo-0":"http://10.244.0.10:8008/patroni","demo-1":"https://[fd00::7]:8008/patroni","demo-2":"-"}"#;
        let members = read_failsafe(&answer(200, body)).unwrap();
        let member = |place: usize| {
            let member: &ClusterMember = &members[place];
            (
                member.name.as_str(),
                member.address.as_ref().unwrap().to_string(),
                member.api_url.as_deref().unwrap(),
            )
        };
        assert_eq!(
            member(0),
            ("demo-0", "10.244.0.10:5432".into(), "http://10.244.0.10:8008")
        );
        assert_eq!(member(1), ("demo-1", "[fd00::7]:5432".into(), "https://[fd00::7]:8008"));
        assert_eq!(members.len(), 2, "an unusable row is left out");
        assert!(read_failsafe(&answer(502, "Failsafe mode is not enabled")).is_err());
    }

    #[test]
    fn the_ttl_is_parsed_from_the_config() {
        let read = |body: &str| read_ttl(&answer(200, body));
        assert_eq!(read(r#"{"ttl":20}"#), Some(Duration::from_secs(20)));
        assert_eq!(read(r#"{"ttl":"x"}"#), None);
        assert_eq!(read(r#"{"ttl":0}"#), None);
    }
}
