//! Parses a member's own data: the annotation `status` of its pod, or its key in etcd, which has the same text.

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::{Annotations, Read, malformed, not_json};
use crate::leader::observation::{DcsStatus, Replication, Tags};
use crate::leader::{Address, BadConnUrl, BaseUrl, UnknownAddress};

/// PostgreSQL's default port, for a `conn_url` without a port.
const POSTGRESQL_PORT: u16 = 5432;

/// Parses a member's status from the annotations of its pod. `ip` is the pod's IP address in Kubernetes, which is used
/// if `conn_url` is missing.
pub fn dcs_status(name: &str, annotations: &Annotations, ip: Option<&str>) -> Read<DcsStatus> {
    #[derive(Default, Deserialize)]
    struct Status {
        conn_url: Option<String>,
        proxy_url: Option<String>,
        api_url: Option<String>,
        role: Option<String>,
        state: Option<String>,
        timeline: Option<u32>,
        xlog_location: Option<Value>,
        tags: Option<Value>,
        replay_lsn: Option<Value>,
        replication_state: Option<String>,
    }
    let (status, mut problem) = match annotations
        .get("status")
        .map(|text| serde_json::from_str::<Status>(text))
    {
        None => (Status::default(), None),
        Some(Ok(status)) => (status, None),
        Some(Err(error)) => (Status::default(), Some(malformed("status", not_json(&error)))),
    };
    let conn_address = status.conn_url.as_deref().map(address_of);
    let address = match (conn_address, ip) {
        (Some(Ok(address)), _) => Ok(address),
        (Some(Err(why)), _) => {
            problem = problem.or(Some(malformed("status", format!("has a conn_url that {why}"))));
            Err(UnknownAddress::ConnUrl(name.into(), why))
        }
        (None, Some(ip)) => {
            Address::new(ip, POSTGRESQL_PORT).map_err(|error| UnknownAddress::PodIp(name.into(), error))
        }
        (None, None) => Err(UnknownAddress::NotInPod(name.into())),
    };
    let api_url = match status.api_url.as_deref().map(BaseUrl::parse) {
        Some(Ok(url)) => Some(url),
        Some(Err(why)) => {
            problem = problem.or(Some(malformed("status", format!("has an api_url that {why}"))));
            None
        }
        None => None,
    };
    let pod = DcsStatus {
        name: name.into(),
        address,
        proxy_address: status.proxy_url.as_deref().map(address_of),
        api_url,
        role: status.role,
        state: status.state,
        timeline: status.timeline,
        xlog_location: status.xlog_location.as_ref().and_then(Value::as_u64),
        tags: status.tags.as_ref().map(tags).unwrap_or_default(),
        replication: Replication {
            replayed: status.replay_lsn.as_ref().and_then(Value::as_u64),
            state: status.replication_state,
            ..Replication::default()
        },
        citus_group: None,
    };
    (pod, problem)
}

/// Parses a member's tags. A value that is not a string is compared by its lower-case text, as in Patroni.
pub fn tags(value: &Value) -> Tags {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string().to_lowercase(),
    };
    let tags = value.as_object().into_iter().flatten();
    tags.map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Parses host and port of a `conn_url`: `postgres://[user[:password]@]host[:port][/database]`.
pub(super) fn address_of(conn_url: &str) -> Result<Address, BadConnUrl> {
    let url = Url::parse(conn_url).map_err(|_| BadConnUrl::Malformed)?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(BadConnUrl::Scheme);
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or(BadConnUrl::NoHost)?;
    Address::new(host, url.port().unwrap_or(POSTGRESQL_PORT)).map_err(|_| BadConnUrl::BadAddress)
}
