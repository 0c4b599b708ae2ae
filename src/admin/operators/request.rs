//! Reads an operator's command from a request's path and query.

use std::time::Duration;

use thiserror::Error;
use url::form_urlencoded;

use crate::config::OperatorCommand;

/// Duration of a hold whose request does not specify one.
const DEFAULT_HOLD: Duration = Duration::from_secs(60);
/// Maximum duration of a hold, so that a forgotten hold ends.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

/// The reason why a request is not a command.
#[derive(Debug, Error)]
pub(super) enum BadCommand {
    #[error("unknown parameter; {0} accepts none")]
    NoParameters(String),
    /// The path, and its only parameter.
    #[error("unknown parameter; {0} accepts only ?{1}=")]
    UnknownParameter(String, &'static str),
    #[error("the parameter ?{0}= is given twice")]
    Repeated(&'static str),
    #[error("the parameter ?member= is empty; name a member, or omit the parameter to cut every session")]
    NoMember,
    #[error("the parameter ?for= must be a duration with its unit, such as 90s or 5m")]
    NoDuration,
    #[error(
        "the parameter ?for= must be between 1s and 1h; to hold for longer, repeat the command before the hold ends"
    )]
    OutOfRange,
}

/// Reads the command in a request. A parameter that is unknown or repeated is an error:
/// `?memeber=pg-0` must not cut every session.
pub(super) fn command(path: &str, query: &str) -> Result<OperatorCommand, BadCommand> {
    let parameter = match path {
        "/hold" => Some("for"),
        "/sessions/cut" => Some("member"),
        _ => None,
    };
    let mut given = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match parameter {
            Some(parameter) if name != parameter => {
                return Err(BadCommand::UnknownParameter(path.to_owned(), parameter));
            }
            None => return Err(BadCommand::NoParameters(path.to_owned())),
            Some(parameter) if given.is_some() => return Err(BadCommand::Repeated(parameter)),
            Some(_) => given = Some(value),
        }
    }
    match path {
        "/hold" => Ok(OperatorCommand::Hold(
            given.map_or(Ok(DEFAULT_HOLD), |text| length(&text))?,
        )),
        "/release" => Ok(OperatorCommand::Release),
        _ if given.as_deref() == Some("") => Err(BadCommand::NoMember),
        _ => Ok(OperatorCommand::Cut(given.map(std::borrow::Cow::into_owned))),
    }
}

fn length(text: &str) -> Result<Duration, BadCommand> {
    let length = humantime::parse_duration(text).map_err(|_| BadCommand::NoDuration)?;
    if (Duration::from_secs(1)..=LONGEST_HOLD).contains(&length) {
        Ok(length)
    } else {
        Err(BadCommand::OutOfRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_read_or_refused_and_never_guessed() {
        let minutes = |count: u64| OperatorCommand::Hold(Duration::from_secs(60 * count));
        for (path, query, read) in [
            ("/hold", "", Ok(minutes(1))),
            ("/hold", "for=5m", Ok(minutes(5))),
            ("/hold", "for=1h", Ok(minutes(60))),
            ("/hold", "for=61m", Err("between 1s and 1h")),
            ("/hold", "for=0s", Err("between 1s and 1h")),
            ("/hold", "for=", Err("with its unit")),
            ("/hold", "for=30", Err("with its unit")),
            ("/hold", "for=1m&for=2m", Err("twice")),
            ("/hold", "FOR=1m", Err("accepts only ?for=")),
            ("/release", "", Ok(OperatorCommand::Release)),
            ("/release", "now", Err("accepts none")),
            ("/sessions/cut", "", Ok(OperatorCommand::Cut(None))),
            (
                "/sessions/cut",
                "member=pg-0",
                Ok(OperatorCommand::Cut(Some("pg-0".into()))),
            ),
            ("/sessions/cut", "memeber=pg-0", Err("accepts only ?member=")),
            ("/sessions/cut", "member=", Err("?member= is empty")),
        ] {
            match (command(path, query), read) {
                (Ok(found), Ok(read)) => assert_eq!(found, read, "{path}?{query}"),
                (Err(problem), Err(words)) => assert!(problem.to_string().contains(words), "{path}?{query}: {problem}"),
                (found, read) => panic!("{path}?{query}: {found:?}, not {read:?}"),
            }
        }
    }
}
