//! `pgnorth publish` keeps a Service of the real API pointing at the primary of a real cluster, with the rights of
//! deploy/publish/rbac.yaml.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::kubernetes::User;
use crate::support::publisher::{SERVICE, create_service, leads_to, slice, wait_until_leads_to};
use crate::support::{Dcs, Member, Publisher, Rig, wait_until};

const SOON: Duration = Duration::from_secs(20);
const FAILOVER: Duration = Duration::from_secs(60);
const WROTE: &str = "the Service points to the primary";
const SECRETS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[tokio::test]
async fn it_follows_a_switchover_and_a_crash() {
    let rig = Rig::start(Dcs::Endpoints).await;
    create_service(&rig, SERVICE, &json!({})).await;
    let publisher = Publisher::start(&rig, &["--service", SERVICE, "--endpoints"]);
    wait_until_leads_to(&rig, SERVICE, &[rig.member(0).ip().to_string()], SOON).await;
    let found = slice(&rig, SERVICE).await.expect("a slice");
    assert_eq!(found["metadata"]["labels"]["kubernetes.io/service-name"], SERVICE);
    assert_eq!(
        found["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"],
        "pgnorth"
    );
    assert_eq!(found["metadata"]["ownerReferences"][0]["name"], SERVICE);
    assert_eq!(found["metadata"]["annotations"]["pgnorth/timeline"], "1");
    assert_eq!(found["ports"][0]["name"], "postgresql");
    assert_eq!(found["ports"][0]["port"], 5432);

    let old = rig.leader().await;
    let (moved, seen) = tokio::join!(rig.switchover(Some("patronidemo-1")), watch(&rig, old));
    let () = moved;
    seen.print("switchover", &publisher);
    assert_eq!(seen.to, rig.member(1).ip().to_string());

    rig.wait_until_whole(FAILOVER).await;
    let old = rig.leader().await;
    old.kill_host();
    let seen = watch(&rig, old).await;
    seen.print("crash", &publisher);
    let nowhere = publisher.newest("the Service has no endpoints: new connections are refused");
    let reason = nowhere.expect("the address was removed when the lock expired")["reason"].clone();
    assert!(
        reason
            .as_str()
            .is_some_and(|reason| reason.contains("patronidemo-1 has not renewed")),
        "{reason}"
    );
    let new = rig.leader().await;
    assert_eq!(seen.to, new.ip().to_string());
    let endpoints = rig
        .kubernetes()
        .object(&format!("endpoints/{SERVICE}"))
        .await
        .expect("Endpoints");
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], seen.to);
    assert_eq!(
        endpoints["metadata"]["labels"]["endpointslice.kubernetes.io/skip-mirror"],
        "true"
    );
    assert_eq!(publisher.metric(&rig, "pgnorth_publish_behind", &[]).await, Some(0.0));
}

/// Observations of one change of primary, from outside.
struct Seen {
    empty: Option<Instant>,
    writable: Instant,
    patched: Instant,
    to: String,
}

/// Reads members and slice all the time, until the slice has the address of another member than `old`; it never has
/// two.
async fn watch(rig: &Rig, old: &Member) -> Seen {
    let old_ip = old.ip().to_string();
    let writable = async {
        loop {
            for member in rig.others(old) {
                if member.psql("select pg_is_in_recovery()").await.as_deref() == Ok("f") {
                    return Instant::now();
                }
            }
        }
    };
    let patched = async {
        let mut empty = None;
        loop {
            let addresses = leads_to(rig, SERVICE).await.expect("the slice stays");
            match &addresses[..] {
                [] => _ = empty.get_or_insert_with(Instant::now),
                [only] if *only != old_ip => return (empty, Instant::now(), only.clone()),
                [_] => assert_eq!(empty, None, "the old address came back"),
                more => panic!("the Service leads to {more:?}"),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let both = async { tokio::join!(writable, patched) };
    let (writable, (empty, patched, to)) = tokio::time::timeout(FAILOVER, both).await.expect("the Service follows");
    Seen {
        empty,
        writable,
        patched,
        to,
    }
}

impl Seen {
    fn print(&self, what: &str, publisher: &Publisher) {
        let event = publisher.newest(WROTE).expect("a write");
        let gap = self.patched.saturating_duration_since(self.writable);
        println!(
            "{what}: decision to patched {} ms (its own log); seen writable by psql, then seen patched after {gap:?}; {}",
            event["took_ms"],
            if self.empty.is_some() {
                "empty in between"
            } else {
                "never seen empty"
            }
        );
    }
}

#[tokio::test]
async fn a_frozen_patroni_loses_the_address_before_another_gets_it() {
    let rig = Rig::start(Dcs::ConfigMaps).await;
    create_service(&rig, SERVICE, &json!({})).await;
    let publisher = Publisher::start(&rig, &["--service", SERVICE]);
    let old = rig.leader().await;
    wait_until_leads_to(&rig, SERVICE, &[old.ip().to_string()], SOON).await;
    old.freeze_patroni();
    let seen = watch(&rig, old).await;
    seen.print("fence", &publisher);
    assert!(
        seen.empty.is_some(),
        "two primaries, and the Service led to the old one until it led to the new one"
    );
    old.psql("create table still_writable ()")
        .await
        .expect("the old primary takes writes");
}

#[tokio::test]
async fn two_publishers_agree_and_restore_an_object_that_others_changed() {
    let rig = Rig::start(Dcs::Endpoints).await;
    create_service(&rig, SERVICE, &json!({})).await;
    let both = [0, 1].map(|_| Publisher::start(&rig, &["--service", SERVICE]));
    wait_until_leads_to(&rig, SERVICE, &[rig.member(0).ip().to_string()], SOON).await;
    for to in [1, 2] {
        rig.switchover(Some(rig.member(to).name())).await;
        wait_until_leads_to(&rig, SERVICE, &[rig.member(to).ip().to_string()], SOON).await;
        rig.wait_until_whole(FAILOVER).await;
    }
    let wrong = json!({"endpoints": [{"addresses": ["10.244.9.9"]}]});
    let path = rig.kubernetes().slice_path(SERVICE);
    let patched = rig.kubernetes().ask(User::Admin, "PATCH", &path, Some(&wrong)).await;
    assert_eq!(patched.expect("the API answers").status, 200);
    wait_until_leads_to(&rig, SERVICE, &[rig.member(2).ip().to_string()], SOON).await;
    for publisher in &both {
        let count = async |result| {
            publisher
                .metric(&rig, "pgnorth_publishes_total", &[("result", result)])
                .await
        };
        println!(
            "written {:?}, unchanged {:?}, conflict {:?}, yielded {:?}, failed {:?}",
            count("written").await,
            count("unchanged").await,
            count("conflict").await,
            count("yielded").await,
            count("failed").await
        );
        assert_eq!(publisher.metric(&rig, "pgnorth_publish_behind", &[]).await, Some(0.0));
        assert_eq!(count("failed").await, Some(0.0), "{}", publisher.log());
    }
    one_that_knows_no_primary_empties_nothing_while_they_live(&rig, both).await;
}

async fn one_that_knows_no_primary_empties_nothing_while_they_live(rig: &Rig, others: [Publisher; 2]) {
    let leader = [rig.member(2).ip().to_string()];
    let blind = Publisher::start(rig, &["--service", SERVICE, "--selector", "app=nobody"]);
    let event = blind
        .wait_for_event("left another publisher's endpoints unchanged for now", SOON)
        .await;
    println!("{}", event["message"]);
    // It asks, gets an answer, and asks again.
    let asked = async |before: Option<Value>| {
        wait_until("a question", SOON, async || {
            let question = slice(rig, SERVICE).await?["metadata"]["annotations"]["pgnorth/asked-by"].clone();
            assert_eq!(leads_to(rig, SERVICE).await.as_deref(), Some(&leader[..]));
            (!question.is_null() && Some(&question) != before.as_ref()).then_some(question)
        })
        .await
    };
    let first = asked(None).await;
    asked(Some(first)).await;
    assert_eq!(blind.metric(rig, "pgnorth_publish_behind", &[]).await, Some(1.0));
    drop(others);
    let alone = Instant::now();
    wait_until_leads_to(rig, SERVICE, &[], FAILOVER).await;
    println!(
        "an address that no publisher confirms any more was removed after {:?}",
        alone.elapsed()
    );
}

#[tokio::test]
async fn while_the_api_hangs_the_slice_is_stale_which_is_reported_and_corrected_afterwards() {
    let rig = Rig::start(Dcs::Endpoints).await;
    create_service(&rig, SERVICE, &json!({})).await;
    let publisher = Publisher::start(&rig, &["--service", SERVICE]);
    wait_until_leads_to(&rig, SERVICE, &[rig.member(0).ip().to_string()], SOON).await;
    rig.kubernetes().api_freeze();
    publisher.wait_for_event("cannot update the Service", SOON).await;
    assert_eq!(publisher.metric(&rig, "pgnorth_publish_behind", &[]).await, Some(1.0));
    rig.kubernetes().api_thaw();
    publisher.wait_for_event("the Service is up to date again", SOON).await;
    let leader = rig.wait_for_leader(FAILOVER).await;
    wait_until_leads_to(&rig, SERVICE, &[leader.ip().to_string()], FAILOVER).await;
}

#[tokio::test]
async fn a_service_that_must_not_be_written_is_refused() {
    let rig = Rig::start(Dcs::Endpoints).await;
    let kubernetes = rig.kubernetes();
    create_service(&rig, "selecting", &json!({"selector": {"role": "primary"}})).await;
    create_service(
        &rig,
        "elsewhere",
        &json!({"type": "ExternalName", "externalName": "db.example"}),
    )
    .await;
    let two = json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]);
    create_service(&rig, "two-ports", &json!({"ports": two})).await;
    // Patroni has made the Service patronidemo-config itself.
    for name in ["patronidemo", "other-cluster", "handmade"] {
        create_service(&rig, name, &json!({})).await;
    }
    let endpoints = |name: &str, annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name, "annotations": annotations},
            "subsets": [{"addresses": [{"ip": "10.244.0.10"}], "ports": [{"port": 5432}]}],
        })
    };
    kubernetes
        .create("endpoints", &endpoints("other-cluster", json!({"leader": "x-0"})))
        .await;
    kubernetes.create("endpoints", &endpoints("handmade", json!({}))).await;
    for (service, said) in [
        ("selecting", "service default/selecting has a selector"),
        ("elsewhere", "ExternalName"),
        ("two-ports", "has 2 ports"),
        (
            "patronidemo",
            "are Patroni's own (the scope is patronidemo): choose another name for the Service",
        ),
        ("patronidemo-config", "are Patroni's own"),
        ("other-cluster", "they carry its annotation `leader`"),
        ("handmade", "kubectl delete endpoints handmade"),
    ] {
        let mut publisher = Publisher::start(&rig, &["--service", service]);
        let status = publisher.wait_for_end(SOON).await;
        assert_eq!(status.code(), Some(1), "{service}");
        let log = publisher.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(said), "{service}: {last}");
        println!("{last}");
        assert_eq!(slice(&rig, service).await, None, "{service}");
    }
    // Endpoints that were made by hand may be taken over.
    let _publisher = Publisher::start(&rig, &["--service", "handmade", "--endpoints"]);
    wait_until_leads_to(&rig, "handmade", &[rig.member(0).ip().to_string()], SOON).await;
    // The publisher waits for a Service that does not exist yet.
    let late = Publisher::start(&rig, &["--service", "late"]);
    late.wait_for_event("service default/late: it does not exist; create it", SOON)
        .await;
    create_service(&rig, "late", &json!({})).await;
    wait_until_leads_to(&rig, "late", &[rig.member(0).ip().to_string()], SOON).await;
}

#[tokio::test]
async fn a_token_that_comes_late_or_is_replaced_is_picked_up() {
    let rig = Rig::start(Dcs::Endpoints).await;
    create_service(&rig, SERVICE, &json!({})).await;
    fs::create_dir_all(SECRETS).unwrap();
    fs::copy(rig.authority(), format!("{SECRETS}/ca.crt")).unwrap();
    fs::write(format!("{SECRETS}/namespace"), "default").unwrap();
    let publisher = Publisher::start_in_a_pod(&rig, &["--service", SERVICE]);
    publisher
        .wait_for_event("waiting for this pod's credentials", SOON)
        .await;
    assert_eq!(slice(&rig, SERVICE).await, None);

    let first = rig.kubernetes().issue_token("pgnorth-publish", "first").await;
    let write = |token: &str| {
        fs::write(format!("{SECRETS}/new"), token).unwrap();
        fs::rename(format!("{SECRETS}/new"), format!("{SECRETS}/token")).unwrap();
    };
    write(&first);
    wait_until_leads_to(&rig, SERVICE, &[rig.member(0).ip().to_string()], SOON).await;

    write(&rig.kubernetes().issue_token("pgnorth-publish", "second").await);
    rig.kubernetes().delete("secrets/first").await;
    let service = format!("/api/v1/namespaces/default/services/{SERVICE}");
    let revoked = Instant::now();
    wait_until("the first token is void", FAILOVER, async || {
        let answer = rig.kubernetes().ask_with(&first, "GET", &service, None).await.ok()?;
        (answer.status == 401).then_some(())
    })
    .await;
    rig.switchover(Some("patronidemo-1")).await;
    // kube reads the file once a minute.
    wait_until_leads_to(&rig, SERVICE, &[rig.member(1).ip().to_string()], 2 * FAILOVER).await;
    println!(
        "the second token was in use {:?} after the first was revoked",
        revoked.elapsed()
    );
    fs::remove_dir_all(SECRETS).unwrap();
}

#[tokio::test]
async fn with_a_lease_one_publisher_writes_and_another_takes_over() {
    let rig = Rig::start(Dcs::Endpoints).await;
    create_service(&rig, SERVICE, &json!({})).await;
    let arguments = ["--service", SERVICE, "--lease", "pgnorth-publish"];
    let holds = "this publisher holds the lease and writes the Service";
    let mut first = Publisher::start(&rig, &arguments);
    first.wait_for_event(holds, SOON).await;
    let mut second = Publisher::start(&rig, &arguments);
    second
        .wait_for_event("standing by: another publisher holds the lease", SOON)
        .await;
    wait_until_leads_to(&rig, SERVICE, &[rig.member(0).ip().to_string()], SOON).await;

    let asked = Instant::now();
    first.signal(Signal::TERM);
    assert!(first.wait_for_end(SOON).await.success());
    second.wait_for_event(holds, SOON).await;
    println!("let go of the lease: taken over after {:?}", asked.elapsed());
    let third = Publisher::start(&rig, &arguments);
    third
        .wait_for_event("standing by: another publisher holds the lease", SOON)
        .await;
    let killed = Instant::now();
    second.signal(Signal::KILL);
    third.wait_for_event(holds, 2 * SOON).await;
    println!("killed: taken over after {:?}", killed.elapsed());
    rig.switchover(Some("patronidemo-1")).await;
    wait_until_leads_to(&rig, SERVICE, &[rig.member(1).ip().to_string()], SOON).await;
}
