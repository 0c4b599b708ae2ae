//! Tests of the checks of sources: the Kubernetes API, etcd, and members alone; and of TLS.

use super::*;

/// Regression: the doctor asked the Kubernetes API only if it was a source of discovery.
#[test]
fn the_service_of_a_publisher_with_etcd_is_checked() {
    let settings = settings("--etcd http://h:2379 --namespace db --service primary");
    assert_eq!(settings.namespace.as_deref(), Some("db"));
    let mut facts = healthy(&settings);
    facts.api = None;
    facts.publisher = Some(Ok(Publisher {
        namespace: "db".into(),
        version: Ok("v1.33.0".into()),
        rights: rights::of_publisher(&settings)
            .into_iter()
            .map(|right| (right, Ok(right.resource != "services")))
            .collect(),
        service: Some(("primary".into(), Err("it has a selector".into()))),
    }));
    let lines = |facts: &Facts| {
        let checks = everything(&settings, facts).into_iter();
        checks.map(|check| check.to_string()).collect::<Vec<_>>().join("\n")
    };
    let text = lines(&facts);
    for part in [
        "service db/primary — it has a selector",
        "right to get services — not granted in namespace db",
        "rights on endpointslices — get, create, update granted",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    facts.publisher = Some(Err(ApiFailure::NoCredentials("no kubeconfig".into())));
    let text = lines(&facts);
    assert!(
        text.contains("the Service of pgnorth publish — not checked: there are no Kubernetes credentials"),
        "{text}"
    );
}

/// Regression: the suggested value of `--patroni` was empty.
#[test]
fn failsafe_mode_in_etcd_without_a_members_url_names_the_value_of_patroni() {
    let settings = settings("--etcd http://h:2379");
    let mut facts = healthy(&settings);
    let Some(Ok(api)) = facts.api.take() else { panic!() };
    facts.members.clear();
    let config = api.config.ok().flatten().map(|config| Config {
        failsafe: true,
        ..config
    });
    facts.etcd = Some(Ok(EtcdFacts {
        prefix: "/service/demo/".into(),
        endpoints: vec![(url("http://h:2379"), Ok(3))],
        holder: None,
        ttl: None,
        config,
        groups: Vec::new(),
        renewal: Err("there is no leader key".into()),
    }));
    let checks = everything(&settings, &facts);
    let fix = checks
        .iter()
        .find(|check| check.what == "--patroni")
        .unwrap()
        .fix
        .clone();
    assert!(fix.unwrap().contains("restapi.connect_address"));
}

/// Regression: the primary stayed up during an outage of the API, and a pgnorth that was started meanwhile found no
/// leader.
#[test]
fn failsafe_mode_asks_for_patroni_by_names_that_outlive_a_pod() {
    let result = |flags: &str, host: &str| {
        let settings = settings(flags);
        let mut facts = healthy(&settings);
        failsafe(&mut facts);
        facts.members[0].rest = Rest::Answered {
            url: url(&format!("https://{host}:8009")),
            report: report(Role::Primary, 3),
        };
        let mut checks = everything(&settings, &facts).into_iter();
        checks.find(|check| check.what == "--patroni")
    };
    for address in ["10.0.0.7", "[fd00::7]"] {
        let asked = result("", address).unwrap().to_string();
        let service = "--patroni https://demo-members:8009, and a headless Service demo-members in namespace db that selects cluster-name=demo";
        assert!(asked.starts_with("warn  --patroni — not set"), "{asked}");
        assert!(asked.contains(service) && asked.contains("certificate"), "{asked}");
    }
    let by_name = result("", "demo-0.pods").unwrap().to_string();
    assert!(
        by_name.ends_with("--patroni https://demo-0.pods:8009,http://demo-1:8008"),
        "{by_name}"
    );
    assert_eq!(result("--patroni http://demo-0:8008", "10.0.0.7"), None);
}

#[test]
fn a_kind_that_patroni_does_not_use_needs_no_rights() {
    let settings = settings("");
    let mut facts = healthy(&settings);
    take(&mut facts, "watch configmaps");
    take(&mut facts, "get configmaps");
    assert!(
        everything(&settings, &facts)
            .iter()
            .all(|check| check.level == Level::Ok)
    );
    in_config_maps(&mut facts);
    let result = everything(&settings, &facts);
    assert_eq!(
        result.iter().filter(|check| check.level == Level::Fail).count(),
        2,
        "{result:#?}"
    );
}

#[test]
fn beside_config_maps_a_service_may_have_the_scopes_name() {
    let settings = settings("");
    let mut facts = healthy(&settings);
    in_config_maps(&mut facts);
    api(&mut facts).services = Ok(vec![service("demo", true, false)]);
    assert!(
        everything(&settings, &facts)
            .iter()
            .all(|check| check.level == Level::Ok)
    );
}

#[test]
fn no_fix_takes_the_selector_from_a_service_that_may_work() {
    let settings = settings("");
    let services = |facts: &Facts| -> Vec<Check> {
        let result = everything(&settings, facts);
        result
            .into_iter()
            .filter(|check| check.what.starts_with("service "))
            .collect()
    };
    let annotated = |facts: &mut Facts, name: &str| api(facts).services = Ok(vec![service(name, true, true)]);
    let mut left_over = healthy(&settings);
    in_config_maps(&mut left_over);
    annotated(&mut left_over, "demo");
    let mut of_another_cluster = healthy(&settings);
    annotated(&mut of_another_cluster, "other");
    let mut no_lock_seen = healthy(&settings);
    api(&mut no_lock_seen).leaders[0].1 = Err("forbidden".into());
    annotated(&mut no_lock_seen, "demo");
    for facts in [left_over, of_another_cluster, no_lock_seen] {
        let result = services(&facts);
        let [check] = result.as_slice() else {
            panic!("{result:#?}")
        };
        assert_eq!(check.level, Level::Warn, "{check}");
        assert!(!check.to_string().contains("kubectl"), "{check}");
    }
}

#[test]
fn without_the_api_everything_else_is_named() {
    let settings = settings("");
    for failure in [
        ApiFailure::NoCredentials("no file".into()),
        ApiFailure::Unauthorized("Unauthorized".into()),
        ApiFailure::Unreachable("connection refused".into()),
    ] {
        let mut facts = healthy(&settings);
        facts.api = Some(Err(failure));
        facts.members.clear();
        let checks = everything(&settings, &facts);
        assert_eq!(checks.iter().filter(|check| check.level == Level::Fail).count(), 1);
        let lost = checks.iter().filter(|check| check.found.starts_with("not checked: "));
        assert_eq!(lost.count(), 8, "{checks:#?}");
    }
}

#[test]
fn without_kubernetes_cluster_names_the_leader() {
    let settings = settings("");
    let seed = |leader: Option<&str>| Seed {
        scope: Some("demo".into()),
        members: vec!["demo-0".into(), "demo-1".into()],
        leader: leader.map(MemberName::from),
        ttl: Some(Duration::from_secs(30)),
        paused: false,
    };
    let result = |seeds: &[(&str, Result<Seed, &str>)]| {
        let mut facts = healthy(&settings);
        facts.api = None;
        facts.seeds = seeds
            .iter()
            .map(|(at, result)| {
                (
                    url(at),
                    result.clone().map_err(|why| RestFailure {
                        why: why.to_owned(),
                        tls: None,
                    }),
                )
            })
            .collect();
        let checks = everything(&settings, &facts);
        let bad = checks.into_iter().filter(|check| check.level != Level::Ok);
        bad.map(|check| check.to_string()).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(result(&[("http://a:8008", Ok(seed(Some("demo-0"))))]), "");
    let one_is_down = result(&[
        ("http://a:8008", Ok(seed(Some("demo-0")))),
        ("http://b:8008", Err("refused")),
    ]);
    assert!(
        one_is_down.starts_with("warn  http://b:8008/cluster — refused"),
        "{one_is_down}"
    );
    assert_eq!(one_is_down.lines().count(), 1, "{one_is_down}");
    assert!(result(&[("http://b:8008", Err("refused"))]).starts_with("FAIL  http://b:8008/cluster — refused"));
    assert!(result(&[("http://a:8008", Ok(seed(None)))]).contains("no member leads"));
    let split = result(&[
        ("http://a:8008", Ok(seed(Some("demo-0")))),
        ("http://b:8008", Ok(seed(Some("demo-1")))),
    ]);
    assert!(split.contains("members disagree about the leader"), "{split}");
}

#[test]
fn each_failure_of_etcd_has_its_fix() {
    let failure = |why: &str| EtcdFailure {
        why: why.into(),
        tls: None,
        is_denied: false,
        is_login: false,
    };
    let denied = EtcdFailure {
        is_denied: true,
        ..failure("permission denied")
    };
    let login = EtcdFailure {
        is_login: true,
        ..failure("user name is empty")
    };
    let stranger = EtcdFailure {
        tls: Some(TlsProblem::UnknownAuthority),
        ..failure("UnknownIssuer")
    };
    for (flags, failure, fix) in [
        ("", failure("connection refused"), "check that etcd is running there"),
        ("", denied.clone(), "authentication enabled"),
        ("", login.clone(), "set --etcd-user and --etcd-password-file"),
        (
            "--etcd-user u --etcd-password-file /p",
            denied,
            "etcdctl role grant-permission <a role of u> --prefix=true read /service/demo/",
        ),
        (
            "--etcd-user u --etcd-password-file /p",
            login,
            "--etcd-password-file must contain the password of u",
        ),
        ("", stranger, "set --etcd-ca"),
    ] {
        let settings = settings(&format!("--etcd https://h:2379 {flags}"));
        let mut facts = healthy(&settings);
        facts.api = None;
        facts.etcd = Some(Ok(EtcdFacts {
            prefix: "/service/demo/".into(),
            endpoints: vec![(url("https://h:2379"), Err(failure))],
            holder: None,
            ttl: None,
            config: None,
            groups: Vec::new(),
            renewal: Err("no etcd endpoint gave a usable answer".into()),
        }));
        let checks = everything(&settings, &facts);
        let check = checks.iter().find(|check| check.what == "etcd https://h:2379").unwrap();
        assert_eq!(check.level, Level::Fail);
        assert!(check.fix.as_ref().unwrap().contains(fix), "{check}");
    }
}

#[test]
fn a_tls_failure_is_named() {
    for (flags, trouble, found, fix) in [
        ("", TlsProblem::UnknownAuthority, "unknown CA", "set --patroni-ca"),
        (
            "--patroni-ca /ca.crt",
            TlsProblem::UnknownAuthority,
            "not signed by a CA in /ca.crt (--patroni-ca)",
            "authority that signed",
        ),
        ("", TlsProblem::Expired, "has expired", "renew"),
        ("", TlsProblem::WrongName, "for other names", "subjectAltName"),
        (
            "",
            TlsProblem::CertificateRequired,
            "demands a client certificate",
            "set --patroni-cert and --patroni-key",
        ),
        (
            "",
            TlsProblem::CertificateRefused,
            "rejects the client certificate",
            "set --patroni-cert",
        ),
        (
            "--patroni-cert /c --patroni-key /k",
            TlsProblem::CertificateRefused,
            "rejects",
            "/c must not have expired",
        ),
        ("", TlsProblem::NoTls, "it does not use TLS", "http://"),
        (
            "",
            TlsProblem::Other("odd".into()),
            "TLS fails: odd",
            "openssl s_client",
        ),
    ] {
        let settings = settings(flags);
        let mut facts = healthy(&settings);
        facts.members[0].rest = silent(Some(trouble));
        let checks = everything(&settings, &facts);
        let result: Vec<_> = checks.iter().filter(|check| check.level == Level::Fail).collect();
        let [check] = result[..] else { panic!("{result:#?}") };
        assert!(check.found.contains(found), "{check}");
        assert!(check.fix.as_ref().unwrap().contains(fix), "{check}");
    }
}
