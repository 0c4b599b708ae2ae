//! Checks of a member's own report: against the settings, the lock and the leader's report.

use super::members::ClusterFacts;
use crate::doctor::check::Check;
use crate::doctor::facts::Member;
use crate::leader::BaseUrl;
use crate::leader::observation::{Report, Role};

/// Returns the first problem of the report, else a success.
pub(super) fn check(
    member: &Member,
    cluster: &ClusterFacts<'_>,
    what: String,
    url: &BaseUrl,
    report: &Report,
) -> Check {
    let timeline = report
        .timeline
        .map_or_else(String::new, |timeline| format!(", timeline {timeline}"));
    let role = match report.role {
        Role::Primary => "primary",
        Role::StandbyLeader => "standby_leader",
        Role::Replica | Role::Other => "not primary",
    };
    let found = format!("{url} reports: {role}, {}{timeline}", report.state);
    let leads = cluster.is_leader(member);
    another_cluster(cluster, &what, &found, report)
        .or_else(|| against_lock(cluster, leads, &what, &found, report))
        .or_else(|| against_leader(cluster, &what, &found, report))
        .or_else(|| not_running(&what, &found, report))
        .unwrap_or_else(|| Check::ok(what, found))
}

/// Checks that the answer comes from the followed cluster; otherwise, discovery ignores it.
fn another_cluster(cluster: &ClusterFacts<'_>, what: &str, found: &str, report: &Report) -> Option<Check> {
    let differ = [
        ("scope", cluster.scope, &report.scope),
        ("system identifier", cluster.system, &report.system),
    ];
    let (name, ours, theirs) = differ.into_iter().find_map(|(name, ours, theirs)| {
        let (ours, theirs) = ours.zip(theirs.as_deref())?;
        (ours != theirs).then_some((name, ours, theirs))
    })?;
    Some(Check::fail(
        what,
        format!("{found}, but a different cluster answers there: its {name} is {theirs}, not {ours}"),
        "pgnorth ignores these answers. Either another process listens at this member's api_url (restapi.connect_address), --selector matches pods of other clusters, or --scope names another cluster",
    ))
}

/// Checks that the holder of the lock accepts writes, and no other member does.
fn against_lock(cluster: &ClusterFacts<'_>, leads: bool, what: &str, found: &str, report: &Report) -> Option<Check> {
    match (leads, report.is_writable()) {
        (true, true) | (false, false) => None,
        (true, false) => Some(Check::fail(
            what,
            format!("{found}, but this member holds the lock: clients are held until it accepts writes"),
            "right after a failover this is normal for a few seconds; otherwise check the logs of Patroni and PostgreSQL on this member",
        )),
        (false, true) => {
            let holder = cluster.leader.map_or_else(
                || "no member holds the lock".to_owned(),
                |leader| format!("{leader} holds the lock"),
            );
            Some(Check::fail(
                what,
                format!("{found}, but {holder}"),
                "two primaries, or a change of leader in progress: run the doctor again. If this persists, this member was promoted by hand, or the members belong to different clusters (--selector, --scope). Stop the wrong primary",
            ))
        }
    }
}

/// Compares system identifier and timeline with the leader's report.
fn against_leader(cluster: &ClusterFacts<'_>, what: &str, found: &str, report: &Report) -> Option<Check> {
    let leader = cluster.report?;
    if let (Some(ours), Some(theirs)) = (&report.system, &leader.system)
        && ours != theirs
    {
        return Some(Check::fail(
            what,
            format!("{found}, but its system identifier {ours} is not the leader's {theirs}"),
            "this member belongs to another cluster, because --selector matches too many pods, or its data directory must be rebuilt with patronictl reinit",
        ));
    }
    let (theirs, ours) = leader.timeline.zip(report.timeline)?;
    (theirs != ours).then(|| {
        Check::warn(
            what,
            format!("{found}, but the leader is on timeline {theirs}"),
            "right after a failover this is normal; otherwise the replica cannot follow the leader: check with patronictl list, then run patronictl reinit",
        )
    })
}

fn not_running(what: &str, found: &str, report: &Report) -> Option<Check> {
    let runs = report.state == "running" || report.state == "streaming";
    (!runs).then(|| {
        Check::warn(
            what,
            found,
            "this member cannot take over now: check PostgreSQL's log on it",
        )
    })
}
