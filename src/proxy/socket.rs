//! Every socket option, with its reason, except that `forward/relay/stall.rs` switches TCP_USER_TIMEOUT off and on. The
//! only module that uses socket2.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tracing::warn;

/// Maximum number of clients that wait for accept(2). A whole fleet reconnects within moments of a failover; Linux caps
/// this at net.core.somaxconn (4096 since 5.4).
const BACKLOG: i32 = 4096;

/// Reasons why pgnorth cannot listen on an address.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "cannot listen on {0}: another process listens there (`ss -ltnp 'sport = :{port}'` shows which); stop it, or \
         choose another port (--listen, --route or --ports)",
        port = .0.port()
    )]
    Busy(SocketAddr),
    /// The port is privileged (below net.ipv4.ip_unprivileged_port_start, by default 1024), or a policy such as SELinux
    /// forbids it.
    #[error(
        "cannot listen on {0}: the system does not permit port {port}; choose a port of 1024 or higher (--listen, \
         --route or --ports), grant CAP_NET_BIND_SERVICE, or check SELinux",
        port = .0.port()
    )]
    Privileged(SocketAddr),
    /// The address belongs to no interface of this host.
    #[error(
        "cannot listen on {0}: no interface of this host has this address; the address [::] listens on all interfaces"
    )]
    NotHere(SocketAddr),
    /// Any other error.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, #[source] io::Error),
}

/// Listens on `address`. Accepted connections detect within `user_timeout` that the client's host has vanished; zero
/// keeps the system's defaults. `[::]` also accepts IPv4, and falls back to `0.0.0.0` on a host without IPv6.
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
    // A port that is busy or privileged is so for IPv4, too. Any other error on the wildcard address is taken to mean
    // that IPv6 is switched off.
    let decided = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    if address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED) && !decided {
        let fallback = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        warn!(%address, %fallback, %error, "cannot listen on IPv6; falling back to IPv4 only");
        return listen(fallback).map_err(|error| BindError::new(fallback, error));
    }
    Err(BindError::new(address, error))
}

/// Binds `address` although another process listens on the same port at other addresses, one of which may be a wildcard
/// that includes `address`. Clients can connect after [`begin`].
///
/// Linux allows this if all the sockets have SO_REUSEPORT, even if the others got it after their bind.
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

/// Starts to listen on a bound socket. Does nothing if the socket already listens.
pub(super) fn begin(listener: &TcpListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    if socket.is_listener()? {
        return Ok(());
    }
    // Linux checks for conflicts with the other sockets again, so SO_REUSEPORT is needed until here.
    socket.listen(BACKLOG)?;
    socket.set_reuse_port(false)
}

/// Forbids other processes of this user to listen on the same port, after `bind_beside` has allowed it.
pub fn keep_port(listener: &TcpListener) {
    // This fails only for a file that is not a socket.
    let _cannot_fail = SockRef::from(listener).set_reuse_port(false);
}

/// Makes the kernel ignore new connections to a listener that is about to be closed; connections that are being
/// established are completed. The kernel of an ignored client retries after a second, and reaches another listener if
/// there is one.
pub(super) fn ignore_new(listener: &TcpListener) -> io::Result<()> {
    // Classic BPF over the TCP header: load the flags, keep SYN and ACK, drop the packet if only SYN is set.
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
        // IPv4 clients must be able to connect, whatever the host's default (net.ipv6.bindv6only) is.
        socket.set_only_v6(false)?;
    }
    // Without this option, a restart would have to wait until the old process's connections have left TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Accepted sockets inherit these options, which saves six system calls per client.
    socket.set_tcp_nodelay(true)?;
    detect_death(&SockRef::from(&socket), user_timeout)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Sets the options of [`listen`] that accepted sockets inherit on a listener of another process, and its backlog.
pub(super) fn adopt(listener: &TcpListener, user_timeout: Duration) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    detect_death(&socket, user_timeout)?;
    socket.listen(BACKLOG)
}

/// Creates a socket for dialling `address`, bound to `source` if one is given. It is not yet connected.
///
/// `queued` bounds the bytes that the kernel queues: bytes from the leader by the receive buffer (up to
/// net.core.rmem_max), and a client's bytes while they are unsent. The receive buffer of a client's socket is not
/// bounded: a bound would slow long-distance uploads down, and a PostgreSQL that reads nothing is rare.
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

/// Makes the kernel detect, within `user_timeout`, a peer that vanished without a FIN: by TCP_USER_TIMEOUT if bytes are
/// in flight, by keepalive if the connection is idle.
///
/// Keepalive probes start at half that time and run for the other half. TCP_USER_TIMEOUT overrides the number of
/// probes; that number applies only while `forward/relay/stall.rs` has switched TCP_USER_TIMEOUT off. Zero keeps the
/// system's defaults.
fn detect_death(socket: &SockRef<'_>, user_timeout: Duration) -> io::Result<()> {
    if user_timeout.is_zero() {
        return Ok(());
    }
    // The kernel accepts only whole seconds, at least 1.
    let second = Duration::from_secs(1);
    let keepalive = TcpKeepalive::new()
        .with_time((user_timeout / 2).max(second))
        .with_interval((user_timeout / 10).max(second))
        .with_retries(5);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}

/// Makes the close of `stream` a reset: unsent bytes are dropped, and the peer reads an error instead of the end of the
/// stream.
pub(super) fn reset_on_close(stream: &impl AsFd) {
    // This fails only for a file that is not a socket.
    let _cannot_fail = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Sets the number of unsent bytes up to which the socket counts as writable; 0 restores the system's default. Bytes in
/// flight are not bounded, so that distant clients get full throughput.
pub(super) fn set_notsent_lowat(stream: &impl AsFd, bytes: u32) -> io::Result<()> {
    SockRef::from(stream).set_tcp_notsent_lowat(bytes)
}

/// Returns the number that [`set_notsent_lowat`] sets.
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
        // The connection is established before accept(2); connect(2) itself returns EINPROGRESS.
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
