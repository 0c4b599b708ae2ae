//! Parses Patroni's keys in etcd into values. Pure.
//!
//! Source of the formats: Patroni 4.1, patroni/dcs/__init__.py and ha.py. The keys have the same texts as the
//! annotations in Kubernetes, so `kubernetes::annotations` parses them.

use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::discovery::kubernetes::annotations::{self, Annotations};
use crate::leader::UnknownAddress;
use crate::leader::observation::{Announcement, ClusterSettings, DcsStatus};
use crate::leader::synchronous::SyncState;

/// A key below a scope's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key<'a> {
    /// `leader`: the name of the lock's holder.
    Leader,
    /// `failover`: an announced switchover, or a failover that an operator requested.
    Failover,
    /// `config`: the dynamic configuration.
    Config,
    /// `initialize`: the system identifier.
    Initialize,
    /// `sync`: the synchronous standbys.
    Sync,
    /// `members/<name>`: the status of a member.
    Member(&'a str),
    /// `<group>/members/<name>`: a member of a Citus group, in the scope of the whole Citus cluster.
    GroupMember(u32, &'a str),
    /// Any other key: `status`, `history`, `failsafe`, …
    Other,
}

impl<'a> Key<'a> {
    /// Recognises a key by its path below the prefix.
    pub(super) fn of(path: &'a str) -> Self {
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        let member = |rest: &'a str| rest.strip_prefix("members/").filter(|name| is_name(name));
        match (first, rest) {
            ("leader", "") => Self::Leader,
            ("failover", "") => Self::Failover,
            ("config", "") => Self::Config,
            ("initialize", "") => Self::Initialize,
            ("sync", "") => Self::Sync,
            ("members", name) if is_name(name) => Self::Member(name),
            (group, rest) => match (group.parse(), member(rest)) {
                (Ok(group), Some(name)) => Self::GroupMember(group, name),
                _ => Self::Other,
            },
        }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/')
}

/// A value, and the problem with the key's text, as the end of a sentence.
pub(super) type Read<T> = (T, Option<String>);

/// Parses the key `failover`. Patroni writes `{}` when the switchover is over.
pub(super) fn announcement(text: &str, now: Instant, wall: SystemTime) -> Read<Option<Announcement>> {
    let fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        _ => return (None, Some("is not the JSON that Patroni writes".into())),
    };
    let texts = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_str()?.to_owned())));
    let (announcement, problem) = annotations::announcement(&texts.collect(), now, wall);
    (announcement, problem.map(|problem| problem.of_a_key()))
}

/// Parses the keys `config` and `initialize`. Both are optional.
pub(super) fn settings(config: Option<&str>, initialize: Option<&str>) -> Read<Option<ClusterSettings>> {
    let pairs = [("config", config), ("initialize", initialize)];
    let (settings, problem) = annotations::settings(&present(pairs));
    (settings, problem.map(|problem| problem.of_a_key()))
}

/// Parses the key `sync`. Patroni treats a text that it cannot parse as a record without a leader.
pub(super) fn synchronous_standbys(text: &str) -> Read<SyncState> {
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => (
            SyncState::new(
                fields.get("leader").and_then(Value::as_str),
                fields.get("sync_standby").and_then(Value::as_str),
            ),
            None,
        ),
        _ => (SyncState::default(), Some("is not the JSON that Patroni writes".into())),
    }
}

/// Parses the lock's ttl from the key `config`.
pub(super) fn ttl(config: &str) -> Option<Duration> {
    let config: Value = serde_json::from_str(config).ok()?;
    annotations::seconds(&config["ttl"])
}

/// Parses the key of a member.
pub(super) fn member(name: &str, group: Option<u32>, text: &str) -> Read<DcsStatus> {
    let (mut pod, problem) = annotations::dcs_status(name, &present([("status", Some(text))]), None);
    let problem = problem.map(|problem| problem.of_a_key());
    pod.address = pod.address.map_err(|error| match error {
        UnknownAddress::ConnUrl(name, why) => UnknownAddress::KeyConnUrl(name, why),
        _ => UnknownAddress::NotInKey(name.into()),
    });
    pod.citus_group = group;
    (pod, problem)
}

fn present<const N: usize>(pairs: [(&str, Option<&str>); N]) -> Annotations {
    let present = |(name, text): (&str, Option<&str>)| Some((name.to_owned(), text?.to_owned()));
    pairs.into_iter().filter_map(present).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_recognised_by_their_path() {
        for (path, key) in [
            ("leader", Key::Leader),
            ("failover", Key::Failover),
            ("config", Key::Config),
            ("initialize", Key::Initialize),
            ("sync", Key::Sync),
            ("0/sync", Key::Other),
            ("members/pg-0", Key::Member("pg-0")),
            ("0/members/pg-0", Key::GroupMember(0, "pg-0")),
            ("0/leader", Key::Other),
            ("members/", Key::Other),
            ("members/a/b", Key::Other),
            ("leader/x", Key::Other),
            ("optime/leader", Key::Other),
            ("status", Key::Other),
            ("", Key::Other),
        ] {
            assert_eq!(Key::of(path), key, "{path}");
        }
    }

    #[test]
    fn a_switchover_is_announced_and_over() {
        let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
        let read = |text| announcement(text, now, wall);
        let (announced, problem) = read(r#"{"leader":"a","member":"b"}"#);
        let announced = announced.unwrap();
        assert_eq!(problem, None);
        assert_eq!(announced.leader.as_deref(), Some("a"));
        assert_eq!(announced.candidate.as_deref(), Some("b"));
        assert_eq!(read("{}"), (None, None));
        let (never, problem) = read(r#"{"leader":"a","scheduled_at":"tomorrow"}"#);
        assert_eq!(never, None);
        assert!(problem.unwrap().contains("tomorrow"));
        assert!(read("a:b").1.is_some());
    }

    #[test]
    fn a_member_is_parsed_and_its_connection_string_never_quoted() {
        let text = r#"{"conn_url":"postgres://10.0.0.7:5432/postgres","api_url":"http://10.0.0.7:8008/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":67108960,"timeline":1}"#;
        let (pod, problem) = member("a", None, text);
        assert_eq!(problem, None);
        assert_eq!(pod.address.unwrap().to_string(), "10.0.0.7:5432");
        assert_eq!((pod.role.as_deref(), pod.timeline), (Some("primary"), Some(1)));
        for text in ["", "{", "{}", r#"{"conn_url":"mysql://user:secret@h/db"}"#, "secret"] {
            let (pod, problem) = member("a", None, text);
            let why = pod.address.unwrap_err().to_string();
            assert!(why.starts_with("the key of member a in etcd "), "{why}");
            assert!(!why.contains("secret") && !why.contains("annotation"), "{why}");
            assert!(!problem.unwrap_or_default().contains("secret"));
        }
    }

    #[test]
    fn the_synchronous_standbys_are_parsed() {
        let (found, problem) = synchronous_standbys(r#"{"leader":"a","sync_standby":"b,c","quorum":1}"#);
        assert_eq!((found, problem), (SyncState::new(Some("a"), Some("b,c")), None));
        let (found, problem) = synchronous_standbys(r#"{"leader":null,"sync_standby":null,"quorum":0}"#);
        assert_eq!((found, problem), (SyncState::default(), None));
        assert!(synchronous_standbys("{").1.is_some());
    }

    #[test]
    fn settings_are_parsed_from_two_keys() {
        let (settings, problem) = settings(Some(r#"{"pause":true,"ttl":20}"#), Some("7"));
        let settings = settings.unwrap();
        assert_eq!(problem, None);
        assert!(settings.paused);
        assert_eq!(settings.system.as_deref(), Some("7"));
        assert_eq!(ttl(r#"{"ttl":20}"#), Some(Duration::from_secs(20)));
        assert_eq!(ttl("{"), None);
        assert_eq!(super::settings(None, None), (None, None));
    }
}
