//! The orders that operators may give: who may, what they ask for, and what they are told. Carrying them out is the business of discovery.

pub(super) mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper::header::{ALLOW, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, info, warn};
use url::form_urlencoded;

use self::token::TokenFile;
use super::Facts;
use super::pages::{self, Answer};
use crate::log_limiter::LogLimiter;
use crate::orders::{Orders, Outcome, Wish};

/// A hold that was given no length.
const HOLD: Duration = Duration::from_secs(60);
/// So that nobody's clients wait for a hold that was forgotten.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);
/// For an order to be carried out. Sessions close within milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Who may give orders, and where they go.
#[derive(Debug)]
pub struct Operators {
    token: TokenFile,
    orders: Orders,
}

impl Operators {
    /// Those who know the token in this file. A file that cannot be used is told of; it is read again at each order.
    pub async fn new(file: PathBuf, orders: Orders) -> Self {
        let token = TokenFile::new(file);
        match token.read().await {
            Ok(_) => {
                info!("operators who know the token may hold new clients and cut sessions, through the admin port")
            }
            Err(problem) => warn!(%problem, "no order is taken until there is a token (--admin-token-file)"),
        }
        Self { token, orders }
    }
}

/// Answers a request for one of the paths.
pub(super) async fn answer(facts: &Facts, method: &Method, uri: &Uri, headers: &HeaderMap, peer: SocketAddr) -> Answer {
    let path = uri.path();
    if method != Method::POST {
        let mut refusal = pages::plain(StatusCode::METHOD_NOT_ALLOWED, "an order has to be sent with POST\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refusal;
    }
    let Some(operators) = &facts.operators else {
        return pages::plain(
            StatusCode::FORBIDDEN,
            "orders are off: this pgnorth was started without --admin-token-file (PGNORTH_ADMIN_TOKEN_FILE)\n",
        );
    };
    // A dual-stack listener shows IPv4 clients as ::ffff:a.b.c.d.
    let by = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if let Err(refusal) = operators.admit(headers, path, by, &facts.log_limiter).await {
        return refusal;
    }
    let wish = match wish(path, uri.query().unwrap_or_default()) {
        Ok(wish) => wish,
        Err(problem) => return pages::plain(StatusCode::BAD_REQUEST, format!("{problem}; nothing was done\n")),
    };
    match timeout(DEADLINE, operators.orders.give(wish.clone(), by)).await {
        Ok(Some(outcome)) => told(&wish, outcome),
        Ok(None) => pages::plain(StatusCode::SERVICE_UNAVAILABLE, "pgnorth is ending\n"),
        Err(_) => pages::plain(
            StatusCode::GATEWAY_TIMEOUT,
            "the order was given, and is not carried out after 10 s; the log tells when it is\n",
        ),
    }
}

impl Operators {
    async fn admit(
        &self,
        headers: &HeaderMap,
        path: &str,
        by: SocketAddr,
        log_limiter: &LogLimiter,
    ) -> Result<(), Answer> {
        let refused = |why: &str, problem: Option<&token::Problem>| {
            let what = format!("an order was refused: {why}");
            if log_limiter.should_log(&what) {
                warn!(%by, path, problem = problem.map(display), "{what}");
            } else {
                debug!(%by, path, problem = problem.map(display), "{what}");
            }
        };
        let shown = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some(shown) = shown.and_then(bearer) else {
            refused("no token came with it", None);
            let text = "an order needs the token of --admin-token-file, as a header: Authorization: Bearer …\n";
            return Err(unauthorized(text));
        };
        match self.token.read().await {
            Ok(token) if token.is(shown) => Ok(()),
            Ok(_) => {
                refused("the token that came with it is a wrong one", None);
                Err(unauthorized("this is not the token of --admin-token-file\n"))
            }
            Err(problem) => {
                refused("there is no token to check it by (--admin-token-file)", Some(&problem));
                let text = "pgnorth cannot use the file of --admin-token-file; its log says why\n";
                Err(pages::plain(StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    }
}

fn unauthorized(text: &'static str) -> Answer {
    let mut refusal = pages::plain(StatusCode::UNAUTHORIZED, text);
    let how = HeaderValue::from_static("Bearer realm=\"pgnorth\"");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, how);
    refusal
}

/// The scheme's name is in any case (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// A parameter that is not known, or twice there, is a mistake: `?memeber=pg-0` must not cut everybody.
fn wish(path: &str, query: &str) -> Result<Wish, String> {
    let known = match path {
        "/hold" => Some("for"),
        "/sessions/cut" => Some("member"),
        _ => None,
    };
    let mut given = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match known {
            Some(known) if name != known => return Err(format!("{path} knows ?{known}= and no other parameter")),
            None => return Err(format!("{path} knows no parameter")),
            Some(known) if given.is_some() => return Err(format!("{known} is given twice")),
            Some(_) => given = Some(value),
        }
    }
    match path {
        "/hold" => Ok(Wish::Hold(given.map_or(Ok(HOLD), |text| length(&text))?)),
        "/release" => Ok(Wish::Release),
        _ if given.as_deref() == Some("") => {
            Err("member is empty: name one, or leave it out to cut every session".to_owned())
        }
        _ => Ok(Wish::Cut(given.map(std::borrow::Cow::into_owned))),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text)
        .map_err(|_| "for needs a duration with its unit, such as 90s or 5m".to_owned())?;
    if (Duration::from_secs(1)..=LONGEST_HOLD).contains(&length) {
        Ok(length)
    } else {
        Err("for has to be between 1s and 1h; ask again before it is over to hold for longer".to_owned())
    }
}

fn told(wish: &Wish, outcome: Outcome) -> Answer {
    let (status, body) = match (outcome, wish) {
        (Outcome::Held(until), _) => (StatusCode::OK, json!({"held": true, "until": wall(until)})),
        (Outcome::Released(was_held), _) => (StatusCode::OK, json!({"held": false, "was_held": was_held})),
        (Outcome::Cut(sessions, took), wish) => {
            let member = match wish {
                Wish::Cut(member) => member.as_deref(),
                Wish::Hold(_) | Wish::Release => None,
            };
            (
                StatusCode::OK,
                json!({"member": member, "sessions": sessions, "took_seconds": took.as_secs_f64()}),
            )
        }
        (Outcome::NoSuchMember(members), _) => {
            let text = match members.as_slice() {
                [] => "there is no such member; none is known yet\n".to_owned(),
                members => format!("there is no such member; there are: {}\n", members.join(", ")),
            };
            return pages::plain(StatusCode::NOT_FOUND, text);
        }
        (Outcome::CutUnderWay, _) => {
            let text = "another cut is not over yet; nothing was done\n";
            return pages::plain(StatusCode::CONFLICT, text);
        }
    };
    pages::respond(status, pages::JSON, pages::json(&body))
}

fn wall(at: SystemTime) -> Value {
    jiff::Timestamp::try_from(at).map_or(Value::Null, |at| format!("{at:.3}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_read_or_refused_and_never_guessed() {
        let minutes = |count: u64| Wish::Hold(Duration::from_secs(60 * count));
        for (path, query, read) in [
            ("/hold", "", Ok(minutes(1))),
            ("/hold", "for=5m", Ok(minutes(5))),
            ("/hold", "for=1h", Ok(minutes(60))),
            ("/hold", "for=61m", Err("between 1s and 1h")),
            ("/hold", "for=0s", Err("between 1s and 1h")),
            ("/hold", "for=", Err("with its unit")),
            ("/hold", "for=30", Err("with its unit")),
            ("/hold", "for=1m&for=2m", Err("twice")),
            ("/hold", "FOR=1m", Err("knows ?for=")),
            ("/release", "", Ok(Wish::Release)),
            ("/release", "now", Err("knows no parameter")),
            ("/sessions/cut", "", Ok(Wish::Cut(None))),
            ("/sessions/cut", "member=pg-0", Ok(Wish::Cut(Some("pg-0".into())))),
            ("/sessions/cut", "memeber=pg-0", Err("knows ?member=")),
            ("/sessions/cut", "member=", Err("member is empty")),
        ] {
            match (wish(path, query), read) {
                (Ok(found), Ok(read)) => assert_eq!(found, read, "{path}?{query}"),
                (Err(problem), Err(words)) => assert!(problem.contains(words), "{path}?{query}: {problem}"),
                (found, read) => panic!("{path}?{query}: {found:?}, not {read:?}"),
            }
        }
    }

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"Bearerabc", b"", b"abc"] {
            assert_eq!(bearer(other), None, "{other:?}");
        }
    }
}
