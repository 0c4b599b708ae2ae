//! The history of a part of the campaign, one JSON line an event. It is kept if the test fails.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

/// A history. Its drop removes the file, unless the test has failed.
pub struct History {
    file: Mutex<File>,
    folder: PathBuf,
    began: Instant,
}

impl History {
    /// Begins the history of the part with this seed.
    pub fn begin(seed: u64) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/consistency/{seed}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("create the folder of the history");
        Self {
            file: Mutex::new(File::create(folder.join("history.jsonl")).expect("create the history")),
            folder,
            began: Instant::now(),
        }
    }

    /// Returns its folder, which takes the logs, too, if the test fails.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes an event that happened from `from` until now.
    pub fn note(&self, what: &str, from: Instant, details: Value) {
        let seconds = |at: Instant| at.saturating_duration_since(self.began).as_secs_f64();
        let event = json!({"event": what, "from": seconds(from), "to": seconds(Instant::now()), "is": details});
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{event}").expect("write the history");
    }
}

impl Drop for History {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the history is {}", self.folder.join("history.jsonl").display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
