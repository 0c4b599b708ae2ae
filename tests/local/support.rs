//! Starts a proxy in-process, as the product does, with a slot that the test publishes to; and leaders on plain
//! sockets.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pgnorth::drain::Drain;
use pgnorth::ending::Ending;
use pgnorth::leader::{Address, LeaderFailure, RoutingState, Server};
use pgnorth::metrics::{Metrics, SessionState};
use pgnorth::proxy::{Accepting, Dependencies, Proxy, RefusalTls, Route, Settings};
use pgnorth::recorder::Recorder;
use pgnorth::route::{RouteKind, Upstream};
use pgnorth::slot::RouteSlot;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Deadline that guards against hanging.
pub const HANG: Duration = Duration::from_secs(60);

/// A proxy on a port of its own.
pub struct Rig {
    pub slot: Arc<RouteSlot>,
    pub drain: Drain,
    pub metrics: Arc<Metrics>,
    pub leader_failures: mpsc::Receiver<LeaderFailure>,
    pub address: SocketAddr,
}

/// A leader: a listener that the test accepts from.
pub struct Backend {
    pub listener: TcpListener,
    pub leader: Server,
}

/// Hold of a route unless the test chooses another.
const HOLD: Duration = Duration::from_secs(3600);

/// A lock for tests that open thousands of files: together they would reach the process's limit.
pub static MANY_FILES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Returns generous settings: a test narrows only what it is about.
pub fn settings() -> Settings {
    Settings {
        startup: Duration::from_secs(3600),
        connect_timeout: Duration::from_secs(30),
        tcp_user_timeout: Duration::from_secs(30),
        client_tcp_user_timeout: Duration::from_secs(30),
        socket_buffers: 40 << 20,
        sources: Vec::new(),
        proxy_protocol: Vec::new(),
        max_sessions: 10_000,
        workers: 2,
    }
}

impl Rig {
    pub async fn start() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::with_hold(HOLD, settings).await
    }

    pub async fn with_hold(hold: Duration, settings: Settings) -> Self {
        Self::of(RouteKind::Primary, Upstream::Postgres, hold, settings).await
    }

    /// A proxy that leads to poolers at this port.
    pub async fn with_poolers(port: u16) -> Self {
        Self::of(RouteKind::Primary, Upstream::Port(port), HOLD, settings()).await
    }

    /// A proxy whose only listener is a route to replicas.
    pub async fn reading() -> Self {
        Self::of(RouteKind::Replica, Upstream::Postgres, HOLD, settings()).await
    }

    async fn of(kind: RouteKind, upstream: Upstream, hold: Duration, settings: Settings) -> Self {
        let slot = Arc::new(RouteSlot::new("nobody holds the lock"));
        let route = Route {
            kind,
            slot: slot.clone(),
            upstream,
            hold,
        };
        let mut proxy = Proxy::default();
        let listener = proxy.bind("127.0.0.1:0".parse().unwrap(), route, &settings).unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::default();
        let metrics = Arc::new(Metrics::new());
        let (complain, leader_failures) = mpsc::channel(100);
        let dependencies = Arc::new(Dependencies {
            drain: drain.clone(),
            metrics: metrics.clone(),
            recorder: Arc::new(Recorder::new(metrics.clone())),
            wait_queue: Arc::default(),
            liveness: Default::default(),
            log_limiter: Default::default(),
            leader_failures: complain,
            refusal_tls: RefusalTls::new(None).unwrap(),
            settings,
        });
        let accepting = Accepting::default();
        accepting.begin.cancel();
        tokio::spawn(proxy.run(dependencies, accepting));
        Self {
            slot,
            drain,
            metrics,
            leader_failures,
            address,
        }
    }

    /// Returns a proxy and the leader that it routes to.
    pub async fn routed() -> (Self, Backend) {
        let rig = Self::start().await;
        let backend = Backend::start("pg-0").await;
        rig.route(&backend);
        (rig, backend)
    }

    /// Returns the same with this TCP_USER_TIMEOUT.
    pub async fn with_user_timeout(tcp_user_timeout: Duration) -> (Self, Backend) {
        let rig = Self::with(Settings {
            tcp_user_timeout,
            client_tcp_user_timeout: tcp_user_timeout,
            ..settings()
        })
        .await;
        let backend = Backend::start("pg-0").await;
        rig.route(&backend);
        (rig, backend)
    }

    pub fn route(&self, backend: &Backend) {
        self.slot.publish(
            RoutingState::Route(backend.leader.clone()),
            format!("{} leads", backend.leader),
        );
    }

    pub async fn connect(&self) -> TcpStream {
        within("a client connects", TcpStream::connect(self.address))
            .await
            .unwrap()
    }

    /// Returns an open session: the client's socket and the leader's.
    pub async fn session(&self, backend: &Backend) -> (TcpStream, TcpStream) {
        let mut client = self.connect().await;
        // A byte each way shows that this is the client that the leader got.
        client.write_all(b"?").await.unwrap();
        let mut leader = backend.accept().await;
        assert_eq!(read_exactly(&mut leader, 1).await, b"?");
        leader.write_all(b"!").await.unwrap();
        assert_eq!(read_exactly(&mut client, 1).await, b"!");
        (client, leader)
    }

    pub fn sessions(&self, state: SessionState) -> i64 {
        self.metrics.sessions(state).get()
    }

    /// Waits until this number of sessions is in this state.
    pub async fn reaches(&self, state: SessionState, count: i64) {
        until(&format!("{count} sessions are {state:?}"), || {
            self.sessions(state) == count
        })
        .await;
    }

    /// Waits until this number of sessions has this ending, and checks that none is left in the gauges and none has
    /// another ending.
    pub async fn ends(&self, ending: Ending, count: u64) {
        let all = || {
            Ending::ALL
                .iter()
                .map(|other| self.metrics.endings(*other))
                .sum::<u64>()
        };
        until(&format!("{count} sessions end"), || all() >= count).await;
        for other in Ending::ALL {
            let expected = if other == ending { count } else { 0 };
            assert_eq!(self.metrics.endings(other), expected, "sessions ended as {other}");
        }
        for state in [SessionState::Held, SessionState::Dialling, SessionState::Forwarding] {
            self.reaches(state, 0).await;
        }
    }
}

impl Backend {
    pub async fn start(member: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let leader = leader(member, "127.0.0.1", listener.local_addr().unwrap().port());
        Self { listener, leader }
    }

    pub async fn accept(&self) -> TcpStream {
        within("the leader is dialled", self.listener.accept()).await.unwrap().0
    }
}

pub fn leader(member: &str, host: &str, port: u16) -> Server {
    Server {
        member: member.into(),
        address: Address::new(host, port).unwrap(),
        timeline: None,
    }
}

/// Fails the test, instead of hanging, if `future` does not complete.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(HANG, future).await {
        Ok(output) => output,
        Err(_) => panic!("hangs: {what}"),
    }
}

/// Waits for a state that no event announces.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub async fn read_exactly(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    within("bytes arrive", stream.read_exact(&mut bytes)).await.unwrap();
    bytes
}

/// Returns the bytes until the peer's FIN; panics on a reset.
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (bytes, end) = read_all(stream).await;
    end.expect("an end, not a reset");
    bytes
}

/// Returns the bytes, and `Ok` if a FIN ended them, or the error that did.
pub async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, std::io::Result<()>) {
    let mut bytes = Vec::new();
    let end = within("the stream ends", stream.read_to_end(&mut bytes)).await;
    (bytes, end.map(drop))
}

pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

pub fn assert_reset(end: std::io::Result<()>) {
    let kind = end.expect_err("a reset, not an end").kind();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
}

/// xorshift64*: repeatable bytes without a dependency.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}
