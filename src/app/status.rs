//! `pgnorth status`: shows the status of a running pgnorth through its admin port. `status/text.rs` writes the text.

pub(super) mod client;
mod text;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use self::client::{ContactError, get, watch};
use crate::admin::status::{StateName, Status};
use crate::config::{self, Format};

/// Pause before each attempt to reconnect.
const RETRY: Duration = Duration::from_secs(1);
/// Moves the cursor to the upper left corner and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[J";

const ROUTING: u8 = 0;
const HOLDING: u8 = 1;
const NO_CONTACT: u8 = 2;

/// The format of the status on stdout.
struct Output {
    format: Format,
    /// True if the status is redrawn in place.
    redraws: bool,
    colour: bool,
}

/// The error if stdout is closed.
struct Closed;

/// Shows the status once or, with --watch, until it is interrupted or stdout is closed. The exit status is that of the
/// state shown last.
pub(super) async fn run(settings: &config::Status) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let output = Output {
        format: settings.format,
        redraws: terminal && settings.watch && settings.format == Format::Text,
        colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let mut code = NO_CONTACT;
    if settings.watch {
        while follow(settings, &output, &mut code).await.is_ok() {
            code = NO_CONTACT;
            tokio::time::sleep(RETRY).await;
        }
        return ExitCode::from(code);
    }
    match get(settings.admin).await {
        Ok(status) => {
            let _unread = output.show(&status);
            ExitCode::from(exit_status(&status))
        }
        Err(error) => {
            let _unread = output.show_error(&error);
            ExitCode::from(NO_CONTACT)
        }
    }
}

/// Shows each event until contact is lost, then the reason.
async fn follow(settings: &config::Status, output: &Output, code: &mut u8) -> Result<(), Closed> {
    let error = match watch(settings.admin).await {
        Ok(mut stream) => loop {
            match stream.next().await {
                Ok(status) => {
                    *code = exit_status(&status);
                    output.show(&status).map_err(|_| Closed)?;
                }
                Err(error) => break error,
            }
        },
        Err(error) => error,
    };
    output.show_error(&error).map_err(|_| Closed)
}

fn exit_status(status: &Status) -> u8 {
    match status.state {
        StateName::Route => ROUTING,
        StateName::Hold | StateName::Fence => HOLDING,
    }
}

impl Output {
    fn show(&self, status: &Status) -> io::Result<()> {
        let shown = match self.format {
            Format::Text => text::page(status, self.colour),
            Format::Json => format!("{}\n", serde_json::to_string(status)?),
        };
        self.write(&shown)
    }

    /// Shows an error in place of the outdated status if the output is redrawn, else on stderr.
    fn show_error(&self, error: &ContactError) -> io::Result<()> {
        let shown = text::no_contact(error, self.colour && self.redraws);
        match self.redraws {
            true => self.write(&shown),
            false => io::stderr().write_all(shown.as_bytes()),
        }
    }

    fn write(&self, shown: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.redraws {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(shown.as_bytes())?;
        out.flush()
    }
}
