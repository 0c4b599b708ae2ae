//! `pgnorth hold`, `release` and `cut`: gives an order to a running pgnorth, through its admin port, and prints what came of it.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use url::form_urlencoded::byte_serialize;

use super::status::client::order;
use crate::admin::read_token;
use crate::config::{self, Deed};

/// It was refused, or there is no token to give it with.
const REFUSED: u8 = 1;
const NO_CONTACT: u8 = 2;

/// Gives the order. The exit code is 0 once it has been carried out.
pub(super) async fn run(settings: &config::Order) -> ExitCode {
    let token = match read_token(&settings.token_file) {
        Ok(token) => token,
        Err(problem) => return complain(&problem, REFUSED),
    };
    match order(settings.admin, &path(&settings.deed), token.header()).await {
        Ok((true, told)) => {
            // Nobody is left to tell when the stream is closed; the exit code says the same.
            let _unheard = io::stdout().write_all(told.as_bytes());
            ExitCode::SUCCESS
        }
        Ok((false, told)) => complain(&told.trim_end(), REFUSED),
        Err(lost) => complain(&lost, NO_CONTACT),
    }
}

fn path(deed: &Deed) -> String {
    match deed {
        Deed::Hold(length) => format!("/hold?for={}s", length.as_secs()),
        Deed::Release => "/release".to_owned(),
        Deed::Cut(None) => "/sessions/cut".to_owned(),
        Deed::Cut(Some(member)) => {
            let member: String = byte_serialize(member.as_bytes()).collect();
            format!("/sessions/cut?member={member}")
        }
    }
}

fn complain(what: &dyn Display, code: u8) -> ExitCode {
    let _unheard = writeln!(io::stderr(), "pgnorth: {what}");
    ExitCode::from(code)
}
