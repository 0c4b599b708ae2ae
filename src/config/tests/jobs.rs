//! Tests of the settings of commands other than the proxy.

use super::*;

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
