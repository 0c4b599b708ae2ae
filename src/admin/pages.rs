//! The answer of each path, as a complete response.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::endpoints::{Endpoint, Page};
use super::live::{Activity, Live};
use super::status::{RouteStatus, Treatment};
use super::{Facts, collect, host, operators};
use crate::leader::RoutingState;
use crate::leader::observation::OperatorHold;
use crate::leader::view::View;
use crate::metrics::Metrics;
use crate::readiness::Readiness;
use crate::slot::RouteSnapshot;

const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const STREAM: &str = "text/event-stream";
/// One file with its style and script, so that it needs no other request.
const PAGE: &str = include_str!("page.html");
/// The hashes of the page's style and script. A test computes them, and reports the correct values if these differ.
const POLICY: &str = "default-src 'none'; style-src 'sha256-sQOoR2a4+d7tqd8TKvwpOowJ3Bi3CVfb7OKa8LXswS0='; script-src 'sha256-RJm6VvNhKzv4j/yIcD0M7mhJYBCXXL95BrKJWYP7rxQ='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The document of `/leader`. Field names are an interface: scripts read them.
#[derive(Debug, Serialize)]
struct LeaderPage<'snapshot> {
    /// The member whose sessions are kept.
    member: Option<&'snapshot str>,
    /// Address of its PostgreSQL.
    address: Option<String>,
    /// Its timeline.
    timeline: Option<u32>,
    /// Time since which there has been this leader, or no leader; RFC 3339.
    since: Option<String>,
    /// Routing state: `route`, `hold` or `fence`.
    state: &'static str,
    /// Reason of the routing state, as a sentence.
    reason: &'snapshot str,
}

/// Answers any request and ignores its body. For HEAD, hyper omits the body that is returned here.
pub(super) async fn answer<B>(
    request: &Request<B>,
    peer: SocketAddr,
    live: &Arc<Live>,
    activity: &watch::Sender<Activity>,
    stop: &CancellationToken,
) -> Answer {
    // The answers to probes need no protection, and this check must never make a probe fail.
    if !matches!(request.uri().path(), "/livez" | "/readyz")
        && let Some(host) = unknown_host(request, &live.facts)
    {
        return misdirected(host, &live.facts);
    }
    let Some(page) = Endpoint::page_of(request.uri().path()) else {
        let text = format!("no such path; the paths are\n\n{}", Endpoint::list());
        return plain(StatusCode::NOT_FOUND, text);
    };
    let page: fn(&Live) -> Answer = match page {
        Page::Root => |_| status_page(),
        Page::Livez => |live| livez(live.facts.liveness.stuck()),
        Page::Readyz => |live| readyz(&live.facts.readiness.now(), view(&live.facts).operator_hold()),
        Page::Leader => |live| leader(&live.facts.slot.snapshot()),
        Page::Status => |live| respond(StatusCode::OK, JSON, json(&live.status())),
        // A stream never ends, so HEAD needs a separate answer.
        Page::StatusEvents if request.method() == Method::GET => return events(live, activity.clone(), stop.clone()),
        Page::StatusEvents => |_| respond(StatusCode::OK, STREAM, ""),
        Page::Failovers => |live| respond(StatusCode::OK, JSON, json(&live.facts.recorder.failovers())),
        Page::Metrics => |live| respond(StatusCode::OK, METRICS, metrics(&live.facts)),
        Page::Command => {
            return operators::answer(&live.facts, request.method(), request.uri(), request.headers(), peer).await;
        }
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(live);
    }
    let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "this path accepts only GET and HEAD\n");
    refusal
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
}

/// Returns the status page. It fetches only `/status` and its events, and no other page may frame it.
fn status_page() -> Answer {
    let mut page = respond(StatusCode::OK, HTML, PAGE);
    let headers = page.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    page
}

fn events(live: &Arc<Live>, activity: watch::Sender<Activity>, stop: CancellationToken) -> Answer {
    match live.watch(activity, stop) {
        Some(stream) => answered(StatusCode::OK, STREAM, StreamBody::new(stream).boxed_unsync()),
        None => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "too many streams are open; poll /status instead\n",
        ),
    }
}

/// Returns a host name of the request that is not allowed, if there is one.
fn unknown_host<'request, B>(request: &'request Request<B>, facts: &Facts) -> Option<&'request str> {
    let named = request.headers().get_all(HOST).iter();
    let named = named.map(|host| host.to_str().unwrap_or("a name that is not text"));
    let mut all = named.chain(request.uri().authority().map(Authority::as_str));
    all.find(|host| !facts.hosts.knows(host))
}

fn misdirected(host: &str, facts: &Facts) -> Answer {
    let name = host::without_port(host);
    if facts
        .log_limiter
        .should_log("the admin port rejected a request for an unknown host name")
    {
        warn!(host = ?name, "the admin port rejected a request for an unknown host name; if the name is yours, add it to --admin-host (PGNORTH_ADMIN_HOST)");
    }
    let text = format!(
        "pgnorth's admin port does not accept the host name {name:?}. It accepts IP addresses, names that cannot be public, and the names in\n\
        --admin-host; otherwise a foreign web page could read it (DNS rebinding). If this name is yours, set:\n\n  --admin-host {name}   or   PGNORTH_ADMIN_HOST={name}\n"
    );
    plain(StatusCode::MISDIRECTED_REQUEST, text)
}

/// Returns a copy of the view, so that discovery never waits for a reader.
fn view(facts: &Facts) -> Arc<View> {
    facts.view.borrow().clone()
}

fn livez(stuck: Option<String>) -> Answer {
    match stuck {
        None => plain(StatusCode::OK, "ok\n"),
        Some(thread) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the thread {thread} has not run for 10 s\n"),
        ),
    }
}

/// Returns 200 during an operator's hold, too: holding a client is better than refusing it.
fn readyz(readiness: &Readiness, hold: Option<&OperatorHold>) -> Answer {
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Starting(_) | Readiness::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let held = hold.map_or(String::new(), |hold| format!("; new clients are {hold}"));
    plain(status, format!("{}{held}\n", collect::readiness(readiness)))
}

fn leader(snapshot: &RouteSnapshot) -> Answer {
    let state = snapshot.state();
    let status = match &state {
        RoutingState::Route(_) => StatusCode::OK,
        RoutingState::Hold(_) | RoutingState::Fence => StatusCode::SERVICE_UNAVAILABLE,
    };
    let leader = state.leader();
    let page = LeaderPage {
        member: leader.map(|leader| leader.member.as_str()),
        address: leader.map(|leader| leader.address.to_string()),
        timeline: leader.and_then(|leader| leader.timeline),
        since: jiff::Timestamp::try_from(snapshot.since)
            .ok()
            .map(|since| format!("{since:.3}")),
        state: state.as_str(),
        reason: &snapshot.reason,
    };
    respond(status, JSON, json(&page))
}

fn metrics(facts: &Facts) -> String {
    let oldest = facts.wait_queue.oldest(Instant::now()).unwrap_or_default();
    facts.metrics.set_oldest_wait(oldest);
    facts.metrics.begin_routes();
    for (bound, route) in facts.routes.iter().zip(collect::routes(&facts.routes)) {
        set_route(&facts.metrics, bound.address.port(), &route);
    }
    facts.metrics.render()
}

fn set_route(metrics: &Metrics, port: u16, route: &RouteStatus) {
    metrics.set_route_open(&route.route, port, route.open);
    for member in &route.members {
        let fit = member.treatment == Treatment::Fit;
        metrics.set_route_member(&route.route, port, &member.name, fit, member.sessions);
        if let Some(reason) = &member.reason_kind {
            metrics.set_route_member_unfit(&route.route, port, &member.name, reason);
        }
    }
}

pub(super) fn json(page: &impl Serialize) -> String {
    let mut json = serde_json::to_string(page).expect("structs of texts and numbers are always valid JSON");
    json.push('\n');
    json
}

pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, text)
}

pub(super) fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    answered(status, kind, Full::new(body.into()).boxed_unsync())
}

fn answered(status: StatusCode, kind: &'static str, body: UnsyncBoxBody<Bytes, Infallible>) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
