//! The watch of the leader object. It alone tells whether the API answers.
//!
//! When it has been quiet for too long it is checked by a GET: so a dead stream is told from a lock that nobody renews. While the lock is overdue, the streams
//! of all watches are doubted, too.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher;
use tokio::time::Instant;
use tracing::debug;

use crate::discovery::kubernetes::annotations::{self, Annotations};
use crate::discovery::kubernetes::faults::{Ended, Fault, Faults, LOCK_RETRY, Problems};
use crate::discovery::kubernetes::{DEADLINE, Feed, Named, OBJECT_RIGHTS, Object, next, watch_object};
use crate::leader::observation::{Claim, Lock, ObjectKind};

/// How long a leader object that does not exist, or is not Patroni's, may be quiet before its watch is checked.
const QUIET_WITHOUT_LOCK: Duration = Duration::from_secs(30);

/// Follows the leader object.
pub(super) async fn follow_lock<K: Object>(api: Api<K>, kind: ObjectKind, object: Named, feed: Feed) {
    let mut restart = feed.restart.subscribe();
    let mut faults = Faults::new(&object.title, OBJECT_RIGHTS, LOCK_RETRY);
    let mut problems = Problems::default();
    let mut known: Option<Annotations> = None;
    loop {
        let mut events = Box::pin(watch_object(api.clone(), &object.name));
        let opened = Instant::now();
        // It begins with the object as it stands: without delay.
        let mut check_at = opened + DEADLINE;
        let ended = loop {
            let (found, checked) = tokio::select! {
                biased;
                found = next(&mut events, &mut restart) => match found {
                    Ok(found) => (found, false),
                    Err(ended) => break ended,
                },
                () = tokio::time::sleep_until(check_at) => match check(&api, &object.name).await {
                    Ok(found) => (found, true),
                    Err(error) => break Ended::Failed(error),
                },
                () = faults.are_over() => {
                    debug!(object = %object.title, "all watches start anew: they need not wait out their pauses");
                    feed.restart_all();
                    continue;
                }
            };
            let found = found.map(|found| found.annotations().clone());
            let (lock, problem) = found.as_ref().map_or((None, None), annotations::lock);
            problems.tell(&object.title, problem);
            let changed = found != known;
            let doubted = checked && known.is_some() && (changed || is_older_than_the_ttl(opened, lock.as_ref()));
            check_at = Instant::now() + quiet(lock.as_ref(), changed);
            known = found;
            if !feed.say(Claim::Lock(kind, lock)).await {
                return;
            }
            faults.answered();
            if doubted {
                debug!(object = %object.title, "all watches start anew: their streams may be dead");
                feed.restart_all();
            }
        };
        match ended {
            Ended::Failed(error) => {
                let Fault { pause, why } = faults.happened(&error);
                if !feed.say(Claim::ApiSilent(kind, why)).await {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
            Ended::Anew | Ended::HistoryLost => faults.pause_after(ended, &mut restart).await,
        }
    }
}

/// Patroni renews every loop_wait, well within half of ttl. An overdue renewal is asked for until it comes.
fn quiet(lock: Option<&Lock>, changed: bool) -> Duration {
    match lock {
        None => QUIET_WITHOUT_LOCK,
        Some(_) if !changed => DEADLINE,
        Some(lock) => lock.ttl / 2,
    }
}

/// An overdue lock tells nothing of its stream, dead or alive. One that is not older was opened for that very reason.
fn is_older_than_the_ttl(opened: Instant, lock: Option<&Lock>) -> bool {
    lock.is_some_and(|lock| lock.ttl <= opened.elapsed())
}

/// Asks for the object, before a deadline.
async fn check<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>, watcher::Error> {
    let answer = tokio::time::timeout(DEADLINE, api.get_opt(name)).await;
    let answer = answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer within 1 s".into())));
    answer.map_err(watcher::Error::WatchFailed)
}
