//! The slot of a route: an atomic pointer to the current [`RouteSnapshot`], which has the members that the route may
//! use.
//!
//! A snapshot contains the end signals of its members' sessions. A session gets its member and its end signal from the
//! same value, so no registry of sessions is needed. Discovery chooses the members; this file only publishes them, and
//! `choice` picks one of them for each client. The slot of the route to the primary has at most one member.

mod choice;
mod epoch;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use self::choice::{Candidate, SETTLING, choose};
use self::epoch::Epoch;
pub use self::epoch::{End, SessionsToEnd, Target};
use crate::ending::Ending;
use crate::leader::{RoutingState, Server};

/// A published decision about a route: its members, and the signals that end their sessions.
#[derive(Debug)]
pub struct RouteSnapshot {
    /// The reason, as a human-readable sentence.
    pub reason: String,
    /// Time at which the members last changed completely, so that no former member stayed. A hold that keeps the leader
    /// does not change it.
    pub since: SystemTime,
    /// Time of this decision's publication.
    pub at: Instant,
    /// Time at which the route last opened or closed, began or ended a fence, or changed its members completely. A new
    /// reason or an additional member does not change it.
    pub state_since: Instant,
    fenced: bool,
    members: Box<[SlotMember]>,
    turn: Arc<AtomicUsize>,
    superseded: CancellationToken,
}

/// A member whose sessions are kept, in one snapshot.
#[derive(Debug)]
pub struct SlotMember {
    /// The member's server.
    pub server: Arc<Server>,
    /// True if new clients may go there.
    pub open: bool,
    /// Preference: clients go to the members of the lowest rank, and to others only if none of those accepts them.
    pub rank: u8,
    /// Start of its ramp-up, if it became fit while others were in use.
    grows_from: Option<Instant>,
    epoch: Arc<Epoch>,
}

/// A member that a route may use, as discovery decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsableMember {
    /// The member's server.
    pub server: Server,
    /// True if new clients may go there; otherwise it only keeps its sessions.
    pub open: bool,
    /// Preference: the lowest rank is used first.
    pub rank: u8,
}

/// The atomically swapped slot. Reading it takes no lock.
#[derive(Debug)]
pub struct RouteSlot {
    snapshot: ArcSwap<RouteSnapshot>,
    /// Changes after each [`End::now`].
    epoch_ended: watch::Sender<()>,
}

impl RouteSlot {
    /// Returns a slot without members, for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self::with(watch::Sender::new(()), reason.into())
    }

    /// Returns a slot for another route. Both slots report the ends of their epochs through the same
    /// [`endings`](Self::endings).
    pub fn beside(&self, reason: impl Into<String>) -> Self {
        Self::with(self.epoch_ended.clone(), reason.into())
    }

    fn with(epoch_ended: watch::Sender<()>, reason: String) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(RouteSnapshot {
                reason,
                since: SystemTime::now(),
                at: Instant::now(),
                state_since: Instant::now(),
                fenced: false,
                members: Box::default(),
                turn: Arc::default(),
                superseded: CancellationToken::new(),
            }),
            epoch_ended,
        }
    }

    /// Returns the current snapshot.
    pub fn snapshot(&self) -> Arc<RouteSnapshot> {
        self.snapshot.load_full()
    }

    /// Publishes `state` on the route to the primary: new clients see it, and waiting clients are woken. If the leader
    /// or its address has changed, or `state` keeps no leader, the caller has to end the sessions to the former leader
    /// through the returned [`SessionsToEnd`].
    ///
    /// Only discovery may call this: of two concurrent calls, one decision would be lost.
    #[must_use = "sessions to the former leader continue until this ends them"]
    pub fn succeed(&self, state: RoutingState, reason: String) -> Option<SessionsToEnd> {
        let fenced = state == RoutingState::Fence;
        let open = state.open_to().is_some();
        let leader = match state {
            RoutingState::Route(leader) | RoutingState::Hold(Some(leader)) => Some(leader),
            RoutingState::Hold(None) | RoutingState::Fence => None,
        };
        let member = leader.map(|server| UsableMember { server, open, rank: 0 });
        self.replace(member, fenced, reason).pop()
    }

    /// Publishes the members that the route may use. Sessions to members that stay are unaffected; the caller has to
    /// end the sessions to the other members through the returned [`SessionsToEnd`]s.
    ///
    /// Only discovery may call this, as for [`succeed`](Self::succeed).
    #[must_use = "sessions to the former members continue until these end them"]
    pub fn share(&self, members: Vec<UsableMember>, reason: String) -> Vec<SessionsToEnd> {
        self.replace(members, false, reason)
    }

    fn replace(
        &self,
        members: impl IntoIterator<Item = UsableMember>,
        fenced: bool,
        reason: String,
    ) -> Vec<SessionsToEnd> {
        let (old, at) = (self.snapshot(), Instant::now());
        let place = |member: UsableMember| self.place(member, &old, at);
        let members: Box<[SlotMember]> = members.into_iter().map(place).collect();
        let stays = |place: &&SlotMember| members.iter().any(|member| member.server == place.server);
        let none = members.is_empty() && old.members.is_empty();
        let keeps = none || old.members.iter().any(|place| stays(&place));
        let same_state = keeps && fenced == old.fenced && is_open(&members) == old.is_open();
        let cuts = old
            .members
            .iter()
            .filter(|place| !stays(place))
            .map(SlotMember::cut)
            .collect();
        self.swap(
            &old,
            RouteSnapshot {
                reason,
                since: if keeps { old.since } else { SystemTime::now() },
                at,
                state_since: if same_state { old.state_since } else { at },
                fenced,
                members,
                turn: old.turn.clone(),
                superseded: CancellationToken::new(),
            },
        );
        cuts
    }

    /// Returns the member's entry in the next snapshot. A member of `old` keeps its epoch.
    fn place(&self, member: UsableMember, old: &RouteSnapshot, at: Instant) -> SlotMember {
        let known = old.members.iter().find(|place| *place.server == member.server);
        // Members that are found one after the other at the start need no ramp-up.
        let settled = old.is_open() && SETTLING <= at.saturating_duration_since(old.state_since);
        let grows_from = match known {
            Some(known) if known.open => known.grows_from,
            _ => settled.then_some(at),
        };
        SlotMember {
            server: Arc::new(member.server),
            open: member.open,
            rank: member.rank,
            grows_from,
            epoch: known.map_or_else(|| Epoch::begin(&self.epoch_ended), |known| known.epoch.clone()),
        }
    }

    /// Stores `new`, then wakes the waiting clients, so that they find it there.
    fn swap(&self, old: &RouteSnapshot, new: RouteSnapshot) {
        self.snapshot.store(Arc::new(new));
        old.superseded.cancel();
    }

    /// Begins a new epoch for each member for which `concerns` returns true, under the same decision. The returned
    /// handles end the existing sessions to these members; later ones are unaffected. Returns an empty list if the
    /// route has no such member.
    ///
    /// Only discovery may call this, as for [`succeed`](Self::succeed).
    #[must_use = "the sessions continue until these end them"]
    pub fn renew(&self, concerns: impl Fn(&Server) -> bool) -> Vec<SessionsToEnd> {
        let old = self.snapshot();
        let (mut members, mut cuts) = (Vec::new(), Vec::new());
        for place in &old.members {
            let mut epoch = place.epoch.clone();
            if concerns(&place.server) {
                cuts.push(place.cut());
                epoch = Epoch::begin(&self.epoch_ended);
            }
            let server = place.server.clone();
            members.push(SlotMember {
                server,
                epoch,
                ..*place
            });
        }
        if cuts.is_empty() {
            return cuts;
        }
        self.swap(
            &old,
            RouteSnapshot {
                reason: old.reason.clone(),
                members: members.into(),
                turn: old.turn.clone(),
                superseded: CancellationToken::new(),
                ..*old
            },
        );
        cuts
    }

    /// Calls [`succeed`](Self::succeed), and ends the sessions that are no longer kept.
    pub fn publish(&self, state: RoutingState, reason: String) -> Option<SessionsToEnd> {
        let why = ending(&state);
        let cut = self.succeed(state, reason)?;
        cut.end.now(why);
        Some(cut)
    }

    /// Waits until new clients may go to a member, and returns it. `tried` is as for [`RouteSnapshot::target`].
    /// Cancel-safe; never returns while the route is closed.
    pub async fn target(&self, tried: &[Arc<Server>]) -> Target {
        loop {
            let snapshot = self.snapshot();
            if let Some(target) = snapshot.target(tried) {
                return target;
            }
            snapshot.superseded.cancelled().await;
        }
    }

    /// Waits until no new client may go to this member. Cancel-safe.
    pub async fn closed(&self, server: &Server) {
        loop {
            let snapshot = self.snapshot();
            if !snapshot
                .members
                .iter()
                .any(|place| place.open && *place.server == *server)
            {
                return;
            }
            snapshot.superseded.cancelled().await;
        }
    }

    /// Returns a channel that changes after each [`End::now`], for callers that do not await each target's end.
    pub fn endings(&self) -> watch::Receiver<()> {
        self.epoch_ended.subscribe()
    }

    /// Completes when the slot no longer holds the snapshot that is current now. The future does not keep it, because a
    /// snapshot that is kept delays [`SessionsToEnd::done`], as a session does. Cancel-safe.
    pub fn changed(&self) -> WaitForCancellationFutureOwned {
        self.snapshot().replaced()
    }

    /// Waits until the slot no longer holds `snapshot`. Cancel-safe.
    pub async fn superseded(&self, snapshot: &RouteSnapshot) {
        snapshot.superseded.cancelled().await;
    }
}

/// Returns the ending of the sessions that `state` does not keep.
pub fn ending(state: &RoutingState) -> Ending {
    match state {
        RoutingState::Fence => Ending::Fenced,
        RoutingState::Route(_) | RoutingState::Hold(_) => Ending::LeaderChanged,
    }
}

impl RouteSnapshot {
    /// Returns the routing state of a route with at most one member, such as the route to the primary.
    pub fn state(&self) -> RoutingState {
        match self.members.first() {
            Some(place) if place.open => RoutingState::Route((*place.server).clone()),
            Some(place) => RoutingState::Hold(Some((*place.server).clone())),
            None if self.fenced => RoutingState::Fence,
            None => RoutingState::Hold(None),
        }
    }

    /// Returns the members whose sessions are kept.
    pub fn members(&self) -> &[SlotMember] {
        &self.members
    }

    /// Returns true if new clients may go to a member.
    pub fn is_open(&self) -> bool {
        is_open(&self.members)
    }

    /// Returns true if new clients may go to a member that is not in `tried`.
    pub fn has_untried(&self, tried: &[Arc<Server>]) -> bool {
        let mut open = self.members.iter().filter(|place| place.open);
        open.any(|place| !tried.contains(&place.server))
    }

    /// Returns true if new clients may go to a member other than `server` and those in `tried`.
    pub fn has_others(&self, tried: &[Arc<Server>], server: &Server) -> bool {
        let mut open = self
            .members
            .iter()
            .filter(|place| place.open && *place.server != *server);
        open.any(|place| !tried.contains(&place.server))
    }

    /// Completes when the slot no longer holds this snapshot. The future does not keep the snapshot. Cancel-safe.
    pub fn replaced(&self) -> WaitForCancellationFutureOwned {
        self.superseded.clone().cancelled_owned()
    }

    /// Returns a target for each member whose sessions are kept, even while new clients are held.
    pub fn kept(&self) -> impl Iterator<Item = Target> {
        self.members.iter().map(SlotMember::target)
    }

    /// Returns the member to dial, if new clients may go to one now. A member in `tried` is returned only if `tried`
    /// contains every open member.
    pub fn target(&self, tried: &[Arc<Server>]) -> Option<Target> {
        match &*self.members {
            [] => None,
            // A single member, such as the primary, needs no choice, and so no counter that all clients would write to.
            [only] => only.open.then(|| only.target()),
            members => {
                let all_tried = !self.has_untried(tried);
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                let candidate = |place: usize| {
                    let place = &members[place];
                    let may = place.open && (all_tried || !tried.contains(&place.server));
                    may.then(|| place.candidate())
                };
                let chosen = choose(members.len(), turn, Instant::now(), candidate)?;
                Some(members[chosen].target())
            }
        }
    }
}

fn is_open(members: &[SlotMember]) -> bool {
    members.iter().any(|place| place.open)
}

impl SlotMember {
    /// Returns the number of this member's sessions on this route, including clients for which pgnorth is dialling it.
    pub fn sessions(&self) -> usize {
        self.epoch.sessions()
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            sessions: self.sessions(),
            rank: self.rank,
            grows_from: self.grows_from,
        }
    }

    fn cut(&self) -> SessionsToEnd {
        self.epoch.cut(self.server.clone())
    }

    fn target(&self) -> Target {
        Target::new(self.server.clone(), self.epoch.clone())
    }
}

#[cfg(test)]
mod tests;
