//! Tests of the parsing of etcd's answers.

use super::*;

// The answers below were recorded from etcd 3.4.23; those marked 3.5 differ there.

#[test]
fn a_listing_is_parsed() {
    let listing = read_listing(
        br#"{"header":{"cluster_id":"3249","member_id":"33","revision":"2","raft_term":"2"},"kvs":[{"key":"L3NlcnZpY2UvZGVtby9sZWFkZXI=","create_revision":"2","mod_revision":"2","version":"1","value":"YQ==","lease":"2324035530800062725"}],"count":"1"}"#,
    )
    .unwrap();
    let leader = KeyValue {
        key: "/service/demo/leader".into(),
        value: "a".into(),
        mod_revision: 2,
        lease: 2_324_035_530_800_062_725,
    };
    assert_eq!(
        listing,
        Listing {
            revision: 2,
            keys: vec![leader]
        }
    );
    let none = read_listing(br#"{"header":{"revision":"7"}}"#).unwrap();
    assert_eq!((none.revision, none.keys.len()), (7, 0));
}

#[test]
fn a_leases_time_is_parsed_also_if_none_is_left() {
    let read = |body: &str| read_lease_time(body.as_bytes()).unwrap();
    let time = |left, granted| LeaseTime { left, granted };
    assert_eq!(read(r#"{"header":{},"ID":"7","TTL":"4","grantedTTL":"5"}"#), time(4, 5));
    assert_eq!(read(r#"{"header":{},"ID":"7","grantedTTL":"5"}"#), time(0, 5));
    assert_eq!(read(r#"{"header":{},"ID":"7","TTL":"-1"}"#), time(-1, 0));
}

#[test]
fn messages_of_a_watch_are_parsed() {
    let read = |line: &str| read_watch(line.as_bytes());
    assert_eq!(
        read(r#"{"result":{"header":{},"created":true}}"#),
        Ok(WatchMessage::Created)
    );
    let deleted = KeyValue {
        key: "/service/demo/leader".into(),
        mod_revision: 3,
        ..KeyValue::default()
    };
    assert_eq!(
        read(
            r#"{"result":{"header":{"revision":"3"},"events":[{"type":"DELETE","kv":{"key":"L3NlcnZpY2UvZGVtby9sZWFkZXI=","mod_revision":"3"}}]}}"#
        ),
        Ok(WatchMessage::Changes(vec![Change::Deleted(deleted)]))
    );
    assert_eq!(
        read(r#"{"result":{"header":{},"canceled":true,"compact_revision":"9"}}"#),
        Ok(WatchMessage::Compacted)
    );
    assert_eq!(
        read(
            r#"{"result":{"header":{},"canceled":true,"cancel_reason":"etcdserver: permission denied","created":true}}"#
        ),
        Err(Refused::Permission("etcdserver: permission denied".into()))
    );
    // A message without events reports progress.
    assert_eq!(
        read(r#"{"result":{"header":{"revision":"5"}}}"#),
        Ok(WatchMessage::Changes(Vec::new()))
    );
    for (error, refused) in [
        (
            r#"{"error":{"grpc_code":14,"http_code":503,"message":"etcdserver: no leader"}}"#,
            Refused::Other("etcd answers with an error: no leader".into()),
        ),
        // 3.5.
        (
            r#"{"error":{"code":16,"message":"etcdserver: invalid auth token","details":[]}}"#,
            Refused::Token("invalid auth token".into()),
        ),
        ("{}", Refused::NotEtcd("/v3/watch")),
        ("<html>", Refused::NotEtcd("/v3/watch")),
    ] {
        assert_eq!(read(error), Err(refused), "{error}");
    }
}

#[test]
fn refusals_that_need_different_fixes_differ() {
    for (body, refused) in [
        (
            r#"{"error":"etcdserver: user name is empty","message":"etcdserver: user name is empty","code":3}"#,
            Refused::Token("user name is empty".into()),
        ),
        (
            r#"{"error":"etcdserver: invalid auth token","message":"etcdserver: invalid auth token","code":16}"#,
            Refused::Token("invalid auth token".into()),
        ),
        (
            r#"{"error":"etcdserver: revision of auth store is old","code":3}"#,
            Refused::Token("revision of auth store is old".into()),
        ),
        (
            r#"{"error":"etcdserver: authentication failed, invalid user ID or password","code":3}"#,
            Refused::Password,
        ),
        (
            r#"{"error":"etcdserver: authentication is not enabled","code":9}"#,
            Refused::NoAuthentication,
        ),
        // 3.5.
        (
            r#"{"code":7,"message":"etcdserver: permission denied","details":[]}"#,
            Refused::Permission("permission denied".into()),
        ),
        (
            r#"{"error":"etcdserver: request timed out","code":14}"#,
            Refused::Other("etcd answers with an error: request timed out".into()),
        ),
    ] {
        assert_eq!(read_error(400, body.as_bytes()), refused, "{body}");
    }
    assert_eq!(read_error(502, b""), Refused::Other("HTTP status 502".into()));
    assert_eq!(
        read_error(404, b"404 page not found"),
        Refused::Other("HTTP status 404: 404 page not found".into())
    );
}

#[test]
fn a_range_covers_the_prefix_and_nothing_else() {
    assert_eq!(end_of("/service/demo/"), b"/service/demo0");
    let body = list("/service/demo/", true);
    assert_eq!(body["key"], "L3NlcnZpY2UvZGVtby8=");
    assert!(body["serializable"].is_null(), "a serializable read may be stale");
}
