//! Builds requests for etcd's JSON gateway and parses its answers. Pure.
//!
//! Source of the formats: etcd 3.4 to 3.6, api/etcdserverpb/rpc.proto and its grpc-gateway. Keys and values are in
//! base64; 64-bit numbers are strings, and are left out if they are zero.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use thiserror::Error;

/// gRPC's code for a request that needs a valid token (google.golang.org/grpc/codes).
const UNAUTHENTICATED: u64 = 16;
const INVALID_ARGUMENT: u64 = 3;
const PERMISSION_DENIED: u64 = 7;
const FAILED_PRECONDITION: u64 = 9;
/// Longest text that is quoted from an answer that is not JSON, in characters.
const LONGEST_TEXT: usize = 200;

/// A key, its value, and etcd's data about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct KeyValue {
    /// The key.
    #[serde(deserialize_with = "text")]
    pub key: String,
    /// The value; empty if only keys were requested.
    #[serde(default, deserialize_with = "text")]
    pub value: String,
    /// Revision of the last change; for a deleted key, of its deletion.
    #[serde(default, deserialize_with = "number")]
    pub mod_revision: i64,
    /// Lease that the key is bound to; 0 for none.
    #[serde(default, deserialize_with = "number")]
    pub lease: i64,
}

/// The answer to a range request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Revision of the store at which the keys are listed.
    pub revision: i64,
    /// The keys that exist.
    pub keys: Vec<KeyValue>,
}

/// The answer to a request for a lease's remaining time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTime {
    /// Seconds that are left, rounded down; -1 if the lease no longer exists.
    pub left: i64,
    /// Seconds that each renewal grants.
    pub granted: i64,
}

/// A change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key was written.
    Put(KeyValue),
    /// The key was deleted, or its lease has expired.
    Deleted(KeyValue),
}

/// A message of a watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchMessage {
    /// The watch has begun.
    Created,
    /// Changes, in the order in which they were made.
    Changes(Vec<Change>),
    /// etcd has ended the watch, because changes since the requested revision have been compacted.
    Compacted,
}

/// An error that etcd returned, or an answer that is not etcd's.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// The token is missing, has expired, or is older than a change of users and roles: a new token may help.
    #[error("etcd requires a valid authentication token: {0}")]
    Token(String),
    /// The user or the password is wrong.
    #[error("etcd rejects the user or the password (--etcd-user, --etcd-password-file)")]
    Password,
    /// etcd runs without authentication.
    #[error("authentication is not enabled in etcd")]
    NoAuthentication,
    /// The user's roles do not allow the request.
    #[error("etcd denies access to these keys: {0}")]
    Permission(String),
    /// Any other error of etcd, for example that it has no leader.
    #[error("{0}")]
    Other(String),
    /// The answer is not from etcd's gateway.
    #[error("unexpected answer to {0}; is this etcd 3.4 or newer with its JSON gateway?")]
    NotEtcd(&'static str),
}

/// Returns the body of a range request for all keys that begin with `prefix`. The read is linearizable: a member of
/// etcd that is cut off from the others does not answer it.
pub fn list(prefix: &str, keys_only: bool) -> Value {
    json!({
        "key": BASE64_STANDARD.encode(prefix),
        "range_end": BASE64_STANDARD.encode(end_of(prefix)),
        "keys_only": keys_only,
    })
}

/// Returns the body of a request to watch all keys that begin with `prefix`, from this revision on.
pub fn watch(prefix: &str, revision: i64) -> Value {
    json!({"create_request": {
        "key": BASE64_STANDARD.encode(prefix),
        "range_end": BASE64_STANDARD.encode(end_of(prefix)),
        "start_revision": revision.to_string(),
    }})
}

/// Returns the body of a request for a lease's remaining time.
pub fn lease_time(id: i64) -> Value {
    json!({"ID": id.to_string()})
}

/// Returns the first key after all keys with this prefix. The prefix must not be empty.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        // UTF-8 has no byte 0xff, so this does not overflow.
        *last = last.saturating_add(1);
    }
    end
}

/// Parses the answer to a range request.
pub fn read_listing(body: &[u8]) -> Result<Listing, Refused> {
    #[derive(Deserialize)]
    struct Body {
        header: Header,
        #[serde(default)]
        kvs: Vec<KeyValue>,
    }
    let body: Body = parse(body, "/v3/kv/range")?;
    Ok(Listing {
        revision: body.header.revision,
        keys: body.kvs,
    })
}

#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "number")]
    revision: i64,
}

/// Parses the answer to a request for a lease's remaining time.
pub fn read_lease_time(body: &[u8]) -> Result<LeaseTime, Refused> {
    #[derive(Deserialize)]
    struct Body {
        /// Distinguishes an answer from any other JSON object: all other fields may be missing.
        #[serde(rename = "header")]
        _header: Header,
        #[serde(default, rename = "TTL", deserialize_with = "number")]
        left: i64,
        #[serde(default, rename = "grantedTTL", deserialize_with = "number")]
        granted: i64,
    }
    let Body { left, granted, .. } = parse(body, "/v3/lease/timetolive")?;
    Ok(LeaseTime { left, granted })
}

/// Parses the token from the answer to an authentication.
pub fn read_token(body: &[u8]) -> Result<String, Refused> {
    #[derive(Deserialize)]
    struct Body {
        token: String,
    }
    let body: Body = parse(body, "/v3/auth/authenticate")?;
    Ok(body.token)
}

/// Parses one message of a watch.
pub fn read_watch(line: &[u8]) -> Result<WatchMessage, Refused> {
    #[derive(Deserialize)]
    struct Line {
        result: Option<Body>,
        error: Option<Value>,
    }
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        created: bool,
        #[serde(default)]
        canceled: bool,
        #[serde(default, deserialize_with = "number")]
        compact_revision: i64,
        #[serde(default)]
        cancel_reason: String,
        #[serde(default)]
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    struct Event {
        #[serde(default, rename = "type")]
        kind: String,
        kv: KeyValue,
    }
    let line: Line = parse(line, "/v3/watch")?;
    let body = match (line.error, line.result) {
        (Some(error), _) => return Err(refused_by(&error)),
        (None, Some(body)) => body,
        (None, None) => return Err(Refused::NotEtcd("/v3/watch")),
    };
    if body.canceled {
        return match body.compact_revision {
            0 if body.cancel_reason.contains("permission denied") => Err(Refused::Permission(body.cancel_reason)),
            0 => Err(Refused::Other(format!(
                "etcd canceled the watch: {}",
                body.cancel_reason
            ))),
            _ => Ok(WatchMessage::Compacted),
        };
    }
    if body.created {
        return Ok(WatchMessage::Created);
    }
    let change = |event: Event| match event.kind.as_str() {
        "DELETE" => Change::Deleted(event.kv),
        _ => Change::Put(event.kv),
    };
    Ok(WatchMessage::Changes(body.events.into_iter().map(change).collect()))
}

/// Parses the body of an answer whose status is not 2xx.
pub fn read_error(status: u16, body: &[u8]) -> Refused {
    match serde_json::from_slice::<Value>(body) {
        Ok(error @ Value::Object(_)) => refused_by(&error),
        _ => Refused::Other(text_of(status, body)),
    }
}

/// Describes an error answer that is not JSON. etcd rejects some requests this way, for example a client certificate
/// with a CommonName while authentication is enabled.
fn text_of(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(LONGEST_TEXT)
        .collect();
    match line.trim() {
        "" => format!("HTTP status {status}"),
        line => format!("HTTP status {status}: {line}"),
    }
}

fn refused_by(error: &Value) -> Refused {
    let text = error["message"]
        .as_str()
        .or(error["error"].as_str())
        .unwrap_or("no message");
    // etcd's own prefix adds nothing.
    let text = text.strip_prefix("etcdserver: ").unwrap_or(text).to_owned();
    let code = error["code"].as_u64().or(error["grpc_code"].as_u64());
    // The code for an invalid argument has several meanings. Only the text distinguishes them (api/v3rpc/rpctypes).
    let has = |part: &str| text.contains(part);
    match code {
        Some(UNAUTHENTICATED) => Refused::Token(text),
        Some(INVALID_ARGUMENT) if has("user name is empty") || has("auth store is old") => Refused::Token(text),
        Some(INVALID_ARGUMENT) if has("authentication failed") => Refused::Password,
        Some(FAILED_PRECONDITION) if has("authentication is not enabled") => Refused::NoAuthentication,
        Some(PERMISSION_DENIED) => Refused::Permission(text),
        _ => Refused::Other(format!("etcd answers with an error: {text}")),
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], path: &'static str) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|_| Refused::NotEtcd(path))
}

/// Decodes a text in base64. A text that is not UTF-8 is not Patroni's, so a lossy copy is enough to recognise it
/// again.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let coded = String::deserialize(from)?;
    let bytes = BASE64_STANDARD.decode(coded).map_err(serde::de::Error::custom)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    let number = match Value::deserialize(from)? {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) => number.as_i64(),
        _ => None,
    };
    number.ok_or_else(|| serde::de::Error::custom("not a 64-bit number"))
}

#[cfg(test)]
mod tests;
