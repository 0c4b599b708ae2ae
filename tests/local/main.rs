//! Tests that need only this machine: the library's modules and the real binary, over real sockets on loopback. One
//! behaviour a file; every wait has a deadline, which only guards against hanging.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail by panic, and says what it saw"
)]

mod admin;
mod admin_thread;
mod alerts;
mod another_cluster;
mod beside_haproxy;
mod cancel;
mod cap;
mod crowd;
mod cutting;
mod dashboard;
mod doctor;
mod documents;
mod drain_after_release;
mod etcd;
mod events;
mod evidence;
mod fake_api;
mod fake_cluster;
mod fake_patroni;
mod false_answers;
mod forbidden;
mod garbage;
mod half_close;
mod history_lost;
mod holding;
mod importing;
mod integrity;
mod layers;
mod leaks;
mod lease_age;
mod links;
mod listening;
mod manifests;
mod many_sessions;
mod opening;
mod operators;
mod order;
#[path = "../support/prometheus.rs"]
#[allow(dead_code, reason = "the rig uses another part of it")]
mod prometheus;
mod promotion;
mod promtool;
mod proxy_protocol;
mod publishing;
mod refusal;
mod refusal_tls;
mod reload;
mod resets;
mod routes;
mod settings;
mod shutdown;
mod signals;
mod silent_watch;
mod slow_readers;
mod stalled_readers;
mod startup;
mod status;
mod support;
mod systemd;
mod targets;
mod telling;
mod unread_log;
mod urgent;
mod watching;
