//! The rows of the settings that only the other commands have.

use std::time::Duration;

use super::{COMPARING, HOUR, NAME, OPERATORS, PUBLISHING, REPORT, ROW, Setting, Unset, Values};

pub(in crate::config) const SERVICE: Setting = Setting {
    flag: "service",
    group: PUBLISHING,
    values: NAME,
    help: "Service without a selector that pgnorth points at the primary",
    more: "It must have exactly one port.",
    see: "operating/publish.md",
    example: "postgres-primary",
    ..ROW
};

pub(in crate::config) const ENDPOINTS: Setting = Setting {
    flag: "endpoints",
    group: PUBLISHING,
    values: Values::Switch,
    help: "Write the Service's Endpoints too",
    more: "For clusters whose kube-proxy reads no EndpointSlices (before Kubernetes 1.19).",
    unset: Unset::Value("false"),
    example: "true",
    ..ROW
};

pub(in crate::config) const LEASE: Setting = Setting {
    flag: "lease",
    group: PUBLISHING,
    values: NAME,
    help: "Lease that elects one writer among several publishers",
    more: "Without it, every publisher writes; as long as their decisions agree, all write the same.",
    example: "pgnorth-publish",
    ..ROW
};

pub(in crate::config) const HAPROXY: Setting = Setting {
    flag: "haproxy",
    group: COMPARING,
    values: Values::Text("SOURCE", "URL, unix:PATH or file"),
    help: "HAProxy's statistics as CSV, to compare HAProxy with pgnorth: a URL, its socket, or a file",
    more: "pgnorth reads them every second, and four times a second during a change of leader or a disagreement.",
    see: "operating/beside-haproxy.md#haproxy-compared",
    example: "unix:/run/haproxy/admin.sock",
    ..ROW
};

pub(in crate::config) const HAPROXY_BACKEND: Setting = Setting {
    flag: "haproxy-backend",
    group: COMPARING,
    values: NAME,
    help: "HAProxy's backend or listen section for the primary",
    unset: Unset::Found("the only one with members as servers"),
    example: "primary",
    ..ROW
};

pub(in crate::config) const WATCH: Setting = Setting {
    flag: "watch",
    group: REPORT,
    values: Values::Switch,
    help: "Refresh the report until interrupted",
    more: "pgnorth status then refreshes at each change, four times a second at most, and every second; it reconnects when contact is lost.",
    unset: Unset::Value("false"),
    example: "true",
    ..ROW
};

pub(in crate::config) const FORMAT: Setting = Setting {
    flag: "format",
    group: REPORT,
    values: Values::Format,
    help: "Format of the report on standard output: text or json",
    more: "json is one object per line.",
    unset: Unset::Value("text"),
    example: "json",
    ..ROW
};

pub(in crate::config) const FOR: Setting = Setting {
    flag: "for",
    group: OPERATORS,
    values: Values::Duration(Duration::from_secs(1), HOUR),
    help: "Duration of the hold, unless it is released earlier",
    unset: Unset::Value("60s"),
    example: "5m",
    ..ROW
};

pub(in crate::config) const MEMBER: Setting = Setting {
    flag: "member",
    group: OPERATORS,
    values: NAME,
    help: "Member whose sessions end; by default, all sessions end",
    example: "demo-0",
    ..ROW
};

pub(in crate::config) const PID: Setting = Setting {
    flag: "pid",
    group: OPERATORS,
    values: Values::Count(1 << 22),
    help: "Process to replace",
    unset: Unset::Found("systemd's MAINPID, or the only pgnorth on this host"),
    example: "4711",
    ..ROW
};
