//! The watches of the API, as `discovery::kubernetes` handles them: ordered and delayed streams, dead streams, the
//! check of the lock with GET, and the new list after a failure.

use std::time::{Duration, SystemTime};

use super::super::stories::{api_url, leader};
use super::patroni::{EVERYBODY, MemberIndex, Ms, NAMES, Postgres};
use super::world::{DEADLINE, Event, TrueState, World};
use crate::leader::MemberName;
use crate::leader::observation::{
    Announcement, Claim, ClusterSettings, DcsStatus, Lock, ObjectKind, Replication, Tags,
};

/// Pause between two attempts while the API does not answer.
pub(super) const RETRY: Ms = 500;
/// Longest time by which a wrong clock may make a lock expire early or late.
pub(super) const CLOCK_FAULTS: Ms = 1_000;

/// The ways in which a path fails.
#[derive(Clone, Copy, Debug)]
pub(super) enum PathFailure {
    /// The connection is reset, and pgnorth notices it immediately.
    Reset,
    /// The stream is dead but looks alive, and stays dead.
    Dead,
    /// The stream stalls, and later continues with the event at which it stopped.
    Stalled,
}

/// The watched objects. Events of one object arrive in order; events of different objects may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Lock,
    Announcement,
    Settings,
    Pod(MemberIndex),
}

const OBJECTS: [Object; 6] = [
    Object::Lock,
    Object::Announcement,
    Object::Settings,
    Object::Pod(0),
    Object::Pod(1),
    Object::Pod(2),
];

pub(super) struct Watch {
    pub(super) cut_off: bool,
    /// True while pgnorth believes that its streams are alive.
    live: bool,
    deaf: bool,
    stalled: bool,
    /// Events that a stalled stream will still deliver.
    backlog: Vec<(Object, Claim, TrueState)>,
    /// The generation of the streams. Streams of an older generation deliver nothing.
    generation: u64,
    /// Time at which the streams were opened.
    opened: Ms,
    check: u64,
    known: u64,
    arrives: [Ms; 6],
    /// Time since which every write of the lock has arrived within the watch's delay.
    pub(super) good_since: Option<Ms>,
    /// Time since which pgnorth has known that the API does not answer.
    pub(super) silent_since: Option<Ms>,
    /// Total length of the API's outages since each member last wrote the lock, as far as pgnorth knows.
    pub(super) silence: [Ms; 3],
    /// The lock's holder, as far as pgnorth knows.
    pub(super) holder: Option<MemberIndex>,
    /// Time from which the holder's ttl counts.
    pub(super) lock_valid_from: Ms,
    /// The start and the arrival of each renewal that pgnorth has observed.
    renewals: Vec<(Ms, Ms)>,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            cut_off: false,
            live: true,
            deaf: false,
            stalled: false,
            backlog: Vec::new(),
            generation: 0,
            opened: 0,
            check: 0,
            known: 0,
            arrives: [0; 6],
            good_since: None,
            silent_since: None,
            silence: [0; 3],
            holder: None,
            lock_valid_from: 0,
            renewals: Vec::new(),
        }
    }
}

impl World {
    fn path_is_up(&self) -> bool {
        self.cluster.api_up && !self.watch.cut_off
    }

    /// Sends the event of a write of an object.
    pub(super) fn send_object_event(&mut self, object: Object) {
        let (claim, truth) = self.read(object);
        match (self.watch.live && !self.watch.deaf, self.watch.stalled) {
            (true, false) if self.path_is_up() => self.send(object, claim, truth),
            (true, true) => self.watch.backlog.push((object, claim, truth)),
            _unheard => {}
        }
    }

    fn send(&mut self, object: Object, claim: Claim, truth: TrueState) {
        let takes = self.dice.between(0, self.conditions.watch_delay);
        let arrives = &mut self.watch.arrives[place(object)];
        *arrives = (self.now + takes).max(*arrives);
        let (at, generation) = (*arrives, self.watch.generation);
        let twice = self.dice.one_in(8);
        for _ in 0..=u8::from(twice) {
            self.push(at, Event::Watched(generation, object, claim.clone(), truth));
        }
    }

    /// Reopens all streams. Each begins with the present object.
    pub(super) fn reopen_streams(&mut self) {
        self.watch.generation += 1;
        self.watch.opened = self.now;
        self.watch.live = true;
        self.watch.deaf = false;
        self.watch.stalled = false;
        self.watch.backlog.clear();
        self.watch.arrives = [0; 6];
        self.watch.good_since = Some(self.now);
        for object in OBJECTS {
            let (claim, truth) = self.read(object);
            self.send(object, claim, truth);
        }
        self.check_in(DEADLINE);
    }

    pub(super) fn watched(&mut self, generation: u64, object: Object, claim: Claim, truth: TrueState) {
        if generation != self.watch.generation {
            return;
        }
        if object == Object::Lock {
            return self.hear_lock(claim, truth);
        }
        if let Object::Pod(who) = object {
            self.heard_pod[who] = Some(truth);
        }
        self.hear(claim);
    }

    fn hear_lock(&mut self, claim: Claim, truth: TrueState) {
        let changed = truth.version != self.watch.known;
        if let Some(since) = self.watch.silent_since.take() {
            self.watch.silence = self.watch.silence.map(|silence| silence + self.now - since);
        }
        if let (true, Claim::Lock(_, Some(lock))) = (changed, &claim) {
            let writer = EVERYBODY
                .into_iter()
                .find(|who| lock.holder.as_deref() == Some(NAMES[*who]));
            if let Some(who) = writer {
                self.hear_renewal(who, truth);
                self.heard_alive[who] = self.heard_alive[who].max(self.watch.lock_valid_from);
                self.watch.silence[who] = 0;
            }
            self.watch.holder = writer;
        }
        self.watch.known = truth.version;
        self.hear(claim);
        self.check_in(if changed {
            self.conditions.rules.ttl / 2
        } else {
            DEADLINE
        });
    }

    /// Records a renewal. Its ttl counts from the start of the renewal plus the shortest delay of the newest eight
    /// renewals, which the difference between the clocks hides. The result is wrong by at most [`CLOCK_FAULTS`]. If a
    /// clock was set during these renewals, any delay may be hidden.
    fn hear_renewal(&mut self, who: MemberIndex, truth: TrueState) {
        if self.watch.holder != Some(who) {
            self.watch.renewals.clear();
        }
        let mut from = self.now;
        if let Some(begun) = truth.begun {
            self.watch.renewals.push((begun, self.now));
            let newest = self.watch.renewals.iter().rev().take(8);
            let least = newest
                .clone()
                .map(|(begun, heard)| heard - begun)
                .min()
                .unwrap_or_default();
            let set = newest
                .clone()
                .any(|(begun, _)| Some(*begun) <= self.cluster.clock_set[who]);
            if !set {
                from -= (self.now - begun - least).min(CLOCK_FAULTS);
            }
        }
        self.watch.lock_valid_from = from;
    }

    fn check_in(&mut self, quiet: Ms) {
        self.watch.check += 1;
        self.push(self.now + quiet, Event::Check(self.watch.check));
    }

    pub(super) fn check(&mut self, check: u64) {
        let generation = self.watch.generation;
        if check != self.watch.check || !self.watch.live {
            return;
        }
        if self.path_is_up() {
            let takes = self.dice.between(0, self.conditions.watch_delay);
            let (claim, truth) = self.read(Object::Lock);
            self.push(self.now + takes, Event::Checked(generation, claim, truth));
        } else {
            self.push(self.now + DEADLINE, Event::Silent(generation));
        }
    }

    pub(super) fn checked(&mut self, generation: u64, claim: Claim, truth: TrueState) {
        if generation != self.watch.generation || truth.version < self.watch.known {
            return;
        }
        let missed = truth.version != self.watch.known;
        self.hear_lock(claim, truth);
        if missed || self.watch.opened + self.conditions.rules.ttl <= self.now {
            // The stream has withheld events, or may have done so. All streams are reopened.
            if self.path_is_up() {
                self.reopen_streams();
            } else {
                self.push(self.now + DEADLINE, Event::Silent(generation));
            }
        }
    }

    pub(super) fn silent(&mut self, generation: u64) {
        if generation != self.watch.generation {
            return;
        }
        self.watch.live = false;
        self.watch.stalled = false;
        self.watch.backlog.clear();
        self.watch.good_since = None;
        self.watch.generation += 1;
        self.watch.silent_since.get_or_insert(self.now);
        self.hear(Claim::ApiUnreachable(
            ObjectKind::Endpoints,
            "connection refused".into(),
        ));
        self.push(self.now + RETRY, Event::Retry(self.watch.generation));
    }

    pub(super) fn retry(&mut self, generation: u64) {
        if generation != self.watch.generation {
            return;
        }
        if self.path_is_up() {
            self.reopen_streams();
        } else {
            let takes = self.dice.between(0, DEADLINE);
            self.push(self.now + takes, Event::Silent(generation));
        }
    }

    pub(super) fn path_breaks(&mut self, path_failure: PathFailure) {
        self.watch.good_since = None;
        if !self.conditions.kubernetes || !self.watch.live {
            return;
        }
        match path_failure {
            PathFailure::Reset => {
                let takes = self.dice.between(0, self.conditions.watch_delay);
                self.push(self.now + takes, Event::Silent(self.watch.generation));
                self.watch.deaf = true;
            }
            PathFailure::Dead => self.watch.deaf = true,
            PathFailure::Stalled => self.watch.stalled = true,
        }
    }

    pub(super) fn path_heals(&mut self) {
        if !self.path_is_up() || !self.watch.stalled {
            return;
        }
        self.watch.stalled = false;
        if !self.watch.deaf {
            self.watch.good_since = Some(self.now);
        }
        for (object, claim, truth) in std::mem::take(&mut self.watch.backlog) {
            self.send(object, claim, truth);
        }
    }

    /// Returns an object's present state.
    fn read(&self, object: Object) -> (Claim, TrueState) {
        let kind = ObjectKind::Endpoints;
        let name = |who: MemberIndex| MemberName::from(NAMES[who]);
        let cluster = &self.cluster;
        let ttl = Duration::from_millis(cluster.rules.ttl);
        let claim = match object {
            Object::Lock => {
                let lock = Lock {
                    holder: cluster.lock.holder.map(name),
                    ttl,
                    renewal: [None, Some(format!("{:06}", cluster.lock.version)), None],
                    written: cluster
                        .lock
                        .renew_time
                        .map(|time| SystemTime::UNIX_EPOCH + Duration::from_millis(time)),
                    renewed: None,
                };
                Claim::Lock(kind, Some(lock))
            }
            Object::Announcement => {
                let api_events = cluster.planned.map(|planned| Announcement {
                    leader: Some(name(planned.from)),
                    candidate: planned.candidate.map(name),
                    scheduled_at: None,
                    starts: None,
                });
                Claim::Announcement(kind, api_events)
            }
            Object::Settings => Claim::Settings(
                kind,
                Some(ClusterSettings {
                    paused: cluster.paused,
                    ..ClusterSettings::default()
                }),
            ),
            Object::Pod(who) => {
                let status = cluster.members[who].pod;
                let (primary, running) = match status.postgres {
                    Postgres::Primary => (true, true),
                    Postgres::Recovering | Postgres::Stopping => (true, false),
                    Postgres::Replica | Postgres::Promoting => (false, true),
                    Postgres::Starting | Postgres::Stopped | Postgres::Down => (false, false),
                };
                Claim::DcsStatus(DcsStatus {
                    name: name(who),
                    address: Ok(leader(NAMES[who]).address),
                    proxy_address: None,
                    api_url: Some(api_url(NAMES[who])),
                    role: Some(if primary { "primary" } else { "replica" }.into()),
                    state: Some(if running { "running" } else { "stopped" }.into()),
                    timeline: Some(status.timeline),
                    xlog_location: None,
                    tags: Tags::default(),
                    replication: Replication::default(),
                    citus_group: None,
                })
            }
        };
        let truth = match object {
            Object::Pod(who) => TrueState {
                at: cluster.members[who].pod.written,
                writable: cluster.members[who].pod.postgres == Postgres::Primary,
                timeline: cluster.members[who].pod.timeline,
                ..self.truth(who)
            },
            Object::Lock | Object::Announcement | Object::Settings => self.truth(0),
        };
        (claim, truth)
    }
}

fn place(object: Object) -> usize {
    OBJECTS
        .iter()
        .position(|known| *known == object)
        .expect("every object is listed")
}
