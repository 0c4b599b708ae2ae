//! The admin port's commands for operators: authentication, and the answers. Discovery applies the commands.

mod request;
pub(super) mod token;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper::header::{ALLOW, AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use self::token::TokenFile;
use super::Facts;
use super::pages::{self, Answer};
use crate::command_queue::{CommandQueue, Outcome};
use crate::config::OperatorCommand;
use crate::log_limiter::LogLimiter;

/// Deadline for discovery to apply a command. Sessions close within milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// The token that authenticates operators, and the queue for their commands.
#[derive(Debug)]
pub struct Operators {
    token: TokenFile,
    queue: CommandQueue,
}

impl Operators {
    /// Returns the access for commands that carry the token in `file`. The file is read again for each command. If it
    /// cannot be used now, a warning is logged.
    pub async fn new(file: PathBuf, queue: CommandQueue) -> Self {
        let token = TokenFile::new(file);
        match token.read().await {
            Ok(_) => info!(
                "the admin port accepts operator commands (hold, release, cut) with the token in --admin-token-file"
            ),
            Err(problem) => {
                warn!(%problem, "operator commands are rejected until the token file can be used (--admin-token-file)")
            }
        }
        Self { token, queue }
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap,
        path: &str,
        by: SocketAddr,
        log_limiter: &LogLimiter,
    ) -> Result<(), Answer> {
        let log = |why: &str, problem: Option<&token::Problem>| {
            let line = format!("operator command rejected: {why}");
            if log_limiter.should_log(&line) {
                warn!(%by, path, problem = problem.map(display), "{line}");
            } else {
                debug!(%by, path, problem = problem.map(display), "{line}");
            }
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some(given) = given.and_then(bearer) else {
            log("the request has no bearer token", None);
            let text = "a command needs the token of --admin-token-file in the header `Authorization: Bearer …`\n";
            return Err(unauthorized(text));
        };
        match self.token.read().await {
            Ok(token) if token.is(given) => Ok(()),
            Ok(_) => {
                log("the request has a wrong token", None);
                Err(unauthorized("this is not the token of --admin-token-file\n"))
            }
            Err(problem) => {
                log("the token file cannot be used (--admin-token-file)", Some(&problem));
                let text = "pgnorth cannot use the file of --admin-token-file; its log has the reason\n";
                Err(pages::plain(StatusCode::SERVICE_UNAVAILABLE, text))
            }
        }
    }
}

/// Answers a request for one of the commands' paths.
pub(super) async fn answer(facts: &Facts, method: &Method, uri: &Uri, headers: &HeaderMap, peer: SocketAddr) -> Answer {
    let path = uri.path();
    if method != Method::POST {
        let mut refusal = pages::plain(StatusCode::METHOD_NOT_ALLOWED, "send commands with POST\n");
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return refusal;
    }
    let Some(operators) = &facts.operators else {
        return pages::plain(
            StatusCode::FORBIDDEN,
            "operator commands are off: this process has no --admin-token-file (PGNORTH_ADMIN_TOKEN_FILE), or is not a proxy\n",
        );
    };
    // A dual-stack listener shows IPv4 clients as ::ffff:a.b.c.d.
    let by = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    if let Err(refusal) = operators.authenticate(headers, path, by, &facts.log_limiter).await {
        return refusal;
    }
    let command = match request::command(path, uri.query().unwrap_or_default()) {
        Ok(command) => command,
        Err(problem) => return pages::plain(StatusCode::BAD_REQUEST, format!("{problem}; nothing was done\n")),
    };
    match timeout(DEADLINE, operators.queue.send(command.clone(), by)).await {
        Ok(Some(outcome)) => respond(&command, outcome),
        Ok(None) => pages::plain(StatusCode::SERVICE_UNAVAILABLE, "pgnorth is shutting down\n"),
        Err(_) => pages::plain(
            StatusCode::GATEWAY_TIMEOUT,
            "the command has not finished after 10 s, and may still be applied; the log reports it then\n",
        ),
    }
}

fn unauthorized(text: &'static str) -> Answer {
    let mut refusal = pages::plain(StatusCode::UNAUTHORIZED, text);
    let scheme = HeaderValue::from_static("Bearer realm=\"pgnorth\"");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    refusal
}

/// Returns the token in an `Authorization` header. The scheme's name is case-insensitive (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

fn respond(command: &OperatorCommand, outcome: Outcome) -> Answer {
    let body = match outcome {
        Outcome::Held(until) => json!({"held": true, "until": wall(until)}),
        Outcome::Released(was_held) => json!({"held": false, "was_held": was_held}),
        Outcome::Cut(sessions, took) => {
            let member = match command {
                OperatorCommand::Cut(member) => member.as_deref(),
                OperatorCommand::Hold(_) | OperatorCommand::Release => None,
            };
            json!({"member": member, "sessions": sessions, "took_seconds": took.as_secs_f64()})
        }
        Outcome::NoSuchMember(members) => {
            let text = match members.as_slice() {
                [] => "no member has this name; no member is known yet\n".to_owned(),
                members => format!("no member has this name; the members are {}\n", members.join(", ")),
            };
            return pages::plain(StatusCode::NOT_FOUND, text);
        }
        Outcome::CutUnderWay => {
            let text = "another cut is still running; nothing was done\n";
            return pages::plain(StatusCode::CONFLICT, text);
        }
    };
    pages::respond(StatusCode::OK, pages::JSON, pages::json(&body))
}

fn wall(at: SystemTime) -> Value {
    jiff::Timestamp::try_from(at).map_or(Value::Null, |at| format!("{at:.3}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_whatever_the_case_of_its_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        for other in [&b"Basic abc"[..], b"Bearer", b"Bearerabc", b"", b"abc"] {
            assert_eq!(bearer(other), None, "{other:?}");
        }
    }
}
