//! Answers of Patroni's REST API: no status and no body makes the parsers panic.
//!
//! Input: the status in two bytes, then the body.
#![no_main]

use bytes::Bytes;
use http::StatusCode;
use libfuzzer_sys::fuzz_target;
use pgnorth::discovery::patroni::{Answer, answers};
use pgnorth::leader::BaseUrl;

fuzz_target!(|input: &[u8]| {
    let Some((status, body)) = input.split_first_chunk::<2>() else {
        return;
    };
    let status = StatusCode::from_u16(u16::from_be_bytes(*status)).unwrap_or(StatusCode::OK);
    let answer = Answer { status, body: Bytes::copy_from_slice(body) };
    let from = BaseUrl::parse("http://10.0.0.7:8008").expect("a URL");
    let member = "demo-0".into();
    if let Ok(report) = answers::read_report(&member, &answer) {
        assert!(!format!("{report:?}").is_empty());
    }
    let _identity = answers::read_identity(&answer);
    if let Ok((cluster, unusable)) = answers::read_cluster(&from, &answer) {
        assert!(!format!("{cluster:?} {unusable:?}").is_empty());
    }
    let _leader = answers::read_leader(&answer);
    let _failsafe = answers::read_failsafe(&answer);
    let _ttl = answers::read_ttl(&answer);
    let _backoff = answers::read_race_backoff(&answer);
    if let Ok(text) = std::str::from_utf8(body)
        && let Ok(url) = BaseUrl::parse(text)
    {
        assert_eq!(BaseUrl::parse(&url.to_string()), Ok(url), "a URL is what it prints");
    }
});
