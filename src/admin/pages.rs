//! What each path answers: values in, a complete response out.

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

use super::live::{Activity, Live};
use super::{Facts, collect, host, operators};
use crate::leader::RoutingState;
use crate::leader::observation::OperatorHold;
use crate::leader::view::View;
use crate::readiness::Readiness;
use crate::slot::Snapshot;

const TEXT: &str = "text/plain; charset=utf-8";
pub(super) const JSON: &str = "application/json";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const STREAM: &str = "text/event-stream";
const EVENTS: &str = "/status/events";
/// One file, style and script included: it works without a network.
const PAGE: &str = include_str!("page.html");
/// The hashes are those of the page's style and script; a test computes them, and says what they should be.
const POLICY: &str = "default-src 'none'; style-src 'sha256-sQOoR2a4+d7tqd8TKvwpOowJ3Bi3CVfb7OKa8LXswS0='; script-src 'sha256-YuHfOw21F14vQPZ33Gv9jZ99CsZsdP3uXjMYFGIu15Q='; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths there are, and what they are for.
const INDEX: &str = "\
/               the status page
/livez          200 while every thread of the process runs, else 503 and which one does not
/readyz         200 while clients should be sent here, else 503 and why not
/leader         who leads, since when and why (JSON); 503 while there is none to send clients to
/status         all that the page shows (JSON)
/status/events  the same as server-sent events, whenever it changes
/failovers      the last 100 changes of leader, newest first, with their phases (JSON)
/metrics        for Prometheus

Orders, by POST and with the token of --admin-token-file:

/hold           new clients wait, for a minute or ?for=5m
/release        they need not any longer
/sessions/cut   every session ends, or those to ?member=
";

pub(super) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What `/leader` answers. Field names are an interface: people's scripts read them.
#[derive(Debug, Serialize)]
struct LeaderPage<'snapshot> {
    member: Option<&'snapshot str>,
    address: Option<String>,
    timeline: Option<u32>,
    since: Option<String>,
    state: &'static str,
    reason: &'snapshot str,
}

/// Answers any request; its body is ignored. For HEAD, hyper leaves out the body that is returned here.
pub(super) async fn answer<B>(
    request: &Request<B>,
    peer: SocketAddr,
    live: &Arc<Live>,
    activity: &watch::Sender<Activity>,
    stop: &CancellationToken,
) -> Answer {
    // Probes tell nothing worth a check, and must never fail for one.
    if !matches!(request.uri().path(), "/livez" | "/readyz")
        && let Some(host) = unknown_host(request, &live.facts)
    {
        return misdirected(host, &live.facts);
    }
    let page: fn(&Live) -> Answer = match request.uri().path() {
        "/" => |_| page(),
        "/livez" => |live| livez(live.facts.liveness.stuck()),
        "/readyz" => |live| readyz(&live.facts.readiness.now(), view(&live.facts).operator_hold()),
        "/leader" => |live| leader(&live.facts.slot.snapshot()),
        "/status" => |live| respond(StatusCode::OK, JSON, json(&live.status())),
        // A stream has no end that a HEAD could leave out.
        EVENTS if request.method() == Method::GET => return events(live, activity.clone(), stop.clone()),
        EVENTS => |_| respond(StatusCode::OK, STREAM, ""),
        "/failovers" => |live| respond(StatusCode::OK, JSON, json(&live.facts.recorder.failovers())),
        "/metrics" => |live| respond(StatusCode::OK, METRICS, metrics(&live.facts)),
        "/hold" | "/release" | "/sessions/cut" => {
            return operators::answer(&live.facts, request.method(), request.uri(), request.headers(), peer).await;
        }
        _ => return plain(StatusCode::NOT_FOUND, format!("no such path; there are\n\n{INDEX}")),
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(live);
    }
    let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    refusal
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
}

/// The status page. It fetches nothing but `/status` and its events, and no other page may frame it.
fn page() -> Answer {
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
            "too many look already; poll /status instead\n",
        ),
    }
}

/// A host in the request that is not known; none for a request that names no host.
fn unknown_host<'request, B>(request: &'request Request<B>, facts: &Facts) -> Option<&'request str> {
    let named = request.headers().get_all(HOST).iter();
    let named = named.map(|host| host.to_str().unwrap_or("a name that is no text"));
    let mut all = named.chain(request.uri().authority().map(Authority::as_str));
    all.find(|host| !facts.hosts.knows(host))
}

fn misdirected(host: &str, facts: &Facts) -> Answer {
    let name = host::without_port(host);
    if facts
        .log_limiter
        .should_log("the admin port was asked under a name that it does not know")
    {
        warn!(host = ?name, "the admin port was asked under a name that it does not know; if it is yours, name it in --admin-host (PGNORTH_ADMIN_HOST)");
    }
    let text = format!(
        "pgnorth's admin port does not know the host {name:?}. It answers to IP addresses, to names without a dot or that cannot be public, and to those\n\
        of --admin-host, so that no web page can read it under a name of its own. If the name is yours:\n\n  --admin-host {name}   or   PGNORTH_ADMIN_HOST={name}\n"
    );
    plain(StatusCode::MISDIRECTED_REQUEST, text)
}

/// Copied, so that discovery never waits for a reader.
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

/// A client is better held than refused, also when it is an operator who holds it.
fn readyz(readiness: &Readiness, hold: Option<&OperatorHold>) -> Answer {
    let status = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Starting(_) | Readiness::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    };
    let held = hold.map_or(String::new(), |hold| format!("; new clients are {hold}"));
    plain(status, format!("{}{held}\n", collect::readiness(readiness)))
}

fn leader(snapshot: &Snapshot) -> Answer {
    let status = match &snapshot.state {
        RoutingState::Route(_) => StatusCode::OK,
        RoutingState::Hold(_) | RoutingState::Fence => StatusCode::SERVICE_UNAVAILABLE,
    };
    let leader = snapshot.state.leader();
    let page = LeaderPage {
        member: leader.map(|leader| leader.member.as_str()),
        address: leader.map(|leader| leader.address.to_string()),
        timeline: leader.and_then(|leader| leader.timeline),
        since: jiff::Timestamp::try_from(snapshot.since)
            .ok()
            .map(|since| format!("{since:.3}")),
        state: snapshot.state.as_str(),
        reason: &snapshot.reason,
    };
    respond(status, JSON, json(&page))
}

fn metrics(facts: &Facts) -> String {
    let oldest = facts.wait_queue.oldest(Instant::now()).unwrap_or_default();
    facts.metrics.set_oldest_wait(oldest);
    facts.metrics.render()
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
