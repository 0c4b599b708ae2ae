//! The log as it is written: text, JSON, filters, and the line with the settings.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::{debug, warn};

use super::*;
use crate::config::SettingsError;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(log: &str) -> Result<Settings, SettingsError> {
    Settings::read(["pgnorth", "--scope", "demo", "--log", log].map(Into::into), |_| None)
}

fn logged(log: &str, format: Format, colour: bool, tell: impl FnOnce(&Settings)) -> String {
    logged_to(false, log, format, colour, tell)
}

fn logged_to(journal: bool, log: &str, format: Format, colour: bool, tell: impl FnOnce(&Settings)) -> String {
    let memory = Memory::default();
    let settings = settings(log).unwrap();
    let sink = memory.clone();
    let subscriber = tracing_subscriber::registry()
        .with(env_filter(&settings.log))
        .with(layer(format, colour, journal, move || sink.clone()));
    tracing::subscriber::with_default(subscriber, || tell(&settings));
    String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
}

/// Returns the line without its time, and checks the format of the time.
fn without_time(line: &str) -> &str {
    let (time, rest) = line.split_once(' ').unwrap();
    assert_eq!(time.len(), "2026-07-23T07:48:03.123Z".len(), "{time}");
    time.parse::<jiff::Timestamp>().unwrap();
    rest
}

#[test]
fn a_text_line_reads_well() {
    let line = logged("info", Format::Text, false, |_| {
        info!(target: "pgnorth::discovery", from = %"pg-0", to = "pg-1", reason = %"pg-1 holds the lock", waiting = 3, none = None::<u8>, "leader changed");
    });
    assert_eq!(
        without_time(&line),
        "INFO  discovery: leader changed from=pg-0 to=pg-1 reason=\"pg-1 holds the lock\" waiting=3\n"
    );
}

#[test]
fn values_from_outside_can_forge_no_line() {
    let line = logged("info", Format::Text, true, |_| {
        warn!(target: "hyper::client", name = %"a\nb\u{1b}[2J", debug = ?"c\nd", "said {}", "e\nf");
    });
    assert_eq!(line.lines().count(), 1, "{line:?}");
    assert!(
        !line.contains("\u{1b}[2J") && line.contains(r#""a\nb\u{1b}[2J""#),
        "{line:?}"
    );
    assert!(
        line.contains("hyper::client") && line.contains(r"said e\nf"),
        "{line:?}"
    );
}

/// Regression: `journalctl -p warning` found nothing, because systemd treated every line as priority info.
#[test]
fn the_journal_gets_the_priority_of_each_line() {
    for format in [Format::Text, Format::Json] {
        let lines = logged_to(true, "trace", format, false, |_| {
            error!("a\nb");
            warn!("c");
            info!("d");
            debug!("e");
            tracing::trace!("f");
        });
        let prefixes: Vec<_> = lines.lines().map(|line| &line[..3]).collect();
        assert_eq!(prefixes, ["<3>", "<4>", "<6>", "<7>", "<7>"], "{lines}");
    }
}

#[test]
fn json_keeps_fields_apart() {
    let line = logged("info", Format::Json, false, |_| warn!(member = %"pg-0", "lost"));
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["level"], "WARN");
    assert_eq!(event["fields"]["message"], "lost");
    assert_eq!(event["fields"]["member"], "pg-0");
    assert!(event["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
}

#[test]
fn other_crates_are_quiet_unless_named() {
    let tell = |_: &Settings| {
        debug!(target: "pgnorth::proxy", "ours");
        debug!(target: "kube", "theirs");
        warn!(target: "kube", "theirs, urgent");
    };
    let count = |log| logged(log, Format::Text, false, tell).lines().count();
    assert_eq!(
        (count("info"), count("debug"), count("debug,kube=debug"), count("off")),
        (1, 2, 3, 0)
    );
}

#[test]
fn spans_follow_the_event() {
    let line = logged("info", Format::Text, false, |_| {
        let session = tracing::info_span!(target: "pgnorth", "session", client = %"10.0.0.1:5");
        session.in_scope(|| info!(target: "pgnorth", "dialled"));
    });
    assert_eq!(without_time(&line), "INFO  dialled session{client=10.0.0.1:5}\n");
}

#[test]
fn the_settings_in_force_are_one_line() {
    let line = logged("info", Format::Text, false, announce);
    assert!(line.contains(" INFO  pgnorth starts version=0.1.0 commit="), "{line}");
    let settings =
        "settings=\"--listen [::]:5432 --admin [::]:8080 --scope demo --selector cluster-name=demo --hold 60s ";
    assert!(line.contains(settings), "{line}");
    assert_eq!(line.lines().count(), 1);
}
