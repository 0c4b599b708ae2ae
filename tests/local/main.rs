//! Tests that need nothing but this machine: the library's rooms and the real binary, over real sockets on loopback. One behaviour a file; every wait has
//! a deadline, which only guards against hanging.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may fail by panic, and says what it saw"
)]

mod admin;
mod cap;
mod cutting;
mod documents;
mod floors;
mod half_close;
mod holding;
mod integrity;
mod leaks;
mod listening;
mod opening;
mod order;
mod refusal;
mod resets;
mod settings;
mod shutdown;
mod slow_readers;
mod support;
mod urgent;
