//! Connects to the leader: chooses the local address, and explains the error if no local port is free.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::connect::DialError;
use super::forward::Socket;
use super::socket;
use crate::metrics::Metrics;

/// A dialler of leaders. It dials from each local address in turn, so that the local ports of all addresses are used.
#[derive(Debug)]
pub(super) struct Dialler {
    sources: Vec<IpAddr>,
    next: AtomicUsize,
    user_timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Dialler {
    /// Creates a dialler. Without `sources`, the system chooses the local address.
    pub(super) fn new(sources: Vec<IpAddr>, user_timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            sources,
            next: AtomicUsize::new(0),
            user_timeout,
            metrics,
        }
    }

    /// Connects to `target` for this client. `queued` bounds the buffers, in bytes. Cancel-safe.
    pub(super) async fn dial(
        &self,
        client: &Socket,
        target: SocketAddr,
        queued: Option<u32>,
    ) -> Result<Socket, DialError> {
        let dial = async |source| {
            let own = socket::dialler(target, source, self.user_timeout, queued)?;
            client.dial(own, target).await
        };
        self.dial_from_any(target, dial).await
    }

    /// Calls `dial` with each local address until one has a free port.
    async fn dial_from_any<S>(
        &self,
        target: SocketAddr,
        dial: impl AsyncFn(Option<IpAddr>) -> io::Result<S>,
    ) -> Result<S, DialError> {
        let mut cause = io::Error::from(ErrorKind::AddrNotAvailable);
        for source in self.candidates(target) {
            match dial(source).await {
                Err(used_up) if has_no_port(&used_up) => cause = used_up,
                dialled => return dialled.map_err(DialError::from),
            }
        }
        self.metrics.dials_without_port.increment(1);
        Err(DialError::Own(io::Error::new(
            ErrorKind::AddrNotAvailable,
            format!(
                "no local port is free for {target} ({cause}): open connections and those closed in the last minute \
                 use all local ports; widen net.ipv4.ip_local_port_range, add addresses to --source, or pool \
                 connections"
            ),
        )))
    }

    /// Returns the local addresses of the target's family, beginning with a different one each time; `None` leaves the
    /// choice to the system.
    fn candidates(&self, target: SocketAddr) -> Vec<Option<IpAddr>> {
        let same_family = |source: &&IpAddr| source.is_ipv4() == target.is_ipv4();
        let mut fitting: Vec<_> = self.sources.iter().filter(same_family).copied().map(Some).collect();
        if fitting.is_empty() {
            return vec![None];
        }
        let first = self.next.fetch_add(1, Ordering::Relaxed) % fitting.len();
        fitting.rotate_left(first);
        fitting
    }
}

/// Returns true if no port of the local address is free: EADDRINUSE of bind(2) for a source, EADDRNOTAVAIL of
/// connect(2) if the system chooses the address.
fn has_no_port(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialler(sources: &[&str]) -> Dialler {
        let sources = sources.iter().map(|source| source.parse().unwrap()).collect();
        Dialler::new(sources, Duration::ZERO, Arc::default())
    }

    #[test]
    fn sources_take_turns() {
        let dialler = dialler(&["10.0.0.1", "10.0.0.2", "fd00::1"]);
        let target = "10.1.0.1:5432".parse().unwrap();
        let first = |_| dialler.candidates(target)[0].unwrap().to_string();
        let firsts: Vec<_> = (0..4).map(first).collect();
        assert_eq!(firsts, ["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(
            dialler.candidates(target).len(),
            2,
            "if one has no port left, the other is tried"
        );
    }

    /// Returns the error of Linux if no port of a source address is free: EADDRINUSE of bind(2).
    fn no_port() -> io::Error {
        ErrorKind::AddrInUse.into()
    }

    #[tokio::test]
    async fn if_a_source_has_no_free_port_the_next_one_is_tried() {
        let dialler = dialler(&["10.0.0.1", "10.0.0.2"]);
        let dial = async |source: Option<IpAddr>| match source.unwrap().to_string().as_str() {
            "10.0.0.1" => Err(no_port()),
            other => Ok(other.to_owned()),
        };
        let from = dialler.dial_from_any("10.1.0.1:5432".parse().unwrap(), dial).await;
        assert_eq!(from.unwrap(), "10.0.0.2");
    }

    #[tokio::test]
    async fn a_source_without_a_free_port_is_no_failure_of_the_leader() {
        let dialler = dialler(&["10.0.0.1"]);
        let dial = async |_| Err::<(), _>(no_port());
        let error = dialler.dial_from_any("10.1.0.1:5432".parse().unwrap(), dial).await;
        let error = error.unwrap_err();
        assert!(!error.is_leaders(), "{error}");
        assert!(error.to_string().contains("ip_local_port_range"), "{error}");
        let metrics = dialler.metrics.render();
        assert!(metrics.contains("pgnorth_dials_without_port_total 1"), "{metrics}");
    }

    #[test]
    fn a_family_without_a_source_is_left_to_the_system() {
        assert_eq!(
            dialler(&["10.0.0.1"]).candidates("[fd00::9]:5432".parse().unwrap()),
            [None]
        );
        assert_eq!(dialler(&[]).candidates("10.1.0.1:5432".parse().unwrap()), [None]);
    }
}
