//! The test rig: a real Patroni cluster with everything around it, in a private world made by `inside.sh`.
//! Everything here is the real software; only hosts are imitated, by network namespaces.
//!
//! ```text
//! rig         Rig: starts a cluster, tells the truth about it, stops it
//! patroni     Member: one host with Patroni and PostgreSQL, and its faults
//! config      Patroni's configuration file
//! kubernetes  etcd and kube-apiserver, users, pods, and the outages of the API
//! etcd        etcd alone, as the DCS or below kube-apiserver
//! network     the bridge, and one network namespace a host
//! clock       a wall clock of a host's own, which a test steps
//! dns         a real DNS server for members' names, and its outages
//! pgnorth     Product: the real binary
//! prometheus  a real Prometheus that scrapes the product
//! balancer    what stands for a Service's ClusterIP: DNAT to the ready ones
//! publisher   Publisher: the real binary as `pgnorth publish`, and a Service
//! browser     a real headless Chromium, and what a page in it shows
//! psql        the real psql, and sessions that stay
//! load        clients that insert all the time
//! http        requests to Patroni, to kube-apiserver and to the product's admin address
//! random      choices that a seed repeats
//! process     children, their logs and their end
//! tls         the rig's certificate authority
//! wait        waiting for a condition before a deadline
//! ```
#![allow(
    dead_code,
    unused_imports,
    reason = "every test binary that uses the rig uses a part of it"
)]

pub mod balancer;
pub mod browser;
pub mod clock;
pub mod config;
pub mod dns;
pub mod etcd;
pub mod http;
pub mod kubernetes;
pub mod load;
pub mod network;
pub mod patroni;
pub mod pgnorth;
pub mod process;
pub mod prometheus;
pub mod psql;
pub mod publisher;
pub mod random;
pub mod rig;
pub mod tls;
pub mod wait;

pub use dns::Dns;
pub use patroni::Member;
pub use pgnorth::Product;
pub use psql::{psql, session};
pub use publisher::Publisher;
pub use rig::{Dcs, Rig, Settings};
pub use wait::wait_until;
