//! First packets of clients, first answers of servers, and records of TLS: no bytes make the parsers panic, and bytes that
//! arrive later never change what was recognised before.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The product's own files, which need nothing else of it and are private there.
#[allow(dead_code)]
#[path = "../../src/proxy/login.rs"]
mod login;
#[allow(dead_code)]
#[path = "../../src/proxy/packets.rs"]
mod packets;

use login::Login;
use packets::{Parsed, error_message, parse};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if let Parsed::Complete(_, length) = whole {
        assert!(length <= bytes.len());
    }
    let whole_error = error_message(bytes);
    for end in 0..bytes.len() {
        match parse(&bytes[..end]) {
            Parsed::Incomplete => {}
            recognised => assert_eq!(recognised, whole, "after {end} bytes"),
        }
        if let Some(Some(fields)) = error_message(&bytes[..end]) {
            assert_eq!(whole_error, Some(Some(fields)), "after {end} bytes");
        }
    }
    for login in [Some(Login::encrypted()), Login::direct(bytes), Login::challenged(bytes)] {
        let Some(mut login) = login else { continue };
        for (turn, part) in bytes.chunks(7).enumerate() {
            if turn % 2 == 0 {
                login.on_client(part);
            } else {
                login.on_leader(part);
            }
        }
    }
});
