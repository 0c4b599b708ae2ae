//! pgnorth keeps one address pointing at the PostgreSQL primary of a Patroni cluster.
//!
//! Floors, from the top; imports go downwards only, which `tests/local/floors.rs` checks:
//!
//! | floor | rooms |
//! |--|--|
//! | 7 | `main`, [`telemetry`] |
//! | 6 | [`app`] |
//! | 5 | [`doctor`] |
//! | 4 | [`discovery`], [`proxy`], [`publish`], [`admin`] (never each other) |
//! | 3 | [`recorder`], [`events`] |
//! | 2 | [`slot`], [`drain`], [`metrics`], [`liveness`], [`readiness`], [`resolver`], [`kubernetes`], [`waits`], [`orders`], [`repeats`], [`certificates`] |
//! | 1 | [`leader`], [`ending`], [`config`], [`backoff`] (no I/O, no clock, no tokio) |
//!
//! ARCHITECTURE.md walks one session and one change of leader through the house.

pub mod admin;
pub mod app;
pub mod backoff;
pub mod certificates;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod drain;
pub mod ending;
pub mod events;
pub mod kubernetes;
pub mod leader;
pub mod liveness;
pub mod metrics;
pub mod orders;
pub mod proxy;
pub mod publish;
pub mod readiness;
pub mod recorder;
pub mod repeats;
pub mod resolver;
pub mod slot;
pub mod telemetry;
pub mod waits;
