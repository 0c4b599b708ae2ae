//! The atomic of the wake flag. tests/wake_flag.rs puts a model checker's in the place of this module.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
