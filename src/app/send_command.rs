//! `pgnorth hold`, `release` and `cut`: sends a command to a running pgnorth through its admin port, and prints the
//! answer.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use humantime::format_duration;
use url::form_urlencoded::byte_serialize;

use super::status::client::post;
use crate::admin::read_token;
use crate::config::{self, OperatorCommand};

/// Exit status: pgnorth rejected the command, or the token cannot be read.
const REJECTED: u8 = 1;
/// Exit status: pgnorth did not answer.
const NO_CONTACT: u8 = 2;

/// Sends the command. The exit status is 0 once pgnorth has applied it.
pub(super) async fn run(settings: &config::SendCommand) -> ExitCode {
    let token = match read_token(&settings.token_file) {
        Ok(token) => token,
        Err(problem) => return fail(&problem, REJECTED),
    };
    match post(settings.admin, &path(&settings.command), token.header()).await {
        Ok((true, answer)) => {
            // A closed stdout is not a failure of the command; the exit status reports the result.
            let _unread = io::stdout().write_all(answer.as_bytes());
            ExitCode::SUCCESS
        }
        Ok((false, answer)) => fail(&answer.trim_end(), REJECTED),
        Err(error) => fail(&error, NO_CONTACT),
    }
}

fn path(command: &OperatorCommand) -> String {
    match command {
        OperatorCommand::Hold(length) => {
            let length: String = byte_serialize(format_duration(*length).to_string().as_bytes()).collect();
            format!("/hold?for={length}")
        }
        OperatorCommand::Release => "/release".to_owned(),
        OperatorCommand::Cut(None) => "/sessions/cut".to_owned(),
        OperatorCommand::Cut(Some(member)) => {
            let member: String = byte_serialize(member.as_bytes()).collect();
            format!("/sessions/cut?member={member}")
        }
    }
}

fn fail(problem: &dyn Display, status: u8) -> ExitCode {
    let _unread = writeln!(io::stderr(), "pgnorth: {problem}");
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_hold_is_asked_for_its_whole_duration() {
        for (millis, asked) in [(1500, "/hold?for=1s+500ms"), (60_000, "/hold?for=1m")] {
            assert_eq!(path(&OperatorCommand::Hold(Duration::from_millis(millis))), asked);
        }
    }
}
