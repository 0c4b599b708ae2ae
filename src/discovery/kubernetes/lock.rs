//! The watch of the leader object. It alone tells whether the API answers.
//!
//! When it has been quiet for too long it is checked by a GET: so a dead stream is told from a lock that nobody renews. While the lock is overdue, the streams
//! of all watches are doubted, too.

use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher;
use tokio::time::Instant;
use tracing::debug;

use crate::backoff::random;
use crate::discovery::kubernetes::annotations::{self, Annotations};
use crate::discovery::kubernetes::checks::{Checks, LOCK_RETRY};
use crate::discovery::kubernetes::faults::{Ended, Fault, Faults, Problems};
use crate::discovery::kubernetes::{DEADLINE, Feed, Named, OBJECT_RIGHTS, Object, next, watch_object};
use crate::leader::observation::{Claim, ObjectKind};

/// Follows the leader object.
pub(super) async fn follow_lock<K: Object>(api: Api<K>, kind: ObjectKind, object: Named, feed: Feed) {
    let mut restart = feed.restart.subscribe();
    let mut faults = Faults::new(&object.title, OBJECT_RIGHTS, LOCK_RETRY);
    let mut problems = Problems::default();
    let mut known: Option<Annotations> = None;
    let mut checks = Checks::default();
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
                    if feed.in_use.borrow().is_some_and(|in_use| in_use != kind) {
                        continue;
                    }
                    debug!(object = %object.title, "all watches start anew: they need not wait out their pauses");
                    feed.restart_all();
                    continue;
                }
            };
            let found = found.map(|found| found.annotations().clone());
            let (lock, problem) = found.as_ref().map_or((None, None), annotations::lock);
            problems.tell(&object.title, problem);
            let changed = found != known;
            if changed && known.is_some() {
                checks.renewed();
                feed.in_use.send_replace(Some(kind));
            }
            // A lock of the other kind that nobody renews, as a migration leaves behind, is no reason to doubt anything.
            let doubted = checked
                && known.is_some()
                && feed.in_use.borrow().is_none_or(|in_use| in_use == kind)
                && (changed || checks.doubt(lock.as_ref(), opened.into(), Instant::now().into()));
            check_at = Instant::now() + checks.quiet(lock.as_ref(), changed, random());
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

/// Asks for the object, before a deadline.
async fn check<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>, watcher::Error> {
    let answer = tokio::time::timeout(DEADLINE, api.get_opt(name)).await;
    let answer = answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer within 1 s".into())));
    answer.map_err(watcher::Error::WatchFailed)
}
