//! `pgnorth import` as a user runs it, with files that a real HAProxy accepts: the directives of Patroni's, autobase's and
//! Pigsty's templates.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/local/haproxy")
        .join(name)
}

fn import(file: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgnorth"));
    command.env_clear().arg("import").arg(file).output().unwrap()
}

/// Returns the flags of the command that is suggested.
fn suggested(output: &Output) -> Vec<String> {
    let text = str::from_utf8(&output.stdout).unwrap();
    let flags = text.lines().filter(|line| line.starts_with("  --"));
    let flags = flags.map(|line| line.trim().trim_end_matches(" \\").replace('\'', ""));
    flags.collect()
}

#[test]
fn well_known_templates_become_routes() {
    for (name, expected) in [
        (
            "patroni.cfg",
            &[
                "--route 0.0.0.0:5000=primary",
                "--route 0.0.0.0:5001=replica",
                "--patroni http://10.0.0.1:8008,http://10.0.0.2:8008",
                "--max-sessions 100",
                "--connect-timeout 4s",
                "--admin 0.0.0.0:7000",
            ][..],
        ),
        (
            "autobase.cfg",
            &[
                "--route 10.0.0.100:5000=primary,target=6432",
                "--route 10.0.0.100:5001=replica,max-lag=10MB,tag.datacenter=dc1,lagging=cut,target=6432",
                "--route 10.0.0.100:5002=sync,target=6432",
                "--route 10.0.0.100:5003=async,max-lag=10MB,lagging=cut,target=6432",
                "--patroni https://10.0.0.1:8008,https://10.0.0.2:8008,https://10.0.0.3:8008",
                "--max-sessions 20000",
                "--connect-timeout 5s",
                "--admin 10.0.0.9:7000",
            ],
        ),
        (
            "pigsty.cfg",
            &[
                "--route 0.0.0.0:5433=primary,target=6432",
                "--route 0.0.0.0:5434=read-only,target=6432",
                "--route 0.0.0.0:5436=primary",
                "--patroni http://10.10.10.11:8008,http://10.10.10.12:8008",
                "--max-sessions 65535",
                "--connect-timeout 3s",
                "--admin 0.0.0.0:9101",
            ],
        ),
        (
            "citus.cfg",
            &[
                "--route [::]:5000=primary",
                "--route 10.9.0.1:5100=primary",
                "--patroni https://c1.example.com:8008,https://[fd00::2]:8008",
                "--max-sessions 500",
                "--connect-timeout 4s",
                "--patroni-ca /etc/ssl/certs/ca-certificates.crt",
                "--route 0.0.0.0:5002=primary",
                "--patroni http://workers.example.com:8008",
                "--max-sessions 500",
                "--connect-timeout 4s",
                "--patroni-ca /etc/ssl/certs/ca-certificates.crt",
            ],
        ),
    ] {
        let haproxy = Command::new("haproxy")
            .arg("-c")
            .arg("-f")
            .arg(file(name))
            .output()
            .unwrap();
        assert!(
            haproxy.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&haproxy.stderr)
        );
        let output = import(&file(name));
        assert_eq!(output.status.code(), Some(0), "{name}: {output:?}");
        assert_eq!(suggested(&output), expected, "{name}");
    }
}

#[test]
fn a_file_without_members_of_patroni_ends_with_2_and_shows_its_lines() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let web = folder.join("web.cfg");
    std::fs::write(
        &web,
        "listen web\n  mode http\n  bind *:80\n  server a 10.0.0.1:80 check\n",
    )
    .unwrap();
    for (file, part) in [
        (&web, "no section leads to members of Patroni"),
        (&web, "4    server a 10.0.0.1:80 check"),
        (&folder.join("none.cfg"), "No such file"),
    ] {
        let output = import(file);
        let problem = str::from_utf8(&output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{problem}");
        assert!(problem.contains(part), "{part}:\n{problem}");
        assert!(output.stdout.is_empty());
    }
}

/// `pgnorth doctor` is run with `. /etc/default/pgnorth` in a shell, where the second route was a command of its own.
#[test]
fn a_shell_reads_the_environment_file_as_it_is_meant() {
    let output = import(&file("patroni.cfg"));
    let text = str::from_utf8(&output.stdout).unwrap();
    let lines: String = (text.lines())
        .filter(|line| line.starts_with("PGNORTH_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("default-of-import");
    std::fs::write(&path, lines).unwrap();
    let mut shell = Command::new("sh");
    shell
        .env_clear()
        .arg("-c")
        .arg(format!("set -a; . {}; env", path.display()));
    let output = shell.output().unwrap();
    let variables = str::from_utf8(&output.stdout).unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    for variable in [
        "PGNORTH_ROUTE=0.0.0.0:5000=primary;0.0.0.0:5001=replica",
        "PGNORTH_PATRONI=http://10.0.0.1:8008,http://10.0.0.2:8008",
        "PGNORTH_MAX_SESSIONS=100",
    ] {
        assert!(
            variables.lines().any(|line| line == variable),
            "{variable}:\n{variables}"
        );
    }
}
