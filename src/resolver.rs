//! Resolves the names of hosts for each dial, without delaying anything else.
//!
//! The system's resolver blocks a thread for as long as its name servers are silent, which may be a minute. Dials of
//! one name therefore share look-ups, only a few of which run at a time, and each dial has its own time limit.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::net::lookup_host;
use tokio::sync::watch;

/// Maximum number of look-ups of one name that run at the same time, however many dials ask.
const MAX_LOOK_UPS: usize = 4;
/// Age of the newest look-up of a name after which a further dial starts another one: the name server may be back, and
/// the system's resolver asks it again only after a few seconds.
const SLOW_LOOK_UP: Duration = Duration::from_secs(1);
/// Time to wait for a new answer if the last one may be used instead.
const FRESH: Duration = Duration::from_millis(300);

type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;

/// A resolver of names. Clones share look-ups.
#[derive(Clone, Debug, Default)]
pub struct Resolver(Arc<Mutex<HashMap<String, Name>>>);

/// The reason why a name cannot be resolved now.
#[derive(Clone, Debug, Error)]
pub enum Unresolved {
    /// No name server answered.
    #[error("its name cannot be resolved: the name server did not answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The name has no address, or the name server failed.
    #[error("its name cannot be resolved: {0}")]
    Failed(#[source] Arc<io::Error>),
}

#[derive(Debug)]
struct Name {
    under_way: usize,
    newest: Instant,
    answers: watch::Sender<Option<Answer>>,
    last: Option<Arc<[IpAddr]>>,
}

impl Resolver {
    /// Returns the current addresses of a name, at least one. Cancel-safe: the look-up continues without its dial, and
    /// ends by itself.
    pub async fn resolve(&self, name: &str, within: Duration) -> Result<Arc<[IpAddr]>, Unresolved> {
        let mut answers = self.ask(name);
        let answer = async {
            loop {
                // The map never drops the sender.
                if answers.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                if let Some(answer) = answers.borrow_and_update().clone() {
                    return answer;
                }
            }
        };
        match tokio::time::timeout(within, answer).await {
            Ok(answer) => answer.map_err(Unresolved::Failed),
            Err(_) => Err(Unresolved::TimedOut(within)),
        }
    }

    /// Returns the addresses as `resolve` does, or the last known ones if the look-up fails or takes longer than
    /// `FRESH`. The last known addresses may meanwhile belong to another host, so callers must not rely on them.
    pub async fn resolve_or_recall(&self, name: &str, within: Duration) -> Result<Arc<[IpAddr]>, Unresolved> {
        let last = self.names().get(name).and_then(|name| name.last.clone());
        match last {
            Some(last) => Ok(self.resolve(name, within.min(FRESH)).await.unwrap_or(last)),
            None => self.resolve(name, within).await,
        }
    }

    /// Starts a look-up unless enough are running, and returns the channel for its answer.
    fn ask(&self, name: &str) -> watch::Receiver<Option<Answer>> {
        let mut names = self.names();
        let known = names.entry(name.to_owned()).or_insert_with(|| Name {
            under_way: 0,
            newest: Instant::now(),
            answers: watch::Sender::new(None),
            last: None,
        });
        let mut answers = known.answers.subscribe();
        answers.mark_unchanged();
        if known.under_way == 0 || known.under_way < MAX_LOOK_UPS && known.newest.elapsed() >= SLOW_LOOK_UP {
            known.under_way += 1;
            known.newest = Instant::now();
            let (resolver, name) = (self.clone(), name.to_owned());
            // A separate task, because it may outlive the dial that started it.
            tokio::spawn(async move {
                let answer = look_up(&name).await;
                resolver.answered(&name, answer);
            });
        }
        answers
    }

    /// Records the answer of a look-up. A failure is passed on only if no other look-up is running.
    fn answered(&self, name: &str, answer: Answer) {
        let mut names = self.names();
        let Some(known) = names.get_mut(name) else { return };
        known.under_way -= 1;
        if let Ok(addresses) = &answer {
            known.last = Some(addresses.clone());
        }
        if answer.is_ok() || known.under_way == 0 {
            known.answers.send_replace(Some(answer));
        }
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Name>> {
        // Each change under the lock is complete, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(name: &str) -> Answer {
    let mut addresses: Vec<IpAddr> = Vec::new();
    // The port is required, and not used.
    for address in lookup_host((name, 0)).await.map_err(Arc::new)? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        return Err(Arc::new(io::Error::new(
            io::ErrorKind::NotFound,
            "the name has no address",
        )));
    }
    Ok(addresses.into())
}

#[cfg(test)]
impl Resolver {
    /// Simulates an earlier answer.
    pub(crate) fn remember(&self, name: &str, address: IpAddr) {
        let known = Name {
            under_way: 0,
            newest: Instant::now(),
            answers: watch::Sender::new(None),
            last: Some([address].into()),
        };
        self.names().insert(name.to_owned(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    impl Resolver {
        fn under_way(&self, name: &str) -> usize {
            self.names()[name].under_way
        }

        /// Simulates this many hanging look-ups, the newest of this age.
        fn hang(&self, name: &str, under_way: usize, age: Duration) {
            drop(self.ask(name));
            let mut names = self.names();
            let known = names.get_mut(name).unwrap();
            known.under_way = under_way;
            known.newest = Instant::now().checked_sub(age).unwrap();
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_has_addresses() {
        let addresses = Resolver::default().resolve("localhost", LIMIT).await.unwrap();
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
    }

    // RFC 6761: .invalid never resolves. On a current-thread runtime no look-up ends before the test awaits.
    #[tokio::test]
    async fn the_number_of_look_ups_under_way_is_bounded() {
        let resolver = Resolver::default();
        for _ in 0..1000 {
            drop(resolver.ask("pg-0.invalid"));
        }
        assert_eq!(resolver.under_way("pg-0.invalid"), 1, "dials share a look-up");
        resolver.hang("pg-1.invalid", 1, SLOW_LOOK_UP);
        drop(resolver.ask("pg-1.invalid"));
        assert_eq!(
            resolver.under_way("pg-1.invalid"),
            2,
            "a second one starts beside a slow one"
        );
        resolver.hang("pg-2.invalid", MAX_LOOK_UPS, 100 * SLOW_LOOK_UP);
        drop(resolver.ask("pg-2.invalid"));
        assert_eq!(resolver.under_way("pg-2.invalid"), MAX_LOOK_UPS);
    }

    #[tokio::test]
    async fn a_look_up_that_hangs_costs_its_dial_the_limit_and_a_later_one_is_answered() {
        let resolver = Resolver::default();
        resolver.hang("pg-0.test", MAX_LOOK_UPS, Duration::ZERO);
        let waiting = resolver.resolve("pg-0.test", Duration::from_millis(1)).await;
        assert!(matches!(waiting, Err(Unresolved::TimedOut(_))), "{waiting:?}");
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let later = resolver.resolve("pg-0.test", LIMIT);
        let answer = async { resolver.answered("pg-0.test", Ok([address].into())) };
        let (later, ()) = tokio::join!(later, answer);
        assert_eq!(*later.unwrap(), [address]);
        // The name server does not answer again.
        let recalled = resolver.resolve_or_recall("pg-0.test", Duration::from_millis(1)).await;
        assert_eq!(*recalled.unwrap(), [address]);
    }

    #[tokio::test]
    async fn a_failed_look_up_waits_for_one_that_is_under_way() {
        let resolver = Resolver::default();
        resolver.hang("pg-0.test", 2, Duration::ZERO);
        let failed = || Err(Arc::new(io::Error::from(io::ErrorKind::TimedOut)));
        let asking = resolver.resolve("pg-0.test", LIMIT);
        let answer = async {
            resolver.answered("pg-0.test", failed());
            resolver.answered("pg-0.test", Ok(["10.0.0.7".parse().unwrap()].into()));
        };
        assert!(tokio::join!(asking, answer).0.is_ok());
    }
}
