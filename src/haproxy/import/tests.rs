//! Tables: lines of HAProxy's configuration, and their outcomes.

use std::ffi::OsString;

use super::*;
use crate::config::{Job, Settings};

/// Returns the configuration of one route, with these lines in its section.
fn listen(lines: &str) -> String {
    format!(
        "listen pg\n bind 10.0.0.9:5000\n option httpchk GET /primary\n http-check expect status 200\n \
         server a 10.0.0.1:5432 check port 8008 on-marked-down shutdown-sessions\n {lines}\n"
    )
}

fn replicas(lines: &str) -> String {
    listen(lines).replace("/primary", "/replica?lag=1MB")
}

fn read(text: &str) -> Result<Import, ImportError> {
    import(&[("haproxy.cfg".to_owned(), text.to_owned())])
}

/// Returns the outcomes of the last line.
fn last(text: &str) -> String {
    let import = read(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    let outcomes = &import.lines.last().unwrap().outcomes;
    let written = outcomes.iter().map(|outcome| match outcome {
        Outcome::Setting(text) => format!("= {text}"),
        Outcome::NotNeeded(text) => format!("- {text}"),
        Outcome::NoEquivalent(text) => format!("! {text}"),
    });
    written.collect::<Vec<_>>().join("\n")
}

/// Returns the arguments that result for each cluster.
fn arguments(text: &str) -> Vec<String> {
    let import = read(text).unwrap_or_else(|error| panic!("{text}\n{error}"));
    import.suggestions.iter().map(|one| one.arguments().join(" ")).collect()
}

#[test]
fn a_line_becomes_a_setting() {
    for (line, outcome) in [
        ("timeout connect 4s", "= --connect-timeout 4s"),
        ("timeout connect 4000", "= --connect-timeout 4s"),
        ("timeout connect 250", "= --connect-timeout 250ms"),
        ("source 10.0.0.9:0", "= --source 10.0.0.9"),
        ("bind *:5001", "= --route 0.0.0.0:5001=primary"),
        ("bind :5001", "= --route 0.0.0.0:5001=primary"),
        ("bind :::5001 v4v6", "= --route [::]:5001=primary"),
        ("bind [fd00::1]:5001", "= --route [fd00::1]:5001=primary"),
        ("bind 10.0.0.9:5001,10.0.0.9:5002", "= --route 10.0.0.9:5002=primary"),
        ("bind 10.0.0.9:5001 tcp-ut 30s", "= --client-tcp-user-timeout 30s"),
        (
            "server b 10.0.0.2:5432 check port 8008",
            "= --patroni http://10.0.0.2:8008",
        ),
        (
            "server b [fd00::2]:5432 check port 8008",
            "= --patroni http://[fd00::2]:8008",
        ),
        (
            "server b fd00::2:5432 check port 8008",
            "= --patroni http://[fd00::2]:8008",
        ),
        (
            "server b 10.0.0.2:5432 check addr 10.1.0.2 port 8008",
            "= --patroni http://10.1.0.2:8008",
        ),
        (
            "server b b:5432 check check-ssl port 8008 ca-file /ca.pem",
            "= --patroni-ca /ca.pem",
        ),
        (
            "server b b:5432 check check-ssl port 8008 crt /b.pem",
            "= --patroni-cert /b.pem --patroni-key /b.pem",
        ),
        (
            "server b b:5432 check port 8008 tcp-ut 30000",
            "= --tcp-user-timeout 30s",
        ),
        (
            "server-template b 3 pg.example.com:5432 check port 8008",
            "= --patroni http://pg.example.com:8008",
        ),
    ] {
        assert!(
            last(&listen(line)).contains(outcome),
            "{line}:\n{}",
            last(&listen(line))
        );
    }
    assert_eq!(
        last(&replicas("default-server on-marked-down shutdown-sessions")),
        "= lagging=cut"
    );
}

#[test]
fn a_line_that_needs_no_setting_says_why() {
    for line in [
        "mode tcp",
        "option tcplog",
        "retries 2",
        "timeout check 5s",
        "balance source",
        "stick-table type ip size 1",
        "option tcpka",
        "default-server inter 3s fall 3 rise 2",
        "default-server weight 100 on-marked-up shutdown-backup-sessions",
    ] {
        let outcomes = last(&listen(line));
        assert!(
            outcomes.lines().all(|outcome| outcome.starts_with("- ")),
            "{line}:\n{outcomes}"
        );
    }
    let outcome = last(&listen("default-server inter 3s fall 3 rise 2"));
    assert!(outcome.starts_with("- inter, fall, rise: "), "{outcome}");
}

#[test]
fn a_line_without_an_equivalent_is_named() {
    for line in [
        "a-word-of-haproxy-3 x",
        "timeout client 30m",
        "maxconn 100",
        "acl office src 10.0.0.0/8",
        "timeout connect 2h",
        "bind pg.example.com:5001",
        "bind *:5001-5009",
        "bind /run/pg.sock",
        "bind 10.0.0.9:5000",
        "bind 10.0.0.9:5001 accept-proxy",
        "bind 10.0.0.9:5001 ssl crt /a.pem",
        "bind 10.0.0.9:5001 interface eth0",
        "server b 10.0.0.2:5433 check port 8008",
        "server b 10.0.0.2:5432",
        "server b 10.0.0.2:5432 check",
        "server b 10.0.0.2:8008 check port 8008",
        "server b 10.0.0.2:5432 check port 8008 send-proxy-v2",
        "server b 10.0.0.2:5432 check port 8008 check-ssl verify none",
        "server b 10.0.0.2:5432 check port 8008 check-ssl ca-file '/a b.pem'",
        "server b 10.0.0.2:5432 check port 8008 track c",
        "server b 10.0.0.2:5432 check port 8008 ssl",
        "server b 10.0.0.2:5432 check port 8008 of-haproxy-3",
        "server b \"$HOST:5432\" check port 8008",
        "server-template b 3 _pg._tcp.example.com check port 8008",
    ] {
        let outcomes = last(&listen(line));
        assert!(
            outcomes.lines().any(|outcome| outcome.starts_with("! ")),
            "{line}:\n{outcomes}"
        );
        let report = read(&listen(line)).unwrap().to_string();
        assert!(
            report.contains("no equivalent: 6.") || report.contains("no equivalent: 1, 6."),
            "{report}"
        );
    }
    for line in [
        "balance source",
        "stick-table type ip size 1m",
        "server b 10.0.0.2:5432 check port 8008 backup",
        "server b 10.0.0.2:5432 check port 8008 weight 7",
    ] {
        let outcomes = last(&replicas(line));
        assert!(
            outcomes.lines().any(|outcome| outcome.starts_with("! ")),
            "{line}:\n{outcomes}"
        );
    }
}

#[test]
fn listeners_and_backends_become_routes() {
    let servers = "default-server check port 8008 on-marked-down shutdown-sessions\n server a 10.0.0.1:6432\n";
    let text = format!(
        "defaults base\n mode tcp\ndefaults pg from base\n option httpchk\n http-check send meth GET uri /sync\n\
         defaults\n option httpchk\n\
         frontend in\n bind *:5000\n bind :::5000\n default_backend out\n\
         backend out\n {servers}\nlisten sync from pg\n bind *:5002\n {servers}\
         listen async\n bind *:5003\n option httpchk HEAD /async?lag=1GB HTTP/1.0\n {servers}\
         listen stays\n bind *:5004\n tcp-check connect\n no option httpchk\n {servers}"
    );
    let text = text.replace("backend out\n", "backend out\n option httpchk OPTIONS /primary\n");
    assert_eq!(
        arguments(&text),
        [
            "--route=[::]:5000=primary,target=6432 --route=0.0.0.0:5002=sync,target=6432 \
             --route=0.0.0.0:5003=async,max-lag=1GB,lagging=cut,target=6432 --patroni=http://10.0.0.1:8008"
        ]
    );
    let report = read(&text).unwrap().to_string();
    assert!(
        report.contains("without `option httpchk`, HAProxy does not ask Patroni; keep HAProxy for it"),
        "{report}"
    );
}

/// The expected paths are those that HAProxy 2.6 requests with these lines.
#[test]
fn the_route_is_the_path_that_haproxy_requests() {
    for (defaults, own, kind) in [
        ("http-check send uri /replica", "option httpchk GET /primary", "primary"),
        (
            "http-check send uri /replica",
            "option httpchk GET /primary\n http-check expect status 200",
            "primary",
        ),
        ("http-check expect status 503", "option httpchk GET /primary", "primary"),
        (
            "option httpchk\n http-check send uri /replica\ndefaults next from base\n option httpchk GET /primary",
            "",
            "primary",
        ),
        (
            "",
            "http-check send uri /replica\n option httpchk GET /primary",
            "primary",
        ),
        ("", "http-check send uri /replica\n option httpchk", "replica"),
        (
            "",
            "option httpchk GET /primary\n http-check send uri /replica",
            "replica",
        ),
        ("option httpchk GET /primary", "http-check send uri /replica", "replica"),
        (
            "option httpchk GET /primary\n http-check send uri /replica",
            "http-check disable-on-404",
            "replica",
        ),
    ] {
        let text = format!(
            "defaults base\n {defaults}\nlisten pg\n bind 10.0.0.9:5000\n {own}\n server a 10.0.0.1:5432 check port 8008\n"
        );
        assert_eq!(
            arguments(&text),
            [format!("--route=10.0.0.9:5000={kind} --patroni=http://10.0.0.1:8008")],
            "{text}"
        );
    }
}

/// Pigsty routes some ports to poolers, and others to PostgreSQL.
#[test]
fn a_section_of_poolers_becomes_a_route_with_a_target() {
    let poolers = listen("").replace("10.0.0.1:5432", "10.0.0.1:6432");
    let direct = listen("").replace("5000", "5001");
    assert_eq!(
        arguments(&(poolers + &direct)),
        ["--route=10.0.0.9:5000=primary,target=6432 --route=10.0.0.9:5001=primary --patroni=http://10.0.0.1:8008"]
    );
    let one_of_two = listen("server b 10.0.0.2:6432 check port 8008");
    assert_eq!(
        last(&one_of_two).lines().last(),
        Some(
            "! port 6432: PostgreSQL's port comes from Patroni; if poolers listen at 6432, add target=6432 to the route"
        )
    );
}

/// The admin port has no password: an import that reported that nothing is needed would open the page to everyone.
#[test]
fn a_password_of_the_statistics_is_named() {
    let stats = "listen stats\n mode http\n bind *:7000\n stats enable\n stats auth admin:s3cret\n";
    let text = listen("") + stats;
    assert!(
        last(&text).starts_with("! stats: the admin port has no password"),
        "{}",
        last(&text)
    );
    assert!(!read(&text).unwrap().to_string().contains("s3cret"));
}

/// pgnorth follows one cluster. Servers that share no address may belong to two clusters.
#[test]
fn servers_without_a_common_address_are_two_clusters() {
    let other = listen("").replace("10.0.0.1", "10.0.0.2").replace("5000", "5001");
    let text = listen("") + &other;
    assert_eq!(
        arguments(&text),
        [
            "--route=10.0.0.9:5000=primary --patroni=http://10.0.0.1:8008",
            "--route=10.0.0.9:5001=primary --patroni=http://10.0.0.2:8008"
        ]
    );
    let joined = text + &replicas("server b 10.0.0.2:5432 check port 8008").replace("5000", "5002");
    assert_eq!(arguments(&joined).len(), 1);
}

#[test]
fn nothing_is_suggested_without_members_of_patroni() {
    for text in [
        String::new(),
        "global\n maxconn 1\n".to_owned(),
        listen("").replace("/primary", "/health"),
        listen("").replace("GET /primary", "GET"),
        listen("").replace("check port", "port"),
        listen("").replace("status 200", "status 503"),
        listen("").replace("status 200", "string primary"),
        listen("mode http"),
        listen("").replace("listen", "backend"),
        listen("").replace("listen", "frontend"),
    ] {
        let error = read(&text).map(|import| import.to_string()).unwrap_err().to_string();
        assert!(
            error.contains("no section leads to members of Patroni"),
            "{text}:\n{error}"
        );
    }
}

/// As flags and as variables the settings are the same, and pgnorth's parser accepts them.
#[test]
fn every_suggestion_is_valid() {
    let text = "global\n maxconn 70\n nbthread 2\n hard-stop-after 30s\n".to_owned()
        + &replicas("timeout connect 4s\n bind :::5001\n server b b:6432 check port 8008 check-ssl ca-file /ca crt /b")
        + "listen stats\n mode http\n bind *:7000\n stats enable\n";
    let suggestion = &read(&text).unwrap().suggestions[0];
    let flags = ["pgnorth".to_owned()].into_iter().chain(suggestion.arguments());
    let by_flags = Settings::read(flags.map(OsString::from), |_| None).unwrap();
    let variables = suggestion.variables();
    let variable = |name: &str| {
        let found = variables.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let by_variables = Settings::read(["pgnorth".into()], variable).unwrap();
    assert_eq!(by_flags, by_variables);
    let Job::Proxy(proxy) = by_flags.job else {
        panic!("the proxy")
    };
    // The default of --listen is a route too: none of these leads to the primary.
    assert_eq!(
        (proxy.routes.len(), proxy.max_sessions, proxy.workers),
        (3, Some(70), Some(2))
    );
    assert_eq!(proxy.admin, "0.0.0.0:7000".parse().unwrap());
}
