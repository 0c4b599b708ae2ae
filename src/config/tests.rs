//! Tables of command lines, and the settings or the errors that result.

mod invalid;
mod jobs;

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
