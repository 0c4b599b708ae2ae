//! Simulated Patroni members: their answers, and the time that each answer takes when many pgnorths ask.
//!
//! The REST server is as Patroni's: one thread accepts, with a backlog of 5, and 5 threads answer, one request each
//! (api.py, `RestApiServer`).

use std::time::Duration;

use pgnorth::discovery::patroni::Answer;
use pgnorth::discovery::patroni::answers::read_report;
use pgnorth::leader::observation::Report;

use super::Chance;

/// Number of members of the cluster.
pub const MEMBERS: usize = 3;
const NAMES: [&str; MEMBERS] = ["a", "b", "c"];
const THREADS: usize = 5;
const BACKLOG: u32 = 5;
const ACCEPT: Duration = Duration::from_micros(100);
/// Shortest and longest time that an answer occupies a thread.
const SERVICE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(5));

/// One member.
pub struct Member {
    pub who: usize,
    /// True while the member's host is down.
    pub gone: bool,
    /// True while its REST API does not answer.
    pub hangs: bool,
    pub holds_lock: bool,
    pub role: &'static str,
    pub state: &'static str,
    pub timeline: u32,
    pub failsafe: bool,
    accepts_at: Duration,
    threads: [Duration; THREADS],
    /// Time of each request.
    pub requests: Vec<Duration>,
}

impl Member {
    /// Returns a member. The first one is the leader.
    pub fn new(who: usize) -> Self {
        Self {
            who,
            gone: false,
            hangs: false,
            holds_lock: who == 0,
            role: if who == 0 { "primary" } else { "replica" },
            state: "running",
            timeline: 1,
            failsafe: false,
            accepts_at: Duration::ZERO,
            threads: [Duration::ZERO; THREADS],
            requests: Vec::new(),
        }
    }

    pub fn name(&self) -> &'static str {
        NAMES[self.who]
    }

    /// Accepts a request. Returns the time of the answer, if there will be one.
    pub fn request(&mut self, now: Duration, chance: &mut Chance) -> Option<Duration> {
        self.requests.push(now);
        let ahead = self.accepts_at.saturating_sub(now);
        // The kernel drops the SYN. The client sends it again after a second, which is too late.
        if self.gone || self.hangs || ACCEPT * (BACKLOG + 1) < ahead {
            return None;
        }
        self.accepts_at = self.accepts_at.max(now) + ACCEPT;
        let thread = self.threads.iter_mut().min().expect("there are threads");
        let begins = self.accepts_at.max(*thread);
        *thread = begins + chance.between(SERVICE.0, SERVICE.1);
        Some(*thread)
    }

    /// Returns its present answer to `/primary`, as pgnorth parses it.
    pub fn report(&self) -> Report {
        let body = format!(
            r#"{{"state":"{}","role":"{}","timeline":{},"failsafe_mode_is_active":{},"database_system_identifier":"1","patroni":{{"scope":"pg","name":"{}"}}}}"#,
            self.state,
            self.role,
            self.timeline,
            self.failsafe,
            self.name()
        );
        let status = if self.holds_lock { 200 } else { 503 };
        let answer = Answer {
            status: hyper::StatusCode::from_u16(status).expect("a status"),
            body: body.into(),
        };
        read_report(&self.name().into(), &answer).expect("it is Patroni's")
    }
}
