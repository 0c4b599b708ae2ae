//! `pgnorth reload`: finds the running pgnorth, requests a reload, and prints the result.
//!
//! As ExecReload= of a systemd unit, it passes its whole environment, which systemd has read again. When run by hand,
//! it passes only its flags: a shell does not have the variables of the service.

use std::fs;
use std::io::{self, Read as _, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use super::requests::{Change, NAME, Reply, address};
use crate::config;
use crate::handover::peer_pid;

/// Exit status: the running process was not replaced.
const NOT_RELOADED: u8 = 1;
/// Exit status: no running pgnorth was reached.
const NO_CONTACT: u8 = 2;
/// Time for the answer; a reload takes less.
const ANSWER: Duration = Duration::from_secs(120);
/// The variable in which systemd passes the main process's id to ExecReload=.
const MAIN_PID: &str = "MAINPID";

/// Requests the reload and waits until it ends.
pub(in crate::app) fn run(settings: &config::Reload) -> ExitCode {
    let main_pid = std::env::var(MAIN_PID).ok().and_then(|pid| pid.parse().ok());
    let change = Change {
        flags: settings.flags.clone(),
        environment: main_pid.is_some().then(environment),
    };
    let asked = match settings.pid.or(main_pid) {
        Some(pid) => Ok(pid),
        None => only_one(),
    };
    match asked.and_then(|pid| ask(pid, &change).map_err(|error| no_contact(pid, &error))) {
        Ok(Reply { reloaded: true, text }) => {
            let _unread = writeln!(io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Ok(Reply { text, .. }) => fail(&text, NOT_RELOADED),
        Err(problem) => fail(&problem, NO_CONTACT),
    }
}

/// Returns this process's environment without variables that are not UTF-8: no setting of pgnorth needs them.
fn environment() -> Vec<(String, String)> {
    let all = std::env::vars_os();
    all.filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn ask(pid: u32, change: &Change) -> io::Result<Reply> {
    let mut stream = UnixStream::connect_addr(&address(pid)?)?;
    if peer_pid(&stream)? != pid {
        return Err(io::Error::other("a different process owns the socket of that name"));
    }
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(&serde_json::to_vec(change)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    if reply.is_empty() {
        return Err(io::Error::other("it closed the connection without an answer"));
    }
    Ok(serde_json::from_slice(&reply)?)
}

/// Finds the process id of the only pgnorth that listens for reloads in this network namespace.
fn only_one() -> Result<u32, String> {
    let sockets =
        fs::read_to_string("/proc/net/unix").map_err(|error| format!("cannot read /proc/net/unix: {error}"))?;
    match pids(&sockets)[..] {
        [pid] => Ok(pid),
        [] => {
            Err("no running pgnorth was found on this host (in a container, deploy a new container instead)".to_owned())
        }
        ref several => Err(format!(
            "several pgnorth processes run on this host, with the ids {several:?}; choose one with --pid"
        )),
    }
}

/// Returns the process ids in the names of listening sockets; each line ends with a name.
fn pids(sockets: &str) -> Vec<u32> {
    let names = sockets.lines().filter_map(|line| line.split_whitespace().nth(7));
    let mut pids: Vec<u32> = names
        .filter_map(|name| name.strip_prefix('@')?.strip_prefix(NAME)?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn no_contact(pid: u32, error: &io::Error) -> String {
    format!("cannot reach pgnorth with process id {pid}: {error}; `pgrep pgnorth` lists the running processes")
}

fn fail(problem: &str, status: u8) -> ExitCode {
    let _unread = writeln!(io::stderr(), "pgnorth: {problem}");
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_pgnorth_is_found_by_its_socket() {
        let sockets = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 21343 @pgnorth/4711\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 21344 @pgnorth/4711\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 20000 /run/systemd/notify\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 21345\n";
        assert_eq!(pids(sockets), [4711]);
    }
}
