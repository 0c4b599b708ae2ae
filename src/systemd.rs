//! The interface to systemd: notifications (sd_notify(3)), the watchdog, and listeners that systemd opened
//! (sd_listen_fds(3)). Without systemd, everything here does nothing.
//!
//! The protocol of notifications is a datagram of `NAME=value` lines to a Unix socket, so libsystemd is not needed.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;
use tracing::warn;

/// The variables of systemd that apply to one process only. A successor must not inherit them.
pub const OF_ONE_PROCESS: [&str; 6] = [
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "WATCHDOG_PID",
    "MAINPID",
];

/// The first descriptor that systemd passes.
const FIRST: usize = 3;

/// Sender of notifications to systemd. Clones share the socket.
#[derive(Clone, Debug, Default)]
pub struct Notifier(Option<Arc<Socket>>);

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    address: SocketAddr,
}

/// The error for a descriptor that systemd passed and that is not a usable listener.
#[derive(Debug, Error)]
#[error("cannot use descriptor {descriptor}, which systemd passed (ListenStream= of the .socket unit): {error}")]
pub struct NotUsable {
    descriptor: usize,
    #[source]
    error: io::Error,
}

impl Notifier {
    /// Returns the notifier for the value of NOTIFY_SOCKET. Logs a socket that cannot be used; systemd then reports the
    /// missing notification itself.
    pub fn new(notify_socket: Option<OsString>) -> Self {
        let Some(name) = notify_socket.filter(|name| !name.is_empty()) else {
            return Self(None);
        };
        let opened = address(&name).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(Socket { socket, address })
        });
        match opened {
            Ok(socket) => Self(Some(Arc::new(socket))),
            Err(error) => {
                warn!(?name, %error, "cannot notify systemd: NOTIFY_SOCKET does not name a usable socket");
                Self(None)
            }
        }
    }

    /// Returns true if a service manager is to be notified.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Reports that the process serves. `systemctl status` shows `status`.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", line(status)));
    }

    /// Reports that a reload has begun; [`ready`](Self::ready) ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS=reloading"));
    }

    /// Reports that a shutdown has begun.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=shutting down");
    }

    /// Replaces the line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", line(status)));
    }

    /// Makes the process with this id the service's main process.
    pub fn main_process(&self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
    }

    /// Feeds the watchdog.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, text: &str) {
        if let Some(socket) = &self.0 {
            // systemd ignores messages that it does not understand. If its queue is full, the next status or watchdog
            // message follows soon; after a lost READY=1, systemd's own timeout ends the start.
            let _lost = socket.socket.send_to_addr(text.as_bytes(), &socket.address);
        }
    }
}

/// Returns the address that NOTIFY_SOCKET names: a path, or an abstract name that begins with `@`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(Path::new(name)),
    }
}

/// Replaces line breaks, which would begin another assignment.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Returns the interval at which to feed the watchdog, half of systemd's own, from WATCHDOG_USEC and WATCHDOG_PID;
/// `None` if systemd does not watch this process.
pub fn watchdog_interval(usec: Option<OsString>, of: Option<OsString>) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if of.is_some_and(|of| number(of) != Some(u64::from(std::process::id()))) {
        return None;
    }
    let usec = number(usec?).filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec) / 2)
}

/// Takes the listeners that systemd opened for this process. Must be called once, before any thread is started, because
/// this function removes variables from the environment.
///
/// # Errors
/// Returns the descriptor that is not a TCP listener.
pub fn take_listeners() -> Result<Vec<TcpListener>, NotUsable> {
    // The crate contains the `unsafe` code that is needed to turn a number into a file.
    let mut passed = listenfd::ListenFd::from_env();
    let mut all = Vec::new();
    for number in 0..passed.len() {
        let taken = passed.take_tcp_listener(number).map_err(|error| NotUsable {
            descriptor: number + FIRST,
            error,
        });
        all.extend(taken?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(notify: impl FnOnce(&Notifier)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        notify(&Notifier::new(Some(path.into_os_string())));
        let mut buffer = [0; 1000];
        let count = systemd.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_notification_is_one_datagram_of_assignments() {
        assert_eq!(received(|to| to.ready("routing to a")), "READY=1\nSTATUS=routing to a");
        assert_eq!(received(|to| to.status("a\nb")), "STATUS=a b", "a status is one line");
        assert_eq!(received(|to| to.main_process(7)), "MAINPID=7");
        let reloading = received(Notifier::reloading);
        let mut lines = reloading.lines();
        assert_eq!(lines.next(), Some("RELOADING=1"));
        let since = lines.next().and_then(|line| line.strip_prefix("MONOTONIC_USEC="));
        assert!(since.unwrap().parse::<u64>().unwrap() > 0, "{reloading}");
    }

    #[test]
    fn an_abstract_socket_is_notified_too() {
        let name = format!("pgnorth-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(Some(format!("@{name}").into())).watchdog();
        let mut buffer = [0; 100];
        let count = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"WATCHDOG=1");
    }

    #[test]
    fn without_systemd_there_is_nobody_to_notify() {
        for variable in [None, Some("".into())] {
            let notifier = Notifier::new(variable);
            assert!(!notifier.is_on());
            notifier.stopping();
        }
    }

    #[test]
    fn the_watchdog_is_fed_twice_in_its_time_by_the_process_that_it_watches() {
        let interval = |usec: &str, of: Option<String>| watchdog_interval(Some(usec.into()), of.map(Into::into));
        let own = std::process::id().to_string();
        assert_eq!(interval("30000000", None), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", Some(own)), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", Some("1".into())), None);
        assert_eq!(interval("0", None), None);
        assert_eq!(interval("x", None), None);
        assert_eq!(watchdog_interval(None, None), None);
    }
}
