//! The atomic type of the wake flag. tests/wake_flag.rs replaces this module with a model checker's type.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
