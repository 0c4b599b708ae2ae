//! `pgnorth status`: a look at a running pgnorth through its admin port. What is shown stands in `status/text.rs`.

pub(super) mod client;
mod text;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use self::client::{Lost, get, watch};
use crate::admin::status::{StateWord, Status};
use crate::config::{self, Format};

/// Between two tries to get in touch again.
const RETRY: Duration = Duration::from_secs(1);
/// Clears a terminal from its upper left corner on.
const CLEAR: &str = "\x1b[H\x1b[J";

const ROUTING: u8 = 0;
const HOLDING: u8 = 1;
const NO_CONTACT: u8 = 2;

/// Where the status goes, and how it is written there.
struct Screen {
    format: Format,
    /// It is redrawn in place.
    redraws: bool,
    colour: bool,
}

/// The reader has gone: nobody is left to show anything to.
struct Closed;

/// Shows the status once, or until interrupted or nobody reads any more. The exit code is that of the state shown last.
pub(super) async fn run(settings: &config::Status) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let screen = Screen {
        format: settings.format,
        redraws: terminal && settings.watch && settings.format == Format::Text,
        colour: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let mut code = NO_CONTACT;
    if settings.watch {
        while follow(settings, &screen, &mut code).await.is_ok() {
            code = NO_CONTACT;
            tokio::time::sleep(RETRY).await;
        }
        return ExitCode::from(code);
    }
    match get(settings.admin).await {
        Ok(status) => {
            let _unheard = screen.show(&status);
            ExitCode::from(code_of(&status))
        }
        Err(lost) => {
            let _unheard = screen.show_loss(&lost);
            ExitCode::from(NO_CONTACT)
        }
    }
}

/// Shows one event after the other until contact is lost, and says so.
async fn follow(settings: &config::Status, screen: &Screen, code: &mut u8) -> Result<(), Closed> {
    let lost = match watch(settings.admin).await {
        Ok(mut watched) => loop {
            match watched.next().await {
                Ok(status) => {
                    *code = code_of(&status);
                    screen.show(&status).map_err(|_| Closed)?;
                }
                Err(lost) => break lost,
            }
        },
        Err(lost) => lost,
    };
    screen.show_loss(&lost).map_err(|_| Closed)
}

fn code_of(status: &Status) -> u8 {
    match status.state {
        StateWord::Route => ROUTING,
        StateWord::Hold | StateWord::Fence => HOLDING,
    }
}

impl Screen {
    fn show(&self, status: &Status) -> io::Result<()> {
        let shown = match self.format {
            Format::Text => text::page(status, self.colour),
            Format::Json => format!("{}\n", serde_json::to_string(status)?),
        };
        self.write(&shown)
    }

    /// On a screen that is redrawn it takes the place of what is no longer known; else it goes to stderr, away from what is to be read.
    fn show_loss(&self, lost: &Lost) -> io::Result<()> {
        let shown = text::no_contact(lost, self.colour && self.redraws);
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
