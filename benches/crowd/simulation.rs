//! Many pgnorths and one cluster, in simulated time: the decisions, the plan and the pacing are the product's own code;
//! the members and the API are simulated.
//!
//! Each seed gives the same run. `cargo bench --bench crowd` prints the table; a local test checks the bound.

#[path = "figures.rs"]
pub mod figures;
#[path = "members.rs"]
mod members;
#[path = "pgnorth.rs"]
mod pgnorth;

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use ::pgnorth::discovery::kubernetes::annotations;
use ::pgnorth::discovery::kubernetes::checks::OTHER_RETRY;
use ::pgnorth::discovery::patroni::answers::read_cluster;
use ::pgnorth::discovery::patroni::{Answer, CLUSTER_EVERY, CONFIG_EVERY, SEEDS_EVERY, SEEDS_ON_ALERT};
use ::pgnorth::leader::BaseUrl;
use ::pgnorth::leader::observation::{Claim, NamedLeader, NoReport, ObjectKind};
use figures::{Figures, Load};
use members::{MEMBERS, Member};
use pgnorth::Pgnorth;

const TTL: Duration = Duration::from_secs(20);
const LOOP_WAIT: Duration = Duration::from_secs(3);
/// Time for one request to a member, and to the API.
const DEADLINE: Duration = Duration::from_secs(1);
/// Shortest and longest time in the network: of an event of a watch, and of an answer.
const WATCH: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
const NETWORK: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(1));
/// Time from taking the lock to the promotion.
const PROMOTION: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(300));
/// Number of watches of one pgnorth, and the time for which the server keeps one open.
const WATCHES: u64 = 7;
const WATCH_ENDS: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(80));
/// Interval of the failures that each proxy reports while the leader refuses its clients.
const COMPLAINT: Duration = Duration::from_millis(300);
/// Start of the scenario. Every pgnorth has found the leader by then.
const BEGIN: Duration = Duration::from_secs(30);

/// The event that the cluster goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    Quiet,
    Switchover,
    /// The leader's host fails, and the next leader takes the lock when it has expired.
    Failover,
    /// The leader's host fails, and the next leader takes the lock but is never promoted: it replays WAL, or a script
    /// hangs.
    NeverPromoted,
    /// The leader's host fails, and no member takes the lock.
    NoLeader,
    /// The Kubernetes API is down, and failsafe mode keeps the leader.
    ApiOutage,
    /// The leader's REST API hangs, and the lock is renewed.
    RestHangs,
}

/// The conditions of one run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    pub pgnorths: usize,
    pub scenario: Scenario,
    /// True if the lock is watched in Kubernetes; otherwise REST is the only source.
    pub kubernetes: bool,
    /// A route has a lag limit, so that every member is asked.
    pub max_lag: bool,
    pub lasts: Duration,
    pub seed: u64,
}

/// A SplitMix64 generator: the same seed gives the same random numbers.
pub struct Chance(u64);

enum Event {
    Step(u32),
    Renew,
    Hear(usize, Box<Claim>),
    Ask(usize),
    /// The end of a request to a member: for `/cluster` with the time at which it was sent; true if it was answered.
    Answered(usize, usize, Option<Duration>, bool),
    Recheck(usize),
    Complain(usize),
    Check(usize, u64),
    Reopen(usize, bool),
    Listing(usize),
}

struct World {
    run: Run,
    begin: Instant,
    now: Duration,
    queue: BTreeMap<(Duration, u64), Event>,
    events: u64,
    members: Vec<Member>,
    pgnorths: Vec<Pgnorth>,
    /// Holder of the lock, and the number of writes to it.
    lock: (Option<usize>, u64),
    api_up: bool,
    api: Vec<Duration>,
    writable_at: Option<Duration>,
    found: Vec<Option<Duration>>,
    chance: Chance,
}

/// Runs the simulation and returns its figures.
pub fn simulate(run: Run) -> Figures {
    let mut world = World::new(run);
    let end = BEGIN + run.lasts;
    while let Some(((at, _), event)) = world.queue.pop_first() {
        if end < at {
            break;
        }
        world.now = at;
        world.happen(event);
    }
    let load = |requests: &[Duration]| Load::of(requests, BEGIN, end);
    let added = world.found.iter().flatten();
    Figures {
        members: world.members.iter().map(|member| load(&member.requests)).collect(),
        api: load(&world.api),
        added: added.map(|at| *at - world.writable_at.unwrap_or_default()).collect(),
    }
}

impl World {
    fn new(run: Run) -> Self {
        let begin = Instant::now();
        let mut world = Self {
            run,
            begin,
            now: Duration::ZERO,
            queue: BTreeMap::new(),
            events: 0,
            members: (0..MEMBERS).map(Member::new).collect(),
            pgnorths: (0..run.pgnorths).map(|_| Pgnorth::new(begin, run.max_lag)).collect(),
            lock: (Some(0), 0),
            api_up: true,
            api: Vec::new(),
            writable_at: None,
            found: vec![None; run.pgnorths],
            chance: Chance(run.seed),
        };
        world.push(BEGIN, Event::Step(0));
        world.push(Duration::ZERO, Event::Renew);
        for who in 0..run.pgnorths {
            // The pgnorths are started one after the other.
            let at = world.chance.between(Duration::ZERO, BEGIN / 3);
            world.push(at, Event::Listing(who));
            world.push(at, Event::Ask(who));
            for _ in 0..WATCHES * u64::from(run.kubernetes) {
                let ends = at + world.chance.between(WATCH_ENDS.0, WATCH_ENDS.1);
                world.push(ends, Event::Reopen(who, false));
            }
        }
        world
    }

    fn push(&mut self, at: Duration, event: Event) {
        self.events += 1;
        self.queue.insert((at, self.events), event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Step(step) => self.step(step),
            Event::Renew => {
                let holder = self.lock.0.filter(|holder| !self.members[*holder].gone && self.api_up);
                if holder.is_some() {
                    self.write_lock(holder);
                }
                self.push(self.now + LOOP_WAIT, Event::Renew);
            }
            Event::Hear(who, claim) => self.hear(who, *claim),
            Event::Ask(who) => self.ask_the_due(who),
            Event::Answered(who, member, asked, answered) => self.answered(who, member, asked, answered),
            Event::Recheck(who) => {
                let now = self.begin + self.now;
                if self.pgnorths[who].recheck_at.is_some_and(|at| at <= now) {
                    self.pgnorths[who].decide(now);
                }
                self.follow(who);
            }
            Event::Complain(who) => self.complain(who),
            Event::Check(who, check) => self.check(who, check),
            Event::Reopen(who, failed) => self.reopen(who, failed),
            Event::Listing(who) => self.listing(who),
        }
    }

    /// Performs one step of the scenario and schedules the next one.
    fn step(&mut self, step: u32) {
        let after = Duration::from_millis;
        let next = match (self.run.scenario, step) {
            (Scenario::Switchover, 0) => {
                self.announce();
                after(200)
            }
            (Scenario::Switchover, 1) => {
                self.members[0].state = "stopping";
                after(2_000)
            }
            (Scenario::Switchover, 2) => {
                (self.members[0].role, self.members[0].holds_lock) = ("demoted", false);
                self.write_lock(None);
                after(60)
            }
            (Scenario::Failover | Scenario::NeverPromoted | Scenario::NoLeader, 0) => {
                self.members[0].gone = true;
                for who in 0..self.run.pgnorths {
                    let at = self.now + self.chance.between(Duration::ZERO, COMPLAINT);
                    self.push(at, Event::Complain(who));
                }
                TTL - LOOP_WAIT / 2
            }
            (Scenario::NoLeader, 1) => {
                // The annotation stays; a key in etcd is deleted after ttl.
                self.lock.0 = self.lock.0.filter(|_| self.run.kubernetes);
                return;
            }
            (Scenario::Switchover, 3) | (Scenario::Failover | Scenario::NeverPromoted, 1) => {
                self.members[1].holds_lock = true;
                self.write_lock(Some(1));
                self.chance.between(PROMOTION.0, PROMOTION.1)
            }
            (Scenario::Switchover, 4) | (Scenario::Failover, 2) => {
                (self.members[1].role, self.members[1].timeline) = ("primary", 2);
                self.writable_at = Some(self.now);
                return;
            }
            (Scenario::ApiOutage, 0) => {
                self.api_up = false;
                self.members.iter_mut().for_each(|member| member.failsafe = true);
                for who in 0..self.run.pgnorths {
                    for kind in ObjectKind::ALL {
                        self.push(
                            self.now,
                            Event::Hear(who, Box::new(Claim::ApiUnreachable(kind, "connection refused".into()))),
                        );
                    }
                    self.push(self.now, Event::Check(who, u64::MAX));
                    (1..WATCHES).for_each(|_| self.push(self.now, Event::Reopen(who, true)));
                }
                return;
            }
            (Scenario::RestHangs, 0) => return self.members[0].hangs = true,
            _ => return,
        };
        self.push(self.now + next, Event::Step(step + 1));
    }

    fn write_lock(&mut self, holder: Option<usize>) {
        self.lock = (holder, self.lock.1 + 1);
        if self.run.kubernetes {
            for who in 0..self.run.pgnorths {
                let claim = self.read_lock();
                self.tell(who, claim);
            }
        }
    }

    fn read_lock(&self) -> Claim {
        let mut annotations = annotations::Annotations::from([
            ("ttl".into(), TTL.as_secs().to_string()),
            ("renewTime".into(), self.lock.1.to_string()),
            ("acquireTime".into(), "then".into()),
        ]);
        if let Some(holder) = self.lock.0 {
            annotations.insert("leader".into(), self.members[holder].name().into());
        }
        Claim::Lock(ObjectKind::Endpoints, annotations::lock(&annotations).0)
    }

    fn announce(&mut self) {
        let annotations =
            annotations::Annotations::from([("leader".into(), "a".into()), ("member".into(), "b".into())]);
        let watched = if self.run.kubernetes { self.run.pgnorths } else { 0 };
        for who in 0..watched {
            let news = annotations::announcement(&annotations, self.begin + self.now, SystemTime::UNIX_EPOCH).0;
            self.tell(who, Claim::Announcement(ObjectKind::Endpoints, news));
        }
    }

    /// Sends a claim to a pgnorth with the delay of a watch.
    fn tell(&mut self, who: usize, claim: Claim) {
        let at = self.now + self.chance.between(WATCH.0, WATCH.1);
        self.push(at, Event::Hear(who, Box::new(claim)));
    }

    fn hear(&mut self, who: usize, claim: Claim) {
        let now = self.begin + self.now;
        let pgnorth = &mut self.pgnorths[who];
        if let Claim::Lock(_, lock) = &claim {
            pgnorth.checks.renewed();
            let quiet = pgnorth.checks.quiet(lock.as_ref(), true, self.chance.unit());
            pgnorth.check += 1;
            let check = pgnorth.check;
            self.push(self.now + quiet, Event::Check(who, check));
        }
        self.pgnorths[who].hear(claim, now);
        self.follow(who);
    }

    /// Schedules what follows from a decision.
    fn follow(&mut self, who: usize) {
        let pgnorth = &mut self.pgnorths[who];
        let recheck = pgnorth
            .recheck_at
            .map(|at| at.saturating_duration_since(self.begin).max(self.now));
        if let Some(at) = recheck.filter(|at| pgnorth.recheck.wakes(*at, self.now)) {
            self.push(at, Event::Recheck(who));
        }
        let open_to = self.pgnorths[who].state.open_to().map(|leader| leader.member.as_str());
        if open_to == Some("b") && self.writable_at.is_some() {
            self.found[who].get_or_insert(self.now);
        }
        self.ask_the_due(who);
    }

    fn ask_the_due(&mut self, who: usize) {
        let now = self.begin + self.now;
        let (due, next) = self.pgnorths[who].due(now, &mut self.chance);
        for (name, witness) in due {
            let Some(member) = self.members.iter_mut().find(|member| member.name() == name) else {
                continue;
            };
            let answered = member.request(self.now, &mut self.chance);
            let place = member.who;
            let late = self.now + DEADLINE;
            let at = answered
                .map(|at| at + self.chance.between(NETWORK.0, NETWORK.1))
                .filter(|at| *at < late);
            let asked = witness.then_some(self.now);
            self.push(at.unwrap_or(late), Event::Answered(who, place, asked, at.is_some()));
        }
        let next = next.map(|at| at.saturating_duration_since(self.begin));
        if let Some(at) = next.filter(|at| self.pgnorths[who].ask.wakes(*at, self.now)) {
            self.push(at, Event::Ask(who));
        }
    }

    fn answered(&mut self, who: usize, member: usize, asked: Option<Duration>, answered: bool) {
        let now = self.begin + self.now;
        let (name, pgnorth) = (self.members[member].name(), &mut self.pgnorths[who]);
        let key = if asked.is_some() {
            format!("{name} /cluster")
        } else {
            name.to_owned()
        };
        if !pgnorth.answered(&key, answered, now) || (asked.is_some() && !answered) {
            return;
        }
        if let Some(asked) = asked {
            let leader = self.lock.0.map(|holder| NamedLeader {
                member: self.members[holder].name().into(),
                running_on: Some(self.members[holder].timeline),
            });
            let (by, asked) = (name.into(), self.begin + asked);
            self.pgnorths[who].hear(Claim::NamedLeader { by, asked, leader }, now);
            return self.follow(who);
        }
        let report = match answered {
            true => Ok(self.members[member].report()),
            false => Err(NoReport::Unreachable("no answer within 1 s".to_owned())),
        };
        self.pgnorths[who].hear(Claim::Report(name.into(), report), now);
        self.follow(who);
    }

    /// Reports that the leader refuses clients, and schedules the next report.
    fn complain(&mut self, who: usize) {
        if self.pgnorths[who]
            .state
            .open_to()
            .is_some_and(|leader| leader.member == "a")
            && self.members[0].gone
        {
            self.hear(who, Claim::LeaderFailure("a".into()));
        }
        if self.writable_at.is_none() {
            self.push(self.now + COMPLAINT, Event::Complain(who));
        }
    }

    /// Checks a lock that has been quiet for long, or for which the API did not answer.
    fn check(&mut self, who: usize, check: u64) {
        let pgnorth = &mut self.pgnorths[who];
        if check != pgnorth.check && check != u64::MAX {
            return;
        }
        self.api.push(self.now);
        pgnorth.check += 1;
        let (check, now) = (pgnorth.check, self.begin + self.now);
        let pause = match self.api_up {
            true => {
                let claim = self.read_lock();
                let Claim::Lock(_, lock) = &claim else { return };
                let pgnorth = &mut self.pgnorths[who];
                if pgnorth.checks.should_restart(lock.as_ref(), pgnorth.opened, now) {
                    pgnorth.opened = now;
                    self.api.extend([self.now; WATCHES as usize]);
                }
                pgnorth.checks.quiet(lock.as_ref(), false, self.chance.unit())
            }
            false => pgnorth.retry.pause_by(self.chance.unit()),
        };
        self.push(self.now + pause, Event::Check(who, check));
    }

    /// Opens a watch again that the server has ended, or that has failed.
    fn reopen(&mut self, who: usize, failed: bool) {
        self.api.push(self.now);
        let pause = match (self.api_up, failed) {
            (true, _) => self.chance.between(WATCH_ENDS.0, WATCH_ENDS.1),
            (false, true) => {
                // The mean of the longest pauses.
                let mut backoff = OTHER_RETRY;
                (0..8)
                    .map(|_| backoff.pause_by(self.chance.unit()))
                    .last()
                    .unwrap_or_default()
            }
            // This request was counted when the outage began.
            (false, false) => return,
        };
        self.push(self.now + pause, Event::Reopen(who, failed));
    }

    /// Delivers the list of members: with Kubernetes once, from the pods; otherwise from `/cluster`, again and again.
    fn listing(&mut self, who: usize) {
        let row = |member: &Member| {
            let (name, who) = (member.name(), member.who);
            format!(
                r#"{{"name":"{name}","host":"10.0.0.{who}","port":5432,"api_url":"http://{name}:8008/patroni","role":"replica"}}"#
            )
        };
        let rows: Vec<_> = self.members.iter().map(row).collect();
        let answer = Answer {
            status: hyper::StatusCode::OK,
            body: format!(r#"{{"scope":"pg","members":[{}]}}"#, rows.join(",")).into(),
        };
        let from = BaseUrl::parse("http://a:8008").expect("it is one");
        let (mut cluster, _) = read_cluster(&from, &answer).expect("it is Patroni's");
        cluster.ttl = Some(TTL);
        if !self.run.kubernetes {
            self.ask_for_the_listing(who);
        }
        let now = self.begin + self.now;
        self.pgnorths[who].hear(Claim::Cluster(cluster), now);
        if self.run.kubernetes {
            self.pgnorths[who].hear(Claim::Lock(ObjectKind::ConfigMap, None), now);
            let lock = self.read_lock();
            self.hear(who, lock);
        }
        self.follow(who);
    }

    fn ask_for_the_listing(&mut self, who: usize) {
        let mut answering: Vec<_> = self
            .members
            .iter_mut()
            .filter(|member| !member.gone && !member.hangs)
            .collect();
        // Each pgnorth stays with the member that answered first.
        let place = who % answering.len();
        let asked = &mut answering[place];
        asked.request(self.now, &mut self.chance);
        let pgnorth = &mut self.pgnorths[who];
        if pgnorth.config_at.is_none_or(|at| at + CONFIG_EVERY <= self.now) {
            pgnorth.config_at = Some(self.now);
            asked.request(self.now, &mut self.chance);
        }
        let every = if pgnorth.is_held() { SEEDS_ON_ALERT } else { SEEDS_EVERY };
        if pgnorth.seeds_at.is_none_or(|at| at + every <= self.now) {
            pgnorth.seeds_at = Some(self.now);
            for member in &mut self.members {
                member.request(self.now, &mut self.chance);
            }
        }
        let pgnorth = &mut self.pgnorths[who];
        let pause = match pgnorth.is_held() {
            true => pgnorth.cluster.pause_by(self.chance.unit()),
            false => {
                pgnorth.cluster.reset();
                CLUSTER_EVERY.mul_f64(0.6 + 0.4 * self.chance.unit())
            }
        };
        self.push(self.now + pause, Event::Listing(who));
    }
}

impl Chance {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.roll() >> 32) as f64 / f64::from(u32::MAX)
    }

    /// Returns a time from `low` to `high`.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + (high - low).mul_f64(self.unit())
    }
}
