//! pgnorth keeps one address pointing at the PostgreSQL primary of a Patroni cluster.
//!
//! Layers, from the top; imports go downwards only, which `tests/local/layers.rs` checks:
//!
//! | layer | modules |
//! |--|--|
//! | 8 | `main`, [`telemetry`] |
//! | 7 | [`app`] |
//! | 6 | [`doctor`], [`haproxy`] |
//! | 5 | [`discovery`], [`proxy`], [`publish`], [`admin`] (never each other) |
//! | 4 | [`recorder`], [`events`] |
//! | 3 | [`slot`], [`drain`], [`handover`], [`systemd`], [`metrics`], [`liveness`], [`readiness`], [`resolver`], [`kubernetes`], [`wait_queue`], [`command_queue`], [`log_limiter`], [`certificates`] |
//! | 2 | [`leader`], [`config`] (as layer 1) |
//! | 1 | [`route`], [`ending`], [`backoff`], [`root_cause`] (no I/O, no clock, no tokio) |
//!
//! ARCHITECTURE.md walks one session and one change of leader through these modules.

pub mod admin;
pub mod app;
pub mod backoff;
pub mod certificates;
pub mod command_queue;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod drain;
pub mod ending;
pub mod events;
pub mod handover;
pub mod haproxy;
pub mod kubernetes;
pub mod leader;
pub mod liveness;
pub mod log_limiter;
pub mod metrics;
pub mod proxy;
pub mod publish;
pub mod readiness;
pub mod recorder;
pub mod resolver;
pub mod root_cause;
pub mod route;
pub mod slot;
pub mod systemd;
pub mod telemetry;
pub mod wait_queue;
