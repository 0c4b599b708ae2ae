//! The real binary's command line: help, version, mistakes, exit statuses.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

const FLAGS: [&str; 26] = [
    "listen",
    "admin",
    "admin-token-file",
    "scope",
    "namespace",
    "selector",
    "patroni",
    "patroni-ca",
    "patroni-cert",
    "patroni-key",
    "hold",
    "switchover-hold",
    "failover-drain",
    "connect-timeout",
    "tcp-user-timeout",
    "client-tcp-user-timeout",
    "socket-buffers",
    "source",
    "max-sessions",
    "workers",
    "lame-duck",
    "drain",
    "pod-name",
    "pod-uid",
    "log",
    "log-format",
];

fn pgnorth(variables: &[(&str, &str)], flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .envs(variables.iter().copied())
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn variable(flag: &str) -> String {
    format!("PGNORTH_{}", flag.to_uppercase().replace('-', "_"))
}

#[test]
fn help_names_every_setting_and_its_variable() {
    let output = pgnorth(&[], &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for flag in FLAGS {
        assert!(help.contains(&format!("--{flag} <")), "{flag} in\n{help}");
        assert!(
            help.contains(&format!("[env: {}]", variable(flag))),
            "{flag} in\n{help}"
        );
    }
    for group in [
        "Listening:",
        "Finding the leader:",
        "Sessions:",
        "Shutdown:",
        "Logs:",
        "Examples:",
    ] {
        assert!(help.contains(group), "{group} in\n{help}");
    }
    assert!(help.lines().all(|line| line.chars().count() <= 120), "{help}");
}

#[test]
fn version_has_the_commit() {
    let output = pgnorth(&[], &["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let version = text(&output.stdout);
    let commit = version
        .strip_prefix(concat!("pgnorth ", env!("CARGO_PKG_VERSION"), " (commit "))
        .and_then(|rest| rest.strip_suffix(")\n"));
    assert!(commit.is_some_and(|commit| !commit.is_empty()), "{version}");
}

#[test]
fn a_mistake_in_every_setting_is_reported_at_once() {
    // Each half by a different way; a certificate without a key is another mistake.
    let bad = |flag: &str| match flag {
        "admin-token-file" | "patroni-ca" | "patroni-cert" | "patroni-key" => "",
        "patroni" => "ftp://h",
        "max-sessions" => "many",
        _ => "%",
    };
    let (by_flag, by_variable) = FLAGS.split_at(9);
    let flags: Vec<_> = by_flag.iter().map(|flag| format!("--{flag}={}", bad(flag))).collect();
    let variables: Vec<_> = by_variable.iter().map(|flag| (variable(flag), bad(flag))).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let output = pgnorth(&variables, &flags);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let said = text(&output.stderr);
    for flag in FLAGS {
        assert!(
            said.contains(&format!("example: --{flag} ")) || flag == "patroni-key",
            "{flag} in\n{said}"
        );
        assert!(said.contains(&variable(flag)), "{flag} in\n{said}");
    }
    assert!(
        said.contains("\n  --listen %\n") && said.contains("\n  PGNORTH_HOLD=%\n"),
        "{said}"
    );
}

#[test]
fn without_a_cluster_to_follow_it_explains_and_ends() {
    let output = pgnorth(&[], &[]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains("--scope demo") && said.contains("--patroni http://"),
        "{said}"
    );
}

#[test]
fn an_unknown_flag_is_named() {
    let output = pgnorth(&[], &["--scope", "demo", "--lissten", "[::]:1"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("--lissten") && said.contains("--listen"), "{said}");
}

#[test]
fn a_closed_stderr_is_no_reason_to_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(env!("CARGO_BIN_EXE_pgnorth"))
        .env_clear()
        .stderr(writer)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(2));
}

/// With the defaults and a hard limit of 20,000 files, "fewer sessions than --max-sessions are possible" was the first
/// line of every log.
#[test]
fn a_default_limit_of_sessions_is_lowered_without_a_warning() {
    let started = |flags: &str| {
        let mut pgnorth = Command::new("sh")
            .args([
                "-c",
                &format!("ulimit -n 2000 && exec \"$0\" {flags}"),
                env!("CARGO_BIN_EXE_pgnorth"),
            ])
            .env_clear()
            .env("PGNORTH_PATRONI", "http://127.0.0.1:9")
            .env("PGNORTH_LISTEN", "127.0.0.1:0")
            .env("PGNORTH_ADMIN", "127.0.0.1:0")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(pgnorth.stderr.take().unwrap()).lines();
        let said: Vec<_> = lines
            .map(Result::unwrap)
            .take_while(|line| !line.contains("listening"))
            .collect();
        pgnorth.kill().unwrap();
        pgnorth.wait().unwrap();
        said.join("\n")
    };
    let by_default = started("");
    assert!(
        by_default.contains("INFO ") && by_default.contains(" max_sessions="),
        "{by_default}"
    );
    assert!(!by_default.contains("WARN "), "{by_default}");
    let given = started("--max-sessions 10000");
    assert!(
        given.contains("WARN ") && given.contains("--max-sessions is lowered"),
        "{given}"
    );
}
