//! Tests that need nothing but this machine: the library's rooms and the real binary, over real sockets.

mod admin;
mod documents;
mod floors;
mod settings;
