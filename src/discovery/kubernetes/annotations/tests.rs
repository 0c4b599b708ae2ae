//! Tests of the parsing of annotations.

use super::member::address_of;
use super::*;
use crate::leader::observation::Standby;
use crate::route::Upstream;

fn annotations(pairs: &[(&str, &str)]) -> Annotations {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

#[test]
fn a_lock_in_patronis_format_is_parsed() {
    let (lock, problem) = lock(&annotations(&[
        ("leader", "patronidemo-0"),
        ("ttl", "20"),
        ("acquireTime", "2026-11-20T06:07:32.180847+00:00"),
        ("renewTime", "2026-11-20T06:08:08.270910+00:00"),
        ("transitions", "0"),
        ("optime", "67108960"),
    ]));
    let lock = lock.unwrap();
    assert_eq!(problem, None);
    assert_eq!(lock.holder.as_deref(), Some("patronidemo-0"));
    assert_eq!(lock.ttl, Duration::from_secs(20));
    let written = SystemTime::UNIX_EPOCH + Duration::from_micros(1_795_154_888_270_910);
    assert_eq!(lock.written, Some(written));
}

#[test]
fn an_unparsable_renew_time_still_counts_as_a_renewal() {
    for text in [
        "",
        "x",
        "9999",
        "2026-11-20",
        "2026-11-20T06:08:08",
        "2026-13-20T06:08:08+00:00",
    ] {
        let (lock, _) = lock(&annotations(&[("leader", "pg-0"), ("renewTime", text)]));
        let lock = lock.unwrap();
        assert_eq!((lock.written, lock.renewal[1].as_deref()), (None, Some(text)));
    }
}

#[test]
fn a_released_lock_has_no_holder_and_a_services_endpoints_are_not_a_lock() {
    let (released, _) = lock(&annotations(&[("ttl", "30"), ("renewTime", "x"), ("transitions", "3")]));
    assert_eq!(released.unwrap().holder, None);
    let (foreign, _) = lock(&annotations(&[(
        "endpoints.kubernetes.io/last-change-trigger-time",
        "x",
    )]));
    assert_eq!(foreign, None);
}

#[test]
fn a_ttl_that_is_no_number_is_named_and_30_seconds_are_assumed() {
    for ttl in ["x", "", "0", "-1", "20.5", "99999999999999999999"] {
        let (lock, problem) = lock(&annotations(&[("leader", "pg-0"), ("ttl", ttl)]));
        assert_eq!(lock.unwrap().ttl, DEFAULT_TTL);
        assert!(
            problem
                .unwrap()
                .to_string()
                .starts_with("annotation `ttl` is not a whole number")
        );
    }
}

#[test]
fn addresses_are_parsed_from_conn_url() {
    for (conn_url, address) in [
        ("postgres://10.244.0.10:5432/postgres", "10.244.0.10:5432"),
        ("postgres://10.244.0.10/postgres", "10.244.0.10:5432"),
        ("postgres://10.244.0.10:6432", "10.244.0.10:6432"),
        ("postgresql://[fd00::7]:5433/postgres", "[fd00::7]:5433"),
        ("postgres://[fd00::7]", "[fd00::7]:5432"),
        (
            "postgres://patronidemo-0.patronidemo-headless.default.svc.cluster.local:5432/postgres",
            "patronidemo-0.patronidemo-headless.default.svc.cluster.local:5432",
        ),
        ("postgres://user:p%40ss@pg-0.pg:5432/db?x=y", "pg-0.pg:5432"),
    ] {
        assert_eq!(address_of(conn_url).unwrap().to_string(), address, "{conn_url}");
    }
}

#[test]
fn a_pod_has_the_address_of_its_pooler() {
    let read = |status: &str| dcs_status("pg-0", &annotations(&[("status", status)]), Some("10.0.0.7")).0;
    let with =
        read(r#"{"conn_url":"postgres://10.0.0.7:5432/postgres","proxy_url":"postgres://10.0.0.7:6432/postgres"}"#);
    assert_eq!(
        with.session_address(Upstream::Proxy).unwrap().to_string(),
        "10.0.0.7:6432"
    );
    assert_eq!(
        with.session_address(Upstream::Postgres).unwrap().to_string(),
        "10.0.0.7:5432"
    );
    let without = read(r#"{"conn_url":"postgres://10.0.0.7:5432/postgres"}"#);
    let why = without.session_address(Upstream::Proxy).unwrap_err().to_string();
    assert!(why.contains("pg-0") && why.contains("proxy_address"), "{why}");
    let wrong = read(r#"{"proxy_url":"mysql://user:secret@h/db"}"#);
    let why = wrong.session_address(Upstream::Proxy).unwrap_err().to_string();
    assert!(why.contains("proxy_url") && !why.contains("secret"), "{why}");
}

#[test]
fn an_error_about_a_conn_url_does_not_quote_it() {
    for conn_url in [
        "",
        "10.0.0.7",
        "postgres://",
        "mysql://user:secret@h/db",
        "postgres://user:secret@h:99999/db",
        "postgres://user:secret@h:0/db",
        "postgres://user:secret@/db",
    ] {
        let status = serde_json::json!({ "conn_url": conn_url }).to_string();
        let (pod, problem) = dcs_status("pg-0", &annotations(&[("status", &status)]), Some("10.0.0.7"));
        let why = pod.address.unwrap_err().to_string();
        assert!(
            why.contains("pod pg-0") && why.contains("conn_url"),
            "{conn_url}: {why}"
        );
        assert!(!why.contains("secret"), "{why}");
        assert!(!problem.unwrap().to_string().contains("secret"));
    }
}

#[test]
fn a_pod_with_patronis_annotations_is_parsed() {
    let status = r#"{"conn_url":"postgres://10.244.0.10:5432/postgres","api_url":"http://10.244.0.10:8008/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":67108960,"timeline":1}"#;
    let (pod, problem) = dcs_status("patronidemo-0", &annotations(&[("status", status)]), None);
    assert_eq!(problem, None);
    assert_eq!(pod.api_url.as_deref(), Some("http://10.244.0.10:8008"));
    assert_eq!(pod.role.as_deref(), Some("primary"));
    assert_eq!(pod.timeline, Some(1));
    assert_eq!(pod.xlog_location, Some(67_108_960));
}

#[test]
fn a_pod_without_status_falls_back_to_its_ip() {
    let (with_ip, _) = dcs_status("pg-0", &Annotations::new(), Some("fd00::7"));
    assert_eq!(with_ip.address.unwrap().to_string(), "[fd00::7]:5432");
    let (without, _) = dcs_status("pg-0", &Annotations::new(), None);
    assert!(without.address.unwrap_err().to_string().contains("pg-0"));
}

#[test]
fn an_error_names_a_status_that_is_not_json() {
    for text in ["", "{", "[]", "null", r#"{"timeline":-1}"#, r#"{"conn_url":7}"#] {
        let (_, problem) = dcs_status("pg-0", &annotations(&[("status", text)]), None);
        assert!(problem.unwrap().to_string().contains("`status`"), "{text}");
    }
}

#[test]
fn a_switchover_is_announced_now_later_or_without_a_valid_time() {
    let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH);
    let read = |pairs: &[(&str, &str)]| announcement(&annotations(pairs), now, wall);
    let (soon, _) = read(&[("leader", "pg-0"), ("member", "pg-1")]);
    assert_eq!(soon.unwrap().starts, None);
    let (later, _) = read(&[("leader", "pg-0"), ("scheduled_at", "1970-01-01T00:01:00+00:00")]);
    assert_eq!(later.unwrap().starts, Some(now + Duration::from_secs(60)));
    let (never, problem) = read(&[("leader", "pg-0"), ("scheduled_at", "tomorrow")]);
    assert_eq!(never, None);
    assert!(problem.unwrap().to_string().contains("tomorrow"));
    assert_eq!(read(&[]).0, None);
}

#[test]
fn pause_and_standby_cluster_are_read_as_patroni_reads_them() {
    let read = |text: &str| settings(&annotations(&[("config", text)])).0.unwrap();
    // The expected values are those that patroni.global_config of Patroni 4.1.5 returns.
    for (pause, is_paused) in [
        ("true", true),
        ("1", true),
        (r#""on""#, true),
        (r#""True""#, true),
        (r#""YES""#, true),
        (r#""1""#, true),
        ("false", false),
        ("null", false),
        ("0", false),
        ("2", false),
        ("1.0", false),
        (r#""off""#, false),
        (r#""t""#, false),
        (r#"" on""#, false),
        (r#"{"on":true}"#, false),
        ("[true]", false),
    ] {
        assert_eq!(read(&format!(r#"{{"pause":{pause}}}"#)).paused, is_paused, "{pause}");
    }
    for (standby, is_standby) in [
        (r#"{"host":"10.1.0.1"}"#, true),
        (r#"{"port":5432}"#, true),
        (r#"{"restore_command":"cp"}"#, true),
        (r#"{"host":"","port":0,"restore_command":"cp"}"#, true),
        (r#"{"host":"","port":0,"restore_command":null}"#, false),
        (r#"{"primary_slot_name":"x"}"#, false),
        (r#"{"create_replica_methods":["basebackup"]}"#, false),
        ("{}", false),
        ("null", false),
        ("true", false),
        (r#""host""#, false),
        (r#"["host"]"#, false),
    ] {
        let found = read(&format!(r#"{{"standby_cluster":{standby}}}"#)).standby_cluster;
        assert_eq!(found, is_standby, "{standby}");
    }
    assert!(settings(&annotations(&[("config", "{")])).1.is_some());
}

#[test]
fn synchronous_mode_is_read_as_patroni_reads_it() {
    let read = |mode: &str| {
        let config = format!(r#"{{"synchronous_mode":{mode}}}"#);
        settings(&annotations(&[("config", &config)])).0.unwrap().synchronous
    };
    // The expected values are those that patroni.global_config of Patroni 4.1.5 returns.
    for (mode, expected) in [
        ("true", Some(Standby::Sync)),
        (r#""on""#, Some(Standby::Sync)),
        (r#""quorum""#, Some(Standby::Quorum)),
        (r#""QUORUM""#, Some(Standby::Quorum)),
        ("false", None),
        ("null", None),
        (r#""off""#, None),
    ] {
        assert_eq!(read(mode), expected, "{mode}");
    }
}

#[test]
fn the_system_identifier_is_parsed_from_the_config_object() {
    let read = |pairs: &[(&str, &str)]| settings(&annotations(pairs)).0.and_then(|settings| settings.system);
    assert_eq!(read(&[("initialize", "7"), ("config", "{}")]).as_deref(), Some("7"));
    assert_eq!(read(&[("initialize", "7"), ("config", "{")]).as_deref(), Some("7"));
    assert_eq!(read(&[("initialize", "7")]).as_deref(), Some("7"));
    for not_valid in ["", "x", "-7", "7 "] {
        assert_eq!(
            read(&[("initialize", not_valid), ("config", "{}")]),
            None,
            "{not_valid:?}"
        );
    }
    assert_eq!(settings(&Annotations::new()).0, None);
}

#[test]
fn primary_race_backoff_is_parsed_from_the_config() {
    let read = |text: &str| settings(&annotations(&[("config", text)])).0.unwrap().race_backoff;
    assert_eq!(read(r#"{"primary_race_backoff":60}"#), Duration::from_secs(60));
    assert_eq!(read(r#"{"primary_race_backoff":"60"}"#), Duration::from_secs(60));
    for text in [
        "{}",
        r#"{"primary_race_backoff":null}"#,
        r#"{"primary_race_backoff":-1}"#,
        r#"{"primary_race_backoff":"NaN"}"#,
    ] {
        assert_eq!(read(text), Duration::ZERO, "{text}");
    }
}

#[test]
fn loop_wait_is_parsed_from_the_config() {
    let read = |text: &str| loop_wait(&annotations(&[("config", text)]));
    assert_eq!(read(r#"{"loop_wait":3}"#), Some(Duration::from_secs(3)));
    for text in [
        "",
        "{",
        "{}",
        r#"{"loop_wait":0}"#,
        r#"{"loop_wait":"3"}"#,
        r#"{"loop_wait":-1}"#,
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    assert_eq!(loop_wait(&Annotations::new()), None);
}

#[test]
fn an_error_names_a_config_that_is_not_json_without_quoting_it() {
    for text in ["", "{", "7", "\"secret\"", "[\"secret\"]"] {
        let problem = settings(&annotations(&[("config", text)])).1.unwrap().to_string();
        assert!(problem.contains("`config`") && !problem.contains("secret"), "{problem}");
    }
}
