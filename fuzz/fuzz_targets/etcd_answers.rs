//! Answers of etcd's JSON gateway: no status and no body makes the parsers panic, and every refusal says something.
//!
//! Input: the status in two bytes, then the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgnorth::discovery::etcd::messages;

fuzz_target!(|input: &[u8]| {
    let Some((status, body)) = input.split_first_chunk::<2>() else {
        return;
    };
    let refusals = [
        messages::read_listing(body).err(),
        messages::read_lease_time(body).err(),
        messages::read_token(body).err(),
        messages::read_watch(body).err(),
        Some(messages::read_error(u16::from_be_bytes(*status), body)),
    ];
    for refusal in refusals.into_iter().flatten() {
        let _text = refusal.to_string();
    }
});
