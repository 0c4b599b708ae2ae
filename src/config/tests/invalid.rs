//! Tests of invalid settings: each is reported with its place, the problem and an example.

use super::*;

#[test]
fn invalid_settings_of_the_publisher_are_reported_like_the_proxys() {
    let text = invalid("publish --lease A_B --endpoints=perhaps --selector x --patroni http://h:1");
    for part in [
        "4 invalid settings",
        "no --service (PGNORTH_SERVICE)",
        "example: --service postgres-primary   or   PGNORTH_SERVICE=postgres-primary",
        "--lease A_B",
        "must be true or false",
        "has no effect without --scope",
        "`pgnorth publish --help` explains every setting",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(invalid("publish --scope demo --service 0pg").contains("with a letter first"));
    assert!(invalid("--hold 1 --scope demo").ends_with("`pgnorth --help` explains every setting"));
}

#[test]
fn each_invalid_setting_is_reported_with_its_place_the_problem_and_an_example() {
    for (line, said) in [
        ("--hold 30", &["--hold 30\n", "write 30s", "PGNORTH_HOLD=60s"][..]),
        ("PGNORTH_HOLD=30", &["PGNORTH_HOLD=30\n", "write 30s", "--hold 60s"]),
        ("--hold 1.5", &["write 1.5s"]),
        ("--hold soon", &["--hold soon\n", "not a duration"]),
        ("--hold 2h", &["too long; the maximum is 1h"]),
        (
            "--connect-timeout 0s",
            &["too short; the minimum is 10ms", "PGNORTH_CONNECT_TIMEOUT=1s"],
        ),
        ("--tcp-user-timeout 1ms", &["too short; the minimum is 100ms"]),
        ("--client-tcp-user-timeout 1ms", &["too short; the minimum is 100ms"]),
        ("--socket-buffers 1", &["not a size", "PGNORTH_SOCKET_BUFFERS=40MiB"]),
        ("--socket-buffers 1KiB", &["out of bounds: 1MiB to 64GiB"]),
        (
            "--source 10.0.0.5,db",
            &[
                "not a comma-separated list of IP addresses",
                "PGNORTH_SOURCE=10.0.0.5,10.0.0.6",
            ],
        ),
        (
            "--target pgbouncer",
            &["neither postgres, nor proxy, nor a port", "PGNORTH_TARGET=6432"],
        ),
        ("--target 0", &["neither postgres, nor proxy, nor a port"]),
        (
            "--kubernetes=false --patroni http://10.0.0.1:8008 --target proxy",
            &["requires --etcd or Kubernetes", "set the pooler's port"],
        ),
        ("--source ::", &["not a comma-separated list of IP addresses"]),
        (
            "--listen 5432",
            &[
                "a port without an address",
                "--listen '[::]:5432'",
                "PGNORTH_LISTEN=[::]:5432",
            ],
        ),
        (
            "PGNORTH_LISTEN=:5432",
            &["PGNORTH_LISTEN=:5432\n", "a port without an address"],
        ),
        ("--listen localhost:5432", &["not an IP address and a port"]),
        ("--listen ::1:99999", &["IPv6 addresses need brackets"]),
        (
            "--admin [::]:5432",
            &["--admin [::]:5432\n", "--listen (PGNORTH_LISTEN) uses the same port"],
        ),
        ("--listen 127.0.0.1:8080", &["--admin (its default)\n", "the same port"]),
        (
            "--scope My_DB",
            &[
                "--scope My_DB\n",
                "not a name of a Kubernetes object",
                "PGNORTH_SCOPE=demo",
            ],
        ),
        ("--scope= --patroni http://h:1", &["--scope \"\"\n"]),
        ("--namespace a.b", &["not a namespace"]),
        ("--selector a=b,,c=d", &["not a label selector"]),
        ("--max-sessions 0", &["from 1 to 1000000", "PGNORTH_MAX_SESSIONS=10000"]),
        ("--max-sessions 10k", &["write digits only"]),
        ("--log debg", &["\"debg\" is not a level", "PGNORTH_LOG="]),
        ("--log info,kube=loud", &["\"kube=loud\" is not a directive"]),
        ("--log-format xml", &["must be text or json", "PGNORTH_LOG_FORMAT=json"]),
        (
            "--patroni 10.0.0.1:8008",
            &["must start with http://", "example: --patroni http://10.0.0.1:8008"],
        ),
        ("--patroni http://h:1,ftp://h", &["entry 2 of 2: not http or https"]),
        ("--patroni http://h:1,", &["entry 2 of 2: empty"]),
        ("--patroni http://h:99999", &["not a URL: invalid port"]),
        (
            "--patroni http://h:1/?a=b",
            &["--patroni http://h:1/?***\n", "write the base URL only"],
        ),
        (
            "--patroni-cert /c",
            &["--patroni-cert /c\n", "--patroni-key (PGNORTH_PATRONI_KEY) too"],
        ),
        (
            "PGNORTH_PATRONI_KEY=/k",
            &["PGNORTH_PATRONI_KEY=/k\n", "--patroni-cert (PGNORTH_PATRONI_CERT) too"],
        ),
        (
            "--refusal-cert /c",
            &["--refusal-cert /c\n", "--refusal-key (PGNORTH_REFUSAL_KEY) too"],
        ),
        ("--patroni-ca=", &["--patroni-ca \"\"\n", "empty; name a file"]),
    ] {
        let scope = if line.contains("-scope") { "" } else { "--scope demo" };
        let text = invalid(&format!("{line} {scope}"));
        for part in said.iter().chain(&[" invalid setting", "    example: --"]) {
            assert!(text.contains(part), "{line}: no {part:?} in\n{text}");
        }
    }
}

#[test]
fn without_a_way_to_find_the_leader_both_are_explained() {
    let text = invalid("");
    for part in [
        "in Kubernetes",
        "--scope demo",
        "PGNORTH_SCOPE=demo",
        "elsewhere",
        "--patroni http://",
        "PGNORTH_PATRONI=",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    assert!(invalid("--patroni http://h:1 --namespace db").contains("has no effect without --scope (PGNORTH_SCOPE)"));
}

#[test]
fn all_invalid_settings_are_reported_at_once() {
    let text = invalid("PGNORTH_HOLD=x PGNORTH_DRAIN=y --listen z --max-sessions many --patroni h --patroni-key /k");
    assert!(text.starts_with("6 invalid settings"), "{text}");
    for name in [
        "PGNORTH_HOLD=x",
        "PGNORTH_DRAIN=y",
        "--listen z",
        "--max-sessions many",
        "--patroni h",
        "--patroni-key /k",
    ] {
        assert!(text.contains(&format!("  {name}\n")), "{name} in\n{text}");
    }
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    for url in [
        "http://me:secret@h:8008",
        "http://secret@h:8008",
        "http://a:1,http://me:sec,secret@h:x",
        "me:secret@h",
    ] {
        let text = invalid(&format!("PGNORTH_PATRONI={url}"));
        assert!(!text.contains("sec") && text.contains("***@h"), "{text}");
    }
}

#[test]
fn text_that_is_not_utf8_is_invalid() {
    use std::os::unix::ffi::OsStringExt;
    for (variable, text) in [
        ("PGNORTH_SCOPE", &b"a\xff"[..]),
        ("PGNORTH_ROUTE", b"[::]:5001=replica,tag.datacenter=a\xff"),
    ] {
        let lookup = |name: &str| (name == variable).then(|| OsString::from_vec(text.to_vec()));
        let refused = Settings::read(["pgnorth".into(), "--patroni=http://h:1".into()], lookup);
        let refused = refused.expect_err(variable);
        assert!(refused.to_string().contains("not UTF-8 text"), "{refused}");
    }
}

#[test]
fn two_settings_with_the_same_port_are_both_named() {
    for (line, parts) in [
        (
            "--listen 10.0.0.1:5000 --ports patroni",
            [
                "--listen 10.0.0.1:5000\n",
                "10.0.0.1:5000 uses the same port as [::]:5000 of --ports (PGNORTH_PORTS)",
            ],
        ),
        (
            "--ports patroni --route 10.0.0.1:5000=async",
            [
                "--route 10.0.0.1:5000=async\n",
                "10.0.0.1:5000 uses the same port as [::]:5000 of --ports (PGNORTH_PORTS)",
            ],
        ),
        (
            "--route 10.0.0.1:5432=replica",
            [
                "--route 10.0.0.1:5432=replica\n",
                "10.0.0.1:5432 uses the same port as [::]:5432 of --listen (PGNORTH_LISTEN)",
            ],
        ),
        (
            "--ports patroni --admin 10.0.0.1:5001",
            ["--admin 10.0.0.1:5001\n", "--ports (PGNORTH_PORTS) uses the same port"],
        ),
    ] {
        let text = invalid(&format!("--patroni http://h:1 {line}"));
        for part in parts {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }
}
