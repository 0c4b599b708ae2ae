//! Parses Patroni's annotations into values. Pure. Every error names object, annotation and problem, and never
//! quotes a connection string, which may contain a password.
//!
//! Source of the formats: Patroni 4.1, patroni/dcs/kubernetes.py and ha.py.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use url::Url;

use crate::leader::observation::{Announcement, ClusterSettings, Lock, Pod, Replication, Tags};
use crate::leader::{Address, BadConnUrl, BaseUrl, MemberName, UnknownAddress};

/// PostgreSQL's default port, for a `conn_url` without a port.
const POSTGRESQL_PORT: u16 = 5432;
/// Patroni's default ttl, used if the annotation cannot be parsed.
const DEFAULT_TTL: Duration = Duration::from_secs(30);
/// Largest ttl, in seconds. A larger number is a mistake.
const MAX_TTL: u64 = 24 * 60 * 60;

/// An object's annotations.
pub type Annotations = BTreeMap<String, String>;

/// An annotation that cannot be parsed.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("annotation `{annotation}` {what}")]
pub struct Malformed {
    annotation: &'static str,
    what: String,
}

impl Malformed {
    /// Returns the problem as the end of a sentence about the key in etcd that holds the same text.
    pub(in crate::discovery) fn of_a_key(self) -> String {
        match self.annotation {
            "scheduled_at" => format!("has a `scheduled_at` that {}", self.what),
            _ => self.what,
        }
    }
}

/// A value, as far as it could be parsed, and the problem if there is one.
pub type Read<T> = (T, Option<Malformed>);

/// Parses the lock on a leader object; `None` if no annotation is Patroni's (for example on a Service's own Endpoints).
pub fn lock(annotations: &Annotations) -> Read<Option<Lock>> {
    let get = |name: &str| annotations.get(name).cloned();
    let holder = get("leader").filter(|holder| !holder.is_empty());
    let renewal = ["acquireTime", "renewTime", "transitions"].map(get);
    if holder.is_none() && renewal.iter().all(Option::is_none) {
        return (None, None);
    }
    let (ttl, malformed) = match get("ttl") {
        None => (DEFAULT_TTL, None),
        Some(text) => match text.parse() {
            Ok(seconds @ 1..=MAX_TTL) => (Duration::from_secs(seconds), None),
            _ => (
                DEFAULT_TTL,
                Some(malformed(
                    "ttl",
                    format!("is not a number of seconds: {text:?}; 30 is assumed"),
                )),
            ),
        },
    };
    let lock = Lock {
        holder: holder.map(MemberName::from),
        ttl,
        written: get("renewTime").as_deref().and_then(time),
        renewed: None,
        renewal,
    };
    (Some(lock), malformed)
}

/// Parses the switchover that a failover object announces, if it announces one.
pub fn announcement(annotations: &Annotations, now: Instant, wall: SystemTime) -> Read<Option<Announcement>> {
    let get = |name: &str| annotations.get(name).filter(|value| !value.is_empty()).cloned();
    let (leader, candidate) = (get("leader"), get("member"));
    if leader.is_none() && candidate.is_none() {
        return (None, None);
    }
    let scheduled_at = get("scheduled_at");
    let (starts, malformed) = match scheduled_at.clone() {
        None => (None, None),
        Some(text) => match instant_of(&text, now, wall) {
            Some(starts) => (Some(starts), None),
            // Without a time, clients are not held: a late hold is better than one without a reason.
            None => {
                return (
                    None,
                    Some(malformed("scheduled_at", format!("is not an ISO 8601 time: {text:?}"))),
                );
            }
        },
    };
    (
        Some(Announcement {
            leader: leader.map(MemberName::from),
            candidate: candidate.map(MemberName::from),
            scheduled_at,
            starts,
        }),
        malformed,
    )
}

/// Parses an ISO 8601 time into a local instant; a time in the past is `now`. `None` if it is not a time.
pub fn instant_of(text: &str, now: Instant, wall: SystemTime) -> Option<Instant> {
    now.checked_add(time(text)?.duration_since(wall).unwrap_or_default())
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}

/// Parses Patroni's dynamic configuration and system identifier from the annotations `config` and `initialize` of
/// the config object.
pub fn settings(annotations: &Annotations) -> Read<Option<ClusterSettings>> {
    #[derive(Deserialize)]
    struct Config {
        pause: Option<Value>,
        standby_cluster: Option<Value>,
        primary_race_backoff: Option<Value>,
    }
    // Patroni accepts only digits (ha.py, `sysid_valid`): the value is empty while the cluster is being initialised.
    let is_valid = |system: &&String| !system.is_empty() && system.bytes().all(|byte| byte.is_ascii_digit());
    let system = annotations.get("initialize").filter(is_valid).cloned();
    let of_system = |system: Option<String>| {
        system.map(|system| ClusterSettings {
            system: Some(system),
            ..ClusterSettings::default()
        })
    };
    let Some(text) = annotations.get("config") else {
        return (of_system(system), None);
    };
    match serde_json::from_str::<Config>(text) {
        Ok(config) => (
            Some(ClusterSettings {
                paused: config.pause.as_ref().is_some_and(is_on),
                standby_cluster: config.standby_cluster.as_ref().is_some_and(is_standby_cluster),
                race_backoff: config
                    .primary_race_backoff
                    .as_ref()
                    .map_or(Duration::ZERO, race_backoff),
                system,
            }),
            None,
        ),
        Err(error) => (of_system(system), Some(malformed("config", not_json(&error)))),
    }
}

/// Returns whole seconds, given as a number or in a string (global_config.py, `get_int`); zero for any other value.
pub fn race_backoff(value: &Value) -> Duration {
    let seconds = match value {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_f64(),
    };
    let seconds = seconds.filter(|seconds: &f64| seconds.is_finite()).unwrap_or_default();
    Duration::from_secs_f64(seconds.round().clamp(0.0, MAX_TTL as f64))
}

/// Returns true if Patroni reads the value as true: it compares Python's `str(value).lower()` with a list (utils.py,
/// `parse_bool`).
fn is_on(value: &Value) -> bool {
    match value {
        Value::Bool(on) => *on,
        Value::Number(number) => number.as_i64() == Some(1),
        Value::String(text) => matches!(text.to_lowercase().as_str(), "on" | "true" | "yes" | "1"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Returns true for a dictionary in which one of three values is true in Python's sense (global_config.py,
/// `is_standby_cluster`).
fn is_standby_cluster(value: &Value) -> bool {
    let is_true = |value: &Value| match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    };
    value.is_object()
        && ["host", "port", "restore_command"]
            .iter()
            .any(|key| is_true(&value[key]))
}

/// Parses `loop_wait`, the interval of the lock's renewals, from the annotation `config`; `None` if it is missing
/// or out of range.
pub fn loop_wait(annotations: &Annotations) -> Option<Duration> {
    let config: Value = serde_json::from_str(annotations.get("config")?).ok()?;
    seconds(&config["loop_wait"])
}

/// Returns a number of seconds; `None` if it is out of range.
pub fn seconds(value: &Value) -> Option<Duration> {
    let seconds = value.as_u64().filter(|seconds| (1..=MAX_TTL).contains(seconds))?;
    Some(Duration::from_secs(seconds))
}

/// Parses `failsafe_mode` from the annotation `config` of the config object.
pub fn failsafe_mode(annotations: &Annotations) -> bool {
    let config = annotations
        .get("config")
        .map(|text| serde_json::from_str::<Value>(text));
    config.is_some_and(|config| config.is_ok_and(|config| is_on(&config["failsafe_mode"])))
}

/// Parses a pod of the scope. `ip` is its address in Kubernetes' status, used if `conn_url` is missing.
pub fn pod(name: &str, annotations: &Annotations, ip: Option<&str>) -> Read<Pod> {
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
    let pod = Pod {
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

/// Parses a member's tags. A value that is no text is compared by its lower-case text, as Patroni does.
pub fn tags(value: &Value) -> Tags {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string().to_lowercase(),
    };
    let tags = value.as_object().into_iter().flatten();
    tags.map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Parses host and port of a `conn_url`: `postgres://[user[:password]@]host[:port][/database]`.
fn address_of(conn_url: &str) -> Result<Address, BadConnUrl> {
    let url = Url::parse(conn_url).map_err(|_| BadConnUrl::Malformed)?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(BadConnUrl::Scheme);
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or(BadConnUrl::NoHost)?;
    Address::new(host, url.port().unwrap_or(POSTGRESQL_PORT)).map_err(|_| BadConnUrl::BadAddress)
}

/// Returns the place of a syntax error only: serde's own message quotes the value, which may be a secret.
fn not_json(error: &serde_json::Error) -> String {
    format!(
        "is not the JSON that Patroni writes (line {}, column {})",
        error.line(),
        error.column()
    )
}

fn malformed(annotation: &'static str, what: String) -> Malformed {
    Malformed { annotation, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Upstream;

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    #[test]
    fn a_lock_in_patronis_format_is_parsed() {
        let (lock, problem) = lock(&annotations(&[
            ("leader", "patronidemo-0"),
            ("ttl", "20"),
            ("acquireTime", "2026-11-20T06:07:32.180847+00:00"),
            ("renewTime", "2026-11-20T06:08:08.270910+00:00"),
            ("transitions", "0"),
            ("optime", "67108960"),
        ]));
        let lock = lock.unwrap();
        assert_eq!(problem, None);
        assert_eq!(lock.holder.as_deref(), Some("patronidemo-0"));
        assert_eq!(lock.ttl, Duration::from_secs(20));
        let written = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_154_888_270_910);
        assert_eq!(lock.written, Some(written));
    }

    #[test]
    fn an_unparsable_renew_time_still_counts_as_a_renewal() {
        for text in [
            "",
            "x",
            "9999",
            "2026-11-20",
            "2026-11-20T06:08:08",
            "2026-13-20T06:08:08+00:00",
        ] {
            let (lock, _) = lock(&annotations(&[("leader", "pg-0"), ("renewTime", text)]));
            let lock = lock.unwrap();
            assert_eq!((lock.written, lock.renewal[1].as_deref()), (None, Some(text)));
        }
    }

    #[test]
    fn a_released_lock_has_no_holder_and_a_services_endpoints_are_not_a_lock() {
        let (released, _) = lock(&annotations(&[("ttl", "30"), ("renewTime", "x"), ("transitions", "3")]));
        assert_eq!(released.unwrap().holder, None);
        let (foreign, _) = lock(&annotations(&[(
            "endpoints.kubernetes.io/last-change-trigger-time",
            "x",
        )]));
        assert_eq!(foreign, None);
    }

    #[test]
    fn a_ttl_that_is_no_number_is_named_and_30_seconds_are_assumed() {
        for ttl in ["x", "", "0", "-1", "20.5", "99999999999999999999"] {
            let (lock, problem) = lock(&annotations(&[("leader", "pg-0"), ("ttl", ttl)]));
            assert_eq!(lock.unwrap().ttl, DEFAULT_TTL);
            assert!(
                problem
                    .unwrap()
                    .to_string()
                    .starts_with("annotation `ttl` is not a number")
            );
        }
    }

    #[test]
    fn addresses_are_parsed_from_conn_url() {
        for (conn_url, address) in [
            ("postgres://10.244.0.10:5432/postgres", "10.244.0.10:5432"),
            ("postgres://10.244.0.10/postgres", "10.244.0.10:5432"),
            ("postgres://10.244.0.10:6432", "10.244.0.10:6432"),
            ("postgresql://[fd00::7]:5433/postgres", "[fd00::7]:5433"),
            ("postgres://[fd00::7]", "[fd00::7]:5432"),
            (
                "postgres://patronidemo-0.patronidemo-headless.default.svc.cluster.local:5432/postgres",
                "patronidemo-0.patronidemo-headless.default.svc.cluster.local:5432",
            ),
            ("postgres://user:p%40ss@pg-0.pg:5432/db?x=y", "pg-0.pg:5432"),
        ] {
            assert_eq!(address_of(conn_url).unwrap().to_string(), address, "{conn_url}");
        }
    }

    #[test]
    fn a_pod_has_the_address_of_its_pooler() {
        let read = |status: &str| pod("pg-0", &annotations(&[("status", status)]), Some("10.0.0.7")).0;
        let with =
            read(r#"{"conn_url":"postgres://10.0.0.7:5432/postgres","proxy_url":"postgres://10.0.0.7:6432/postgres"}"#);
        assert_eq!(
            with.session_address(Upstream::Proxy).unwrap().to_string(),
            "10.0.0.7:6432"
        );
        assert_eq!(
            with.session_address(Upstream::Postgres).unwrap().to_string(),
            "10.0.0.7:5432"
        );
        let without = read(r#"{"conn_url":"postgres://10.0.0.7:5432/postgres"}"#);
        let why = without.session_address(Upstream::Proxy).unwrap_err().to_string();
        assert!(why.contains("pg-0") && why.contains("proxy_address"), "{why}");
        let wrong = read(r#"{"proxy_url":"mysql://user:secret@h/db"}"#);
        let why = wrong.session_address(Upstream::Proxy).unwrap_err().to_string();
        assert!(why.contains("proxy_url") && !why.contains("secret"), "{why}");
    }

    #[test]
    fn an_error_about_a_conn_url_does_not_quote_it() {
        for conn_url in [
            "",
            "10.0.0.7",
            "postgres://",
            "mysql://user:secret@h/db",
            "postgres://user:secret@h:99999/db",
            "postgres://user:secret@h:0/db",
            "postgres://user:secret@/db",
        ] {
            let status = serde_json::json!({ "conn_url": conn_url }).to_string();
            let (pod, problem) = pod("pg-0", &annotations(&[("status", &status)]), Some("10.0.0.7"));
            let why = pod.address.unwrap_err().to_string();
            assert!(
                why.contains("pod pg-0") && why.contains("conn_url"),
                "{conn_url}: {why}"
            );
            assert!(!why.contains("secret"), "{why}");
            assert!(!problem.unwrap().to_string().contains("secret"));
        }
    }

    #[test]
    fn a_pod_with_patronis_annotations_is_parsed() {
        let status = r#"{"conn_url":"postgres://10.244.0.10:5432/postgres","api_url":"http://10.244.0.10:8008/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":67108960,"timeline":1}"#;
        let (pod, problem) = pod("patronidemo-0", &annotations(&[("status", status)]), None);
        assert_eq!(problem, None);
        assert_eq!(pod.api_url.as_deref(), Some("http://10.244.0.10:8008"));
        assert_eq!(pod.role.as_deref(), Some("primary"));
        assert_eq!(pod.timeline, Some(1));
        assert_eq!(pod.xlog_location, Some(67_108_960));
    }

    #[test]
    fn a_pod_without_status_falls_back_to_its_ip() {
        let (with_ip, _) = pod("pg-0", &Annotations::new(), Some("fd00::7"));
        assert_eq!(with_ip.address.unwrap().to_string(), "[fd00::7]:5432");
        let (without, _) = pod("pg-0", &Annotations::new(), None);
        assert!(without.address.unwrap_err().to_string().contains("pg-0"));
    }

    #[test]
    fn an_error_names_a_status_that_is_not_json() {
        for text in ["", "{", "[]", "null", r#"{"timeline":-1}"#, r#"{"conn_url":7}"#] {
            let (_, problem) = pod("pg-0", &annotations(&[("status", text)]), None);
            assert!(problem.unwrap().to_string().contains("`status`"), "{text}");
        }
    }

    #[test]
    fn a_switchover_is_announced_now_later_or_without_a_valid_time() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let read = |pairs: &[(&str, &str)]| announcement(&annotations(pairs), now, wall);
        let (soon, _) = read(&[("leader", "pg-0"), ("member", "pg-1")]);
        assert_eq!(soon.unwrap().starts, None);
        let (later, _) = read(&[("leader", "pg-0"), ("scheduled_at", "1970-01-01T00:01:00+00:00")]);
        assert_eq!(later.unwrap().starts, Some(now + Duration::from_secs(60)));
        let (never, problem) = read(&[("leader", "pg-0"), ("scheduled_at", "tomorrow")]);
        assert_eq!(never, None);
        assert!(problem.unwrap().to_string().contains("tomorrow"));
        assert_eq!(read(&[]).0, None);
    }

    #[test]
    fn pause_and_standby_cluster_are_read_as_patroni_reads_them() {
        let read = |text: &str| settings(&annotations(&[("config", text)])).0.unwrap();
        // The expected values are those that patroni.global_config of Patroni 4.1.5 returns.
        for (pause, is_paused) in [
            ("true", true),
            ("1", true),
            (r#""on""#, true),
            (r#""True""#, true),
            (r#""YES""#, true),
            (r#""1""#, true),
            ("false", false),
            ("null", false),
            ("0", false),
            ("2", false),
            ("1.0", false),
            (r#""off""#, false),
            (r#""t""#, false),
            (r#"" on""#, false),
            (r#"{"on":true}"#, false),
            ("[true]", false),
        ] {
            assert_eq!(read(&format!(r#"{{"pause":{pause}}}"#)).paused, is_paused, "{pause}");
        }
        for (standby, is_standby) in [
            (r#"{"host":"10.1.0.1"}"#, true),
            (r#"{"port":5432}"#, true),
            (r#"{"restore_command":"cp"}"#, true),
            (r#"{"host":"","port":0,"restore_command":"cp"}"#, true),
            (r#"{"host":"","port":0,"restore_command":null}"#, false),
            (r#"{"primary_slot_name":"x"}"#, false),
            (r#"{"create_replica_methods":["basebackup"]}"#, false),
            ("{}", false),
            ("null", false),
            ("true", false),
            (r#""host""#, false),
            (r#"["host"]"#, false),
        ] {
            let found = read(&format!(r#"{{"standby_cluster":{standby}}}"#)).standby_cluster;
            assert_eq!(found, is_standby, "{standby}");
        }
        assert!(settings(&annotations(&[("config", "{")])).1.is_some());
    }

    #[test]
    fn the_system_identifier_is_parsed_from_the_config_object() {
        let read = |pairs: &[(&str, &str)]| settings(&annotations(pairs)).0.and_then(|settings| settings.system);
        assert_eq!(read(&[("initialize", "7"), ("config", "{}")]).as_deref(), Some("7"));
        assert_eq!(read(&[("initialize", "7"), ("config", "{")]).as_deref(), Some("7"));
        assert_eq!(read(&[("initialize", "7")]).as_deref(), Some("7"));
        for not_valid in ["", "x", "-7", "7 "] {
            assert_eq!(
                read(&[("initialize", not_valid), ("config", "{}")]),
                None,
                "{not_valid:?}"
            );
        }
        assert_eq!(settings(&Annotations::new()).0, None);
    }

    #[test]
    fn primary_race_backoff_is_parsed_from_the_config() {
        let read = |text: &str| settings(&annotations(&[("config", text)])).0.unwrap().race_backoff;
        assert_eq!(read(r#"{"primary_race_backoff":60}"#), Duration::from_secs(60));
        assert_eq!(read(r#"{"primary_race_backoff":"60"}"#), Duration::from_secs(60));
        for text in [
            "{}",
            r#"{"primary_race_backoff":null}"#,
            r#"{"primary_race_backoff":-1}"#,
            r#"{"primary_race_backoff":"NaN"}"#,
        ] {
            assert_eq!(read(text), Duration::ZERO, "{text}");
        }
    }

    #[test]
    fn loop_wait_is_parsed_from_the_config() {
        let read = |text: &str| loop_wait(&annotations(&[("config", text)]));
        assert_eq!(read(r#"{"loop_wait":3}"#), Some(Duration::from_secs(3)));
        for text in [
            "",
            "{",
            "{}",
            r#"{"loop_wait":0}"#,
            r#"{"loop_wait":"3"}"#,
            r#"{"loop_wait":-1}"#,
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(loop_wait(&Annotations::new()), None);
    }

    #[test]
    fn an_error_names_a_config_that_is_not_json_without_quoting_it() {
        for text in ["", "{", "7", "\"secret\"", "[\"secret\"]"] {
            let problem = settings(&annotations(&[("config", text)])).1.unwrap().to_string();
            assert!(problem.contains("`config`") && !problem.contains("secret"), "{problem}");
        }
    }
}
