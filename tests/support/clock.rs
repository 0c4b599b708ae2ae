//! A wall clock (CLOCK_REALTIME) of a host's own, which a test steps. Namespaces share the machine's clock, and that one stays
//! as it is: the host's programs preload `clock.c`, which adds the step. Programs that do not read the clock through the C
//! library, such as Go's, do not see it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::process::run;
use super::tls::path;

/// A clock. It is the machine's until it is stepped.
pub struct Clock {
    /// The step in seconds, as the library reads it.
    file: File,
    path: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// Creates a clock whose files are in `folder`, and begin with `name`.
    pub fn create(folder: &Path, name: &str) -> Self {
        let (path, library) = (
            folder.join(format!("{name}-clock")),
            folder.join(format!("{name}-clock.so")),
        );
        compile(&library);
        fs::write(&path, 0_i64.to_ne_bytes()).expect("write the clock's file");
        let file = File::options().write(true).open(&path).expect("open the clock's file");
        Self { file, path, library }
    }

    /// Makes the programs that this command runs read this clock.
    pub fn apply(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("RIG_CLOCK", &self.path);
    }

    /// Sets the clock this many seconds ahead of the machine's; behind, if they are negative.
    pub fn step(&self, seconds: i64) {
        let written = self.file.write_all_at(&seconds.to_ne_bytes(), 0);
        written.expect("write the clock's file");
    }
}

fn compile(library: &Path) {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/clock.c");
    run("cc", &["-shared", "-fPIC", "-O1", "-o", path(library), source]);
}
