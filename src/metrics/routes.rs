//! The metrics of routes, by route, port and member.

use std::collections::HashMap;

use metrics::Gauge;

use super::register::gauge;
use super::{Metrics, row};

/// The series of routes and their members, so that those of members that are gone can go to 0.
#[derive(Default)]
pub(super) struct RouteSeries {
    /// Of each route and member: whether it is fit, and its sessions.
    members: HashMap<[String; 3], [Gauge; 2]>,
    /// Of each route, member and reason: whether the member is not fit for that reason.
    unfit: HashMap<[String; 4], Gauge>,
}

impl Metrics {
    /// Sets every member of every route to 0, before those that there are now are set.
    pub fn begin_routes(&self) {
        let RouteSeries { members, unfit } = &self.infos().routes;
        let all = members.values().flatten().chain(unfit.values());
        all.for_each(|gauge| gauge.set(0.0));
    }

    /// Sets to 1 while new clients of a route go to a member.
    pub fn set_route_open(&self, route: &str, port: u16, open: bool) {
        gauge(&self.recorder, &row::ROUTE_OPEN, &[route, &port.to_string()]).set(f64::from(u8::from(open)));
    }

    /// Sets the reason for which a member gets no new clients of a route.
    pub fn set_route_member_unfit(&self, route: &str, port: u16, member: &str, reason: &str) {
        let labels = [route, &port.to_string(), member, reason];
        let mut infos = self.infos();
        let series = || gauge(&self.recorder, &row::ROUTE_MEMBER_UNFIT, &labels);
        infos
            .routes
            .unfit
            .entry(labels.map(str::to_owned))
            .or_insert_with(series)
            .set(1.0);
    }

    /// Sets whether a member gets new clients of a route, and its sessions there.
    pub fn set_route_member(&self, route: &str, port: u16, member: &str, fit: bool, sessions: u64) {
        let labels = [route, &port.to_string(), member];
        let mut infos = self.infos();
        let series =
            || [&row::ROUTE_MEMBER_FIT, &row::ROUTE_SESSIONS].map(|family| gauge(&self.recorder, family, &labels));
        let [is_fit, open] = infos
            .routes
            .members
            .entry(labels.map(str::to_owned))
            .or_insert_with(series);
        is_fit.set(f64::from(u8::from(fit)));
        open.set(f64::from(u32::try_from(sessions).unwrap_or(u32::MAX)));
    }
}
