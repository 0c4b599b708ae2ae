//! A small model of a Patroni cluster in simulated milliseconds: the lock, three members, their HA loops and their
//! PostgreSQL.
//!
//! The model follows ha.py and dcs/kubernetes.py of Patroni 4.1, reduced to what an observer can see. Where Patroni's
//! timing varies, the model chooses a random time within Patroni's bounds, so that safety here does not depend on luck.

mod ha;

use super::dice::Dice;
use crate::leader::observation::{NamedLeader, Replication, Report, Role};

pub(super) type Ms = u64;
/// The index of a member.
pub(super) type MemberIndex = usize;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
const DAY: Ms = 24 * 3_600_000;
pub(super) const EVERYBODY: [MemberIndex; 3] = [0, 1, 2];

/// Patroni's dynamic configuration, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) ttl: Ms,
    pub(super) loop_wait: Ms,
    pub(super) retry_timeout: Ms,
    pub(super) failsafe: bool,
}

/// The leader object. The API server does not delete it when the ttl is over.
pub(super) struct LockObject {
    pub(super) holder: Option<MemberIndex>,
    /// The resource version. Every write increments it.
    pub(super) version: u64,
    /// Times of the last two writes, newest first.
    pub(super) written: [Ms; 2],
    /// Start of the last write, when the writer read its clock.
    pub(super) begun: Ms,
    /// The writer's clock at `begun`, if `renewTime` can be parsed.
    pub(super) renew_time: Option<Ms>,
    /// Time since which the holder has held the lock.
    pub(super) taken: Ms,
    /// Time since which each member has not held the lock.
    pub(super) not_held_since: [Ms; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Postgres {
    Down,
    Starting,
    Replica,
    Promoting,
    Primary,
    /// Crash recovery as a primary.
    Recovering,
    Stopping,
    Stopped,
}

pub(super) struct Member {
    pub(super) alive: bool,
    /// True if Patroni is stopped (SIGSTOP), while PostgreSQL runs.
    pub(super) frozen: bool,
    /// True if the REST API hangs, while the HA loop runs.
    pub(super) rest_frozen: bool,
    pub(super) postgres: Postgres,
    pub(super) timeline: u32,
    /// End of the time for which the member believes that it leads: last write of the lock + ttl (ha.py:294-308).
    leads_until: Ms,
    failsafe_until: Ms,
    /// The version of the lock that the member saw last, and the time at which it first saw that version. Patroni
    /// counts the ttl from this time (kubernetes.py:904-923).
    seen: (u64, Ms),
    /// True if the member will release the lock after a clean stop.
    releasing: bool,
    crashed: Ms,
    pub(super) pod: PodStatus,
    /// Number of times that Patroni was frozen or killed. Earlier timers are void.
    incarnation: u64,
    loop_era: u64,
    postgres_era: u64,
}

/// The pod's annotation `status`. It remains when the member is gone.
#[derive(Clone, Copy)]
pub(super) struct PodStatus {
    pub(super) postgres: Postgres,
    pub(super) timeline: u32,
    pub(super) written: Ms,
}

/// A planned switchover.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) from: MemberIndex,
    pub(super) candidate: Option<MemberIndex>,
    pub(super) aborted: bool,
}

/// The newest promotion. Only the promoted member may get writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promotion {
    pub(super) member: MemberIndex,
    pub(super) at: Ms,
    pub(super) timeline: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Loop(MemberIndex, u64),
    Expiry(MemberIndex, u64),
    Take(MemberIndex, u64, u64),
    Unannounce,
    GiveUp(MemberIndex, u64),
    Checkpointed(MemberIndex, u64),
    Stopped(MemberIndex, u64),
    Release(MemberIndex, u64),
    Started(MemberIndex, u64),
    Promoted(MemberIndex, u64),
    Recovered(MemberIndex, u64),
}

/// An event for the watchers of the API.
#[derive(Clone, Copy, Debug)]
pub(super) enum ApiEvent {
    Lock,
    Announcement,
    Settings,
    Pod(MemberIndex),
}

pub(super) struct Cluster {
    pub(super) now: Ms,
    pub(super) rules: Rules,
    pub(super) api_up: bool,
    pub(super) paused: bool,
    pub(super) lock: LockObject,
    pub(super) planned: Option<Planned>,
    pub(super) members: [Member; 3],
    /// The difference between each member's clock and the observer's.
    clocks: [Ms; 3],
    /// Time at which each clock was last set.
    pub(super) clock_set: [Option<Ms>; 3],
    pub(super) newest: Promotion,
    /// True if Patroni itself let a leader on an older timeline lead again. No observer can distinguish that leader
    /// from the newest one.
    pub(super) went_back: bool,
    /// Timers that the world has to start.
    pub(super) timers: Vec<(Ms, Timer)>,
    /// Events that the world has to deliver.
    pub(super) api_events: Vec<ApiEvent>,
    dice: Dice,
}

/// The holder of the lock, from one member's point of view.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LockHolder {
    Mine,
    Other,
    Nobody,
}

impl Cluster {
    /// Returns a cluster in which `a` leads on timeline 1 and the other members follow it.
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        let role = |who: MemberIndex| if who == 0 { Postgres::Primary } else { Postgres::Replica };
        let member = |who: MemberIndex| Member {
            alive: true,
            frozen: false,
            rest_frozen: false,
            postgres: role(who),
            timeline: 1,
            leads_until: if who == 0 { rules.ttl } else { 0 },
            failsafe_until: 0,
            seen: (1, 0),
            releasing: false,
            crashed: 0,
            pod: PodStatus {
                postgres: role(who),
                timeline: 1,
                written: 0,
            },
            incarnation: 0,
            loop_era: 0,
            postgres_era: 0,
        };
        let mut dice = Dice::new(seed);
        let clocks = EVERYBODY.map(|_| dice.between(DAY, DAY + 10_000));
        let mut cluster = Self {
            now: 0,
            rules,
            api_up: true,
            paused: false,
            lock: LockObject {
                holder: Some(0),
                version: 1,
                written: [0, 0],
                begun: 0,
                renew_time: Some(clocks[0]),
                taken: 0,
                not_held_since: [0; 3],
            },
            planned: None,
            members: EVERYBODY.map(member),
            clocks,
            clock_set: [None; 3],
            newest: Promotion {
                member: 0,
                at: 0,
                timeline: 1,
            },
            went_back: false,
            timers: Vec::new(),
            api_events: Vec::new(),
            dice,
        };
        for who in EVERYBODY {
            let phase = cluster.dice.between(1, rules.loop_wait);
            cluster.after(phase, Timer::Loop(who, 0));
        }
        cluster
    }

    /// Returns true if the member's PostgreSQL accepts writes.
    pub(super) fn is_writable(&self, who: MemberIndex) -> bool {
        self.members[who].postgres == Postgres::Primary
    }

    /// Returns true if the member has followed the newest promotion.
    fn is_up_to_date(&self, who: MemberIndex) -> bool {
        self.members[who].timeline == self.newest.timeline
    }

    /// Returns true if the member's Patroni believes that it leads.
    pub(super) fn believes_it_leads(&self, who: MemberIndex) -> bool {
        self.now < self.members[who].leads_until
    }

    /// Returns true if the member's REST API answers.
    pub(super) fn answers(&self, who: MemberIndex) -> bool {
        let member = &self.members[who];
        member.alive && !member.frozen && !member.rest_frozen
    }

    /// Returns the member's present answer to `GET /primary`; `None` while Patroni cannot query PostgreSQL.
    pub(super) fn report(&self, who: MemberIndex) -> Option<Report> {
        let member = &self.members[who];
        if member.postgres == Postgres::Recovering && self.now < member.crashed + 300 {
            return None;
        }
        let (role, state) = match member.postgres {
            Postgres::Primary => (Role::Primary, "running"),
            Postgres::Recovering => (Role::Primary, "starting"),
            Postgres::Stopping => (Role::Primary, "stopping"),
            Postgres::Replica | Postgres::Promoting => (Role::Other, "running"),
            Postgres::Starting => (Role::Other, "starting"),
            Postgres::Stopped | Postgres::Down => (Role::Other, "stopped"),
        };
        Some(Report {
            holds_lock: self.believes_it_leads(who),
            role,
            state: state.into(),
            timeline: Some(member.timeline),
            system: Some("7".into()),
            scope: Some("pg".into()),
            names_member: true,
            paused: self.paused,
            failsafe_active: self.now < member.failsafe_until,
            replication: Replication::default(),
        })
    }

    /// Returns the leader that a member reads from the DCS, where the leader's key expires a ttl after its last write.
    /// The leader's row in `/cluster` is the status that it wrote at the end of its last loop.
    pub(super) fn named_leader(&self) -> Option<NamedLeader> {
        let holder = self
            .lock
            .holder
            .filter(|_| self.now < self.lock.written[0] + self.rules.ttl)?;
        let pod = &self.members[holder].pod;
        let is_running = matches!(
            pod.postgres,
            Postgres::Primary | Postgres::Replica | Postgres::Promoting
        );
        Some(NamedLeader {
            member: NAMES[holder].into(),
            running_on: is_running.then_some(pod.timeline),
        })
    }

    pub(super) fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Loop(who, incarnation) if incarnation == self.members[who].loop_era => self.ha_loop(who),
            Timer::Expiry(who, incarnation) if incarnation == self.members[who].incarnation => self.cycle(who),
            Timer::Take(who, incarnation, version) if incarnation == self.members[who].incarnation => {
                self.take(who, version)
            }
            Timer::GiveUp(who, incarnation)
                if incarnation == self.members[who].incarnation && !self.api_up && self.is_writable(who) =>
            {
                self.stop(who)
            }
            Timer::Checkpointed(who, incarnation)
                if incarnation == self.members[who].incarnation && self.is_writable(who) =>
            {
                self.members[who].releasing = true;
                self.stop(who);
            }
            Timer::Release(who, incarnation) if incarnation == self.members[who].incarnation => self.release(who),
            Timer::Unannounce => self.unannounce(),
            Timer::Stopped(who, incarnation) if incarnation == self.members[who].postgres_era => self.stopped(who),
            Timer::Started(who, incarnation) if incarnation == self.members[who].postgres_era => self.started(who),
            Timer::Promoted(who, incarnation) if incarnation == self.members[who].postgres_era => self.promoted(who),
            Timer::Recovered(who, incarnation) if incarnation == self.members[who].postgres_era => {
                self.members[who].postgres = Postgres::Primary;
            }
            _void => {}
        }
    }

    fn after(&mut self, wait: Ms, timer: Timer) {
        self.timers.push((self.now + wait, timer));
    }

    /// Starts a timer of PostgreSQL, which continues while Patroni is frozen.
    fn postgres_after(&mut self, wait: Ms, who: MemberIndex, becomes: Postgres, timer: fn(MemberIndex, u64) -> Timer) {
        let member = &mut self.members[who];
        member.postgres = becomes;
        member.postgres_era += 1;
        let timer = timer(who, member.postgres_era);
        self.after(wait, timer);
    }

    pub(super) fn kill(&mut self, who: MemberIndex) {
        let member = &mut self.members[who];
        *member = Member {
            alive: false,
            frozen: false,
            postgres: Postgres::Down,
            leads_until: 0,
            failsafe_until: 0,
            releasing: false,
            incarnation: member.incarnation + 1,
            loop_era: member.loop_era + 1,
            postgres_era: member.postgres_era + 1,
            ..*member
        };
    }

    pub(super) fn revive(&mut self, who: MemberIndex) {
        self.members[who].alive = true;
        self.members[who].seen = (0, 0);
        self.wake(who, 3_000);
    }

    pub(super) fn freeze(&mut self, who: MemberIndex) {
        let member = &mut self.members[who];
        member.frozen = true;
        member.releasing = false;
        member.incarnation += 1;
        member.loop_era += 1;
    }

    pub(super) fn thaw(&mut self, who: MemberIndex) {
        if self.members[who].frozen {
            self.members[who].frozen = false;
            // The first cycle may wait for the API.
            self.wake(who, self.rules.retry_timeout);
        }
    }

    /// Kills a backend: PostgreSQL restarts with crash recovery.
    pub(super) fn crash(&mut self, who: MemberIndex, takes: Ms) {
        if self.is_writable(who) {
            self.members[who].crashed = self.now;
            self.postgres_after(takes, who, Postgres::Recovering, Timer::Recovered);
        }
    }

    pub(super) fn plan(&mut self, candidate: Option<MemberIndex>, aborted: bool) {
        let holder = self.lock.holder.filter(|holder| self.is_writable(*holder));
        if let (true, None, Some(from)) = (self.api_up, self.planned, holder) {
            self.planned = Some(Planned {
                from,
                candidate,
                aborted,
            });
            self.api_events.push(ApiEvent::Announcement);
        }
    }

    pub(super) fn set_clock(&mut self, who: MemberIndex, by: i64) {
        self.clocks[who] = self.clocks[who].saturating_add_signed(by);
        self.clock_set[who] = Some(self.now);
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.api_events.push(ApiEvent::Settings);
    }
}
