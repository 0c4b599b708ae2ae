//! Clients that insert through pgnorth, an idle session, and the primary's own answers: the effects of a fault on them
//! are checked at once. `accounts.rs` checks the result of each insert at the end.

use std::time::Instant;

use pgnorth::ending::Ending;
use tokio_postgres::Client;

use super::accounts::{self, Endured, Term};
use super::faults::{Demand, Newcomers, Primary, Sessions};
use super::{FAILOVER, SOON, WHOLE, wait_for_a_synchronous_standby};
use crate::support::load::Load;
use crate::support::{Member, Product, Rig, psql, session, wait_until};

/// Clients that insert through pgnorth while the primary changes, and the observed primaries.
pub struct Trial<'a> {
    rig: &'a Rig,
    product: Product,
    load: Load,
    terms: Vec<Term>,
    faults: Vec<Endured>,
}

impl<'a> Trial<'a> {
    /// Starts the clients.
    pub async fn start(rig: &'a Rig) -> Self {
        wait_for_a_synchronous_standby(rig).await;
        let leader = rig.leader().await;
        // The server itself stores its timeline with each row: the first 8 digits of its current WAL file's name.
        let table = "create table load (id text primary key, server text default host(inet_server_addr()),
                     timeline text default left(pg_walfile_name(pg_current_wal_lsn()), 8))";
        leader.psql(table).await.expect("make the table");
        let product = Product::start(rig, &["--hold", "60s"], &[]).await;
        product.wait_until_writable(SOON).await;
        let load = Load::start(product.address(), 3).await;
        let mut trial = Self {
            rig,
            product,
            load,
            terms: Vec::new(),
            faults: Vec::new(),
        };
        trial.note(leader).await;
        trial
    }

    /// Applies a fault to the primary, and checks its demands; returns when the primary serves a client again.
    pub async fn endure(&mut self, demand: &Demand, old: &'a Member) {
        let idle = session(self.product.address()).await.expect("a session that stays");
        let (changes, cuts) = (self.leader_changes().await, endings(&self.product, cut).await);
        let began = Instant::now();
        let strike = async {
            demand.fault.strike(self.rig, old).await;
            let struck = Instant::now();
            (struck, self.primary_after(demand, old).await, Instant::now())
        };
        let ((struck, new, writable), ended) = tokio::join!(strike, sessions_end(demand.sessions, &idle));
        if demand.sessions == Sessions::EndBeforePromotion {
            let ended = ended.expect("they end");
            assert!(
                ended < writable,
                "sessions ended {:?} after the promotion",
                ended - writable
            );
            // Only pgnorth keeps clients away from it.
            let recovers = old.psql("select pg_is_in_recovery()").await;
            assert_eq!(
                recovers.as_deref(),
                Ok("f"),
                "the old primary is writable all the while"
            );
        }
        self.note(new).await;
        self.reaches(new).await;

        let answer = self.product.admin_get("/leader").await;
        assert_eq!(
            (answer.status, &answer.json()["member"]),
            (200, &new.name().into()),
            "{}",
            answer.body
        );
        let moved = if demand.primary == Primary::Moves { 1.0 } else { 0.0 };
        assert_eq!(self.leader_changes().await - changes, moved, "changes of leader");
        if demand.sessions == Sessions::Live {
            idle.simple_query("select 1").await.expect("the open session works");
            assert_eq!(endings(&self.product, cut).await, cuts, "sessions cut by pgnorth");
        }
        let excused_until = match demand.newcomers(self.rig.dcs()) {
            Newcomers::None => None,
            Newcomers::LoggingInAsItHappens => Some(struck),
            Newcomers::LoggingInAsSessionsEnd => ended,
        };
        self.faults.push(Endured {
            fault: demand.fault,
            began,
            ended,
            excused_until,
        });
    }

    /// Returns the primary after the fault, as soon as there is one.
    async fn primary_after(&self, demand: &Demand, old: &'a Member) -> &'a Member {
        match demand.primary {
            Primary::Moves => self.rig.wait_for_new_leader(old, FAILOVER).await,
            Primary::Stays => {
                // PostgreSQL itself is asked: for a moment Patroni still reports the former state.
                wait_until("the primary is writable", WHOLE, async || {
                    let recovers = old.psql("select pg_is_in_recovery()").await;
                    (recovers.as_deref() == Ok("f")).then_some(())
                })
                .await;
                old
            }
        }
    }

    async fn leader_changes(&self) -> f64 {
        let changes = self.product.metric("pgnorth_leader_changes_total", &[]).await;
        changes.expect("changes are counted")
    }

    /// Records that this member is the primary of its timeline from now on, at the latest.
    async fn note(&mut self, leader: &Member) {
        let timeline = wait_until("the primary says its timeline", SOON, async || {
            leader.status().await?["timeline"].as_u64()
        })
        .await;
        self.terms.push(Term {
            timeline: u32::try_from(timeline).expect("a timeline has 32 bits"),
            server: leader.ip().to_string(),
            seen: Instant::now(),
        });
    }

    /// Waits until this member, as a primary, serves a client of pgnorth.
    async fn reaches(&self, leader: &Member) {
        wait_until("a client reaches the primary", SOON, async || {
            let sql = "select host(inet_server_addr()) where not pg_is_in_recovery()";
            let server = psql(self.product.address(), sql).await.ok()?;
            (server == leader.ip().to_string()).then_some(())
        })
        .await;
    }

    /// Ends the clients and checks every attempt.
    pub async fn finish(self) {
        let attempts = self.load.finish().await;
        // The worst failures first.
        accounts::check_rows(&attempts, self.rig.leader().await, &self.terms).await;
        accounts::check_failures(&attempts, &self.faults);
        let clients = endings(&self.product, turned_away).await;
        assert_eq!(clients, 0.0, "clients turned away by pgnorth");
    }
}

/// Returns the time at which the open session ended, if it has to end.
async fn sessions_end(sessions: Sessions, idle: &Client) -> Option<Instant> {
    if sessions == Sessions::Live {
        return None;
    }
    wait_until("the open session ends", FAILOVER, async || {
        idle.is_closed().then_some(())
    })
    .await;
    Some(Instant::now())
}

/// Returns the number of sessions with one of these endings.
async fn endings(product: &Product, counts: fn(Ending) -> bool) -> f64 {
    let mut sum = 0.0;
    for ending in Ending::ALL.into_iter().filter(|ending| counts(*ending)) {
        let count = product
            .metric("pgnorth_sessions_ended_total", &[("ending", ending.as_str())])
            .await;
        sum += count.expect("each ending is counted");
    }
    sum
}

/// Returns true if pgnorth refused the client a session. Each ending is named, so that a new one is not forgotten.
fn turned_away(ending: Ending) -> bool {
    use Ending::{
        CancelDropped, CancelSent, ClientClosed, ClientLeft, ClientLost, CutByOperator, Failed, Fenced, Full,
        HoldExpired, LeaderChanged, LeaderClosed, LeaderLost, MemberUnfit, NoStartup, QueueExpired, Shutdown,
        StartupExpired,
    };
    match ending {
        HoldExpired | QueueExpired | StartupExpired | CancelDropped | Full | Shutdown | Failed => true,
        ClientClosed | ClientLost | ClientLeft | NoStartup | LeaderClosed | LeaderLost | LeaderChanged | Fenced
        | MemberUnfit | CutByOperator | CancelSent => false,
    }
}

/// Returns true if pgnorth itself ended the session.
fn cut(ending: Ending) -> bool {
    matches!(ending, Ending::LeaderChanged | Ending::Fenced)
}
