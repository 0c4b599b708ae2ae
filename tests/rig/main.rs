//! Tests against a real Patroni cluster, one behaviour a file. They run as root, through `make test`.

#[path = "../support/mod.rs"]
mod support;

mod clients;
mod failovers;
mod start_and_end;
mod the_rig;
