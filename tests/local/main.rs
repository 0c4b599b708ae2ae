//! The proxy floor against plain sockets on loopback: one behaviour a file. Every wait has a deadline, which only guards against hanging.

mod cap;
mod cutting;
mod half_close;
mod holding;
mod integrity;
mod leaks;
mod listening;
mod order;
mod refusal;
mod resets;
mod shutdown;
mod slow_readers;
mod support;
mod urgent;
