//! The metrics of routes, by route, port and member.

use std::collections::HashMap;

use metrics::Gauge;

use super::register::gauge;
use super::{Metrics, row};

/// The series of routes and their members, kept so that the series of former members can be set to 0.
#[derive(Default)]
pub(super) struct RouteSeries {
    /// Gauges of fitness and sessions, by route, port and member.
    members: HashMap<[String; 3], [Gauge; 2]>,
    /// Gauges of unfitness, by route, port, member and reason.
    unfit: HashMap<[String; 4], Gauge>,
}

impl Metrics {
    /// Sets the series of all members of all routes to 0. Call this before setting those of the present members.
    pub fn begin_routes(&self) {
        let RouteSeries { members, unfit } = &self.infos().routes;
        let all = members.values().flatten().chain(unfit.values());
        all.for_each(|gauge| gauge.set(0.0));
    }

    /// Sets `pgnorth_route_open` of a route: 1 if its new clients go to a member.
    pub fn set_route_open(&self, route: &str, port: u16, open: bool) {
        gauge(&self.recorder, &row::ROUTE_OPEN, &[route, &port.to_string()]).set(f64::from(u8::from(open)));
    }

    /// Sets the reason why a member gets no new clients of a route.
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

    /// Sets the fitness of a member for a route, and the number of its sessions on that route.
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
