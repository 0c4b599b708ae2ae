//! Tells the crate which commit it is built from: PGNORTH_COMMIT where it is set (an image or a tarball has no repository), else what git says, else
//! "unknown". It never fails a build.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=PGNORTH_COMMIT");
    // git appends to this file at each commit and checkout. A file that is not there would make each build run this script again.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]).filter(|path| Path::new(path).exists()) {
        println!("cargo:rerun-if-changed={log}");
    }
    let told = std::env::var("PGNORTH_COMMIT").ok().and_then(|text| one_word(&text));
    let commit = told.or_else(|| git(&["rev-parse", "--short=7", "HEAD"]).filter(|_| is_repository_root()));
    println!(
        "cargo:rustc-env=PGNORTH_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
}

/// Sources unpacked inside somebody else's repository must not show that one's commit.
fn is_repository_root() -> bool {
    let root = git(&["rev-parse", "--show-toplevel"]).and_then(|root| Path::new(&root).canonicalize().ok());
    let here = std::env::current_dir().and_then(|here| here.canonicalize()).ok();
    root.is_some() && root == here
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    one_word(std::str::from_utf8(&output.stdout).ok()?).filter(|_| output.status.success())
}

/// A single line that is safe to hand to cargo.
fn one_word(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.contains(char::is_control)).then(|| text.to_owned())
}
