//! Patroni's annotations: no text makes the parsers panic, and no complaint quotes a password.
//!
//! Input: lines `name=value`; one name may be any of Patroni's.
#![no_main]

use std::time::{Duration, Instant, SystemTime};

use libfuzzer_sys::fuzz_target;
use pgnorth::discovery::kubernetes::annotations::{self, Annotations};

/// A password, in a place where every byte before it may be wrong.
const SECRET: &str = "n0t-t0-be-qu0ted";

fuzz_target!(|text: &str| {
    let mut annotations: Annotations = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut complaints = Vec::new();
    let (lock, complaint) = annotations::lock(&annotations);
    if let Some(lock) = lock {
        assert!(lock.ttl >= Duration::from_secs(1) && lock.ttl <= Duration::from_secs(24 * 60 * 60));
    }
    complaints.extend(complaint);
    complaints.extend(annotations::announcement(&annotations, Instant::now(), SystemTime::now()).1);
    complaints.extend(annotations::settings(&annotations).1);
    annotations::loop_wait(&annotations);
    annotations::failsafe_mode(&annotations);
    complaints.extend(annotations::dcs_status("demo-0", &annotations, Some("10.0.0.7")).1);
    for complaint in complaints.drain(..) {
        assert!(!complaint.to_string().is_empty());
    }

    // The same text as the scheme, host and path of a connection string.
    for conn_url in [
        format!("postgres://app:{SECRET}@{text}"),
        format!("{text}://app:{SECRET}@demo-0"),
        format!("postgres://app:{SECRET}{text}"),
    ] {
        let status = format!(r#"{{"conn_url": {conn_url:?}}}"#);
        annotations.insert("status".to_owned(), status);
        let (pod, complaint) = annotations::dcs_status("demo-0", &annotations, None);
        let quoted = format!("{:?} {:?} {}", pod.address, complaint, complaint.as_ref().map(ToString::to_string).unwrap_or_default());
        // Rust escapes more than JSON does; a connection string that is no JSON is not parsed.
        assert!(!quoted.contains(SECRET), "{quoted}");
    }
});
