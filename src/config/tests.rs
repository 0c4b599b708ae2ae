//! Tables of command lines, and the settings or the errors that result.

use std::time::Duration;

use url::Url;

use super::*;
use crate::route::Upstream;

/// Reads a command line such as `PGNORTH_HOLD=1s PGNORTH_LISTEN=… --scope demo`: variables first, as in a shell.
fn read(line: &str) -> Result<Settings, SettingsError> {
    let (variables, flags): (Vec<_>, Vec<_>) = line
        .split(' ')
        .filter(|word| !word.is_empty())
        .partition(|word| word.starts_with("PGNORTH_"));
    let lookup = |name: &str| {
        let value = variables
            .iter()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.map(OsString::from)
    };
    let arguments = ["pgnorth"].into_iter().chain(flags).map(OsString::from);
    Settings::read(arguments, lookup)
}

fn settings(line: &str) -> Settings {
    read(line).unwrap_or_else(|refused| panic!("{line}: {refused}"))
}

fn good(line: &str) -> Proxy {
    match settings(line).job {
        Job::Proxy(proxy) => proxy,
        other => panic!("{line}: {other:?}"),
    }
}

fn publisher(line: &str) -> Publish {
    match settings(line).job {
        Job::Publish(publish) => publish,
        other => panic!("{line}: {other:?}"),
    }
}

fn invalid(line: &str) -> String {
    match read(line) {
        Err(SettingsError::Invalid(settings)) => settings.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_command_line_is_sound() {
    command_line().debug_assert();
}

#[test]
fn defaults_are_valid_and_as_documented() {
    let seconds = Duration::from_secs;
    assert_eq!(
        good("--scope demo"),
        Proxy {
            proxy_protocol: vec![],
            routes: vec![routes::to_primary("[::]:5432".parse().unwrap())],
            admin: "[::]:8080".parse().unwrap(),
            admin_hosts: Vec::new(),
            admin_token_file: None,
            discovery: demo(),
            hold: seconds(60),
            switchover_hold: seconds(10),
            failover_drain: seconds(0),
            connect_timeout: seconds(1),
            tcp_user_timeout: seconds(30),
            client_tcp_user_timeout: seconds(60),
            socket_buffers: 40 << 20,
            sources: vec![],
            drain: seconds(30),
            lame_duck: seconds(5),
            max_sessions: None,
            workers: None,
            refusal: None,
        }
    );
    let settings = settings("--scope demo");
    assert_eq!(settings.log, LogFilter::parse("info").unwrap());
    assert_eq!(settings.log_format, Format::Text);
    let words = table::MAX_SESSIONS.default_in_words().unwrap();
    assert!(words.starts_with(&DEFAULT_SESSIONS.to_string()), "{words}");
}

fn demo() -> DiscoverySettings {
    DiscoverySettings {
        upstream: Upstream::Postgres,
        scope: Some("demo".into()),
        kubernetes: Some(Kubernetes {
            scope: "demo".into(),
            citus_group: None,
            namespace: None,
            selector: "cluster-name=demo".into(),
            pod: None,
        }),
        etcd: None,
        patroni: vec![],
        patroni_tls: ClientTls {
            ca: None,
            identity: None,
        },
    }
}

/// Regression: the line that is logged at the start omitted settings that were given, such as `--workers` and
/// `--pod-uid`.
#[test]
fn every_setting_that_is_given_is_in_force() {
    let line = "PGNORTH_WORKERS=2 --scope demo --max-sessions 7 --pod-name p --pod-uid u --patroni-ca=/a\u{a0}b";
    let in_force = settings(line).in_force;
    for part in [
        "--workers 2",
        "--max-sessions 7",
        "--pod-uid u",
        "--hold 60s",
        "--selector cluster-name=demo",
        "--patroni-ca \"/a\\u{a0}b\"",
        "--log info",
    ] {
        assert!(in_force.contains(part), "{part:?} in {in_force}");
    }
    assert_eq!(in_force.matches("--hold").count(), 1, "{in_force}");
}

#[test]
fn a_scope_is_named_with_and_without_kubernetes() {
    for (line, scope, objects, selector) in [
        ("--scope demo", Some("demo"), Some("demo"), "cluster-name=demo"),
        (
            "--scope demo --citus-group 0",
            Some("demo"),
            Some("demo-0"),
            "cluster-name=demo,citus-group=0",
        ),
        ("--scope demo-0 --selector a=b", None, Some("demo-0"), "a=b"),
        (
            "--scope demo --kubernetes",
            Some("demo"),
            Some("demo"),
            "cluster-name=demo",
        ),
        (
            "--scope My_DB --kubernetes=false --patroni http://h:1",
            Some("My_DB"),
            None,
            "",
        ),
        ("--kubernetes=false --patroni http://h:1", None, None, ""),
        ("--patroni http://h:1", None, None, ""),
    ] {
        let discovery = good(line).discovery;
        assert_eq!(discovery.scope.as_deref(), scope, "{line}");
        let kubernetes = discovery.kubernetes.as_ref();
        assert_eq!(kubernetes.map(Kubernetes::objects).as_deref(), objects, "{line}");
        assert_eq!(
            kubernetes.map_or("", |kubernetes| &kubernetes.selector),
            selector,
            "{line}"
        );
    }
    for (line, part) in [
        ("--kubernetes --patroni http://h:1", "requires --scope (PGNORTH_SCOPE)"),
        (
            "--kubernetes=false --scope demo",
            "leaves no source of discovery; set --etcd (PGNORTH_ETCD) or --patroni (PGNORTH_PATRONI) too",
        ),
        ("--kubernetes=false", "neither --scope nor --patroni"),
        (
            "--kubernetes=false --scope d --patroni http://h:1 --citus-group 0",
            "has no effect with --kubernetes=false",
        ),
        ("--patroni http://h:1 --citus-group 0", "has no effect without --scope"),
        ("--scope demo --citus-group x", "example: --citus-group 0"),
    ] {
        assert!(invalid(line).contains(part), "{part:?} in\n{}", invalid(line));
    }
}

#[test]
fn the_publisher_has_settings_of_its_own_and_shares_the_rest() {
    let publish = publisher("publish --scope demo --service pg");
    assert_eq!(
        publish,
        Publish {
            admin: "[::]:8080".parse().unwrap(),
            admin_hosts: Vec::new(),
            discovery: demo(),
            namespace: None,
            service: "pg".into(),
            endpoints: false,
            lease: None,
        }
    );
    let with_poolers = publisher("publish --scope demo --service pg --target 6432");
    assert_eq!(with_poolers.discovery.upstream, Upstream::Port(6432));
    let line = "PGNORTH_SERVICE=pg PGNORTH_LEASE=l PGNORTH_HOLD=nonsense publish --patroni http://h:1 --namespace db";
    let publish = publisher(line);
    assert_eq!(
        (publish.namespace.as_deref(), publish.lease.as_deref()),
        (Some("db"), Some("l"))
    );
    assert_eq!(
        publish.discovery.kubernetes, None,
        "Patroni may keep its lock elsewhere"
    );
    for on in ["--endpoints", "--endpoints=true"] {
        assert!(
            publisher(&format!("publish {on} --scope demo --service pg")).endpoints,
            "{on}"
        );
    }
    let off = publisher("PGNORTH_ENDPOINTS=true publish --endpoints=false --scope demo --service pg");
    assert!(!off.endpoints);
}

#[test]
fn the_watcher_has_the_proxys_settings_on_which_decisions_depend() {
    let line = "PGNORTH_LISTEN=nonsense watch --scope demo --switchover-hold 3s --admin 127.0.0.1:8081";
    let expected = Watch {
        admin: "127.0.0.1:8081".parse().unwrap(),
        admin_hosts: Vec::new(),
        discovery: demo(),
        hold: Duration::from_secs(60),
        switchover_hold: Duration::from_secs(3),
        haproxy: None,
    };
    assert_eq!(settings(line).job, Job::Watch(expected));
}

#[test]
fn haproxys_statistics_are_a_url_a_socket_or_a_file() {
    let url = |url: &str| HaproxyStatistics::Http(Box::new(Url::parse(url).unwrap()));
    for (given, expected) in [
        ("http://10.0.0.9:7000", url("http://10.0.0.9:7000/;csv")),
        ("http://10.0.0.9:7000/;csv", url("http://10.0.0.9:7000/;csv")),
        ("https://lb/haproxy?stats", url("https://lb/haproxy?stats;csv")),
        (
            "unix:/run/haproxy.sock",
            HaproxyStatistics::Socket("/run/haproxy.sock".into()),
        ),
        (
            "/var/lib/stats.csv",
            HaproxyStatistics::File("/var/lib/stats.csv".into()),
        ),
    ] {
        let line = format!("watch --scope demo --haproxy-backend primary --haproxy {given}");
        let Job::Watch(watch) = settings(&line).job else {
            panic!("{line}")
        };
        let haproxy = watch.haproxy.unwrap();
        assert_eq!(
            (haproxy.statistics, haproxy.backend.as_deref()),
            (expected, Some("primary")),
            "{given}"
        );
    }
    for (given, problem) in [
        ("--haproxy http://u:secret@lb/", "unix:PATH"),
        ("--haproxy ftp://lb/", "not http or https"),
        ("--haproxy unix:", "empty"),
        ("--haproxy-backend primary", "without --haproxy"),
    ] {
        let text = invalid(&format!("watch --scope demo {given}"));
        assert!(text.contains(problem) && !text.contains("secret"), "{given}: {text}");
    }
}

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
fn a_look_needs_no_cluster_and_minds_no_settings_of_others() {
    let look = |line: &str| match settings(line).job {
        Job::Status(look) => look,
        other => panic!("{line}: {other:?}"),
    };
    let default = Status {
        admin: "[::]:8080".parse().unwrap(),
        watch: false,
        format: Format::Text,
    };
    assert_eq!(look("PGNORTH_LOG=%% PGNORTH_HOLD=nonsense status"), default);
    let set = look("PGNORTH_ADMIN=10.0.0.7:8080 status --watch --format json");
    assert_eq!((set.admin.to_string().as_str(), set.watch), ("10.0.0.7:8080", true));
    assert_eq!(set.format, Format::Json);
    let text = invalid("PGNORTH_FORMAT=yaml status --admin pg:8080");
    for part in [
        "2 invalid settings",
        "must be text or json",
        "not an IP address and a port",
        "pgnorth status --help",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
}

#[test]
fn a_command_needs_a_token_and_no_cluster() {
    let command = |line: &str| match settings(line).job {
        Job::SendCommand(send) => send.command,
        other => panic!("{line}: {other:?}"),
    };
    let seconds = Duration::from_secs;
    assert_eq!(
        command("hold --admin-token-file /t"),
        OperatorCommand::Hold(seconds(60))
    );
    assert_eq!(
        command("PGNORTH_ADMIN_TOKEN_FILE=/t hold --for 5m"),
        OperatorCommand::Hold(seconds(300))
    );
    assert_eq!(
        command("PGNORTH_HOLD=nonsense release --admin-token-file /t"),
        OperatorCommand::Release
    );
    assert_eq!(command("cut --admin-token-file /t"), OperatorCommand::Cut(None));
    assert_eq!(
        command("cut --admin-token-file /t --member a"),
        OperatorCommand::Cut(Some("a".into()))
    );
    for (line, problem) in [
        ("hold", "no --admin-token-file (PGNORTH_ADMIN_TOKEN_FILE)"),
        ("hold --admin-token-file /t --for 2h", "too long; the maximum is 1h"),
        ("cut --admin-token-file /t --member=", "empty; leave the setting out"),
    ] {
        let text = invalid(line);
        assert!(text.contains(problem), "{problem:?} in\n{text}");
    }
}

#[test]
fn the_keys_in_etcd_begin_with_namespace_scope_and_citus_group() {
    for (line, prefix) in [
        ("", "/service/demo/"),
        ("--etcd-namespace /db/", "/db/demo/"),
        ("--etcd-namespace db/eu", "/db/eu/demo/"),
        ("--citus-group 0", "/service/demo/0/"),
        ("--kubernetes=false", "/service/demo/"),
    ] {
        let discovery = good(&format!("--scope demo --etcd http://h:2379,http://i:2379 {line}")).discovery;
        let etcd = discovery.etcd.unwrap();
        assert_eq!((etcd.prefix.as_str(), etcd.endpoints.len()), (prefix, 2), "{line}");
        assert_eq!(discovery.scope.as_deref(), Some("demo"));
        assert_eq!(discovery.kubernetes, None);
    }
    let etcd = good("--scope demo --etcd http://h:1 --etcd-user u --etcd-password-file /p")
        .discovery
        .etcd;
    assert_eq!(etcd.unwrap().login, Some(("u".into(), "/p".into())));
    for (line, part) in [
        (
            "--etcd http://h:1",
            "its keys begin with --etcd-namespace and this name",
        ),
        ("--etcd http://h:1 --scope a/b", "contains a slash"),
        ("--etcd http://h:1 --scope demo --kubernetes", "contradicts --etcd"),
        (
            "--etcd http://h:1 --scope demo --namespace db",
            "has no effect with --etcd",
        ),
        (
            "--etcd http://h:1 --scope demo --etcd-user u",
            "set --etcd-password-file",
        ),
        ("--etcd http://h:1 --scope demo --etcd-cert /c", "set --etcd-key"),
        (
            "--etcd http://h:1 --scope demo --etcd-namespace /",
            "Patroni's default is /service",
        ),
        (
            "--etcd http://u:p@h:1 --scope demo",
            "set --etcd-user and --etcd-password-file instead",
        ),
        ("--scope demo --etcd-ca /c", "has no effect without --etcd"),
    ] {
        assert!(invalid(line).contains(part), "{part:?} in\n{}", invalid(line));
    }
}

#[test]
fn every_example_is_valid_as_flag_and_as_variable() {
    for (row, setting) in COMMANDS
        .into_iter()
        .flat_map(|row| row.settings().map(move |setting| (row, setting)))
    {
        let flag = setting.flag;
        if row.name == Some("reload") && flag != "pid" {
            // The new process reads them.
            continue;
        }
        let mut needed = row.name.unwrap_or_default().to_owned();
        for (other, value) in [("scope", "demo"), ("service", "pg"), ("admin-token-file", "/t")] {
            if other != flag && row.settings().any(|setting| setting.flag == other) {
                needed += &format!(" --{other} {value}");
            }
        }
        match flag {
            "patroni-cert" => needed += " --patroni-key /k",
            "patroni-key" => needed += " --patroni-cert /c",
            "kubernetes" => needed += " --patroni http://h:1",
            "etcd-user" => needed += " --etcd http://h:1 --etcd-password-file /p",
            "etcd-password-file" => needed += " --etcd http://h:1 --etcd-user u",
            "etcd-cert" => needed += " --etcd http://h:1 --etcd-key /k",
            "etcd-key" => needed += " --etcd http://h:1 --etcd-cert /c",
            "etcd-namespace" | "etcd-ca" => needed += " --etcd http://h:1",
            "refusal-cert" => needed += " --refusal-key /k",
            "refusal-key" => needed += " --refusal-cert /c",
            "haproxy-backend" => needed += " --haproxy /f",
            _ => {}
        }
        let by_flag = settings(&format!("{needed} --{flag}={}", setting.example));
        let by_variable = settings(&format!("{}={} {needed}", setting.env(), setting.example));
        assert_eq!(by_flag, by_variable, "{} --{flag}", row.typed());
    }
}

#[test]
fn a_flag_wins_over_its_variable_and_a_variable_over_the_default() {
    let hold = |line: &str| good(&format!("{line} --scope demo")).hold.as_secs();
    assert_eq!(hold("PGNORTH_HOLD=1m30s"), 90);
    assert_eq!(hold("PGNORTH_HOLD=1m30s --hold 5s"), 5);
    assert_eq!(
        hold("PGNORTH_HOLD=1m30s --hold 60s"),
        60,
        "a flag with the default's value is still a flag"
    );
    assert_eq!(hold("PGNORTH_HOLD="), 60, "an empty variable is unset");
    assert_eq!(
        hold("PGNORTH_HOLD=nonsense --hold 5s"),
        5,
        "a variable that is not used does no harm"
    );
}

#[test]
fn urls_are_normalized_and_each_kept_once() {
    let urls = |list: &str| good(&format!("--patroni {list}")).discovery.patroni;
    let seen = |list: &str| {
        urls(list)
            .iter()
            .map(|url| url.join("primary").unwrap().to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(seen("http://h:8008,http://h:8008/"), ["http://h:8008/primary"]);
    assert_eq!(seen("https://[fd00::7]:8008"), ["https://[fd00::7]:8008/primary"]);
}

#[test]
fn both_ways_of_finding_the_leader_go_together() {
    let discovery = good("--scope demo --namespace db --selector app=x --patroni http://h:8008").discovery;
    let kubernetes = discovery.kubernetes.unwrap();
    assert_eq!(
        (kubernetes.namespace.as_deref(), kubernetes.selector.as_str()),
        (Some("db"), "app=x")
    );
    assert_eq!(discovery.patroni.len(), 1);
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

#[test]
fn a_bare_level_is_for_pgnorth_and_others_are_named() {
    for (written, directives) in [
        ("info", "warn,kube_client=off,kube_runtime=off,pgnorth=info"),
        ("off", "off,kube_client=off,kube_runtime=off,pgnorth=off"),
        ("error", "error,kube_client=off,kube_runtime=off,pgnorth=error"),
        (
            "DEBUG,kube=info",
            "warn,kube_client=off,kube_runtime=off,pgnorth=debug,kube=info",
        ),
        (
            "hyper=trace",
            "warn,kube_client=off,kube_runtime=off,pgnorth=info,hyper=trace",
        ),
        (
            "pgnorth::proxy=debug",
            "warn,kube_client=off,kube_runtime=off,pgnorth=info,pgnorth::proxy=debug",
        ),
    ] {
        assert_eq!(LogFilter::parse(written).unwrap().directives(), directives, "{written}");
    }
}

#[test]
fn no_variable_is_one_that_kubernetes_sets_for_a_service() {
    for setting in COMMANDS.into_iter().flat_map(|row| row.settings()) {
        let name = setting.env();
        assert!(
            !name.ends_with("_PORT") && !name.ends_with("_SERVICE_HOST") && !name.contains("_PORT_"),
            "{name}"
        );
    }
}

#[test]
fn clap_answers_help_and_version() {
    for (line, code) in [
        ("--help", 0),
        ("--version", 0),
        ("--nonsense 1 --hold x", 2),
        ("stray", 2),
        ("publish --help", 0),
        ("publish --hold 1s", 2),
        ("watch --listen [::]:5432", 2),
        ("status --scope demo", 2),
        ("--scope demo publish", 2),
        ("--hold", 2),
    ] {
        match read(line) {
            Err(SettingsError::Usage(error)) => assert_eq!(error.exit_code(), code, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn a_reload_keeps_every_route() {
    let with = |flags: &[(&str, &str)]| {
        let line = "pgnorth --workers 2 --route [::]:5433=replica --route [::]:5434=sync";
        let flags: Vec<_> = flags
            .iter()
            .map(|(flag, value)| ((*flag).into(), (*value).into()))
            .collect();
        let changed = with_flags(line.split(' ').map(OsString::from).collect(), &flags).unwrap();
        changed.join(" ".as_ref()).into_string().unwrap()
    };
    let routes = "--route=[::]:5433=replica --route=[::]:5434=sync";
    let changed = with(&[("workers", "1")]);
    assert!(changed.contains(routes) && changed.contains("--workers=1"), "{changed}");
    let changed = with(&[("route", "[::]:5435=sync"), ("route", "[::]:5436=replica")]);
    let given = changed
        .split(' ')
        .filter(|word| word.starts_with("--route"))
        .collect::<Vec<_>>();
    assert_eq!(given, ["--route=[::]:5435=sync", "--route=[::]:5436=replica"]);
}

#[test]
fn a_reload_passes_every_route_that_it_is_given() {
    let Job::Reload(Reload { flags, .. }) = read("reload --route [::]:5433=replica --route [::]:5434=sync")
        .unwrap()
        .job
    else {
        panic!("the command is reload");
    };
    let route = |value: &str| ("route".to_owned(), value.to_owned());
    assert_eq!(flags, [route("[::]:5433=replica"), route("[::]:5434=sync")]);
}
