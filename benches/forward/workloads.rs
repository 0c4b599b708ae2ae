//! The workloads, and the figures that each yields.

use std::time::Duration;

use clap::ValueEnum;

use crate::contenders::Kind;

/// The workloads, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// One stream, client to leader
    BulkUp1,
    /// One stream, leader to client
    BulkDown1,
    /// Eight streams, client to leader
    BulkUp8,
    /// Eight streams, leader to client
    BulkDown8,
    /// One session, 120 bytes there and 300 back; client, proxy and backend on one core
    PingPong1,
    /// 64 sessions, each with one question under way
    PingPong64,
    /// Connect, start-up and its answer, Terminate; 8 clients at once
    Connect,
    /// The same for 60 s, to a backend across a veth pair, with the kernel's default ports
    ConnectFar,
    /// A backend on another host, across a veth pair with an MTU of 1500
    Far,
    /// The same, with a round trip of 0.2 ms
    #[value(name = "far-200us")]
    Far200us,
    /// The same, with a round trip of 2 ms
    #[value(name = "far-2ms")]
    Far2ms,
    /// 10,000 sessions that connect at the same instant; fewer if files are short
    ComeBack,
    /// 4,000 sessions that asked once and then say nothing
    Idle,
    /// 8 ping-pongs beside 2 streams from leader to client
    SmallBesideBulk,
    /// 32 ping-pongs alone, and among 3,000 idle sessions
    BusyAmongIdle,
    /// 5,000 sessions, asked in turn: each is active, and one question is under way
    InTurn,
    /// One ping-pong beside 8 clients that connect and close
    Storm,
    /// Cost of a session with 10, 100, 1,000 and 10,000 of them; fewer if files are short
    Scale,
    /// pgbench -S -M prepared, one client
    Pgbench1,
    /// pgbench -S -M prepared, 16 clients
    Pgbench16,
    /// Rows of 100 KB, 4 clients
    Rows100k,
    /// Rows of 1 MB, 4 clients
    Rows1m,
    /// pgbench -S -M prepared, 16 clients, TLS from end to end
    TlsPgbench16,
    /// Rows of 1 MB, 4 clients, TLS
    TlsRows1m,
    /// pgbench -S -C, 4 clients: each transaction connects and begins TLS
    TlsConnect,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    pub name: &'static str,
    pub better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

const BULK: &[Figure] = &[more("Gbit/s"), less("proxy CPU s/GiB")];
const PING_PONG_1: &[Figure] = &[less("p50 µs"), less("p99 µs"), less("proxy CPU µs per round trip")];
const PING_PONG_64: &[Figure] = &[
    more("round trips/s"),
    less("proxy CPU µs per round trip"),
    less("p99 µs"),
];
const CONNECT: &[Figure] = &[more("connections/s"), less("proxy CPU µs per connection")];
const CONNECT_FAR: &[Figure] = &[
    more("connections/s"),
    less("failed"),
    less("own ports in TIME_WAIT"),
    less("proxy CPU µs per connection"),
];
const FAR: &[Figure] = &[
    less("p50 µs, one session"),
    less("p99 µs, one session"),
    less("p50 µs to connect and start up"),
    more("round trips/s, 64 sessions"),
    less("proxy CPU µs per round trip, 64 sessions"),
    more("Gbit/s down, one stream"),
    less("proxy CPU s/GiB down"),
];
const COME_BACK: &[Figure] = &[
    less("s until the last is in"),
    less("s for clients that were held, from the new leader on"),
];
const IDLE: &[Figure] = &[
    less("RSS KiB per session"),
    less("fds per session"),
    less("kernel objects KiB per session, all ends"),
    less("TCP buffer KiB per session, all ends"),
];
const BESIDE: &[Figure] = &[less("p99 ms"), less("p50 ms"), more("bulk Gbit/s")];
const AMONG: &[Figure] = &[
    more("rate among idle / rate alone"),
    more("round trips/s alone"),
    more("round trips/s among idle"),
];
const IN_TURN: &[Figure] = &[less("p99 µs"), less("p99.9 µs"), less("longest ms")];
const STORM: &[Figure] = &[less("p99 ms of the session"), more("connections/s")];
const SCALE: &[Figure] = &[
    less("RSS KiB per session, 10 to 100"),
    less("RSS KiB per session, 100 to 1,000"),
    less("RSS KiB per session, 1,000 to the most"),
    less("proxy CPU µs per round trip, 8 busy of 10"),
    less("proxy CPU µs per round trip, 8 busy of 100"),
    less("proxy CPU µs per round trip, 8 busy of 1,000"),
    less("proxy CPU µs per round trip, 8 busy of the most"),
];
const PGBENCH: &[Figure] = &[more("transactions/s"), less("proxy CPU µs per transaction")];

impl Workload {
    /// Returns the name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::BulkUp1 => "bulk up, 1 stream",
            Self::BulkDown1 => "bulk down, 1 stream",
            Self::BulkUp8 => "bulk up, 8 streams",
            Self::BulkDown8 => "bulk down, 8 streams",
            Self::PingPong1 => "ping-pong, all on one core",
            Self::PingPong64 => "ping-pong, 64 sessions",
            Self::Connect => "connect, start-up, terminate",
            Self::ConnectFar => "connect for 60 s over a network",
            Self::Far => "another host, no delay",
            Self::Far200us => "another host, 0.2 ms",
            Self::Far2ms => "another host, 2 ms",
            Self::ComeBack => "10,000 sessions come back at once",
            Self::Idle => "4,000 idle sessions",
            Self::SmallBesideBulk => "8 ping-pongs beside 2 bulk streams",
            Self::BusyAmongIdle => "32 busy among 3,000 idle",
            Self::InTurn => "5,000 sessions in turn",
            Self::Storm => "a session in a storm of connections",
            Self::Scale => "10 to 10,000 sessions",
            Self::Pgbench1 => "pgbench -S, c=1",
            Self::Pgbench16 => "pgbench -S, c=16",
            Self::Rows100k => "100 KB rows, c=4",
            Self::Rows1m => "1 MB rows, c=4",
            Self::TlsPgbench16 => "pgbench -S, c=16, TLS",
            Self::TlsRows1m => "1 MB rows, c=4, TLS",
            Self::TlsConnect => "pgbench -S -C, c=4, TLS",
        }
    }

    /// Returns the name in the options.
    pub fn key(self) -> String {
        let value = self.to_possible_value().expect("no workload is hidden");
        value.get_name().to_owned()
    }

    pub fn figures(self) -> &'static [Figure] {
        match self {
            Self::BulkUp1 | Self::BulkDown1 | Self::BulkUp8 | Self::BulkDown8 => BULK,
            Self::PingPong1 => PING_PONG_1,
            Self::PingPong64 => PING_PONG_64,
            Self::Connect => CONNECT,
            Self::ConnectFar => CONNECT_FAR,
            Self::Far | Self::Far200us | Self::Far2ms => FAR,
            Self::ComeBack => COME_BACK,
            Self::Idle => IDLE,
            Self::SmallBesideBulk => BESIDE,
            Self::BusyAmongIdle => AMONG,
            Self::InTurn => IN_TURN,
            Self::Storm => STORM,
            Self::Scale => SCALE,
            Self::Pgbench1
            | Self::Pgbench16
            | Self::Rows100k
            | Self::Rows1m
            | Self::TlsPgbench16
            | Self::TlsRows1m
            | Self::TlsConnect => PGBENCH,
        }
    }

    /// Returns true if PostgreSQL itself is behind it.
    pub fn needs_postgres(self) -> bool {
        self.figures() == PGBENCH
    }

    /// Returns true if its clients require TLS of PostgreSQL.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::TlsPgbench16 | Self::TlsRows1m | Self::TlsConnect)
    }

    /// Returns true if the backend is on another host.
    pub fn is_far(self) -> bool {
        self == Self::ConnectFar || self.figures() == FAR
    }

    /// Returns the delay of a round trip to the other host.
    pub fn delay(self) -> Duration {
        match self {
            Self::Far200us => Duration::from_micros(200),
            Self::Far2ms => Duration::from_millis(2),
            _ => Duration::ZERO,
        }
    }

    /// Returns true if it yields a figure of this contender.
    pub fn is_for(self, kind: Kind) -> bool {
        match self {
            Self::Scale => kind.has_process(),
            // The kernel's redirect has no listener of its own for a second instance.
            Self::Idle => kind != Kind::Dnat,
            // It would end TLS itself, and PostgreSQL would see plaintext.
            _ if self.is_tls() => kind != Kind::Pgbouncer,
            _ => true,
        }
    }

    /// Returns the number of rounds: memory varies less than times do, so fewer suffice.
    pub fn rounds(self, rounds: usize) -> usize {
        match self {
            Self::Idle | Self::ComeBack => rounds.min(2),
            Self::Scale | Self::ConnectFar => rounds.min(1),
            _ => rounds,
        }
    }
}

const fn more(name: &'static str) -> Figure {
    Figure {
        name,
        better: Better::More,
    }
}

const fn less(name: &'static str) -> Figure {
    Figure {
        name,
        better: Better::Less,
    }
}
