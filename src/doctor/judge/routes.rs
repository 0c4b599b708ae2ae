//! Checks of the routes to replicas: each needs a member of its kind.

use crate::doctor::check::Check;
use crate::doctor::facts::{Member, Rest};
use crate::leader::observation::{Report, Role, Standby};
use crate::route::{Route, RouteKind};

/// Checks that a member is of the kind of each route to replicas. Does not check the route's other conditions, such as
/// lag and tags, which may change at any time.
pub(super) fn all<'a>(members: &'a [Member], routes: &'a [Route]) -> impl Iterator<Item = Check> + 'a {
    let to_replicas = routes.iter().filter(|route| route.conditions.kind.is_for_replicas());
    to_replicas.map(|route| one(members, route))
}

fn one(members: &[Member], route: &Route) -> Check {
    let kind = route.conditions.kind;
    let what = format!("route {kind} on {}", route.listen);
    let fit = members.iter().filter(|member| match &member.rest {
        Rest::Answered { report, .. } => suits(report, kind),
        Rest::NotAsked(_) | Rest::Failed { .. } => false,
    });
    let fit: Vec<_> = fit.map(|member| member.name.as_str()).collect();
    match (fit.is_empty(), kind) {
        (false, _) => Check::ok(what, fit.join(", ")),
        (true, RouteKind::Sync | RouteKind::Quorum) => Check::warn(
            what,
            "none of the members that answer is a synchronous standby of this kind; clients of the route wait, unless it has fallback=primary",
            format!(
                "set synchronous_mode to {} in Patroni's configuration",
                if kind == RouteKind::Quorum { "quorum" } else { "on" }
            ),
        ),
        (true, _) => Check::warn(
            what,
            "none of the members that answer is a running replica of this kind; clients of the route wait, unless it has fallback=primary",
            "start such a replica; with fallback=primary, the route leads to the primary until then",
        ),
    }
}

fn suits(report: &Report, kind: RouteKind) -> bool {
    let is_replica = report.role == Role::Replica && report.state == "running";
    let standby = report.replication.standby;
    match kind {
        RouteKind::Sync => is_replica && standby == Some(Standby::Sync),
        RouteKind::Quorum => is_replica && standby == Some(Standby::Quorum),
        RouteKind::Async => is_replica && standby == Some(Standby::Async),
        RouteKind::ReadOnly => is_replica || report.is_writable(),
        RouteKind::Primary | RouteKind::Replica | RouteKind::Leader | RouteKind::StandbyLeader => is_replica,
    }
}
