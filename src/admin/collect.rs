//! Collects the status document from the state of the process.

use std::time::{Duration, Instant};

use super::history::open;
use super::status::{
    ClusterStatus, ForeignAnswer, LeaderStatus, LockStatus, Member, ReportSource, RouteMember, RouteStatus, Series,
    Sessions, Source, StateName, Status, Switchover, Treatment,
};
use super::{BoundRoute, Facts};
use crate::config::{COMMIT, VERSION};
use crate::leader::fit::{Judged, Outcome};
use crate::leader::identity::Identity;
use crate::leader::observation::{Condition, ObjectKind, Report, Role};
use crate::leader::probing::asked_and_answering;
use crate::leader::view::{AnswerOrigin, ForeignCluster, Timestamped, View};
use crate::leader::{MemberName, RoutingState};
use crate::metrics::SessionState;
use crate::readiness::Readiness;
use crate::slot::{RouteSnapshot, SlotMember};

/// Number of changes of leader in the document; `/failovers` has more.
const FAILOVERS: usize = 10;
/// Maximum age at which a member's own report takes precedence. A member whose answers pgnorth needs is asked at least
/// every 2 s.
const FRESH: Duration = Duration::from_secs(5);

/// Returns the document as of `now`.
pub(super) fn collect(facts: &Facts, history: Series, begun: Instant, now: Instant) -> Status {
    let snapshot = facts.slot.snapshot();
    let view = facts.view.borrow().clone();
    let state = snapshot.state();
    let leader = state.leader();
    let member = leader.map(|leader| &leader.member);
    let mut failovers = facts.recorder.failovers();
    failovers.truncate(FAILOVERS);
    Status {
        version: VERSION.to_owned(),
        commit: COMMIT.to_owned(),
        at: Some(format!("{:.3}", jiff::Timestamp::now())),
        uptime_seconds: age(begun, now),
        readiness: readiness(&facts.readiness.now()),
        state: match state {
            RoutingState::Route(_) => StateName::Route,
            RoutingState::Hold(_) => StateName::Hold,
            RoutingState::Fence => StateName::Fence,
        },
        state_seconds: age(snapshot.state_since, now),
        reason: snapshot.reason.clone(),
        leader: leader.map(|leader| LeaderStatus {
            member: leader.member.to_string(),
            address: leader.address.to_string(),
            timeline: leader.timeline,
        }),
        since: jiff::Timestamp::try_from(snapshot.since)
            .ok()
            .map(|since| format!("{since:.3}")),
        since_seconds: rounded(snapshot.since.elapsed().unwrap_or_default()),
        paused: view.is_paused(),
        switchover: view.announcement().map(|announced| Switchover {
            from: announced.value.leader.as_ref().map(MemberName::to_string),
            to: announced.value.candidate.as_ref().map(MemberName::to_string),
            scheduled_at: announced.value.scheduled_at.clone(),
        }),
        lock: lock(&view, member, now),
        members: members(&view, member, now),
        sources: sources(&view, &state, now),
        cluster: cluster(view.identity()),
        foreign: view
            .foreign_clusters()
            .map(|foreign_cluster| foreign(foreign_cluster, now))
            .collect(),
        routes: routes(&facts.routes),
        sessions: sessions(facts, now),
        history,
        trouble: facts.recorder.trouble(now),
        failovers,
    }
}

/// Returns the routes, in the order of the settings.
pub(super) fn routes(bound: &[BoundRoute]) -> Vec<RouteStatus> {
    let status = |route: &BoundRoute| {
        let snapshot = route.slot.snapshot();
        RouteStatus {
            route: route.kind.to_string(),
            target: route.upstream.to_string(),
            address: route.address.to_string(),
            open: snapshot.is_open(),
            reason: snapshot.reason.clone(),
            members: match &route.fitness {
                Some(fitness) => fitness
                    .borrow()
                    .members
                    .iter()
                    .map(|judged| judged_member(judged, &snapshot))
                    .collect(),
                None => snapshot.members().iter().map(leader_of).collect(),
            },
        }
    };
    bound.iter().map(status).collect()
}

fn judged_member(judged: &Judged, snapshot: &RouteSnapshot) -> RouteMember {
    let mut places = snapshot.members().iter();
    let place = places.find(|place| place.server.member == judged.member);
    // Sessions may still be open to the address that was known last.
    let server = judged.server.as_ref().or(place.map(|place| &*place.server));
    let (treatment, why) = match &judged.outcome {
        Outcome::Fit(_) => (Treatment::Fit, None),
        Outcome::Closed(why) => (Treatment::Closed, Some(why)),
        Outcome::Out(why) => (Treatment::Out, Some(why)),
    };
    RouteMember {
        name: judged.member.to_string(),
        address: server.map(|server| server.address.to_string()),
        treatment,
        reason_kind: why.map(|why| why.as_str().to_owned()),
        reason: why.map(|why| why.of(&judged.member)),
        sessions: place.map_or(0, |place| place.sessions() as u64),
    }
}

fn leader_of(place: &SlotMember) -> RouteMember {
    RouteMember {
        name: place.server.member.to_string(),
        address: Some(place.server.address.to_string()),
        treatment: if place.open { Treatment::Fit } else { Treatment::Closed },
        reason_kind: None,
        reason: None,
        sessions: place.sessions() as u64,
    }
}

pub(super) fn readiness(readiness: &Readiness) -> String {
    match readiness {
        Readiness::Ready => "ready".to_owned(),
        Readiness::Starting(missing) => format!("starting: {missing}"),
        Readiness::ShuttingDown => "shutting down".to_owned(),
    }
}

/// Returns the lock's age for the leader or, while there is no leader, for the lock's holder.
fn lock(view: &View, leader: Option<&MemberName>, now: Instant) -> Option<LockStatus> {
    let holder = || view.lock().and_then(|lock| lock.lock.holder.as_ref());
    let member = leader.or_else(holder)?;
    Some(LockStatus {
        member: member.to_string(),
        age_seconds: age(view.renewal_seen(member)?, now),
        ttl_seconds: rounded(view.ttl()),
    })
}

fn members(view: &View, leader: Option<&MemberName>, now: Instant) -> Vec<Member> {
    let holder = view.lock().and_then(|lock| lock.lock.holder.as_ref());
    let mut names: Vec<_> = view.members().collect();
    names.sort_unstable();
    let member = |name: &MemberName| {
        let answers = view.answers(name);
        let heard = heard(view, name, now);
        Member {
            name: name.to_string(),
            address: view.address(name).ok().map(|address| address.to_string()),
            leads: leader == Some(name),
            holds_lock: holder == Some(name),
            // The last position of a server that is down is not its lag.
            lag_bytes: heard
                .as_ref()
                .filter(|heard| {
                    matches!(
                        heard.state.as_deref(),
                        Some("running" | "streaming" | "in archive recovery")
                    )
                })
                .and_then(|_| lag(view, name, leader.or(holder))),
            silent: answers
                .and_then(|answers| answers.unreachable.as_ref())
                .map(|silent| silent.value.to_string()),
            role: heard.as_ref().and_then(|heard| heard.role.clone()),
            state: heard.as_ref().and_then(|heard| heard.state.clone()),
            timeline: heard.as_ref().and_then(|heard| heard.timeline),
            heard_from: heard.as_ref().map(|heard| heard.source),
            heard_seconds: heard.as_ref().map(|heard| age(heard.at, now)),
        }
    };
    names.into_iter().map(member).collect()
}

/// The role and state of a member, with their source and time.
struct MemberReport {
    source: ReportSource,
    at: Instant,
    role: Option<String>,
    state: Option<String>,
    timeline: Option<u32>,
}

/// Returns the member's own report if it is fresh, else the newest one from any source.
fn heard(view: &View, name: &MemberName, now: Instant) -> Option<MemberReport> {
    let pod = view
        .dcs_status(name)
        .filter(|pod| pod.value.state.is_some())
        .map(|pod| MemberReport {
            source: ReportSource::Pod,
            at: pod.at,
            role: pod.value.role.clone(),
            state: pod.value.state.clone(),
            timeline: pod.value.timeline,
        });
    let row = view.condition(name).map(|(row, at)| MemberReport {
        source: ReportSource::Cluster,
        at,
        role: row.role.as_deref().map(role_of_row),
        state: row.state.clone(),
        timeline: row.timeline,
    });
    let report = view.answers(name).and_then(|answers| answers.last.as_ref());
    let known_role = || {
        let of_row = row.as_ref().and_then(|row| row.role.clone());
        pod.as_ref().and_then(|pod| pod.role.clone()).or(of_row)
    };
    let report = report.map(|report| of_report(report, known_role()));
    match report {
        Some(report) if now.saturating_duration_since(report.at) < FRESH => Some(report),
        report => [report, pod, row].into_iter().flatten().max_by_key(|news| news.at),
    }
}

/// Converts a member's own report, which distinguishes only the leading roles. Any other role is taken from `known`,
/// unless `known` still has a leading role.
fn of_report(report: &Timestamped<Report>, known: Option<String>) -> MemberReport {
    let role = match report.value.role {
        Role::Primary => "primary".to_owned(),
        Role::StandbyLeader => "standby_leader".to_owned(),
        Role::Replica | Role::Other => known
            .filter(|role| !matches!(role.as_str(), "primary" | "master" | "leader" | "standby_leader"))
            .unwrap_or_else(|| match report.value.state.as_str() {
                "running" => "replica".to_owned(),
                _ => "not primary".to_owned(),
            }),
    };
    MemberReport {
        source: ReportSource::Rest,
        at: report.at,
        role: Some(role),
        state: Some(report.value.state.clone()),
        timeline: report.value.timeline,
    }
}

/// Translates the role of `/cluster`, which has `leader` in place of `primary`.
fn role_of_row(role: &str) -> String {
    match role {
        "leader" => "primary".to_owned(),
        other => other.to_owned(),
    }
}

/// Returns the lag from `/cluster`, or else the difference between the WAL positions in the statuses of the member and
/// the leader. That difference is an estimate, like Patroni's, because the members write at different times.
fn lag(view: &View, name: &MemberName, leader: Option<&MemberName>) -> Option<u64> {
    let leader = leader.filter(|leader| *leader != name)?;
    let of_row = view.condition(name).and_then(|(Condition { lag, .. }, _)| *lag);
    let come = |member: &MemberName| view.dcs_status(member)?.value.xlog_location;
    of_row.or_else(|| Some(come(leader)?.saturating_sub(come(name)?)))
}

fn sources(view: &View, state: &RoutingState, now: Instant) -> Vec<Source> {
    let unreachable = view.api_unreachable();
    let watched = view.watched_kind();
    let watched = watched.filter(|_| view.api_answered() || unreachable.is_some());
    let lock = watched.map(|kind| Source {
        name: kind.source().to_owned(),
        up: unreachable.is_none(),
        detail: match (unreachable, view.kind()) {
            (Some(why), _) => why.to_owned(),
            (None, Some(ObjectKind::EtcdKey)) => "watching the lock and the members' keys".to_owned(),
            (None, Some(_)) => "watching the lock and the pods".to_owned(),
            (None, None) => format!("answers, but has no {}", view.lock_kind().lock_object()),
        },
    });
    // Members that are asked only for a route to replicas do not count, as in pgnorth_source_up: if the lock is watched,
    // the leader depends only on its holder's answers.
    let (asked, answered) = asked_and_answering(view, state, now);
    let members = if asked == 1 { "member" } else { "members" };
    let up = answered > 0 || asked == 0 && view.rest_answered();
    let patroni = Source {
        name: "patroni".to_owned(),
        up,
        detail: match (up, view.cluster_unreachable()) {
            (true, _) => format!("{asked} {members} asked over REST about the leader, {answered} answered"),
            (false, Some(why)) => why.to_owned(),
            (false, None) => "no member's REST API answers".to_owned(),
        },
    };
    lock.into_iter().chain([patroni]).collect()
}

fn cluster(identity: Identity) -> ClusterStatus {
    ClusterStatus {
        scope: identity.scope,
        system: identity.system,
    }
}

fn foreign((at, foreign_cluster): (&AnswerOrigin, &ForeignCluster), now: Instant) -> ForeignAnswer {
    ForeignAnswer {
        at: at.to_string(),
        cluster: cluster(foreign_cluster.identity.clone()),
        heard_seconds: age(foreign_cluster.at, now),
    }
}

/// Returns the numbers of sessions; `None` for a process that forwards none. A proxy sets the limit when it starts.
fn sessions(facts: &Facts, now: Instant) -> Option<Sessions> {
    let max = u64::try_from(facts.metrics.sessions_max.get())
        .ok()
        .filter(|max| *max > 0)?;
    let count = |state| open(&facts.metrics, state);
    Some(Sessions {
        held: count(SessionState::Held),
        dialling: count(SessionState::Dialling),
        forwarding: count(SessionState::Forwarding),
        max,
        oldest_wait_seconds: facts.wait_queue.oldest(now).map(rounded),
    })
}

fn age(then: Instant, now: Instant) -> f64 {
    rounded(now.saturating_duration_since(then))
}

/// Converts to seconds, rounded to milliseconds.
fn rounded(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000.0).round() / 1_000.0
}
