//! Tests of the log lines of decisions.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::*;
use crate::events::EventSender;
use crate::leader::Address;
use crate::leader::decide::Policy;
use crate::log_limiter::LogLimiter;
use crate::log_limiter::capture::Log;
use crate::metrics::Metrics;
use crate::readiness::ReadinessHandle;
use crate::recorder::Recorder;
use crate::route::Upstream;
use crate::slot::RouteSlot;

#[tokio::test(start_paused = true)]
async fn reasons_that_alternate_do_not_flood_the_log() {
    let log = Log::default();
    let _logs_here = log.install();
    let metrics = Arc::new(Metrics::new());
    let mut discovery = Discovery {
        slot: Arc::new(RouteSlot::new("starting")),
        recorder: Arc::new(Recorder::new(metrics.clone())),
        metrics,
        events: EventSender::default(),
        log_limiter: LogLimiter::default(),
        readiness: ReadinessHandle::starting("starting"),
        policy: Policy {
            switchover_hold: Duration::from_secs(10),
            report_life: Duration::from_secs(3),
        },
        primaries: Vec::new(),
        routes: Vec::new(),
        scope: None,
        citus_group: None,
        upstream: Upstream::Postgres,
        failover_drain: Duration::ZERO,
        observations: mpsc::channel(1).1,
        leader_failures: mpsc::channel(1).1,
        commands: mpsc::channel(1).1,
        plan: watch::Sender::default(),
        seen: watch::Sender::default(),
    };
    let leader = Server {
        member: "a".into(),
        address: Address::new("10.0.0.7", 5432).unwrap(),
        timeline: None,
    };
    let route = |reason| Decision {
        state: RoutingState::Route(leader.clone()),
        reason,
        ..Decision::starting()
    };
    let mut published = Published {
        decision: route(Reason::LockAndReport { member: "a".into() }),
        held_since: None,
        leaderless_since: None,
        last_leader: Some(leader.clone()),
        draining: None,
        cutting: None,
    };

    for _ in 0..500 {
        let silent = Reason::LockAlone {
            member: "a".into(),
            cause: "no answer within 1 s".into(),
        };
        for reason in [silent, Reason::LockAndReport { member: "a".into() }] {
            discovery.publish(route(reason), &View::default(), &mut published, Instant::now());
        }
    }
    assert_eq!(log.lines().len(), 2, "each kind of reason once");
    tokio::time::sleep(Duration::from_secs(31)).await;
    let lines = log.lines();
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(
        lines.iter().all(|line| line.starts_with("… and 499 more like it")),
        "{lines:#?}"
    );
}
