//! The stage: a target, and every contender that could be started in front of it.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::backend::Backend;
use crate::contenders::{Kind, Running, Target};
use crate::load::Window;
use crate::measure::{Values, micros};
use crate::postgres::{Postgres, Script};
use crate::usage;
use crate::world::{Neighbour, World};

/// First port of the contenders' listeners.
const PORTS: u16 = 7000;

pub struct Stage {
    pub world: World,
    pub backend: Backend,
    pub contenders: Vec<Running>,
    /// The contenders that were requested and are missing, with the reason.
    pub left_out: Vec<(Kind, String)>,
    pub pgnorth_arguments: Vec<String>,
    postgres: Option<Postgres>,
    neighbour: Option<Neighbour>,
    /// Backends on the neighbour, one for each contender: the ports in TIME_WAIT of one must not affect the next.
    far: Vec<Backend>,
}

impl Stage {
    /// Starts the backend, and the contenders in front of it.
    pub fn set(world: World, kinds: &[Kind], pgnorth_arguments: Vec<String>) -> Result<Self, String> {
        let backend = Backend::start().map_err(|error| format!("start the backend: {error}"))?;
        let target = Target {
            address: backend.address(),
            login: ("bench", "answer"),
            is_postgres: false,
        };
        let mut stage = Self {
            world,
            backend,
            contenders: Vec::new(),
            left_out: Vec::new(),
            pgnorth_arguments,
            postgres: None,
            neighbour: None,
            far: Vec::new(),
        };
        stage.start(kinds, target, PORTS);
        Ok(stage)
    }

    /// Starts PostgreSQL, and contenders in front of it instead of the present ones.
    pub fn set_postgres(&mut self, kinds: &[Kind]) -> Result<(), String> {
        let postgres = Postgres::start()?;
        let target = Target {
            address: (Ipv4Addr::LOCALHOST, crate::postgres::PORT).into(),
            login: crate::postgres::LOGIN,
            is_postgres: true,
        };
        self.contenders.clear();
        self.start(kinds, target, PORTS + 100);
        self.postgres = Some(postgres);
        Ok(())
    }

    /// Starts contenders in front of backends on a host of their own, instead of the present ones.
    pub fn set_far(&mut self, kinds: &[Kind]) -> Result<(), String> {
        let neighbour = Neighbour::join()?;
        self.contenders.clear();
        for (kind, port) in kinds.iter().zip(6001..) {
            let address = (neighbour.address, port).into();
            let backend = Backend::start_in(&neighbour.namespace, address);
            self.far
                .push(backend.map_err(|error| format!("start a backend on {address}: {error}"))?);
            let target = Target {
                address,
                login: ("bench", "answer"),
                is_postgres: false,
            };
            self.start(&[*kind], target, PORTS + 200 + port - 6001);
        }
        self.neighbour = Some(neighbour);
        Ok(())
    }

    /// Delays packets to and from the neighbour, so that a round trip takes this much longer.
    pub fn delay(&mut self, round_trip: Duration) -> Result<(), String> {
        self.neighbour
            .as_mut()
            .map_or(Ok(()), |neighbour| neighbour.delay(round_trip))
    }

    /// Returns true if packets pass a process of the benchmark, because the kernel cannot delay them.
    pub fn is_delayed_by_a_process(&self) -> bool {
        self.neighbour.as_ref().is_some_and(Neighbour::has_a_delay_line)
    }

    fn start(&mut self, kinds: &[Kind], target: Target, ports: u16) {
        for (kind, port) in kinds.iter().zip(ports..) {
            if !kind.serves(target) {
                continue;
            }
            match Running::start(*kind, target, port, &self.pgnorth_arguments) {
                Ok(contender) => self.contenders.push(contender),
                Err(why) => {
                    eprintln!("left out: {}: {why}", kind.name());
                    if !self.left_out.iter().any(|(known, _)| known == kind) {
                        self.left_out.push((*kind, why));
                    }
                }
            }
        }
    }

    /// Runs pgbench through a contender.
    pub fn pgbench(&self, contender: &Running, window: Window, script: Script) -> io::Result<Values> {
        let postgres = self
            .postgres
            .as_ref()
            .ok_or_else(|| io::Error::other("there is no PostgreSQL"))?;
        let before = contender.id().map(usage::cpu);
        let done = postgres.pgbench(contender.address, window, script)?;
        let cpu = contender.id().map(usage::cpu).zip(before);
        let cpu = cpu.map(|(after, before)| after.saturating_sub(before).as_secs_f64() / done.transactions);
        Ok(vec![Some(done.rate), micros(cpu)])
    }
}
