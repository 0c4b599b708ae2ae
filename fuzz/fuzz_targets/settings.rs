//! Flags and variables: no command line makes the parser panic, every refusal says something, and what is accepted stays
//! accepted when it is read again.
//!
//! Input: arguments, one per line; lines `NAME=value` that begin with `PGNORTH_` are variables.
#![no_main]

use std::collections::BTreeMap;
use std::ffi::OsString;

use libfuzzer_sys::fuzz_target;
use pgnorth::config::Settings;

fuzz_target!(|text: &str| {
    let mut arguments = vec![OsString::from("pgnorth")];
    let mut variables = BTreeMap::new();
    for line in text.lines() {
        match line.split_once('=') {
            Some((name, value)) if name.starts_with("PGNORTH_") => {
                variables.insert(name.to_owned(), OsString::from(value));
            }
            _ => arguments.push(line.into()),
        }
    }
    let read = || Settings::read(arguments.clone(), |name: &str| variables.get(name).cloned());
    match read() {
        Ok(settings) => {
            let again = read().expect("accepted once, accepted again");
            assert_eq!(format!("{settings:?}"), format!("{again:?}"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
