//! What each path answers: values in, a complete response out.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;

use super::Facts;
use crate::leader::Course;
use crate::readiness::Readiness;
use crate::slot::Term;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
/// Prometheus' text format.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The paths there are, and what they are for.
const INDEX: &str = "\
/          this list
/livez     200 while the process lives
/readyz    200 while clients should be sent here, else 503 and why not
/leader    who leads, since when and why (JSON); 503 while there is none to send clients to
/failovers the last 100 changes of leader, newest first, with their phases (JSON)
/metrics   for Prometheus
";

type Answer = Response<Full<Bytes>>;

/// What `/leader` answers. Field names are an interface: people's scripts read them.
#[derive(Debug, Serialize)]
struct LeaderPage<'term> {
    member: Option<&'term str>,
    address: Option<String>,
    timeline: Option<u32>,
    since: Option<String>,
    course: &'static str,
    reason: &'term str,
}

/// Answers any request; its body is ignored. For HEAD, hyper leaves out the body that is returned here.
pub(super) fn answer<B>(request: &Request<B>, facts: &Facts) -> Answer {
    let page: fn(&Facts) -> Answer = match request.uri().path() {
        "/" => |_| plain(StatusCode::OK, format!("pgnorth\n\n{INDEX}")),
        "/livez" => |_| plain(StatusCode::OK, "ok\n"),
        "/readyz" => |facts| readyz(&facts.readiness.now()),
        "/leader" => |facts| leader(&facts.slot.term()),
        "/failovers" => |facts| respond(StatusCode::OK, JSON, json(&facts.recorder.failovers())),
        "/metrics" => |facts| respond(StatusCode::OK, METRICS, facts.metrics.render()),
        _ => return plain(StatusCode::NOT_FOUND, format!("no such path; there are\n\n{INDEX}")),
    };
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return page(facts);
    }
    let mut refusal = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
    refusal
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    refusal
}

fn readyz(readiness: &Readiness) -> Answer {
    match readiness {
        Readiness::Ready => plain(StatusCode::OK, "ready\n"),
        Readiness::Starting(missing) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("starting: {missing}\n")),
        Readiness::ShuttingDown => plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
    }
}

fn leader(term: &Term) -> Answer {
    let (status, course) = match &term.course {
        Course::Route(_) => (StatusCode::OK, "route"),
        Course::Hold(_) => (StatusCode::SERVICE_UNAVAILABLE, "hold"),
        Course::Fence => (StatusCode::SERVICE_UNAVAILABLE, "fence"),
    };
    let leader = term.course.leader();
    let page = LeaderPage {
        member: leader.map(|leader| leader.member.as_str()),
        address: leader.map(|leader| leader.address.to_string()),
        timeline: leader.and_then(|leader| leader.timeline),
        since: jiff::Timestamp::try_from(term.since)
            .ok()
            .map(|since| format!("{since:.3}")),
        course,
        reason: &term.reason,
    };
    respond(status, JSON, json(&page))
}

fn json(page: &impl Serialize) -> String {
    let mut json = serde_json::to_string(page).expect("structs of texts and numbers are always valid JSON");
    json.push('\n');
    json
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, TEXT, text)
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
