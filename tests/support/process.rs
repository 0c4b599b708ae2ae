//! Children of the rig, started with a log file each and ended when dropped; and short tools that run until they end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

/// Number of log lines that are shown when a test fails.
const TAIL: usize = 60;

/// A running child. Its drop kills it, and shows the end of its log if the test has failed.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with all its output appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("open a log file");
        let err = out.try_clone().expect("share a log file");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("start {name}: {error}: {command:?}"));
        Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, unless the child has ended.
    pub fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            send(self.id(), signal);
        }
    }

    /// Returns the exit status; `None` while the child runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("wait for a child")
    }

    /// Kills the child with SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- the end of {}'s log", self.name);
            eprintln!("{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
    }
}

/// Sends a signal to any process of the world, unless it is gone.
pub fn send(id: u32, signal: Signal) {
    let pid = i32::try_from(id)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id is a positive number");
    let _ = kill_process(pid, signal);
}

/// Runs a short tool until it ends, and returns its output. Panics if it fails, which is the rig's own defect.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {stderr}", arguments.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
