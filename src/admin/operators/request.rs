//! Reads an operator's command from a request's path and query.

use std::time::Duration;

use url::form_urlencoded;

use crate::config::OperatorCommand;

/// Length of a hold whose request names none.
const DEFAULT_HOLD: Duration = Duration::from_secs(60);
/// Maximum length of a hold, so that a forgotten one ends.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

/// Returns the command, or a text that says what is wrong. A parameter that is unknown or repeated is an error:
/// `?memeber=pg-0` must not cut every session.
pub(super) fn command(path: &str, query: &str) -> Result<OperatorCommand, String> {
    let parameter = match path {
        "/hold" => Some("for"),
        "/sessions/cut" => Some("member"),
        _ => None,
    };
    let mut given = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match parameter {
            Some(parameter) if name != parameter => {
                return Err(format!("unknown parameter; {path} accepts only ?{parameter}="));
            }
            None => return Err(format!("unknown parameter; {path} accepts none")),
            Some(parameter) if given.is_some() => return Err(format!("the parameter {parameter} is given twice")),
            Some(_) => given = Some(value),
        }
    }
    match path {
        "/hold" => Ok(OperatorCommand::Hold(
            given.map_or(Ok(DEFAULT_HOLD), |text| length(&text))?,
        )),
        "/release" => Ok(OperatorCommand::Release),
        _ if given.as_deref() == Some("") => {
            Err("the parameter member is empty; name a member, or omit it to cut every session".to_owned())
        }
        _ => Ok(OperatorCommand::Cut(given.map(std::borrow::Cow::into_owned))),
    }
}

fn length(text: &str) -> Result<Duration, String> {
    let length = humantime::parse_duration(text)
        .map_err(|_| "the parameter for must be a duration with its unit, such as 90s or 5m".to_owned())?;
    if (Duration::from_secs(1)..=LONGEST_HOLD).contains(&length) {
        Ok(length)
    } else {
        Err("the parameter for must be between 1s and 1h; to hold for longer, repeat the command in time".to_owned())
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
            ("/sessions/cut", "member=", Err("member is empty")),
        ] {
            match (command(path, query), read) {
                (Ok(found), Ok(read)) => assert_eq!(found, read, "{path}?{query}"),
                (Err(problem), Err(words)) => assert!(problem.contains(words), "{path}?{query}: {problem}"),
                (found, read) => panic!("{path}?{query}: {found:?}, not {read:?}"),
            }
        }
    }
}
