//! Parses members' answers into values. Pure.
//!
//! Source of the formats: Patroni 4.1, patroni/api.py and patroni/utils.py (`cluster_as_json`).

mod cluster;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::discovery::http::{Answer, Unreachable};
use crate::discovery::kubernetes::annotations::race_backoff;
use crate::leader::MemberName;
use crate::leader::identity::Identity;
use crate::leader::observation::{Replication, Report, Role, Standby};

pub use cluster::{RowError, UnusableRow, read_cluster, read_failsafe, read_leader};

/// Largest ttl, in seconds. A larger number is a mistake.
const MAX_TTL: u64 = 24 * 60 * 60;

/// Parses the body of `GET /primary`, which is evidence at any HTTP status.
///
/// A body that names another member is an error: that member has the address now. Patroni names the member since 3.2.
/// With an older Patroni, scope and system identifier must be the followed cluster's (`leader/view/followed.rs`), and
/// another member of the same cluster that has inherited the address is not detected. A body with `state: unknown` is
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
            "member {other:?} answered instead of {member}"
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

/// Parses the replication fields of the body of `GET /primary`.
fn read_replication(body: &Map<String, Value>, role: Role) -> Replication {
    let location = |field: &str| body.get("xlog")?[field].as_u64();
    let is = |field: &str| body.get(field).and_then(Value::as_bool) == Some(true);
    let rows = body.get("replication").and_then(Value::as_array);
    let streaming = rows.into_iter().flatten().filter(|row| row["state"] == "streaming");
    Replication {
        location: location("location"),
        replayed: location("replayed_location"),
        state: body.get("replication_state").and_then(Value::as_str).map(str::to_owned),
        standby: match (is("sync_standby"), is("quorum_standby")) {
            _ if role != Role::Replica => None,
            (true, _) => Some(Standby::Sync),
            (_, true) => Some(Standby::Quorum),
            // A member that cannot reach the DCS reports this, too (api.py). It does not know which standby it is.
            _ if is("cluster_unlocked") => None,
            _ => Some(Standby::Async),
        },
        // Patroni sets a replica's application_name to its member's name.
        streaming: streaming
            .filter_map(|row| row["application_name"].as_str().map(MemberName::from))
            .collect(),
    }
}

/// Parses the identity of the answering member's cluster from the body of `GET /patroni`. Missing fields are `None`.
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

/// Parses `ttl` from the answer to `GET /config`.
pub fn read_ttl(answer: &Answer) -> Option<Duration> {
    let config: Value = serde_json::from_slice(&answer.body).ok()?;
    let ttl = config["ttl"].as_u64().filter(|ttl| (1..=MAX_TTL).contains(ttl))?;
    Some(Duration::from_secs(ttl))
}

/// Parses `primary_race_backoff` from the answer to `GET /config`: zero if it is not set, `None` if the answer is an
/// error or not JSON.
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
