//! Parses Patroni's dynamic configuration, by Patroni's own rules for its values.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Annotations, MAX_TTL, Read, malformed, not_json};
use crate::leader::observation::{ClusterSettings, Standby};

/// Parses Patroni's dynamic configuration and system identifier from the annotations `config` and `initialize` of
/// the config object.
pub fn settings(annotations: &Annotations) -> Read<Option<ClusterSettings>> {
    #[derive(Deserialize)]
    struct Config {
        pause: Option<Value>,
        standby_cluster: Option<Value>,
        primary_race_backoff: Option<Value>,
        synchronous_mode: Option<Value>,
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
                synchronous: config.synchronous_mode.as_ref().and_then(synchronous),
                system,
            }),
            None,
        ),
        Err(error) => (of_system(system), Some(malformed("config", not_json(&error)))),
    }
}

/// Parses a number of seconds, also one in a string, and rounds it to whole seconds (global_config.py, `get_int`). Any
/// other value counts as zero.
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

/// Returns the kind of synchronous standbys that `synchronous_mode` enables (global_config.py).
fn synchronous(mode: &Value) -> Option<Standby> {
    match mode {
        Value::String(text) if text.to_lowercase() == "quorum" => Some(Standby::Quorum),
        mode => is_on(mode).then_some(Standby::Sync),
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

/// Parses a number of seconds; `None` if the value is not a whole number from 1 to `MAX_TTL`.
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
