//! libpq itself, which finds the primary among all members of its connection string. It runs in a Python process with
//! psycopg, of Patroni's environment: one process for each client, so that its start is not measured.

use std::io;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::support::Rig;
use crate::support::psql::PASSWORD;
use crate::support::rig::cache;

const PROGRAM: &str = include_str!("libpq.py");

/// A process that calls libpq. Its drop ends it, and with it its session.
pub struct Libpq {
    _child: Child,
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// True from a call until its answer.
    is_busy: bool,
}

impl Libpq {
    pub fn start() -> Self {
        let mut child = Command::new(cache().join("patroni/bin/python"))
            .args(["-c", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("start Python");
        let answers = child.stdout.take().expect("it is piped");
        Self {
            requests: child.stdin.take().expect("it is piped"),
            answers: BufReader::new(answers).lines(),
            is_busy: false,
            _child: child,
        }
    }

    /// Returns true if a call was dropped before its answer. No further one is possible.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Calls one of the functions in `libpq.py`, and returns its answer.
    pub async fn call(&mut self, call: &str, text: &str) -> io::Result<Value> {
        self.is_busy = true;
        let request = json!({"call": call, "text": text}).to_string() + "\n";
        self.requests.write_all(request.as_bytes()).await?;
        let answer = self.answers.next_line().await?;
        let answer = answer.ok_or_else(|| io::Error::other("the process that calls libpq ended"))?;
        self.is_busy = false;
        serde_json::from_str(&answer).map_err(io::Error::other)
    }
}

/// Returns the connection string: all members, and the one that accepts writes is wanted. A host that does not answer
/// costs 2 s, libpq's shortest limit; without it libpq waits for as long as the kernel does.
pub fn conninfo(rig: &Rig, with_tls: bool) -> String {
    let hosts: Vec<_> = rig.members().iter().map(|member| member.ip().to_string()).collect();
    let tls = match with_tls {
        true => format!("sslmode=verify-ca sslrootcert={}", rig.authority().display()),
        false => "sslmode=disable".to_owned(),
    };
    format!(
        "host={} port=5432 user=postgres dbname=postgres password={PASSWORD} target_session_attrs=read-write \
         connect_timeout=2 options='-c log_min_messages=panic' {tls}",
        hosts.join(",")
    )
}

/// Returns libpq's version, for the report.
pub fn version() -> String {
    let print = "from psycopg import pq; v = pq.version(); print(f'libpq {v // 10000}.{v % 10000}')";
    let output = std::process::Command::new(cache().join("patroni/bin/python"))
        .args(["-c", print])
        .output();
    let output = output.expect("run Python");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
