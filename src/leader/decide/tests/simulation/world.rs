//! The network between Patroni and pgnorth in simulated time: the queue of events, the faults, and the requests to the
//! members.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::stories::listing;
use super::dice::Dice;
use super::observer::{Observer, Request};
use super::patroni::{ApiEvent, Cluster, EVERYBODY, MemberIndex, Ms, NAMES, Postgres, Rules, Timer};
use super::watch::{Object, PathFailure, Watch};
use crate::leader::observation::{Claim, Cluster as Listing, NamedLeader, NoReport, Report};

/// Deadline of a request to a member.
pub(super) const DEADLINE: Ms = 1_000;

/// The conditions that do not change during a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    pub(super) rules: Rules,
    /// True with Kubernetes, false with only the REST API.
    pub(super) kubernetes: bool,
    /// Longest delay of a watch event.
    pub(super) watch_delay: Ms,
    /// Longest delay of an answer of the REST API.
    pub(super) rest_delay: Ms,
    /// One answer in this many is lost; 0 if none is lost.
    pub(super) losses: u64,
    pub(super) seed: u64,
}

/// The member that a fault affects: the present leader, or one of the other members.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target(pub(super) MemberIndex);

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The host and everything on it is gone.
    Kill(Target),
    /// Patroni is stopped, while its PostgreSQL still accepts writes.
    Freeze(Target),
    /// The REST API hangs, while the lock is still renewed.
    RestFreeze(Target),
    /// Only pgnorth cannot reach a member's REST API.
    RestCut(Target),
    /// A backend is killed: PostgreSQL restarts with crash recovery.
    Crash,
    /// The API is down for every client.
    ApiDown(PathFailure),
    /// Only pgnorth is cut off from the API.
    CutOff(PathFailure),
    /// A planned switchover. An aborted switchover is announced, but does not happen.
    Switchover(Option<Target>, bool),
    Pause,
    /// A member's clock is changed by this difference.
    ClockSet(Target, i64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fault {
    /// Time since the previous fault.
    pub(super) after: Ms,
    pub(super) lasts: Ms,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    Patroni(Timer),
    Begins(Kind, Ms),
    Ends(Kind, [MemberIndex; 3]),
    /// An event of the API, which reaches pgnorth if its stream still has this generation.
    Watched(u64, Object, Claim, TrueState),
    /// The watch of the lock has been quiet for a long time, so pgnorth reads the lock.
    Check(u64),
    Checked(u64, Claim, TrueState),
    Silent(u64),
    Retry(u64),
    Answered(Request, Option<Report>, TrueState),
    /// A member's answer that names the leader, with the time of the request.
    Named(Request, Ms, Option<Option<NamedLeader>>),
    LeaderFailure(MemberIndex),
    Listing,
    Ask,
    Recheck,
}

/// The true state of the cluster when a piece of evidence was created.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TrueState {
    pub(super) at: Ms,
    /// True if the evidence came from the only member that accepted writes on the newest timeline.
    pub(super) writable: bool,
    pub(super) timeline: u32,
    /// The lock's version.
    pub(super) version: u64,
    /// Start of the lock's last write, if `renewTime` can be parsed.
    pub(super) begun: Option<Ms>,
}

pub(super) struct World {
    pub(super) now: Ms,
    pub(super) conditions: Conditions,
    pub(super) cluster: Cluster,
    pub(super) observer: Observer,
    pub(super) watch: Watch,
    pub(super) rest_cut: [bool; 3],
    /// Time at which an answer of each member was last lost.
    pub(super) lost: [Ms; 3],
    /// The true state behind the newest answer and the newest pod status of each member that have reached pgnorth.
    pub(super) heard_answer: [Option<TrueState>; 3],
    pub(super) heard_pod: [Option<TrueState>; 3],
    /// Time at which pgnorth last received evidence about each member: a write of the lock, or any answer.
    pub(super) heard_alive: [Ms; 3],
    /// The leader that `/cluster` named last, and the time of that answer.
    pub(super) heard_named: Option<(MemberIndex, Ms)>,
    /// The newest timeline on which a leader has reported to pgnorth that it is writable.
    pub(super) heard_timeline: u32,
    pub(super) faults_under_way: u64,
    queue: BTreeMap<(Ms, u64), Event>,
    events: u64,
    recheck: Option<Ms>,
    ask: Option<Ms>,
    failure_reported: Ms,
    pub(super) dice: Dice,
}

impl World {
    pub(super) fn new(conditions: Conditions, faults: &[Fault]) -> Self {
        let mut world = Self {
            now: 0,
            conditions,
            cluster: Cluster::new(conditions.rules, conditions.seed),
            observer: Observer::new(),
            watch: Watch::new(),
            rest_cut: [false; 3],
            lost: [0; 3],
            heard_answer: [None; 3],
            heard_pod: [None; 3],
            heard_alive: [0; 3],
            heard_named: None,
            heard_timeline: 0,
            faults_under_way: faults.len() as u64,
            queue: BTreeMap::new(),
            events: 0,
            recheck: None,
            ask: None,
            failure_reported: 0,
            dice: Dice::new(!conditions.seed),
        };
        let mut at = 0;
        for fault in faults {
            at += fault.after;
            world.push(at, Event::Begins(fault.kind, fault.lasts));
        }
        world.push(0, Event::Listing);
        if conditions.kubernetes {
            world.reopen_streams();
        }
        world.settle();
        world
    }

    pub(super) fn push(&mut self, at: Ms, event: Event) {
        // An event takes precedence over a deadline at the same instant, as in discovery's biased select.
        let last = matches!(event, Event::Recheck | Event::Ask);
        self.events += 1;
        let rank = if last { u64::MAX / 2 + self.events } else { self.events };
        self.queue.insert((at, rank), event);
    }

    /// Returns the time of the next event.
    pub(super) fn next(&self) -> Ms {
        self.queue.keys().next().map_or(self.now, |(at, _)| *at)
    }

    /// Performs one event and everything that follows from it at the same instant.
    pub(super) fn step(&mut self) {
        let Some(((now, _), event)) = self.queue.pop_first() else {
            return;
        };
        self.now = now;
        self.cluster.now = now;
        self.happen(event);
        self.settle();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Patroni(timer) => self.cluster.fire(timer),
            Event::Begins(kind, lasts) => self.begin(kind, lasts),
            Event::Ends(kind, order) => self.end(kind, order),
            Event::Watched(generation, object, claim, truth) => self.watched(generation, object, claim, truth),
            Event::Check(check) => self.check(check),
            Event::Checked(generation, claim, truth) => self.checked(generation, claim, truth),
            Event::Silent(generation) => self.silent(generation),
            Event::Retry(generation) => self.retry(generation),
            Event::Answered(request, report, truth) => self.answered(request, report, truth),
            Event::Named(request, asked, named) => self.named(request, asked, named),
            Event::LeaderFailure(who) => self.hear(Claim::LeaderFailure(NAMES[who].into())),
            Event::Listing => self.listing(),
            Event::Ask => self.ask = None,
            Event::Recheck => {
                self.recheck = None;
                self.observer.decide(self.now);
            }
        }
    }

    fn settle(&mut self) {
        for (at, timer) in std::mem::take(&mut self.cluster.timers) {
            self.push(at, Event::Patroni(timer));
        }
        for api_events in std::mem::take(&mut self.cluster.api_events) {
            if self.conditions.kubernetes {
                self.tell(api_events);
            }
        }
        self.ask_the_due();
        self.report_failure();
        let wanted = self
            .observer
            .decision
            .recheck_at
            .map(|at| self.observer.millis(at).max(self.now));
        if let Some(at) = wanted.filter(|at| self.recheck.is_none_or(|known| *at < known)) {
            self.recheck = Some(at);
            self.push(at, Event::Recheck);
        }
    }

    pub(super) fn hear(&mut self, claim: Claim) {
        self.observer.hear(claim, self.now);
    }

    pub(super) fn truth(&self, who: MemberIndex) -> TrueState {
        let newest = self.cluster.newest.member == who;
        TrueState {
            at: self.now,
            writable: (newest || self.cluster.went_back) && self.cluster.is_writable(who),
            timeline: self.cluster.members[who].timeline,
            version: self.cluster.lock.version,
            begun: self.cluster.lock.renew_time.map(|_| self.cluster.lock.begun),
        }
    }

    fn ask_the_due(&mut self) {
        let (due, next) = self.observer.ask_the_due(self.now);
        for request in due {
            self.ask(request);
        }
        if let Some(at) = next.filter(|at| self.ask.is_none_or(|known| *at < known)) {
            self.ask = Some(at);
            self.push(at, Event::Ask);
        }
    }

    /// Sends a request to a member. The answer is created immediately and arrives late. This is the worst case, because
    /// the evidence is as old as possible.
    fn ask(&mut self, request: Request) {
        let who = request.who;
        let takes = self.dice.between(0, self.conditions.rest_delay);
        let lost = self.conditions.losses > 0 && self.dice.one_in(self.conditions.losses);
        let refused = !self.cluster.members[who].alive && self.dice.one_in(2);
        let is_answered = self.cluster.answers(who) && !self.rest_cut[who] && !lost;
        let at = match is_answered {
            true => self.now + takes,
            false if refused => self.now + takes.min(5),
            false => self.now + DEADLINE,
        };
        if request.path == "/cluster" {
            let named = (is_answered && self.cluster.api_up).then(|| self.cluster.named_leader());
            return self.push(at, Event::Named(request, self.now, named));
        }
        let report = self.cluster.report(who).filter(|_| is_answered);
        self.push(at, Event::Answered(request, report, self.truth(who)));
    }

    fn named(&mut self, request: Request, asked: Ms, named: Option<Option<NamedLeader>>) {
        let counts = self.observer.answered(request, named.is_some(), self.now);
        if let Some(leader) = named.filter(|_| counts) {
            self.hear(Claim::NamedLeader {
                by: NAMES[request.who].into(),
                asked: self.observer.instant(asked),
                leader,
            });
        }
    }

    fn answered(&mut self, request: Request, report: Option<Report>, truth: TrueState) {
        if !self.observer.answered(request, report.is_some(), self.now) {
            return;
        }
        let who = request.who;
        let claim = match report {
            Some(report) => {
                self.heard_answer[who] = Some(truth);
                self.heard_alive[who] = self.now;
                if report.holds_lock && report.is_writable() {
                    self.heard_timeline = self.heard_timeline.max(truth.timeline);
                }
                Ok(report)
            }
            None => {
                self.lost[who] = self.now;
                Err(NoReport::Unreachable("no answer within 1 s".into()))
            }
        };
        let twice = self.dice.one_in(16);
        for _ in 0..=u8::from(twice) {
            self.hear(Claim::Report(NAMES[who].into(), claim.clone()));
        }
    }

    /// Reports a leader failure, as if the proxy dialled the leader and was refused.
    fn report_failure(&mut self) {
        let refused = |who: &MemberIndex| {
            !matches!(
                self.cluster.members[*who].postgres,
                Postgres::Primary | Postgres::Replica
            )
        };
        if let Some(who) = self.observer.open_to().filter(refused)
            && self.failure_reported + 300 <= self.now
        {
            self.failure_reported = self.now;
            let takes = self.dice.between(0, DEADLINE);
            self.push(self.now + takes, Event::LeaderFailure(who));
        }
    }

    /// Delivers the list of members: with Kubernetes once, from the pods; without Kubernetes repeatedly, from
    /// `/cluster`.
    fn listing(&mut self) {
        let answered = EVERYBODY.into_iter().any(|who| self.cluster.answers(who)) && self.cluster.api_up;
        let claim = match answered {
            true => Claim::Cluster(Listing {
                leader: self.cluster.lock.holder.map(|who| NAMES[who].into()),
                paused: self.cluster.paused,
                ttl: Some(Duration::from_millis(self.conditions.rules.ttl)),
                race_backoff: None,
                ..listing(&NAMES)
            }),
            false => Claim::ClusterUnreachable("no member answers".into()),
        };
        if answered {
            self.heard_named = self.cluster.lock.holder.map(|who| (who, self.now));
        }
        self.hear(claim);
        if !self.conditions.kubernetes {
            self.push(self.now + 10_000, Event::Listing);
        }
    }

    fn begin(&mut self, kind: Kind, lasts: Ms) {
        let leader = self.cluster.lock.holder.unwrap_or(self.cluster.newest.member);
        let others = EVERYBODY.map(|who| (leader + who) % 3);
        let until = self.now + lasts;
        let named = |target: Target| others[target.0];
        match kind {
            Kind::Kill(target) => self.cluster.kill(named(target)),
            Kind::Freeze(target) => {
                if self.cluster.members[named(target)].alive {
                    self.cluster.freeze(named(target));
                }
            }
            Kind::RestFreeze(target) => self.cluster.members[named(target)].rest_frozen = true,
            Kind::RestCut(target) => self.rest_cut[named(target)] = true,
            Kind::Crash => self.cluster.crash(leader, lasts.clamp(200, 4_000)),
            Kind::ApiDown(path_failure) => {
                self.cluster.api_up = false;
                self.path_breaks(path_failure);
            }
            Kind::CutOff(path_failure) => {
                self.watch.cut_off = true;
                self.path_breaks(path_failure);
            }
            Kind::Switchover(candidate, aborted) => self.cluster.plan(candidate.map(named), aborted),
            Kind::Pause => self.cluster.pause(true),
            Kind::ClockSet(target, by) => self.cluster.set_clock(named(target), by),
        }
        self.push(until, Event::Ends(kind, others));
    }

    /// Ends a fault. Overlapping faults of one kind end together, when the first of them ends.
    fn end(&mut self, kind: Kind, others: [MemberIndex; 3]) {
        let named = |target: Target| others[target.0];
        self.faults_under_way -= 1;
        match kind {
            Kind::Kill(target) if !self.cluster.members[named(target)].alive => self.cluster.revive(named(target)),
            Kind::Freeze(target) => self.cluster.thaw(named(target)),
            Kind::RestFreeze(target) => self.cluster.members[named(target)].rest_frozen = false,
            Kind::RestCut(target) => self.rest_cut[named(target)] = false,
            Kind::ApiDown(_) => {
                self.cluster.api_up = true;
                self.path_heals();
            }
            Kind::CutOff(_) => {
                self.watch.cut_off = false;
                self.path_heals();
            }
            Kind::Pause => self.cluster.pause(false),
            Kind::Kill(_) | Kind::Crash | Kind::Switchover(..) | Kind::ClockSet(..) => {}
        }
    }

    fn tell(&mut self, api_events: ApiEvent) {
        match api_events {
            ApiEvent::Lock => self.send_object_event(Object::Lock),
            ApiEvent::Announcement => self.send_object_event(Object::Announcement),
            ApiEvent::Settings => self.send_object_event(Object::Settings),
            ApiEvent::Pod(who) => self.send_object_event(Object::Pod(who)),
        }
    }
}
