//! A small model of a Patroni cluster in simulated milliseconds: the lock, three members, their HA loops and their
//! PostgreSQL.
//!
//! It follows ha.py and dcs/kubernetes.py of Patroni 4.1, simplified to what an observer can tell apart. Where
//! Patroni's timing varies, chance decides, and always within what Patroni may do: an observer that is safe here has
//! not relied on luck.

mod ha;

use super::dice::Dice;
use crate::leader::observation::{Report, Role};

pub(super) type Ms = u64;
/// A member, by its place.
pub(super) type Who = usize;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
const DAY: Ms = 24 * 3_600_000;
pub(super) const EVERYBODY: [Who; 3] = [0, 1, 2];

/// Patroni's dynamic configuration, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    pub(super) ttl: Ms,
    pub(super) loop_wait: Ms,
    pub(super) retry_timeout: Ms,
    pub(super) failsafe: bool,
}

/// The leader object. It has no time to live on the server.
pub(super) struct LockObject {
    pub(super) holder: Option<Who>,
    /// Bumped by every write: the resource version.
    pub(super) version: u64,
    /// When the two last writes were made, the newer first.
    pub(super) written: [Ms; 2],
    /// When the last write was begun, which is when its writer looked at its clock.
    pub(super) begun: Ms,
    /// What the clock said then, if that can be read: `renewTime`.
    pub(super) renew_time: Option<Ms>,
    /// Since when its holder holds it.
    pub(super) taken: Ms,
    /// Since when each member does not hold it.
    pub(super) let_go: [Ms; 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Postgres {
    Down,
    Starting,
    Replica,
    Promoting,
    Primary,
    /// Crash recovery in place, as a primary.
    Recovering,
    Stopping,
    Stopped,
}

pub(super) struct Member {
    pub(super) alive: bool,
    /// Patroni is stopped (SIGSTOP); PostgreSQL is not.
    pub(super) frozen: bool,
    /// The REST API hangs; the HA loop does not.
    pub(super) rest_frozen: bool,
    pub(super) postgres: Postgres,
    pub(super) timeline: u32,
    /// It believes that it leads until then: the last write of the lock + ttl (ha.py:294-308).
    leads_until: Ms,
    failsafe_until: Ms,
    /// The version of the lock that it saw last, and when that was new: expiry is judged from here
    /// (kubernetes.py:904-923).
    seen: (u64, Ms),
    /// It is about to give the lock up after a clean stop.
    releasing: bool,
    crashed: Ms,
    pub(super) pod: PodStatus,
    /// Patroni's timers of an older era are void: it was frozen or killed since.
    era: u64,
    loop_era: u64,
    postgres_era: u64,
}

/// The pod's annotation `status`, which outlives its writer.
#[derive(Clone, Copy)]
pub(super) struct PodStatus {
    pub(super) postgres: Postgres,
    pub(super) timeline: u32,
    pub(super) written: Ms,
}

/// A planned switchover.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) from: Who,
    pub(super) candidate: Option<Who>,
    pub(super) aborted: bool,
}

/// The newest promotion: whoever it made writable is the one place to write to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Promotion {
    pub(super) member: Who,
    pub(super) at: Ms,
    pub(super) timeline: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Loop(Who, u64),
    Expiry(Who, u64),
    Take(Who, u64, u64),
    Unannounce,
    GiveUp(Who, u64),
    Checkpointed(Who, u64),
    Stopped(Who, u64),
    Release(Who, u64),
    Started(Who, u64),
    Promoted(Who, u64),
    Recovered(Who, u64),
}

/// What watchers of the API are told.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    Lock,
    Announcement,
    Settings,
    Pod(Who),
}

pub(super) struct Cluster {
    pub(super) now: Ms,
    pub(super) rules: Rules,
    pub(super) api_up: bool,
    pub(super) paused: bool,
    pub(super) lock: LockObject,
    pub(super) planned: Option<Planned>,
    pub(super) members: [Member; 3],
    /// Each member's clock, which says some other time than ours.
    clocks: [Ms; 3],
    /// When it was last set.
    pub(super) clock_set: [Option<Ms>; 3],
    pub(super) newest: Promotion,
    /// A leader on an older timeline leads again, by Patroni's own doing: who can tell it from the newest?
    pub(super) went_back: bool,
    /// To be started by the world.
    pub(super) timers: Vec<(Ms, Timer)>,
    /// To be told by the world.
    pub(super) news: Vec<News>,
    dice: Dice,
}

/// Who holds the lock, in one member's eyes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Mine,
    Other,
    Nobody,
}

impl Cluster {
    /// `a` leads on timeline 1, the others follow.
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        let role = |who: Who| if who == 0 { Postgres::Primary } else { Postgres::Replica };
        let member = |who: Who| Member {
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
            era: 0,
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
                let_go: [0; 3],
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
            news: Vec::new(),
            dice,
        };
        for who in EVERYBODY {
            let phase = cluster.dice.between(1, rules.loop_wait);
            cluster.after(phase, Timer::Loop(who, 0));
        }
        cluster
    }

    /// PostgreSQL accepts writes.
    pub(super) fn is_writable(&self, who: Who) -> bool {
        self.members[who].postgres == Postgres::Primary
    }

    /// It has followed the newest promotion.
    fn is_up_to_date(&self, who: Who) -> bool {
        self.members[who].timeline == self.newest.timeline
    }

    /// Its Patroni believes that it leads.
    pub(super) fn believes(&self, who: Who) -> bool {
        self.now < self.members[who].leads_until
    }

    /// Its REST API answers.
    pub(super) fn answers(&self, who: Who) -> bool {
        let member = &self.members[who];
        member.alive && !member.frozen && !member.rest_frozen
    }

    /// The answer to `GET /primary`, made now; `None` while Patroni cannot query PostgreSQL.
    pub(super) fn report(&self, who: Who) -> Option<Report> {
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
            holds_lock: self.believes(who),
            role,
            state: state.into(),
            timeline: Some(member.timeline),
            system: Some("7".into()),
            scope: Some("pg".into()),
            names_member: true,
            paused: self.paused,
            failsafe_active: self.now < member.failsafe_until,
        })
    }

    pub(super) fn fire(&mut self, timer: Timer) {
        match timer {
            Timer::Loop(who, era) if era == self.members[who].loop_era => self.ha_loop(who),
            Timer::Expiry(who, era) if era == self.members[who].era => self.cycle(who),
            Timer::Take(who, era, version) if era == self.members[who].era => self.take(who, version),
            Timer::GiveUp(who, era) if era == self.members[who].era && !self.api_up && self.is_writable(who) => {
                self.stop(who)
            }
            Timer::Checkpointed(who, era) if era == self.members[who].era && self.is_writable(who) => {
                self.members[who].releasing = true;
                self.stop(who);
            }
            Timer::Release(who, era) if era == self.members[who].era => self.release(who),
            Timer::Unannounce => self.unannounce(),
            Timer::Stopped(who, era) if era == self.members[who].postgres_era => self.stopped(who),
            Timer::Started(who, era) if era == self.members[who].postgres_era => self.started(who),
            Timer::Promoted(who, era) if era == self.members[who].postgres_era => self.promoted(who),
            Timer::Recovered(who, era) if era == self.members[who].postgres_era => {
                self.members[who].postgres = Postgres::Primary;
            }
            _void => {}
        }
    }

    fn after(&mut self, wait: Ms, timer: Timer) {
        self.timers.push((self.now + wait, timer));
    }

    /// A timer of PostgreSQL's: it goes on while Patroni is frozen.
    fn postgres_after(&mut self, wait: Ms, who: Who, becomes: Postgres, timer: fn(Who, u64) -> Timer) {
        let member = &mut self.members[who];
        member.postgres = becomes;
        member.postgres_era += 1;
        let timer = timer(who, member.postgres_era);
        self.after(wait, timer);
    }

    pub(super) fn kill(&mut self, who: Who) {
        let member = &mut self.members[who];
        *member = Member {
            alive: false,
            frozen: false,
            postgres: Postgres::Down,
            leads_until: 0,
            failsafe_until: 0,
            releasing: false,
            era: member.era + 1,
            loop_era: member.loop_era + 1,
            postgres_era: member.postgres_era + 1,
            ..*member
        };
    }

    pub(super) fn revive(&mut self, who: Who) {
        self.members[who].alive = true;
        self.members[who].seen = (0, 0);
        self.wake(who, 3_000);
    }

    pub(super) fn freeze(&mut self, who: Who) {
        let member = &mut self.members[who];
        member.frozen = true;
        member.releasing = false;
        member.era += 1;
        member.loop_era += 1;
    }

    pub(super) fn thaw(&mut self, who: Who) {
        if self.members[who].frozen {
            self.members[who].frozen = false;
            // Its first cycle may wait for the API.
            self.wake(who, self.rules.retry_timeout);
        }
    }

    /// A backend was killed: PostgreSQL recovers in place.
    pub(super) fn crash(&mut self, who: Who, takes: Ms) {
        if self.is_writable(who) {
            self.members[who].crashed = self.now;
            self.postgres_after(takes, who, Postgres::Recovering, Timer::Recovered);
        }
    }

    pub(super) fn plan(&mut self, candidate: Option<Who>, aborted: bool) {
        let holder = self.lock.holder.filter(|holder| self.is_writable(*holder));
        if let (true, None, Some(from)) = (self.api_up, self.planned, holder) {
            self.planned = Some(Planned {
                from,
                candidate,
                aborted,
            });
            self.news.push(News::Announcement);
        }
    }

    pub(super) fn set_clock(&mut self, who: Who, by: i64) {
        self.clocks[who] = self.clocks[who].saturating_add_signed(by);
        self.clock_set[who] = Some(self.now);
    }

    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
        self.news.push(News::Settings);
    }
}
