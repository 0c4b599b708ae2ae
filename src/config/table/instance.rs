//! The rows of one instance: its shutdown, its log, its own pod.

use std::time::Duration;

use super::{LOGS, NAME, ROW, SHUTDOWN, Setting, UP_TO_AN_HOUR, Unset, Values};

pub(in crate::config) const LAME_DUCK: Setting = Setting {
    flag: "lame-duck",
    group: SHUTDOWN,
    values: UP_TO_AN_HOUR,
    help: "Time after SIGTERM or SIGINT during which clients are still accepted",
    more: "Load balancers need this time to notice that pgnorth is no longer ready.",
    unset: Unset::Value("5s"),
    example: "5s",
    ..ROW
};

pub(in crate::config) const DRAIN: Setting = Setting {
    flag: "drain",
    group: SHUTDOWN,
    values: Values::Duration(Duration::ZERO, Duration::from_secs(24 * 3600)),
    help: "Time for open sessions to finish after --lame-duck, before pgnorth closes them",
    more: "On Kubernetes, terminationGracePeriodSeconds must exceed --lame-duck and --drain together.",
    unset: Unset::Value("30s"),
    example: "30s",
    ..ROW
};

pub(in crate::config) const POD_NAME: Setting = Setting {
    flag: "pod-name",
    group: LOGS,
    values: NAME,
    help: "Name of this pod; leader changes, fences and routes without a fit member are recorded as its Kubernetes Events",
    more: "deploy/base sets it. It has no effect unless Kubernetes is a source.",
    see: "reference/events.md",
    example: "pgnorth-6c9f7d-x2v4q",
    ..ROW
};

pub(in crate::config) const POD_UID: Setting = Setting {
    flag: "pod-uid",
    group: LOGS,
    values: Values::Text("UID", "uid"),
    help: "UID of this pod, which kubectl describe needs to find its Events; only with --pod-name",
    more: "deploy/base sets it.",
    example: "0b1c0a4e-6f5b-4b7a-9a55-2f3f6f0c1d7e",
    ..ROW
};

pub(in crate::config) const LOG: Setting = Setting {
    flag: "log",
    group: LOGS,
    values: Values::Text("FILTER", "level, or module=level, comma-separated"),
    help: "Log level: off, error, warn, info, debug or trace; also per module",
    more: "info,pgnorth::proxy=debug logs each session.",
    see: "reference/log.md",
    unset: Unset::Value("info"),
    example: "info,pgnorth::proxy=debug",
    ..ROW
};

pub(in crate::config) const LOG_FORMAT: Setting = Setting {
    flag: "log-format",
    group: LOGS,
    values: Values::Format,
    help: "Format of the log on standard error: text or json",
    more: "json is one object per line.",
    unset: Unset::Value("text"),
    example: "json",
    ..ROW
};
