//! The properties that hold at every instant of a run, checked against the true state of the model and against the
//! observations that reached pgnorth.
//!
//! `W` is the longest delay of a watch event, `D` the deadline of a request (1 s), and `A` a member whose sessions are
//! kept.
//!
//! 1. *No session to a former leader.* `A`'s sessions end at the first of these times:
//!    - **watch**: `W` after another member acquired the lock, `A` released it, or the watch worked again after that. A
//!      promotion follows the lock, so the other member is not writable yet, unless its promotion takes less than `W`.
//!    - **reports** (REST only, or the API is known to be unreachable): 1.3 s (the round of probes) + `D` after the new
//!      primary became writable, or could be reached again.
//!    - **lease**, if another member is writable: a ttl after the last evidence of `A` (a write of the lock, or any
//!      answer) reached pgnorth. A past outage of the API is not counted. In pause, when Patroni promotes no member
//!      automatically, `A`'s sessions are kept until pgnorth observes another leader (rules 6 and 21). After the pause,
//!      they are kept for as long as its end may remain unnoticed: 13 s; or, with a dead stream, ttl / 2 + `D` + `W`
//!      after `A` lost the lock, or ttl + 2 (`D` + `W`) after the end of the pause. If `A`'s PostgreSQL has stopped,
//!      the bound is at least 2 s after `A` lost the lock, the time for which an answer to `/cluster` that names `A`
//!      counts. No other member is promoted sooner while `A`'s Patroni hangs and its PostgreSQL runs.
//!    - **lock**, while pgnorth believes the watch, without pause and failsafe mode: a ttl after the start of `A`'s
//!      last renewal that reached pgnorth, plus the delay of the fastest of the last renewals (the clocks hide that
//!      delay), or a second less than the delay of this renewal. An outage of the API is not counted.
//! 2. *No cut without cause.* `A`'s sessions are kept while `A` holds the lock and a renewal that began less than a ttl
//!    ago has certainly arrived, or pgnorth knows of a pause. If a clock was set, or a write took longer than a second,
//!    the renewal must have begun less than ttl - 1 s ago. If reports decide, the sessions are kept while `A` reports
//!    every second that it leads.
//! 3. *No flapping.* A decision on unchanged facts before `recheck_at` is the same, and `recheck_at` is never now.
//! 4. *Evidence.* A member gets its first new clients because of an answer or a pod's status from a time at which it
//!    was the writable primary of the newest timeline (or of an older one, if Patroni itself went back to it and
//!    pgnorth observed no leader on a newer one). It gets no new clients from 2 s (the steady interval) + `D` after it
//!    stopped being writable, if its REST API can be reached. A leader that every other member names again gets clients
//!    only while no other member was promoted after it. Not checked: a primary without the lock in pause, while pgnorth
//!    knows of no holder.
//! 5. *Liveness.* If one writable member holds the lock and all faults are over, clients go to it within [`patience`].
//!
//! `simulation.rs` has three more properties with their tests: 6, a fault of the REST API alone changes nothing; 7, an
//! outage of the API in failsafe mode ends no session; 8, an unresponsive leader that the others name again gets its
//! clients back.

use proptest::prelude::*;

use super::super::{Decision, Reason, RoutingState};
use super::patroni::{EVERYBODY, MemberIndex, Ms, NAMES};
use super::watch::{CLOCK_FAULTS, RETRY};
use super::world::{Conditions, DEADLINE, World};
use crate::leader::Server;

/// Longest interval of a round of probes. It cannot be a second, because 200 pgnorths would then ask each member 200
/// times per second, and for `/cluster` as well.
const ROUND: Ms = 1_300;
const STEADY: Ms = 2_000;
/// Longest time for which an answer to `/cluster` counts, from its request on.
const NAMING_AGE: Ms = 2_000;
const SWITCHOVER_HOLD: Ms = 10_000;
/// Longest time for which pgnorth may not notice the end of a pause, if no watch reports it: `/cluster` is requested
/// every 10 s, and an answer counts for 3 s.
const PAUSE_IS_TOLD: Ms = 13_000;
/// Time within which the model must reach a quiet state.
const LONG: Ms = 600_000;

type Checked = Result<(), TestCaseError>;

/// The time since which each condition has held.
#[derive(Default)]
pub(super) struct Checker {
    leader: Option<MemberIndex>,
    open_to: Option<MemberIndex>,
    /// Time since which pgnorth can reach the member's REST API.
    heard: [Option<Ms>; 3],
    /// Time since which the member has been the writable primary of the newest timeline and has believed that it leads.
    leading: [Option<Ms>; 3],
    /// Time since which the member's PostgreSQL has accepted no writes.
    unwritable: [Option<Ms>; 3],
    paused: Option<Ms>,
    unpaused: Option<Ms>,
    calm: Option<Ms>,
    turn: u64,
}

/// Returns the longest time that may pass between the last fault and routing to the leader. In this time, pgnorth
/// notices a dead stream, asks the API again, reads the lock and waits for the end of an announced switchover that did
/// not happen. One or two answers may be lost.
pub(super) fn patience(conditions: &Conditions) -> Ms {
    conditions.rules.ttl / 2 + DEADLINE + RETRY + 2 * conditions.watch_delay + SWITCHOVER_HOLD + ROUND + 5 * DEADLINE
}

/// Runs a world until all faults are over and pgnorth has had time to react. `also` must hold after each step.
pub(super) fn run(mut world: World, also: impl Fn(&World) -> Checked) -> Checked {
    let mut checker = Checker::default();
    checker.look(&world);
    loop {
        // Check the state until the next instant, then the effects of that instant.
        checker.check_bounds(&world, world.next())?;
        world.step();
        checker.check_changes(&world)?;
        checker.look(&world);
        checker.check_unchanged_facts(&world)?;
        also(&world)?;
        match checker.calm {
            Some(since) if since + patience(&world.conditions) < world.now => {
                prop_assert_eq!(
                    world.observer.open_to(),
                    Some(world.cluster.newest.member),
                    "5, liveness: {}",
                    state_of(&world)
                );
                return Ok(());
            }
            _ => prop_assert!(world.now < LONG, "the model never comes to rest: {}", state_of(&world)),
        }
    }
}

impl Checker {
    fn look(&mut self, world: &World) {
        let (now, cluster) = (world.now, &world.cluster);
        self.leader = world.observer.leader();
        self.open_to = world.observer.open_to();
        let newest = cluster.newest.member;
        for who in EVERYBODY {
            let leads = who == newest && cluster.is_writable(who) && cluster.believes_it_leads(who);
            since(&mut self.heard[who], cluster.answers(who) && !world.rest_cut[who], now);
            since(&mut self.leading[who], leads, now);
            since(&mut self.unwritable[who], !cluster.is_writable(who), now);
        }
        since(&mut self.paused, cluster.paused, now);
        since(&mut self.unpaused, !cluster.paused, now);
        let healthy = EVERYBODY.into_iter().all(|who| cluster.answers(who)) && self.leading[newest].is_some();
        let quiet = world.faults_under_way == 0 && cluster.planned.is_none() && !cluster.paused;
        since(
            &mut self.calm,
            healthy && quiet && cluster.lock.holder == Some(newest),
            now,
        );
    }

    /// Returns the time since which every answer of the member has reached pgnorth.
    fn heard_since(&self, world: &World, who: MemberIndex) -> Option<Ms> {
        self.heard[who].map(|since| since.max(world.lost[who]))
    }

    /// Returns the time since which pgnorth has known that only reports can decide.
    fn by_reports_since(&self, world: &World) -> Option<Ms> {
        if world.conditions.kubernetes {
            world.watch.silent_since
        } else {
            Some(0)
        }
    }

    fn check_bounds(&self, world: &World, until: Ms) -> Checked {
        if let Some(leader) = self.leader {
            self.check_watch_bound(world, leader, until)?;
            check_lock_bound(world, leader, until)?;
            if leader != world.cluster.newest.member {
                self.check_report_bound(world, until)?;
                self.check_lock_expiry_bound(world, leader, until)?;
            }
        }
        if let Some(leader) = self.open_to
            && let (Some(unwritable), Some(heard)) = (self.unwritable[leader], self.heard_since(world, leader))
        {
            let end = unwritable.max(heard) + STEADY + DEADLINE;
            prop_assert!(until <= end, "4, evidence: clients still go to {}", state_of(world));
        }
        Ok(())
    }

    fn check_watch_bound(&self, world: &World, leader: MemberIndex, until: Ms) -> Checked {
        let lock = &world.cluster.lock;
        // In pause, a released lock does not end sessions (rule 2); only a new holder does.
        let paused = world.observer.view.is_paused();
        if let Some(good) = world.watch.good_since
            && lock.holder != Some(leader)
            && (lock.holder.is_some() || !paused)
        {
            let gone = if paused {
                lock.taken
            } else {
                lock.not_held_since[leader]
            };
            let end = good.max(gone) + world.conditions.watch_delay;
            prop_assert!(until <= end, "1, watch: {}", state_of(world));
        }
        Ok(())
    }

    fn check_report_bound(&self, world: &World, until: Ms) -> Checked {
        let newest = world.cluster.newest.member;
        if let (Some(by_reports), Some(heard), Some(leading)) = (
            self.by_reports_since(world),
            self.heard_since(world, newest),
            self.leading[newest],
        ) {
            let end = by_reports.max(heard).max(leading) + ROUND + DEADLINE;
            prop_assert!(until <= end, "1, reports: {}", state_of(world));
        }
        Ok(())
    }

    fn check_lock_expiry_bound(&self, world: &World, leader: MemberIndex, until: Ms) -> Checked {
        let lock_expiry = world.heard_alive[leader] + world.conditions.rules.ttl + world.watch.silence[leader];
        // pgnorth notices a dead stream when the check of the lock shows that the lock has moved, or that no member
        // renews it.
        let checked = world.cluster.lock.not_held_since[leader]
            + world.conditions.rules.ttl / 2
            + DEADLINE
            + world.conditions.watch_delay;
        let stopped = !world.cluster.is_writable(leader);
        let named_until = world.cluster.lock.not_held_since[leader] + NAMING_AGE;
        let lock_expiry = lock_expiry.max(if stopped { named_until } else { 0 });
        let anew = |over: Ms| over + world.conditions.rules.ttl + 2 * DEADLINE + 2 * world.conditions.watch_delay;
        let end = match (world.observer.view.is_paused(), self.unpaused) {
            // Patroni is still paused: sessions stay until pgnorth observes another leader (rules 6 and 21).
            (true, None) => match world
                .heard_named
                .filter(|(named, _)| !world.conditions.kubernetes && *named != leader)
            {
                Some((_, at)) if world.heard_alive[leader] < at => lock_expiry.max(at),
                _ => return Ok(()),
            },
            (true, Some(over)) => lock_expiry.max(checked.min(anew(over))).max(over + PAUSE_IS_TOLD),
            (false, _) => lock_expiry,
        };
        prop_assert!(
            until <= end.max(world.cluster.newest.at),
            "1, lease: {}",
            state_of(world)
        );
        Ok(())
    }

    fn check_changes(&self, world: &World) -> Checked {
        let leader = world.observer.leader();
        for session in &world.observer.sessions {
            let place = leader.map(|who| NAMES[who]);
            prop_assert_eq!(Some(session.server.member.as_str()), place, "1: two leaders at once");
        }
        if let Some(former) = self.leader.filter(|former| leader != Some(*former)) {
            self.check_cut(world, former)?;
        }
        match world.observer.open_to() {
            Some(new) if self.open_to != Some(new) => check_evidence(world, new),
            _ => Ok(()),
        }
    }

    fn check_cut(&self, world: &World, former: MemberIndex) -> Checked {
        let (now, lock) = (world.now, &world.cluster.lock);
        if let Some(good) = world.watch.good_since
            && lock.holder == Some(former)
        {
            let delay = world.conditions.watch_delay;
            let set = world.cluster.clock_set[former].is_some();
            let kept_from = |written: Ms| match written == lock.written[0] && !set {
                true => lock.begun.max(written.saturating_sub(CLOCK_FAULTS)),
                false => written.saturating_sub(CLOCK_FAULTS),
            };
            let arrived = |written: Ms| {
                written >= good.max(lock.taken)
                    && written + delay <= now
                    && now < kept_from(written) + world.conditions.rules.ttl
            };
            let paused = self.paused.is_some_and(|since| since.max(good) + delay < now);
            prop_assert!(
                !paused && !lock.written.into_iter().any(arrived),
                "2: the sessions of {} ended although it renewed the lock, or in pause: {}",
                NAMES[former],
                state_of(world)
            );
        }
        let a_while = |since: Option<Ms>| since.is_some_and(|since| since + 3 * ROUND < now);
        let (heard, reports) = (self.heard_since(world, former), self.by_reports_since(world));
        prop_assert!(
            !(a_while(self.leading[former]) && a_while(heard) && a_while(reports)),
            "2: the sessions of {} ended although it reports that it leads: {}",
            NAMES[former],
            state_of(world)
        );
        Ok(())
    }

    /// Checks the decision on unchanged facts, now and just before the announced recheck.
    fn check_unchanged_facts(&mut self, world: &World) -> Checked {
        let observer = &world.observer;
        let recheck = observer.decision.recheck_at.map(|at| observer.millis(at));
        prop_assert!(
            recheck.is_none_or(|at| observer.decided < at),
            "3: the recheck is due at once, again and again: {}",
            state_of(world)
        );
        self.turn += 1;
        if !self.turn.is_multiple_of(4) {
            return Ok(());
        }
        // A recheck that is due at this instant has not been done yet.
        let late = recheck.map_or(world.now + LONG, |at| at - 1).max(observer.decided);
        for when in [observer.decided, late] {
            let again = observer.decision_at(when);
            prop_assert!(
                effect(&again) == effect(&observer.decision),
                "3: {:?} became {again:?} at {when}: {}",
                observer.decision,
                state_of(world)
            );
        }
        Ok(())
    }
}

fn check_lock_bound(world: &World, leader: MemberIndex, until: Ms) -> Checked {
    let believed = world.watch.silent_since.is_none() && !world.conditions.rules.failsafe;
    if believed && world.watch.holder == Some(leader) && !world.observer.view.is_paused() {
        let end = world.watch.lock_valid_from + world.watch.silence[leader] + world.conditions.rules.ttl;
        prop_assert!(until <= end, "1, lock: kept after {end} ms: {}", state_of(world));
    }
    Ok(())
}

fn check_evidence(world: &World, new: MemberIndex) -> Checked {
    let answers = EVERYBODY.map(|who| world.observer.view.answers(&NAMES[who].into()));
    let heard = |who: MemberIndex| {
        answers[who]?
            .last
            .as_ref()
            .filter(|_| answers[who].is_some_and(|answers| answers.unreachable.is_none()))
    };
    let holder_heard = EVERYBODY
        .into_iter()
        .any(|who| heard(who).is_some_and(|last| last.value.holds_lock));
    if !holder_heard && heard(new).is_some_and(|last| last.value.paused) {
        return Ok(());
    }
    let by_answer = matches!(
        world.observer.decision.reason,
        Reason::LockAndReport { .. } | Reason::OnlyPrimary { .. } | Reason::NewestPrimary { .. }
    );
    // A pod's status counts only if the REST API does not answer.
    let pod = world.heard_pod[new].filter(|_| !by_answer);
    let heard = [world.heard_answer[new], pod].into_iter().flatten();
    let evidence = heard
        .filter(|truth| truth.writable && world.heard_timeline <= truth.timeline)
        .max_by_key(|truth| truth.at);
    prop_assert!(
        evidence.is_some(),
        "4, evidence: {} was not writable: {}",
        NAMES[new],
        state_of(world)
    );
    prop_assert!(
        !matches!(world.observer.decision.reason, Reason::NamedAgain { .. }) || world.cluster.newest.member == new,
        "4, evidence: another member was promoted after {}: {}",
        NAMES[new],
        state_of(world)
    );
    let age = evidence.map_or(0, |truth| world.now - truth.at);
    prop_assert!(
        !by_answer || age <= STEADY + 2 * DEADLINE,
        "4, evidence: {} was writable {age} ms ago: {}",
        NAMES[new],
        state_of(world)
    );
    Ok(())
}

/// Returns the leader whose sessions are kept and the leader of new clients. A fence without a leader equals a hold.
fn effect(decision: &Decision) -> (Option<&Server>, Option<&Server>) {
    let state: &RoutingState = &decision.state;
    (state.leader(), state.open_to())
}

fn since(known: &mut Option<Ms>, is_so: bool, now: Ms) {
    *known = is_so.then(|| known.unwrap_or(now));
}

pub(super) fn state_of(world: &World) -> String {
    let cluster = &world.cluster;
    let members: Vec<_> = EVERYBODY
        .into_iter()
        .map(|who| {
            let member = &cluster.members[who];
            let patroni = if member.frozen { " (Patroni frozen)" } else { "" };
            format!("{} {:?}{patroni} on {}", NAMES[who], member.postgres, member.timeline)
        })
        .collect();
    format!(
        "{} ms: {:?}, {}; lock of {:?} written at {:?}; newest {:?}; {}",
        world.now,
        world.observer.decision.state,
        world.observer.decision.reason,
        cluster.lock.holder.map(|who| NAMES[who]),
        cluster.lock.written,
        cluster.newest,
        members.join(", ")
    )
}
