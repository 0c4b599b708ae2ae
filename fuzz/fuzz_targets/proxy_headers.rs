//! Headers of the PROXY protocol: no bytes make the parser panic, bytes that arrive later never change what was recognised
//! before, and a header's client does not depend on what follows the header.
#![no_main]

use libfuzzer_sys::fuzz_target;

// The product's own file, which needs nothing else of it and is private there.
#[allow(dead_code)]
#[path = "../../src/proxy/header.rs"]
mod header;

use header::{Header, parse};

/// Longest header of either version that pgnorth accepts.
const LONGEST: usize = 4096;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    match whole {
        Header::Complete(length, _) => {
            assert!(length <= bytes.len() && length <= LONGEST);
            assert_eq!(parse(&bytes[..length]), whole, "without what follows");
        }
        Header::Incomplete => assert!(bytes.len() < LONGEST, "a header that never ends"),
        Header::Malformed => {}
    }
    for end in 0..bytes.len() {
        match parse(&bytes[..end]) {
            Header::Incomplete => {}
            recognised => assert_eq!(recognised, whole, "after {end} bytes"),
        }
    }
});
