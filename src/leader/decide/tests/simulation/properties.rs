//! What must hold at every instant of a run, judged from the truth of the model and from what reached pgnorth.
//!
//! `W` is the watch's delay bound, `D` the deadline of a request (1 s), and `A` a member whose sessions live.
//!
//! 1. *No session to a former leader.* `A`'s sessions end at the first of
//!    - **watch**: `W` after another took the lock, or `A` released it, or the watch came back after that. Since a
//!      promotion follows the lock, this is before the other is writable, unless its promotion takes less than `W`;
//!    - **reports** (REST-only, or the API is known to be silent): 1.3 s (the round of probes) + `D` after the new
//!      primary became writable, or can be heard again;
//!    - **lease**, once another is writable: ttl after `A`'s last sign of life (a write of the lock, any answer)
//!      reached pgnorth. An outage of the API that is over is not counted. In pause, where nobody is promoted by
//!      itself, `A` is kept until another is heard (rule 4), and after it for as long as its end may stay unheard: 13
//!      s, or, with a dead stream, ttl / 2 + `D` + `W` after `A` lost the lock, or ttl + 2 (`D` + `W`) after the end of
//!      the pause.
//!    - **lock**, while the watch is believed, without pause and failsafe mode: ttl after `A`'s last renewal that was
//!      heard was begun, plus what the fastest of the last ones took (the clocks hide that), or a second less than this
//!      one took. An outage of the API is not counted.
//! 2. *No cut without cause.* While `A` holds the lock, and a renewal begun less than ttl ago has surely arrived, or
//!    pause has been heard of, its sessions live. If a clock was set, or a write took longer than a second: a renewal
//!    of less than ttl - 1 s ago. Where reports decide, they live while `A` says each second that it leads.
//! 3. *No flapping.* Decided anew on the same facts before `recheck_at`, the same comes out; and `recheck_at` is never
//!    now.
//! 4. *Evidence.* New clients are first admitted to a member upon its answer, or its pod's status, that was made while
//!    it was the writable primary of the newest timeline (or of an older one by Patroni's own doing, if pgnorth heard
//!    no leader on a newer one); and not for longer than 2 s (the steady pause) + `D` after it stopped being writable,
//!    if its REST API can be heard. Left out: a primary without the lock in pause, while nobody is heard to hold it.
//! 5. *Liveness.* With one writable holder of the lock and all faults over, it is routed to within [`patience`].
//!
//! Two more stand with their tests in `attack`: 6, a hiccup of the REST API alone changes nothing; 7, an outage of the
//! API in failsafe mode cuts nobody.

use proptest::prelude::*;

use super::super::{Decision, Reason, RoutingState};
use super::patroni::{EVERYBODY, Ms, NAMES, Who};
use super::watch::{CLOCK_FAULTS, RETRY};
use super::world::{DEADLINE, Weather, World};
use crate::leader::Leader;

/// The round of probes. One of 1 s is not possible: 200 pgnorths would ask each member 200 times a second, and for
/// `/cluster` besides.
const ROUND: Ms = 1_300;
const STEADY: Ms = 2_000;
const SWITCHOVER_HOLD: Ms = 10_000;
/// How long after its end a pause may be believed in, where no watch tells: `/cluster` is asked every 10 s, and an
/// answer stands for 3 s.
const PAUSE_IS_TOLD: Ms = 13_000;
/// The model itself must come to rest within this.
const LONG: Ms = 600_000;

type Checked = Result<(), TestCaseError>;

/// Remembers since when things are so.
#[derive(Default)]
pub(super) struct Witness {
    leader: Option<Who>,
    open_to: Option<Who>,
    /// Its REST API can be heard by pgnorth.
    heard: [Option<Ms>; 3],
    /// It is the writable primary of the newest timeline and believes that it leads.
    leading: [Option<Ms>; 3],
    /// PostgreSQL accepts no writes.
    unwritable: [Option<Ms>; 3],
    paused: Option<Ms>,
    unpaused: Option<Ms>,
    calm: Option<Ms>,
    turn: u64,
}

/// How long after the last fault the leader may take to be routed to: a dead stream is noticed, the API asked again,
/// the lock heard, an announcement that was never taken back outlived, an answer or two lost.
pub(super) fn patience(weather: &Weather) -> Ms {
    weather.rules.ttl / 2 + DEADLINE + RETRY + 2 * weather.watch_delay + SWITCHOVER_HOLD + ROUND + 5 * DEADLINE
}

/// Runs a world until all is calm and pgnorth has had its time; whatever happens, `also` must hold after each step.
pub(super) fn run(mut world: World, also: impl Fn(&World) -> Checked) -> Checked {
    let mut witness = Witness::default();
    witness.look(&world);
    loop {
        // What is so until the next instant, then what comes of it.
        witness.check_bounds(&world, world.next())?;
        world.step();
        witness.check_changes(&world)?;
        witness.look(&world);
        witness.check_unchanged_facts(&world)?;
        also(&world)?;
        match witness.calm {
            Some(since) if since + patience(&world.weather) < world.now => {
                prop_assert_eq!(
                    world.observer.open_to(),
                    Some(world.cluster.newest.member),
                    "5, liveness: {}",
                    told(&world)
                );
                return Ok(());
            }
            _ => prop_assert!(world.now < LONG, "the model never comes to rest: {}", told(&world)),
        }
    }
}

impl Witness {
    fn look(&mut self, world: &World) {
        let (now, cluster) = (world.now, &world.cluster);
        self.leader = world.observer.leader();
        self.open_to = world.observer.open_to();
        let newest = cluster.newest.member;
        for who in EVERYBODY {
            let leads = who == newest && cluster.is_writable(who) && cluster.believes(who);
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

    /// Since when a member's answers reach pgnorth, none lost.
    fn heard_since(&self, world: &World, who: Who) -> Option<Ms> {
        self.heard[who].map(|since| since.max(world.lost[who]))
    }

    /// Since when reports alone decide, as pgnorth knows.
    fn by_reports_since(&self, world: &World) -> Option<Ms> {
        if world.weather.kubernetes {
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
            prop_assert!(until <= end, "4, evidence: clients still go to {}", told(world));
        }
        Ok(())
    }

    fn check_watch_bound(&self, world: &World, leader: Who, until: Ms) -> Checked {
        let lock = &world.cluster.lock;
        // In pause a released lock ends nothing, by rule 3: only another holder does.
        let paused = world.observer.view.is_paused();
        if let Some(good) = world.watch.good_since
            && lock.holder != Some(leader)
            && (lock.holder.is_some() || !paused)
        {
            let gone = if paused { lock.taken } else { lock.let_go[leader] };
            let end = good.max(gone) + world.weather.watch_delay;
            prop_assert!(until <= end, "1, watch: {}", told(world));
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
            prop_assert!(until <= end, "1, reports: {}", told(world));
        }
        Ok(())
    }

    fn check_lock_expiry_bound(&self, world: &World, leader: Who, until: Ms) -> Checked {
        let lock_expiry = world.heard_alive[leader] + world.weather.rules.ttl + world.watch.silence[leader];
        // A dead stream is noticed when the check of the lock shows that it moved, or that nobody renews it.
        let checked =
            world.cluster.lock.let_go[leader] + world.weather.rules.ttl / 2 + DEADLINE + world.weather.watch_delay;
        let anew = |over: Ms| over + world.weather.rules.ttl + 2 * DEADLINE + 2 * world.weather.watch_delay;
        let end = match (world.observer.view.is_paused(), self.unpaused) {
            // Still paused: kept until another is heard of, by rule 4.
            (true, None) => match world
                .heard_named
                .filter(|(named, _)| !world.weather.kubernetes && *named != leader)
            {
                Some((_, at)) if world.heard_alive[leader] < at => lock_expiry.max(at),
                _ => return Ok(()),
            },
            (true, Some(over)) => lock_expiry.max(checked.min(anew(over))).max(over + PAUSE_IS_TOLD),
            (false, _) => lock_expiry,
        };
        prop_assert!(until <= end.max(world.cluster.newest.at), "1, lease: {}", told(world));
        Ok(())
    }

    fn check_changes(&self, world: &World) -> Checked {
        let leader = world.observer.leader();
        for session in &world.observer.sessions {
            let place = leader.map(|who| NAMES[who]);
            prop_assert_eq!(Some(session.leader.member.as_str()), place, "1: two leaders at once");
        }
        if let Some(former) = self.leader.filter(|former| leader != Some(*former)) {
            self.check_cut(world, former)?;
        }
        match world.observer.open_to() {
            Some(new) if self.open_to != Some(new) => check_evidence(world, new),
            _ => Ok(()),
        }
    }

    fn check_cut(&self, world: &World, former: Who) -> Checked {
        let (now, lock) = (world.now, &world.cluster.lock);
        if let Some(good) = world.watch.good_since
            && lock.holder == Some(former)
        {
            let delay = world.weather.watch_delay;
            let set = world.cluster.clock_set[former].is_some();
            let kept_from = |written: Ms| match written == lock.written[0] && !set {
                true => lock.begun.max(written.saturating_sub(CLOCK_FAULTS)),
                false => written.saturating_sub(CLOCK_FAULTS),
            };
            let arrived = |written: Ms| {
                written >= good.max(lock.taken)
                    && written + delay <= now
                    && now < kept_from(written) + world.weather.rules.ttl
            };
            let paused = self.paused.is_some_and(|since| since.max(good) + delay < now);
            prop_assert!(
                !paused && !lock.written.into_iter().any(arrived),
                "2: {} lost its sessions although it renewed, or in pause: {}",
                NAMES[former],
                told(world)
            );
        }
        let a_while = |since: Option<Ms>| since.is_some_and(|since| since + 3 * ROUND < now);
        let (heard, reports) = (self.heard_since(world, former), self.by_reports_since(world));
        prop_assert!(
            !(a_while(self.leading[former]) && a_while(heard) && a_while(reports)),
            "2: {} lost its sessions although it says that it leads: {}",
            NAMES[former],
            told(world)
        );
        Ok(())
    }

    /// The facts are decided upon anew, now and just before the announced recheck.
    fn check_unchanged_facts(&mut self, world: &World) -> Checked {
        let observer = &world.observer;
        let recheck = observer.decision.recheck_at.map(|at| observer.millis(at));
        prop_assert!(
            recheck.is_none_or(|at| observer.decided < at),
            "3: to be decided again at once, for ever: {}",
            told(world)
        );
        self.turn += 1;
        if !self.turn.is_multiple_of(4) {
            return Ok(());
        }
        // A recheck that is due in this very instant is still to come.
        let late = recheck.map_or(world.now + LONG, |at| at - 1).max(observer.decided);
        for when in [observer.decided, late] {
            let again = observer.decision_at(when);
            prop_assert!(
                effect(&again) == effect(&observer.decision),
                "3: {:?} became {again:?} at {when}: {}",
                observer.decision,
                told(world)
            );
        }
        Ok(())
    }
}

fn check_lock_bound(world: &World, leader: Who, until: Ms) -> Checked {
    let believed = world.watch.silent_since.is_none() && !world.weather.rules.failsafe;
    if believed && world.watch.holder == Some(leader) && !world.observer.view.is_paused() {
        let end = world.watch.lock_valid_from + world.watch.silence[leader] + world.weather.rules.ttl;
        prop_assert!(until <= end, "1, lock: kept after {end} ms: {}", told(world));
    }
    Ok(())
}

fn check_evidence(world: &World, new: Who) -> Checked {
    let answers = EVERYBODY.map(|who| world.observer.view.answers(&NAMES[who].into()));
    let heard = |who: Who| {
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
    // A pod's status counts where the REST API is silent.
    let pod = world.heard_pod[new].filter(|_| !by_answer);
    let heard = [world.heard_answer[new], pod].into_iter().flatten();
    let evidence = heard
        .filter(|truth| truth.writable && world.heard_timeline <= truth.timeline)
        .max_by_key(|truth| truth.at);
    prop_assert!(
        evidence.is_some(),
        "4, evidence: {} was not writable: {}",
        NAMES[new],
        told(world)
    );
    let age = evidence.map_or(0, |truth| world.now - truth.at);
    prop_assert!(
        !by_answer || age <= STEADY + 2 * DEADLINE,
        "4, evidence: {} was writable {age} ms ago: {}",
        NAMES[new],
        told(world)
    );
    Ok(())
}

/// Whose sessions live, and who gets new ones: fencing when nobody leads is the same as holding.
fn effect(decision: &Decision) -> (Option<&Leader>, Option<&Leader>) {
    let state: &RoutingState = &decision.state;
    (state.leader(), state.open_to())
}

fn since(known: &mut Option<Ms>, is_so: bool, now: Ms) {
    *known = is_so.then(|| known.unwrap_or(now));
}

pub(super) fn told(world: &World) -> String {
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
