//! The truth: one direct session for each member, without any contender, that tries to write all the time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::session::{Acknowledgement, Session, insert};
use crate::support::Rig;

/// Pause between two attempts at one member, which is the accuracy of the truth.
const PAUSE: Duration = Duration::from_millis(5);

/// Deadline of a direct answer, which takes a few milliseconds.
const DEADLINE: Duration = Duration::from_secs(1);

/// A row that a member acknowledged, and the time.
#[derive(Clone, Debug)]
pub struct Sight {
    pub by: Acknowledgement,
    pub at: Instant,
}

/// The watch of all members. Its drop ends it.
pub struct Truth {
    sights: Arc<Mutex<Vec<Sight>>>,
    _watchers: JoinSet<()>,
}

impl Truth {
    /// Creates the table for all rows, and starts to watch every member.
    pub async fn watch(rig: &Rig) -> Self {
        let table = "create table if not exists failover (id text primary key)";
        rig.leader().await.psql(table).await.expect("make the table");
        let sights: Arc<Mutex<Vec<Sight>>> = Arc::default();
        let mut watchers = JoinSet::new();
        for member in rig.members() {
            watchers.spawn(watch(member.address(), sights.clone()));
        }
        Self {
            sights,
            _watchers: watchers,
        }
    }

    /// Returns all rows so far, in the order of time.
    fn sights(&self) -> Vec<Sight> {
        self.sights.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the server that writes on the newest timeline so far; `None` if no row was written yet.
    pub fn newest_primary(&self) -> Option<Acknowledgement> {
        let newest = self.sights().into_iter().max_by_key(|sight| sight.by.timeline)?;
        Some(newest.by)
    }

    /// Returns the first row on a newer timeline than this one.
    pub fn first_after(&self, timeline: u32) -> Option<Sight> {
        self.sights().into_iter().find(|sight| sight.by.timeline > timeline)
    }
}

async fn watch(address: SocketAddr, sights: Arc<Mutex<Vec<Sight>>>) {
    let mut row = 0_u64;
    loop {
        if let Ok(Ok(mut session)) = timeout(DEADLINE, Session::open(address, None)).await {
            while !session.is_closed() {
                row += 1;
                let insert = insert(&format!("truth {address} {row} {:?}", Instant::now()));
                match timeout(DEADLINE, session.insert(&insert)).await {
                    Ok(Ok(by)) => {
                        let at = Instant::now();
                        sights
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(Sight { by, at });
                    }
                    // Read-only, or broken, which is visible above.
                    Ok(Err(_)) => {}
                    Err(_) => break,
                }
                sleep(PAUSE).await;
            }
        }
        sleep(PAUSE).await;
    }
}
