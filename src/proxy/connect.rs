//! One dial: it resolves the leader's name each time, and tries every address behind the name before the deadline.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::forward::lack;
use crate::leader::{Address, Host};
use crate::metrics::{Metrics, Outcome};
use crate::resolver::{Resolver, Unresolved};

/// Reasons why a dial failed. The text follows a phrase such as "could not be reached: ".
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// No answer came in time.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The name has no address, or no name server answered.
    #[error(transparent)]
    Unresolved(Unresolved),
    /// The connection was refused or reset, the host is unreachable, or the system returned any other error.
    #[error("{0}")]
    Failed(#[source] io::Error),
    /// pgnorth or its host lacks a local port, open files, memory or another resource for the connection.
    #[error("pgnorth cannot open a connection: {0}")]
    Own(#[source] io::Error),
}

impl DialError {
    /// Returns true unless pgnorth or its host lacked a resource: every other failure counts as the leader's.
    pub(super) fn is_leaders(&self) -> bool {
        !matches!(self, Self::Own(_))
    }

    fn outcome(&self) -> Outcome {
        match self {
            Self::TimedOut(_) | Self::Unresolved(Unresolved::TimedOut(_)) => Outcome::TimedOut,
            Self::Unresolved(Unresolved::Failed(_)) | Self::Failed(_) | Self::Own(_) => Outcome::Failed,
        }
    }
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        if let Some(lack) = lack(&error) {
            return Self::Own(io::Error::new(error.kind(), format!("{error}: {lack}")));
        }
        match error.kind() {
            // No local port is free, or this host does not have the source address.
            io::ErrorKind::AddrNotAvailable => Self::Own(error),
            _ => Self::Failed(error),
        }
    }
}

impl From<Unresolved> for DialError {
    fn from(unresolved: Unresolved) -> Self {
        match &unresolved {
            // The system's resolver needs files, too.
            Unresolved::Failed(error) => match lack(error) {
                Some(lack) => Self::Own(io::Error::new(error.kind(), format!("{unresolved}: {lack}"))),
                None => Self::Unresolved(unresolved),
            },
            Unresolved::TimedOut(_) => Self::Unresolved(unresolved),
        }
    }
}

/// Connects to `address` within `limit`: calls `dial` for each of its IP addresses until a call succeeds, and records
/// the outcome. Cancel-safe if `dial` is.
pub(crate) async fn connect<S>(
    address: &Address,
    limit: Duration,
    resolver: &Resolver,
    metrics: &Metrics,
    dial: impl AsyncFn(SocketAddr) -> Result<S, DialError>,
) -> Result<S, DialError> {
    let begun = Instant::now();
    let result = resolve_and_dial(address, begun, limit, resolver, dial).await;
    let outcome = result.as_ref().map_or_else(DialError::outcome, |_| Outcome::Ok);
    metrics.dialled(outcome, begun.elapsed());
    result
}

async fn resolve_and_dial<S>(
    address: &Address,
    begun: Instant,
    limit: Duration,
    resolver: &Resolver,
    dial: impl AsyncFn(SocketAddr) -> Result<S, DialError>,
) -> Result<S, DialError> {
    let deadline = begun + limit;
    let targets: Vec<SocketAddr> = match &address.host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, address.port)],
        Host::Name(name) => {
            let addresses = resolver.resolve(name, limit).await?;
            addresses.iter().map(|ip| SocketAddr::new(*ip, address.port)).collect()
        }
    };
    try_each(&targets, deadline, limit, dial).await
}

/// Tries each target with an equal share of the remaining time, so that a silent target does not use up the time of the
/// others.
async fn try_each<S>(
    targets: &[SocketAddr],
    deadline: Instant,
    limit: Duration,
    dial: impl AsyncFn(SocketAddr) -> Result<S, DialError>,
) -> Result<S, DialError> {
    let mut last = DialError::TimedOut(limit);
    for (tried, target) in targets.iter().enumerate() {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let left = u32::try_from(targets.len() - tried).unwrap_or(u32::MAX);
        last = match timeout_at(Instant::now() + remaining / left, dial(*target)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => DialError::TimedOut(limit),
        };
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::net::{TcpListener, TcpStream};

    const LIMIT: Duration = Duration::from_secs(5);

    async fn tokio_connect(target: SocketAddr) -> Result<TcpStream, DialError> {
        Ok(TcpStream::connect(target).await?)
    }

    #[tokio::test]
    async fn the_second_address_of_a_name_is_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = SocketAddr::from(([127, 0, 0, 2], open.port()));
        let stream = try_each(&[closed, open], Instant::now() + LIMIT, LIMIT, tokio_connect)
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
    }

    #[tokio::test]
    async fn a_refused_dial_is_reported_and_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let metrics = Metrics::new();
        let address = Address::new("127.0.0.1", port).unwrap();
        let error = connect(&address, LIMIT, &Resolver::default(), &metrics, tokio_connect)
            .await
            .unwrap_err();
        assert!(error.is_leaders());
        assert!(error.to_string().contains("refused"), "{error}");
        assert!(
            metrics
                .render()
                .contains("pgnorth_dial_seconds_count{outcome=\"failed\"} 1")
        );
    }

    #[test]
    fn a_lack_of_resources_is_no_failure_of_the_leader() {
        // EMFILE, ENFILE, ENOMEM, ENOBUFS and ENOSPC of Linux.
        for (errno, fix) in [
            (24, "LimitNOFILE="),
            (23, "fs.file-max"),
            (12, "memory"),
            (105, "memory"),
            (28, "fs.epoll.max_user_watches"),
        ] {
            let system = || io::Error::from_raw_os_error(errno);
            let unresolved = Unresolved::Failed(Arc::new(system()));
            for error in [DialError::from(system()), DialError::from(unresolved)] {
                assert!(!error.is_leaders(), "{error}");
                assert!(error.to_string().contains(fix), "{error}");
            }
        }
        for kind in [io::ErrorKind::ConnectionRefused, io::ErrorKind::HostUnreachable] {
            let error = DialError::from(io::Error::from(kind));
            assert!(error.is_leaders(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_a_leader_failure() {
        // RFC 6761: .invalid never resolves.
        let address = Address::new("pg-0.invalid", 5432).unwrap();
        let (resolver, metrics) = (Resolver::default(), Metrics::new());
        let error = connect(&address, LIMIT, &resolver, &metrics, tokio_connect)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Unresolved(_)), "{error}");
    }
}
