//! Tests of the parsing of members' answers.

use super::*;
use crate::leader::BaseUrl;
use crate::leader::observation::ClusterMember;

fn answer(status: u16, body: &str) -> Answer {
    Answer {
        status: hyper::StatusCode::from_u16(status).unwrap(),
        body: body.to_owned().into(),
    }
}

const PRIMARY: &str = r#"{"state":"running","postmaster_start_time":"2026-11-20 06:07:33.1+00:00","role":"primary","server_version":150010,"xlog":{"location":67108960},"timeline":2,"dcs_last_seen":1795000000,"database_system_identifier":"7440000000000000000","patroni":{"version":"4.1.5","scope":"demo","name":"demo-0"}}"#;

#[test]
fn a_report_of_a_primary_that_holds_the_lock_is_parsed() {
    let report = read_report(&"demo-0".into(), &answer(200, PRIMARY)).unwrap();
    assert!(report.is_writable() && report.holds_lock);
    assert_eq!(report.timeline, Some(2));
    assert_eq!(report.system.as_deref(), Some("7440000000000000000"));
}

#[test]
fn a_member_that_does_not_reach_the_dcs_does_not_know_which_standby_it_is() {
    for (fields, expected) in [
        (r#""sync_standby":true"#, Some(Standby::Sync)),
        (r#""quorum_standby":true"#, Some(Standby::Quorum)),
        (r#""pause":false"#, Some(Standby::Async)),
        (r#""cluster_unlocked":true"#, None),
        (r#""cluster_unlocked":true,"sync_standby":true"#, Some(Standby::Sync)),
    ] {
        let body = format!(r#"{{"role":"replica","state":"running",{fields}}}"#);
        let report = read_report(&"demo-0".into(), &answer(503, &body)).unwrap();
        assert_eq!(report.replication.standby, expected, "{fields}");
    }
}

#[test]
fn status_200_alone_is_not_writable() {
    for (role, state) in [
        ("replica", "running"),
        ("primary", "stopping"),
        ("promoted", "running"),
        ("primary", "starting"),
    ] {
        let body = format!(r#"{{"role":"{role}","state":"{state}"}}"#);
        assert!(
            !read_report(&"demo-0".into(), &answer(200, &body))
                .unwrap()
                .is_writable(),
            "{body}"
        );
    }
}

#[test]
fn the_body_of_a_503_is_evidence_too() {
    let report = read_report(&"demo-0".into(), &answer(503, PRIMARY)).unwrap();
    assert!(report.is_writable() && !report.holds_lock);
}

#[test]
fn an_answer_that_is_not_this_members_is_an_error() {
    for body in [
        "",
        "[]",
        "null",
        "{",
        r#"{"role":"primary"}"#,
        r#"{"role":"primary","state":"unknown"}"#,
        r#"{"role":"primary","state":"running","patroni":{"name":"other-0"}}"#,
        r#"{"role":7,"state":"running"}"#,
    ] {
        assert!(read_report(&"demo-0".into(), &answer(200, body)).is_err(), "{body}");
    }
}

#[test]
fn an_unusable_row_of_cluster_is_returned_apart() {
    let body = r#"{"members":[
        {"name":"demo-0","role":"leader","state":"running","api_url":"http://10.244.0.10:8008/patroni","host":"10.244.0.10","port":5432,"timeline":1},
        {"name":"demo-1","role":"replica","state":"creating replica"},
        {"name":"demo-2","host":"a b","port":5432}],
        "scope":"demo","pause":true,"scheduled_switchover":{"at":"2000-01-01T00:00:00+00:00","from":"demo-0"}}"#;
    let (cluster, problems) =
        read_cluster(&BaseUrl::parse("http://10.244.0.10:8008").unwrap(), &answer(200, body)).unwrap();
    assert_eq!(cluster.members.len(), 2);
    assert_eq!(
        cluster.members[0].address.as_ref().unwrap().to_string(),
        "10.244.0.10:5432"
    );
    assert_eq!(cluster.members[0].api_url.as_deref(), Some("http://10.244.0.10:8008"));
    assert!(cluster.paused);
    assert_eq!(cluster.scope.as_deref(), Some("demo"));
    assert_eq!(cluster.leader.as_deref(), Some("demo-0"));
    assert_eq!(cluster.switchover.unwrap().leader.as_deref(), Some("demo-0"));
    assert_eq!(problems[0].member, "demo-2");
}

#[test]
fn the_leader_is_parsed_from_cluster() {
    let named = |status: u16, body: &str| read_leader(&answer(status, body));
    for (leader, running_on) in [
        (r#""role":"leader","state":"running","timeline":7"#, Some(7)),
        (r#""role":"leader","state":"running""#, None),
        (r#""role":"leader","state":"starting","timeline":7"#, None),
        (r#""role":"standby_leader","state":"running","timeline":7"#, None),
    ] {
        let body = format!(r#"{{"members":[{{"name":"demo-1","role":"sync_standby"}},{{"name":"demo-0",{leader}}}]}}"#);
        let named = named(200, &body).unwrap().expect("a leader");
        assert_eq!(
            (named.member.as_str(), named.running_on),
            ("demo-0", running_on),
            "{leader}"
        );
    }
    let leaderless = r#"{"members":[{"name":"demo-0","role":"replica"}]}"#;
    assert_eq!(named(200, leaderless).unwrap(), None);
    // Patroni cannot read its DCS: the answer says nothing about the leader.
    assert!(named(500, leaderless).is_err() && named(200, "{}").is_err());
}

#[test]
fn the_members_are_parsed_from_failsafe() {
    let body = r#"{"demo-0":"http://10.244.0.10:8008/patroni","demo-1":"https://[fd00::7]:8008/patroni","demo-2":"-"}"#;
    let members = read_failsafe(&answer(200, body)).unwrap();
    let member = |place: usize| {
        let member: &ClusterMember = &members[place];
        (
            member.name.as_str(),
            member.address.as_ref().unwrap().to_string(),
            member.api_url.as_deref().unwrap(),
        )
    };
    assert_eq!(
        member(0),
        ("demo-0", "10.244.0.10:5432".into(), "http://10.244.0.10:8008")
    );
    assert_eq!(member(1), ("demo-1", "[fd00::7]:5432".into(), "https://[fd00::7]:8008"));
    assert_eq!(members.len(), 2, "an unusable row is left out");
    assert!(read_failsafe(&answer(502, "Failsafe mode is not enabled")).is_err());
}

#[test]
fn the_ttl_is_parsed_from_the_config() {
    let read = |body: &str| read_ttl(&answer(200, body));
    assert_eq!(read(r#"{"ttl":20}"#), Some(Duration::from_secs(20)));
    assert_eq!(read(r#"{"ttl":"x"}"#), None);
    assert_eq!(read(r#"{"ttl":0}"#), None);
}
