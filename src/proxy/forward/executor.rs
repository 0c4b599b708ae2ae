//! The upper layer of forwarding: the worker threads, each of which runs the tasks and the pairs of its sessions.
//!
//! A session stays on the worker where it began. It begins as a task, which reads the first packet and dials the
//! leader; [`Executor::forward`] makes it a pair, whose bytes the relay moves.

mod atomic;
mod handle;
mod mailbox;
mod pair;
mod pairs;
mod wake_flag;
mod worker;
mod workers;

pub(crate) use handle::Executor;
pub(crate) use mailbox::SessionCount;
pub(crate) use pair::{Owner, Pair};
pub(crate) use workers::Workers;
