//! `pgnorth import`: reads the files of HAProxy's configuration, and prints equivalent settings of pgnorth.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::haproxy::import::import;

/// Exit status: a file cannot be read, or there is nothing to suggest.
const NOTHING: u8 = 2;

/// Prints the settings. The exit status is 0 if there are any.
pub(super) fn run(files: &[PathBuf]) -> ExitCode {
    let mut texts = Vec::new();
    for file in files {
        match fs::read(file) {
            // Comments may be in any encoding.
            Ok(bytes) => texts.push((file.display().to_string(), String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) => return fail(&format!("{}: {error}", file.display())),
        }
    }
    match import(&texts) {
        Ok(import) => {
            let _unread = write!(io::stdout(), "{import}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(problem: &str) -> ExitCode {
    let _unread = writeln!(io::stderr(), "pgnorth: {problem}");
    ExitCode::from(NOTHING)
}
