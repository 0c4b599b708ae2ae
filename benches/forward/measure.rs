//! One measurement: one workload, once, through one contender.

use std::io;
use std::net::TcpStream;
use std::time::Duration;

use crate::come_back;
use crate::contenders::Running;
use crate::load::{
    Load, Seen, Window, ask_alone, ask_in_turn, ask_on_many, come_and_go, come_and_go_regardless, receive_bulk, run,
    send_bulk,
};
use crate::postgres::Script;
use crate::session::{self, Trade, ask};
use crate::stage::Stage;
use crate::usage;
use crate::workloads::Workload;
use crate::world::{in_time_wait, own_id};

/// One value for each figure of the workload, in their order; `None` if there is nothing to measure.
pub type Values = Vec<Option<f64>>;

const GIB: f64 = (1 << 30) as f64;
/// Number of sessions before the memory is read for the first time, so that memory that is allocated once is not
/// counted for a session.
const FIRST: usize = 10;
/// Clients that connect and close at the same time.
const COMERS: usize = 8;
/// Deadline for thousands of sessions to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures a workload; returns when every session is closed.
pub fn measure(workload: Workload, contender: &Running, stage: &Stage, window: Window) -> io::Result<Values> {
    let bench = Bench {
        contender,
        stage,
        window,
    };
    match workload {
        Workload::BulkUp1 => bench.bulk(1, Trade::Take),
        Workload::BulkDown1 => bench.bulk(1, Trade::Give),
        Workload::BulkUp8 => bench.bulk(8, Trade::Take),
        Workload::BulkDown8 => bench.bulk(8, Trade::Give),
        Workload::PingPong1 => bench.ping_pong_on_one_core(),
        Workload::PingPong64 => bench.ping_pong(64),
        Workload::Connect => bench.connect(),
        Workload::ConnectFar => bench.connect_far(),
        Workload::Far | Workload::Far200us | Workload::Far2ms => bench.far(),
        Workload::ComeBack => bench.come_back(10_000),
        Workload::Idle => bench.idle(4_000),
        Workload::SmallBesideBulk => bench.small_beside_bulk(),
        Workload::BusyAmongIdle => bench.busy_among_idle(32, 3_000),
        Workload::InTurn => bench.in_turn(5_000),
        Workload::Storm => bench.storm(),
        Workload::Scale => bench.scale(),
        Workload::Pgbench1 => stage.pgbench(contender, window, Script::selects(1)),
        Workload::Pgbench16 => stage.pgbench(contender, window, Script::selects(16)),
        Workload::Rows100k => stage.pgbench(contender, window, Script::rows(100_000)),
        Workload::Rows1m => stage.pgbench(contender, window, Script::rows(1_000_000)),
        Workload::TlsPgbench16 => stage.pgbench(contender, window, Script::selects(16).with_tls()),
        Workload::TlsRows1m => stage.pgbench(contender, window, Script::rows(1_000_000).with_tls()),
        Workload::TlsConnect => stage.pgbench(contender, window, Script::connections(4).with_tls()),
    }
}

struct Bench<'a> {
    contender: &'a Running,
    stage: &'a Stage,
    window: Window,
}

impl Bench<'_> {
    fn bulk(&self, streams: usize, trade: Trade) -> io::Result<Values> {
        let seen = self.run(self.bulk_loads(streams, trade)?)?;
        Ok(vec![Some(gigabits(&seen)), cpu(&seen, seen.bytes() as f64 / GIB)])
    }

    fn ping_pong_on_one_core(&self) -> io::Result<Values> {
        let stream = session::open(self.contender.address, Trade::AnswerAlone)?;
        let all: Vec<u32> = [own_id()].into_iter().chain(self.contender.id()).collect();
        usage::pin(&all, &self.stage.world.cpus[..1]);
        let seen = self.run(vec![ask_alone(stream)]);
        usage::pin(&all, &self.stage.world.cpus);
        let seen = seen?;
        let [p50, p99] = percentiles(&seen.tallies[0].latencies);
        Ok(vec![
            Some(p50 / 1e3),
            Some(p99 / 1e3),
            micros(cpu(&seen, seen.done() as f64)),
        ])
    }

    fn ping_pong(&self, sessions: usize) -> io::Result<Values> {
        let streams = self.open(sessions)?;
        let seen = self.run(vec![ask_on_many(&streams)])?;
        let [_, p99] = percentiles(&seen.tallies[0].latencies);
        Ok(vec![
            Some(seen.rate()),
            micros(cpu(&seen, seen.done() as f64)),
            Some(p99 / 1e3),
        ])
    }

    fn connect(&self) -> io::Result<Values> {
        let comers = (0..COMERS).map(|_| come_and_go(self.contender.address));
        let seen = self.run(comers.collect())?;
        Ok(vec![Some(seen.rate()), micros(cpu(&seen, seen.done() as f64))])
    }

    /// Measures connections for so long that every local port would be in TIME_WAIT.
    fn connect_far(&self) -> io::Result<Values> {
        let window = Window {
            counted: self.window.counted * 60,
            ..self.window
        };
        let comers = (0..COMERS).map(|_| come_and_go_regardless(self.contender.address));
        let seen = run(window, self.contender, &self.stage.backend, comers.collect())?;
        let failed: u64 = seen.tallies.iter().map(|tally| tally.failed).sum();
        let waiting = in_time_wait(self.contender.target.address.port());
        Ok(vec![
            Some(seen.rate()),
            Some(failed as f64),
            Some(waiting as f64),
            micros(cpu(&seen, seen.done() as f64)),
        ])
    }

    /// Measures over the way to another host; only one session at a time if a process of the benchmark delays packets,
    /// because more would measure that process.
    fn far(&self) -> io::Result<Values> {
        let stream = session::open(self.contender.address, Trade::AnswerAlone)?;
        let alone = self.run(vec![ask_alone(stream)])?;
        let [p50, p99] = percentiles(&alone.tallies[0].latencies);
        let comer = self.run(vec![come_and_go(self.contender.address)])?;
        let [connect, _] = percentiles(&comer.tallies[0].latencies);
        let mut values = vec![Some(p50 / 1e3), Some(p99 / 1e3), Some(connect / 1e3)];
        if self.stage.is_delayed_by_a_process() {
            values.resize(Workload::Far.figures().len(), None);
            return Ok(values);
        }
        let streams = self.open(64)?;
        let many = self.run(vec![ask_on_many(&streams)])?;
        drop(streams);
        let bulk = self.run(self.bulk_loads(1, Trade::Give)?)?;
        values.extend([Some(many.rate()), micros(cpu(&many, many.done() as f64))]);
        values.extend([Some(gigabits(&bulk)), cpu(&bulk, bulk.bytes() as f64 / GIB)]);
        Ok(values)
    }

    fn come_back(&self, sessions: usize) -> io::Result<Values> {
        let sessions = sessions.min(self.stage.world.most_sessions);
        let at_once = come_back::at_once(self.contender, sessions)?;
        self.stage
            .backend
            .wait_until_quiet(PATIENCE)
            .map_err(io::Error::other)?;
        let held = come_back::after_a_hold(self.contender, sessions)?;
        Ok(vec![Some(at_once.as_secs_f64()), held.map(|held| held.as_secs_f64())])
    }

    /// Measures idle sessions in a new process: one that has served others may have memory left from them.
    fn idle(&self, sessions: usize) -> io::Result<Values> {
        let fresh = self.contender.start_afresh(&self.stage.pgnorth_arguments);
        let fresh = fresh.map_err(io::Error::other)?;
        let own = || {
            fresh
                .id()
                .map(|id| [usage::resident(id) as f64, usage::files(id) as f64])
        };
        let mut streams = self.open_at(&fresh, FIRST)?;
        let (own_before, kernel_before) = (own(), usage::of_the_kernel());
        streams.extend(self.open_at(&fresh, sessions)?);
        let (own_after, kernel_after) = (own(), usage::of_the_kernel());
        let sessions = sessions as f64;
        let each = |before: f64, after: f64| (after - before) / sessions;
        let own = [0, 1].map(|place| Some(each(own_before?[place], own_after?[place])));
        let kernel = [0, 1].map(|place| Some(each(kernel_before[place], kernel_after[place])));
        Ok([own, kernel].concat())
    }

    fn small_beside_bulk(&self) -> io::Result<Values> {
        let streams = self.open(8)?;
        let mut loads = self.bulk_loads(2, Trade::Give)?;
        loads.insert(0, ask_on_many(&streams));
        let seen = self.run(loads)?;
        let [p50, p99] = percentiles(&seen.tallies[0].latencies);
        Ok(vec![Some(p99 / 1e6), Some(p50 / 1e6), Some(gigabits(&seen))])
    }

    fn busy_among_idle(&self, busy: usize, idle: usize) -> io::Result<Values> {
        let streams = self.open(busy)?;
        let alone = self.run(vec![ask_on_many(&streams)])?.rate();
        drop(streams);
        let _idle = self.open(idle)?;
        let streams = self.open(busy)?;
        let among = self.run(vec![ask_on_many(&streams)])?.rate();
        Ok(vec![Some(among / alone), Some(alone), Some(among)])
    }

    /// Measures for longer than the intervals at which a proxy checks all its active sessions.
    fn in_turn(&self, sessions: usize) -> io::Result<Values> {
        let mut streams = self.open(sessions.min(self.stage.world.most_sessions))?;
        let window = Window {
            counted: self.window.counted * 8,
            ..self.window
        };
        let loads = vec![ask_in_turn(&mut streams)];
        let mut seen = run(window, self.contender, &self.stage.backend, loads)?;
        let latencies = &mut seen.tallies[0].latencies;
        latencies.sort_unstable();
        let at = |share: f64| latencies.get((latencies.len() as f64 * share) as usize);
        let at = |share| at(share).map(|nanoseconds| f64::from(*nanoseconds));
        let longest = latencies.last().map(|nanoseconds| f64::from(*nanoseconds) / 1e6);
        Ok(vec![at(0.99).map(|p| p / 1e3), at(0.999).map(|p| p / 1e3), longest])
    }

    fn storm(&self) -> io::Result<Values> {
        let stream = session::open(self.contender.address, Trade::AnswerAlone)?;
        let comers = (0..COMERS).map(|_| come_and_go(self.contender.address));
        let loads = [ask_alone(stream)].into_iter().chain(comers);
        let mut seen = self.run(loads.collect())?;
        let running = seen.tallies.remove(0);
        let [_, p99] = percentiles(&running.latencies);
        Ok(vec![Some(p99 / 1e6), Some(seen.rate())])
    }

    /// Measures in a new process, as [`idle`](Self::idle) does.
    fn scale(&self) -> io::Result<Values> {
        let fresh = self.contender.start_afresh(&self.stage.pgnorth_arguments);
        let fresh = fresh.map_err(io::Error::other)?;
        let Some(id) = fresh.id() else {
            return Ok(vec![None; Workload::Scale.figures().len()]);
        };
        let mut idle: Vec<TcpStream> = Vec::new();
        let (mut sizes, mut costs) = (Vec::new(), Vec::new());
        for sessions in [10, 100, 1_000, self.stage.world.most_sessions] {
            idle.extend(self.open_at(&fresh, sessions - idle.len() - 8)?);
            let busy = self.open_at(&fresh, 8)?;
            sizes.push((sessions as f64, usage::resident(id) as f64));
            let seen = run(self.window, &fresh, &self.stage.backend, vec![ask_on_many(&busy)])?;
            costs.push(micros(cpu(&seen, seen.done() as f64)));
        }
        let slopes = sizes
            .windows(2)
            .map(|two| Some((two[1].1 - two[0].1) / (two[1].0 - two[0].0)));
        Ok(slopes.chain(costs).collect())
    }

    /// Opens sessions; each has asked once when this returns.
    fn open(&self, sessions: usize) -> io::Result<Vec<TcpStream>> {
        self.open_at(self.contender, sessions)
    }

    fn open_at(&self, contender: &Running, sessions: usize) -> io::Result<Vec<TcpStream>> {
        let open = |_| {
            let mut stream = session::open(contender.address, Trade::Answer)?;
            ask(&mut stream)?;
            Ok(stream)
        };
        (0..sessions).map(open).collect()
    }

    fn bulk_loads(&self, streams: usize, trade: Trade) -> io::Result<Vec<Load<'static>>> {
        let load = |_| {
            let stream = session::open(self.contender.address, trade)?;
            Ok(match trade {
                Trade::Take => send_bulk(stream),
                _ => receive_bulk(stream),
            })
        };
        (0..streams).map(load).collect()
    }

    fn run(&self, loads: Vec<Load<'_>>) -> io::Result<Seen> {
        run(self.window, self.contender, &self.stage.backend, loads)
    }
}

fn gigabits(seen: &Seen) -> f64 {
    seen.bytes() as f64 * 8.0 / 1e9 / seen.lasted.as_secs_f64()
}

/// Returns CPU seconds for each of `count`.
fn cpu(seen: &Seen, count: f64) -> Option<f64> {
    seen.cpu.map(|cpu| cpu.as_secs_f64() / count)
}

pub fn micros(seconds: Option<f64>) -> Option<f64> {
    seconds.map(|seconds| Duration::from_secs(1).as_micros() as f64 * seconds)
}

/// Returns the 50th and the 99th percentile, in nanoseconds.
fn percentiles(latencies: &[u32]) -> [f64; 2] {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    [50, 99].map(|percent| {
        let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted
            .get(place)
            .map_or(f64::NAN, |nanoseconds| f64::from(*nanoseconds))
    })
}
