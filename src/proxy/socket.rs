//! Every socket option, with its reason. The only module that uses socket2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tracing::warn;

/// Clients that may wait for accept(2). A whole fleet reconnects within moments of a failover; Linux caps this at
/// net.core.somaxconn (4096 since 5.4).
const BACKLOG: i32 = 4096;

/// Reasons why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "cannot listen on {0}: another process listens there (`ss -ltnp 'sport = :{port}'` shows which); stop it, or \
         choose another port with --listen",
        port = .0.port()
    )]
    Busy(SocketAddr),
    /// The port is below 1024, or below net.ipv4.ip_unprivileged_port_start.
    #[error(
        "cannot listen on {0}: port {port} is privileged; choose one from 1024 up with --listen, or grant \
         CAP_NET_BIND_SERVICE",
        port = .0.port()
    )]
    Privileged(SocketAddr),
    /// The address belongs to no interface of this host.
    #[error(
        "cannot listen on {0}: no interface of this host has this address; --listen with [::] listens on all interfaces"
    )]
    NotHere(SocketAddr),
    /// Any other error.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
}

/// Listens on `address`. Hosts of clients may be silent for `user_timeout`; zero leaves that to the system. `[::]`
/// accepts IPv4 too, and falls back to `0.0.0.0` on a host without IPv6.
pub(super) fn listen(address: SocketAddr, user_timeout: Duration) -> Result<TcpListener, BindError> {
    let listen = |address| -> io::Result<TcpListener> {
        let socket = bind(address, user_timeout, false)?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let error = match listen(address) {
        Ok(listener) => return Ok(listener),
        Err(error) => error,
    };
    // Busy and privileged ports are so for IPv4 too. Any other error on the wildcard address means a host with IPv6
    // switched off.
    let decided = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) && !decided {
        let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        warn!(%address, %fallback, %error, "this host has no IPv6: listening on IPv4 only");
        return listen(fallback).map_err(|error| BindError::new(fallback, error));
    }
    Err(BindError::new(address, error))
}

/// Binds `address` although listeners of another process have its port at other addresses, which may include it. Clients
/// can connect after [`begin`].
///
/// Linux allows that if all have SO_REUSEPORT; it need not be set when they are bound.
pub(super) fn bind_beside(
    address: SocketAddr,
    others: &[TcpListener],
    user_timeout: Duration,
) -> Result<TcpListener, BindError> {
    let bind = || {
        for other in others {
            SockRef::from(other).set_reuse_port(true)?;
        }
        Ok(bind(address, user_timeout, true)?.into())
    };
    bind().map_err(|error| BindError::new(address, error))
}

/// Makes clients able to connect to a listener that was only bound. Does nothing to another one.
pub(super) fn begin(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if socket.is_listener()? {
        return Ok(());
    }
    // Linux compares it with the others once more.
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)
}

/// Forbids other processes of this user to listen at the same port again, after `bind_beside` has allowed it.
pub fn keep_port(listener: &TcpListener) {
    // It fails only for a file that is no socket.
    let _cannot_fail = SockRef::from(listener).set_reuse_port(false);
}

/// Makes the kernel ignore new connections to a listener that is about to be closed; those that are being established
/// are completed. A client that is ignored tries again after a second, and gets another listener, if there is one.
pub(super) fn ignore_new(listener: &TcpListener) -> io::Result<()> {
    // Classic BPF over the TCP header: load the flags, keep SYN and ACK, drop the packet if SYN is set alone.
    let [load, mask, compare, drop, accept] = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&[load, mask, compare, drop, accept])
}

fn bind(address: SocketAddr, user_timeout: Duration, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // IPv4 clients must get in whatever the host's default (net.ipv6.bindv6only) is.
        socket.set_only_v6(false)?;
    }
    // Without it, a restart would have to wait until the old process's connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Accepted sockets inherit both, which saves six system calls for each.
    socket.set_tcp_nodelay(true)?;
    detect_death(&SockRef::from(&socket), user_timeout)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Makes a listener of another process like one of [`listen`]. Sockets that are accepted inherit these options.
pub(super) fn adopt(listener: &TcpListener, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    detect_death(&socket, user_timeout)?;
    socket.listen(BACKLOG)
}

/// Makes a socket to dial `address` with, from `source` if one is given; not yet connected.
///
/// `queued` bounds the bytes that the kernel queues: those from the leader by the receive buffer (up to
/// net.core.rmem_max), and those of a client that are unsent. A client's receive buffer is not bounded: uploads from
/// a distance would be slow, and a PostgreSQL that reads nothing is rare.
pub(super) fn dialler(
    address: SocketAddr,
    source: Option<IpAddr>,
    user_timeout: Duration,
    queued: Option<u32>,
) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    // Queries and answers are small and wait for each other: Nagle's algorithm would add up to 40 ms to some.
    socket.set_tcp_nodelay(true)?;
    detect_death(&SockRef::from(&socket), user_timeout)?;
    if let Some(queued) = queued {
        socket.set_recv_buffer_size(queued as usize)?;
        socket.set_tcp_notsent_lowat(queued)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    Ok(socket.into())
}

/// Makes the kernel notice a peer that vanished without a FIN, with bytes in flight (TCP_USER_TIMEOUT) or idle
/// (keepalive), within `user_timeout`.
///
/// Keepalive probes start at half that time and run for the other half. TCP_USER_TIMEOUT overrides the count of
/// probes, which counts while `forward/relay/stall.rs` has switched it off. Zero leaves everything to the system.
fn detect_death(socket: &SockRef<'_>, user_timeout: Duration) -> io::Result<()> {
    if user_timeout.is_zero() {
        return Ok(());
    }
    // The kernel counts these in whole seconds, from 1.
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time((user_timeout / 2).max(second))
        .with_interval((user_timeout / 10).max(second))
        .with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}

/// Makes the coming close of `stream` a reset: unsent bytes are dropped, and the peer sees an error rather than an
/// end.
pub(super) fn reset_on_close(stream: &impl AsFd) {
    // It fails only for a file that is no socket.
    let _cannot_fail = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sets the number of unsent bytes up to which the socket counts as writable; 0 restores the system's default. Bytes
/// that are sent and not yet acknowledged are not bounded by it, so that distant clients get all that the network
/// gives.
pub(super) fn set_notsent_lowat(stream: &impl AsFd, bytes: u32) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(bytes)
}

/// Returns the same option.
pub(super) fn notsent_lowat(stream: &impl AsFd) -> io::Result<u32> {
    SockRef::from(stream).tcp_notsent_lowat()
}

impl BindError {
    fn new(address: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Busy(address),
            io::ErrorKind::PermissionDenied => Self::Privileged(address),
            io::ErrorKind::AddrNotAvailable => Self::NotHere(address),
            _ => Self::Other(address, error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    #[test]
    fn a_busy_port_is_named_with_the_fix() {
        let taken = listen("127.0.0.1:0".parse().unwrap(), NONE).unwrap();
        let address = taken.local_addr().unwrap();
        let text = listen(address, NONE).unwrap_err().to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.contains("--listen"), "{text}");
        assert!(text.contains("ss -ltnp"), "{text}");
    }

    #[test]
    fn an_address_of_another_host_is_named_in_the_error() {
        // TEST-NET-1 of RFC 5737 belongs to no host.
        let text = listen("192.0.2.1:0".parse().unwrap(), NONE).unwrap_err().to_string();
        assert!(text.contains("no interface"), "{text}");
    }

    #[test]
    fn both_sides_notice_a_peer_that_is_gone() {
        let ten = Duration::from_secs(10);
        let listener = listen("127.0.0.1:0".parse().unwrap(), ten).unwrap();
        let address = listener.local_addr().unwrap();
        let dialled = dialler(address, Some(address.ip()), ten, Some(128 << 10)).unwrap();
        // Loopback connects although accept(2) is yet to come; it reports that later.
        let _underway = SockRef::from(&dialled).connect(&address.into());
        listener.set_nonblocking(false).unwrap();
        let accepted = listener.accept().unwrap().0;
        for socket in [SockRef::from(&dialled), SockRef::from(&accepted)] {
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), ten / 2);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), ten / 10);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(ten));
        }
        let dialled = SockRef::from(&dialled);
        assert_eq!(dialled.tcp_notsent_lowat().unwrap(), 128 << 10);
        assert_eq!(dialled.recv_buffer_size().unwrap(), 256 << 10, "Linux doubles it");
    }
}
