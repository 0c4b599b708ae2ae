//! Tests against a real Patroni cluster, one behaviour a file. They run as root, through `make test`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail by panic, and says what it saw"
)]

#[path = "../support/mod.rs"]
mod support;

mod beside_haproxy;
mod browser;
mod clients;
mod consistency;
mod dns;
mod doctor;
mod drivers;
mod dry_run;
mod etcd;
mod events;
mod pictures;
mod pooler;
mod prometheus;
mod publish;
mod reload;
mod repeated;
mod rest_hangs;
mod rights;
mod rolling;
mod routes;
mod start_and_end;
mod subscription;
mod suites;
mod the_rig;
mod tools;
mod versions;
mod vip;
