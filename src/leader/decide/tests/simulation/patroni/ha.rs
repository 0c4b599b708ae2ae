//! Patroni's HA loop and its effects: renewals of, races for, and releases of the lock; promotions, stops and starts of
//! PostgreSQL.

use super::{ApiEvent, Cluster, EVERYBODY, LockHolder, MemberIndex, Ms, PodStatus, Postgres, Promotion, Timer};

impl Cluster {
    pub(super) fn wake(&mut self, who: MemberIndex, latest: Ms) {
        if self.members[who].alive && !self.members[who].frozen {
            let wait = self.dice.between(0, latest);
            self.members[who].loop_era += 1;
            let timer = Timer::Loop(who, self.members[who].loop_era);
            self.after(wait, timer);
        }
    }

    pub(super) fn ha_loop(&mut self, who: MemberIndex) {
        let timer = Timer::Loop(who, self.members[who].loop_era);
        self.after(self.rules.loop_wait, timer);
        self.cycle(who);
    }

    pub(super) fn cycle(&mut self, who: MemberIndex) {
        if !self.api_up {
            return self.without_api(who);
        }
        let held = self.observe(who);
        if held != LockHolder::Mine && self.members[who].postgres != Postgres::Stopping {
            self.members[who].leads_until = 0;
        }
        match (self.members[who].postgres, held) {
            (Postgres::Primary, LockHolder::Mine) => {
                self.renew(who);
                self.begin_switchover(who);
            }
            (Postgres::Primary | Postgres::Recovering, LockHolder::Other) if !self.paused => self.stop(who),
            // The member is not the healthiest: another member was promoted while this one was cut off.
            (Postgres::Primary, LockHolder::Nobody) if !self.paused && self.newest.member != who => self.stop(who),
            (Postgres::Primary | Postgres::Replica, LockHolder::Nobody) => self.race(who),
            (Postgres::Replica, LockHolder::Mine) => {
                self.renew(who);
                self.promote(who);
            }
            (Postgres::Replica, LockHolder::Other) if self.is_writable(self.newest.member) => {
                self.members[who].timeline = self.newest.timeline;
            }
            (Postgres::Stopped, _) if !self.members[who].releasing => self.start(who),
            (Postgres::Down, _) => self.start(who),
            (_, LockHolder::Mine) => self.renew(who),
            _wait => {}
        }
        self.write_pod(who);
    }

    /// Reads the lock. Patroni notices a write in its next cycle at the latest. In the model it may also notice
    /// immediately, which is the worst case for a slower observer.
    pub(super) fn observe(&mut self, who: MemberIndex) -> LockHolder {
        if self.members[who].seen.0 != self.lock.version {
            let at_once = self.dice.one_in(2);
            let seen = if at_once { self.lock.written[0] } else { self.now };
            self.members[who].seen = (self.lock.version, seen);
            let expiry = seen + self.rules.ttl;
            if self.lock.holder != Some(who) && self.now < expiry && self.dice.one_in(3) {
                let timer = Timer::Expiry(who, self.members[who].incarnation);
                self.after(expiry - self.now, timer);
            }
        }
        let member = &self.members[who];
        let expired = member.seen.1 + self.rules.ttl <= self.now;
        match self.lock.holder {
            Some(holder) if !expired && holder == who => LockHolder::Mine,
            Some(_) if !expired => LockHolder::Other,
            // Patroni treats the leader that sent POST /failsafe as the lock's holder (ha.py:340).
            _ if self.now < member.failsafe_until && !self.is_writable(who) => LockHolder::Other,
            _ => LockHolder::Nobody,
        }
    }

    pub(super) fn without_api(&mut self, who: MemberIndex) {
        if self.paused || !self.is_writable(who) {
            return;
        }
        let vouches = |other: MemberIndex| self.answers(other) && (other == who || !self.is_writable(other));
        if self.rules.failsafe && EVERYBODY.into_iter().all(vouches) {
            // Patroni does not compare timelines here. A leader that resumes during an outage, after another member was
            // promoted and demoted again, therefore leads again.
            self.went_back |= !self.is_up_to_date(who);
            let until = self.now + self.rules.ttl;
            self.members[who].leads_until = until;
            for member in &mut self.members {
                member.failsafe_until = until;
            }
        } else {
            let patience = self.dice.between(0, self.rules.retry_timeout);
            let timer = Timer::GiveUp(who, self.members[who].incarnation);
            self.after(patience, timer);
        }
    }

    pub(super) fn write_lock(&mut self, holder: Option<MemberIndex>) {
        let moved = self.lock.holder != holder;
        if let Some(former) = self.lock.holder.filter(|_| moved) {
            self.lock.not_held_since[former] = self.now;
        }
        if moved {
            self.lock.taken = self.now;
        }
        // A write takes some time, and longer if Patroni has to retry. Its `renewTime` is the time of the first
        // attempt.
        let takes = if self.dice.one_in(16) { 2_000 } else { 30 };
        let begun = self.now.saturating_sub(self.dice.between(0, takes));
        self.lock.begun = begun.max(self.lock.written[0]);
        let legible = !self.dice.one_in(32);
        let clock = self.clocks[holder.or(self.lock.holder).unwrap_or_default()];
        self.lock.renew_time = legible.then_some(clock + self.lock.begun);
        self.lock.holder = holder;
        self.lock.version += 1;
        self.lock.written = [self.now, self.lock.written[0]];
        self.api_events.push(ApiEvent::Lock);
        if let Some(who) = holder {
            self.members[who].leads_until = self.now + self.rules.ttl;
            self.members[who].failsafe_until = 0;
            self.members[who].seen = (self.lock.version, self.now);
        }
        if moved {
            for other in EVERYBODY.into_iter().filter(|other| Some(*other) != holder) {
                self.wake(other, 200);
            }
        }
    }

    pub(super) fn renew(&mut self, who: MemberIndex) {
        self.write_lock(Some(who));
    }

    /// Races for a lock that has no holder or has expired. The healthiest member asks its peers and then writes its
    /// name, unless another member was faster.
    pub(super) fn race(&mut self, who: MemberIndex) {
        let fit = |other: MemberIndex| other != who && self.answers(other) && self.is_up_to_date(other);
        let barred = match (self.members[who].postgres, self.planned) {
            (Postgres::Primary, _) => false,
            (_, None) => self.paused,
            (_, Some(planned)) => match planned.candidate {
                Some(candidate) => fit(candidate),
                None => planned.from == who && EVERYBODY.into_iter().any(fit),
            },
        };
        if barred || !self.is_up_to_date(who) {
            return;
        }
        let wait = self
            .dice
            .between(20, if self.lock.holder.is_none() { 200 } else { 1500 });
        // Each member waits for the former leader's answer (`fetch_node_status`, timeout 2 s).
        let hangs = |holder: MemberIndex| self.members[holder].alive && !self.answers(holder);
        let wait = wait + if self.lock.holder.is_some_and(hangs) { 2_000 } else { 0 };
        let timer = Timer::Take(who, self.members[who].incarnation, self.lock.version);
        self.after(wait, timer);
    }

    pub(super) fn take(&mut self, who: MemberIndex, version: u64) {
        let fit = matches!(self.members[who].postgres, Postgres::Primary | Postgres::Replica);
        if !self.api_up {
            return self.without_api(who);
        }
        if self.lock.version != version || !fit {
            return;
        }
        self.write_lock(Some(who));
        if self.planned.is_some() {
            let wait = self.dice.between(20, 150);
            self.after(wait, Timer::Unannounce);
        }
        if self.members[who].postgres == Postgres::Replica {
            self.promote(who);
        }
    }

    pub(super) fn promote(&mut self, who: MemberIndex) {
        let takes = self.dice.between(20, 2_000);
        self.postgres_after(takes, who, Postgres::Promoting, Timer::Promoted);
    }

    pub(super) fn promoted(&mut self, who: MemberIndex) {
        self.newest = Promotion {
            member: who,
            at: self.now,
            timeline: self.newest.timeline + 1,
        };
        self.members[who].postgres = Postgres::Primary;
        self.members[who].timeline = self.newest.timeline;
        self.members[who].failsafe_until = 0;
        self.wake(who, 1_000);
    }

    pub(super) fn begin_switchover(&mut self, who: MemberIndex) {
        let Some(planned) = self.planned else { return };
        let fit = |other: MemberIndex| self.answers(other) && self.is_up_to_date(other);
        let replicas = || EVERYBODY.into_iter().filter(|other| *other != who);
        let possible = planned.candidate.map_or(replicas().any(fit), fit) && planned.candidate != Some(who);
        if planned.from != who || planned.aborted || !possible {
            return self.unannounce();
        }
        let checkpoint = self.dice.between(0, 1_500);
        let timer = Timer::Checkpointed(who, self.members[who].incarnation);
        self.after(checkpoint, timer);
    }

    pub(super) fn unannounce(&mut self) {
        if self.api_up && self.planned.take().is_some() {
            self.api_events.push(ApiEvent::Announcement);
        }
    }

    pub(super) fn stop(&mut self, who: MemberIndex) {
        let takes = self.dice.between(30, 1_500);
        self.postgres_after(takes, who, Postgres::Stopping, Timer::Stopped);
    }

    pub(super) fn stopped(&mut self, who: MemberIndex) {
        self.members[who].postgres = Postgres::Stopped;
        if self.members[who].releasing {
            let timer = Timer::Release(who, self.members[who].incarnation);
            return self.after(1_000, timer);
        }
        self.members[who].leads_until = 0;
        if !self.members[who].frozen {
            self.start(who);
        }
    }

    pub(super) fn release(&mut self, who: MemberIndex) {
        self.members[who].releasing = false;
        self.members[who].leads_until = 0;
        if self.api_up && self.lock.holder == Some(who) {
            self.write_lock(None);
        }
        self.start(who);
    }

    pub(super) fn start(&mut self, who: MemberIndex) {
        let takes = self.dice.between(300, 3_000);
        self.postgres_after(takes, who, Postgres::Starting, Timer::Started);
    }

    pub(super) fn started(&mut self, who: MemberIndex) {
        self.members[who].postgres = Postgres::Replica;
        if self.is_writable(self.newest.member) {
            self.members[who].timeline = self.newest.timeline;
        }
    }

    /// Writes the pod's annotation `status` at the end of a cycle.
    pub(super) fn write_pod(&mut self, who: MemberIndex) {
        let member = &mut self.members[who];
        if (member.pod.postgres, member.pod.timeline) != (member.postgres, member.timeline) {
            member.pod = PodStatus {
                postgres: member.postgres,
                timeline: member.timeline,
                written: self.now,
            };
            self.api_events.push(ApiEvent::Pod(who));
        }
    }
}
