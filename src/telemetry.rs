//! The log: one line an event to stderr, as text for people or as JSON. It filters and writes; what is told is for each room to say.

mod text;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};

use tracing::field::display;
use tracing::{Level, Subscriber, enabled, error, info};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use self::writer::Queue;
use crate::config::{COMMIT, Finding, Format, Job, LogFilter, Proxy, Publish, Settings, VERSION};
use crate::metrics::Metrics;

/// How long the process' end may wait for the log to be written. A reader that is there takes microseconds.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of a process. When it is dropped, what was logged is written, if anybody reads it.
#[derive(Debug)]
pub struct Log(Queue);

impl Log {
    /// Starts logging for the whole process, panics included. Text is coloured when stderr is a terminal and NO_COLOR is not set.
    ///
    /// # Errors
    /// When the process logs already, or can have no further file or thread.
    pub fn start(filter: &LogFilter, format: Format, metrics: &Metrics) -> Result<Self> {
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Without the lock of `io::stderr`, which a thread that is stuck in a write would keep from all others.
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        let stderr = File::from(stderr.context("cannot open standard error once more")?);
        let queue = Queue::start(stderr, metrics.log_lines_lost.clone()).context("cannot start the log's thread")?;
        tracing_subscriber::registry()
            .with(env_filter(filter))
            .with(layer(format, colour, queue.clone()))
            .try_init()?;
        let panicked = queue.clone();
        panic::set_hook(Box::new(move |panic| log_panic(panic, &panicked)));
        Ok(Self(queue))
    }

    /// Logs why the process ends: in the log's own format, so that a reader of JSON is not given a stray line; but never lost to a filter.
    pub fn ends(&self, reason: &dyn Display) {
        log_or_push(&self.0, "pgnorth ends", reason, None);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.0.flush(FLUSH);
    }
}

/// The standard library's own hook writes to stderr, and waits for whoever reads it.
fn log_panic(panic: &PanicHookInfo<'_>, queue: &Queue) {
    let current = thread::current();
    let thread = current.name().unwrap_or("unnamed");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("no text");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let reason = format_args!("thread {thread} at {place}: {what}").to_string();
    log_or_push(queue, "a panic; this is a defect in pgnorth", &reason, backtrace);
}

fn log_or_push(queue: &Queue, message: &str, reason: &dyn Display, backtrace: Option<Backtrace>) {
    if enabled!(target: "pgnorth", Level::ERROR) {
        error!(target: "pgnorth", %reason, backtrace = backtrace.map(display), "{message}");
    } else {
        queue.push(format!("pgnorth: {message}: {reason:#}\n").as_bytes());
    }
}

/// Logs which build runs with which settings. They hold no secrets: a URL with a password is refused.
pub fn announce(settings: &Settings) {
    match &settings.job {
        Job::Proxy(proxy) => announce_proxy(settings, proxy),
        Job::Publish(publish) => announce_publisher(settings, publish),
        // Who only looks, or asks another one, has nothing to announce.
        Job::Status(_) | Job::SendCommand(_) => {}
        // Its report is what somebody at a terminal wants to read.
        Job::Doctor(_) => {}
    }
}

/// The settings of discovery, as fields of the line.
struct DiscoveryFields<'a> {
    scope: Option<&'a str>,
    namespace: Option<&'a str>,
    selector: Option<&'a str>,
    pod: Option<&'a str>,
    citus_group: Option<u32>,
    patroni: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

impl<'a> DiscoveryFields<'a> {
    fn new(finding: &'a Finding) -> Self {
        let kubernetes = finding.kubernetes.as_ref();
        let file = |path: &std::path::PathBuf| path.display().to_string();
        let tls = &finding.patroni_tls;
        let urls: Vec<_> = finding.patroni.iter().map(|url| url.as_str()).collect();
        Self {
            scope: kubernetes
                .map(|kubernetes| kubernetes.scope.as_str())
                .or(finding.scope.as_deref()),
            citus_group: kubernetes.and_then(|kubernetes| kubernetes.citus_group),
            namespace: kubernetes.and_then(|kubernetes| kubernetes.namespace.as_deref()),
            selector: kubernetes.map(|kubernetes| kubernetes.selector.as_str()),
            pod: kubernetes.and_then(|kubernetes| Some(kubernetes.pod.as_ref()?.name.as_str())),
            patroni: (!urls.is_empty()).then(|| urls.join(",")),
            ca: tls.ca.as_ref().map(file),
            cert: tls.identity.as_ref().map(|identity| file(&identity.cert)),
            key: tls.identity.as_ref().map(|identity| file(&identity.key)),
        }
    }
}

fn announce_proxy(settings: &Settings, proxy: &Proxy) {
    let discovery = DiscoveryFields::new(&proxy.finding);
    let human = |duration| display(humantime::format_duration(duration));
    info!(
        target: "pgnorth",
        version = VERSION,
        commit = COMMIT,
        listen = %proxy.listen,
        admin = %proxy.admin,
        admin_host = (!proxy.admin_hosts.is_empty()).then(|| proxy.admin_hosts.join(",")),
        admin_token_file = proxy.admin_token_file.as_ref().map(|file| display(file.display())),
        scope = discovery.scope.map(display),
        citus_group = discovery.citus_group,
        namespace = discovery.namespace.map(display),
        selector = discovery.selector.map(display),
        patroni = discovery.patroni.map(display),
        patroni_ca = discovery.ca.map(display),
        patroni_cert = discovery.cert.map(display),
        patroni_key = discovery.key.map(display),
        hold = human(proxy.hold),
        switchover_hold = human(proxy.switchover_hold),
        failover_drain = human(proxy.failover_drain),
        connect_timeout = human(proxy.connect_timeout),
        tcp_user_timeout = human(proxy.tcp_user_timeout),
        client_tcp_user_timeout = human(proxy.client_tcp_user_timeout),
        socket_buffers = proxy.socket_buffers,
        sources = proxy.sources.len(),
        max_sessions = proxy.max_sessions,
        refusal_cert = proxy.refusal.as_ref().map(|identity| display(identity.cert.display())),
        refusal_key = proxy.refusal.as_ref().map(|identity| display(identity.key.display())),
        pod_name = discovery.pod.map(display),
        lame_duck = human(proxy.lame_duck),
        drain = human(proxy.drain),
        log = %settings.log,
        log_format = %settings.log_format,
        "pgnorth starts"
    );
}

fn announce_publisher(settings: &Settings, publish: &Publish) {
    let discovery = DiscoveryFields::new(&publish.finding);
    info!(
        target: "pgnorth",
        version = VERSION,
        commit = COMMIT,
        service = %publish.service,
        endpoints = publish.endpoints,
        lease = publish.lease.as_ref().map(display),
        admin = %publish.admin,
        admin_host = (!publish.admin_hosts.is_empty()).then(|| publish.admin_hosts.join(",")),
        scope = discovery.scope.map(display),
        citus_group = discovery.citus_group,
        namespace = publish.namespace.as_ref().map(display),
        selector = discovery.selector.map(display),
        patroni = discovery.patroni.map(display),
        patroni_ca = discovery.ca.map(display),
        patroni_cert = discovery.cert.map(display),
        patroni_key = discovery.key.map(display),
        log = %settings.log,
        log_format = %settings.log_format,
        "pgnorth publish starts"
    );
}

fn env_filter(filter: &LogFilter) -> EnvFilter {
    EnvFilter::try_new(filter.directives()).expect("a LogFilter holds valid directives")
}

fn layer<S, W>(format: Format, colour: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colour)
        .with_timer(Utc)
        // Its way to complain about a closed stderr is to write to stderr, which panics.
        .log_internal_errors(false);
    match format {
        Format::Json => layer.json().boxed(),
        Format::Text => layer.event_format(text::Line).fmt_fields(text::Fields).boxed(),
    }
}

/// RFC 3339 in UTC with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{:.3}", jiff::Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{debug, warn};

    use super::*;
    use crate::config::Refused;

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

    fn settings(log: &str) -> Result<Settings, Refused> {
        Settings::read(["pgnorth", "--scope", "demo", "--log", log].map(Into::into), |_| None)
    }

    fn logged(log: &str, format: Format, colour: bool, tell: impl FnOnce(&Settings)) -> String {
        let memory = Memory::default();
        let settings = settings(log).unwrap();
        let sink = memory.clone();
        let subscriber = tracing_subscriber::registry()
            .with(env_filter(&settings.log))
            .with(layer(format, colour, move || sink.clone()));
        tracing::subscriber::with_default(subscriber, || tell(&settings));
        String::from_utf8(memory.0.lock().unwrap().clone()).unwrap()
    }

    /// Without the time, which is checked to be one.
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
        assert!(
            line.contains(" listen=[::]:5432 admin=[::]:8080 scope=demo selector=cluster-name=demo hold=1m "),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }
}
