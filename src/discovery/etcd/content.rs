//! The content of a scope's keys at one time, for `pgnorth doctor`. Pure.

use std::time::Duration;

use crate::discovery::etcd::ScopeKeys;
use crate::discovery::etcd::keys::{self, Key};
use crate::discovery::etcd::messages::Listing;
use crate::discovery::kubernetes::annotations::{self, Annotations};
use crate::leader::MemberName;
use crate::leader::observation::{ClusterSettings, DcsStatus};

/// Patroni's keys, parsed.
#[derive(Debug, Default)]
pub struct Content {
    /// The lock's holder, and the lease of its key; `None` if there is no leader key.
    pub leader: Option<(MemberName, i64)>,
    /// The members, each with the problem of its key if there is one.
    pub members: Vec<(DcsStatus, Option<String>)>,
    /// The settings in the keys `config` and `initialize`; `None` if neither key can be used.
    pub settings: Option<ClusterSettings>,
    /// `ttl` in the key `config`.
    pub ttl: Option<Duration>,
    /// `loop_wait` in the key `config`.
    pub loop_wait: Option<Duration>,
    /// True if `failsafe_mode` is on in the key `config`.
    pub failsafe: bool,
    /// Citus groups whose members have keys below this scope.
    pub groups: Vec<u32>,
}

impl Content {
    /// Parses a listing of these keys.
    pub fn of(scope: &ScopeKeys, listing: &Listing) -> Self {
        let mut content = Self::default();
        let value = |path: &str| {
            let key = listing
                .keys
                .iter()
                .find(|key| key.key.strip_prefix(&scope.prefix) == Some(path));
            key.map(|key| key.value.as_str())
        };
        let config = value("config");
        (content.settings, _) = keys::settings(config, value("initialize"));
        content.ttl = config.and_then(keys::ttl);
        let config: Annotations = config
            .map(|text| ("config".to_owned(), text.to_owned()))
            .into_iter()
            .collect();
        content.loop_wait = annotations::loop_wait(&config);
        content.failsafe = annotations::failsafe_mode(&config);
        for key in &listing.keys {
            match key.key.strip_prefix(&scope.prefix).map_or(Key::Other, Key::of) {
                Key::Leader if !key.value.is_empty() => content.leader = Some((key.value.as_str().into(), key.lease)),
                Key::Member(name) => content.members.push(keys::member(name, scope.citus_group, &key.value)),
                Key::GroupMember(group, _) => content.groups.push(group),
                _ => {}
            }
        }
        content.groups.sort_unstable();
        content.groups.dedup();
        content
    }
}
