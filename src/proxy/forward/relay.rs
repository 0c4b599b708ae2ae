//! Two connected sockets, and what is on its way between them.

use super::flow::{Broken, Culprit, Flow, Progress};
use super::stall::Stall;
use super::watched::Watched;
use super::worker::Tools;
use super::{Finish, Finished, Side};

/// Both directions of a pair. Dropping it frees pipes and buffers at once.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) client: Watched,
    pub(super) leader: Watched,
    up: Flow,
    down: Flow,
    stall: Stall,
    closed_first: Option<Side>,
}

/// What becomes of a pair after its turn.
#[derive(Debug)]
pub(super) enum Next {
    /// It waits for an edge.
    Wait,
    /// It could go on at once.
    GoOn,
    Finish(Finish),
}

impl Relay {
    pub(super) fn new(client: Watched, leader: Watched) -> Self {
        Self {
            client,
            leader,
            up: Flow::default(),
            down: Flow::default(),
            stall: Stall::default(),
            closed_first: None,
        }
    }

    /// Gives the sockets back, with what is to be known for closing them.
    pub(super) fn finished(self, finish: Finish) -> Finished {
        Finished {
            moved: (self.up.moved(), self.down.moved()),
            owes_client: self.down.holds_bytes(),
            closed_first: self.closed_first,
            finish,
            client: self.client.stream,
            leader: self.leader.stream,
        }
    }

    /// Moves what can be moved now.
    pub(super) fn run(&mut self, tools: &mut Tools) -> Next {
        let up = self.run_up(tools);
        let down = self.run_down(tools);
        if self.closed_first.is_none() {
            self.closed_first = match (self.up.source_closed(), self.down.source_closed()) {
                (true, _) => Some(Side::Client),
                (false, true) => Some(Side::Leader),
                (false, false) => None,
            };
        }
        match (up, down) {
            (Err(broken), _) => {
                self.deliver_last_words(|relay| (relay.run_down(tools), relay.down.moved()));
                Next::Finish(lost(broken, Side::Client))
            }
            (_, Err(broken)) => {
                self.deliver_last_words(|relay| (relay.run_up(tools), relay.up.moved()));
                Next::Finish(lost(broken, Side::Leader))
            }
            (Ok(Progress::Ended), Ok(Progress::Ended)) => {
                Next::Finish(Finish::Closed(self.closed_first.unwrap_or(Side::Client)))
            }
            (Ok(Progress::GivesWay), _) | (_, Ok(Progress::GivesWay)) => Next::GoOn,
            _ => Next::Wait,
        }
    }

    fn run_up(&mut self, tools: &mut Tools) -> Result<Progress, Broken> {
        let (before, last) = (self.up.moved(), self.down.ended());
        let progress = self.up.run(&mut self.client, &mut self.leader, tools, last);
        tools.traffic.to_leader.inc_by(self.up.moved() - before);
        progress
    }

    fn run_down(&mut self, tools: &mut Tools) -> Result<Progress, Broken> {
        let (before, last) = (self.down.moved(), self.up.ended());
        let progress = self.down.run(&mut self.leader, &mut self.client, tools, last);
        tools.traffic.to_client.inc_by(self.down.moved() - before);
        progress
    }

    /// A side that broke cannot be sent to, but what it had sent before is still in its socket: the error message that PostgreSQL leaves behind when
    /// it resets a connection must reach the client. Goes on while that makes progress; a broken socket's buffer is finite.
    fn deliver_last_words(&mut self, mut go_on: impl FnMut(&mut Self) -> (Result<Progress, Broken>, u64)) {
        // Its last edge may not have been told of yet.
        self.client.believe_ready();
        self.leader.believe_ready();
        let mut before = u64::MAX;
        loop {
            let (progress, moved) = go_on(self);
            if !matches!(progress, Ok(Progress::Waits | Progress::GivesWay)) || moved == before {
                return;
            }
            before = moved;
        }
    }

    /// Whether bytes were sent since the last check that may be stuck.
    pub(super) fn needs_check(&self) -> bool {
        self.up.has_moved_since_check() || self.down.has_moved_since_check() || self.stall.seen()
    }

    /// See [`super::stall`]. To be followed by a turn: where bytes came in since the last check, it reads once whatever the readiness says. recv(2)
    /// stops short at the mark of urgent data although more follows, and what follows would otherwise lie there until the peer sends again.
    ///
    /// Also notices the reset of a side that is not being read, because the other does not take what was read before.
    pub(super) fn check(&mut self, tools: &mut Tools) -> Option<Finish> {
        if self.up.has_moved_since_check() {
            self.client.believe_ready();
        }
        if self.down.has_moved_since_check() {
            self.leader.believe_ready();
        }
        self.up.checked();
        self.down.checked();
        let timeout = tools.traffic.user_timeout;
        if !timeout.is_zero() {
            self.stall.check(&self.client.stream, &self.leader.stream, timeout);
        }
        for (flow, socket, side) in [
            (&self.up, &self.client, Side::Client),
            (&self.down, &self.leader, Side::Leader),
        ] {
            if flow.holds_bytes()
                && let Ok(Some(error)) = socket.stream.take_error()
            {
                return Some(Finish::Lost(side, error));
            }
        }
        None
    }
}

fn lost(broken: Broken, source: Side) -> Finish {
    match broken.culprit {
        Culprit::Source => Finish::Lost(source, broken.error),
        Culprit::Sink => Finish::Lost(source.other(), broken.error),
        Culprit::Own => Finish::Failed(broken.error),
    }
}
