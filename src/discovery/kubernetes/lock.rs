//! The watch of the leader object. Only this watch reports whether the API answers.
//!
//! If the watch has been quiet for too long, a GET checks the object: either the stream is dead, or the lock is not
//! renewed. While the lock is overdue, the streams of all watches may be dead, too.

use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::watcher;
use tokio::time::Instant;
use tracing::debug;

use crate::backoff::random;
use crate::discovery::kubernetes::annotations::{self, Annotations};
use crate::discovery::kubernetes::checks::{Checks, LOCK_RETRY};
use crate::discovery::kubernetes::faults::{Fault, Faults, Problems, StreamEnd};
use crate::discovery::kubernetes::{ClaimSink, DEADLINE, OBJECT_RIGHTS, Object, ObjectName, next, watch_object};
use crate::leader::observation::{Claim, ObjectKind};

/// Follows the leader object.
pub(super) async fn follow_lock<K: Object>(api: Api<K>, kind: ObjectKind, object: ObjectName, sink: ClaimSink) {
    let mut restart = sink.restart.subscribe();
    let mut faults = Faults::new(&object.title, OBJECT_RIGHTS, LOCK_RETRY);
    let mut problems = Problems::default();
    let mut known: Option<Annotations> = None;
    let mut checks = Checks::default();
    loop {
        let mut events = Box::pin(watch_object(api.clone(), &object.name));
        let opened = Instant::now();
        // A healthy stream begins with the object immediately.
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
                    Err(error) => break StreamEnd::Failed(error),
                },
                () = faults.recovered() => {
                    if sink.in_use.borrow().is_some_and(|in_use| in_use != kind) {
                        continue;
                    }
                    debug!(object = %object.title, "restarting all watches: the API serves the leader object again");
                    sink.restart_all();
                    continue;
                }
            };
            let found = found.map(|found| found.annotations().clone());
            let (lock, problem) = found.as_ref().map_or((None, None), annotations::lock);
            problems.log(&object.title, problem);
            let changed = found != known;
            if changed && known.is_some() {
                checks.renewed();
                sink.in_use.send_replace(Some(kind));
            }
            // A lock of the other kind that is not renewed may be left over from a migration: it is not evidence about
            // the streams.
            let restart_all = checked
                && known.is_some()
                && sink.in_use.borrow().is_none_or(|in_use| in_use == kind)
                && (changed || checks.should_restart(lock.as_ref(), opened.into(), Instant::now().into()));
            check_at = Instant::now() + checks.quiet(lock.as_ref(), changed, random());
            known = found;
            if !sink.send(Claim::Lock(kind, lock)).await {
                return;
            }
            faults.answered();
            if restart_all {
                debug!(object = %object.title, "restarting all watches: their streams may be dead");
                sink.restart_all();
            }
        };
        match ended {
            StreamEnd::Failed(error) => {
                let Fault { pause, why } = faults.record(&error);
                if !sink.send(Claim::ApiUnreachable(kind, why)).await {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
            StreamEnd::Restarted | StreamEnd::HistoryLost => faults.pause_after(ended, &mut restart).await,
        }
    }
}

/// Gets the object within the deadline.
async fn check<K: Object>(api: &Api<K>, name: &str) -> Result<Option<K>, watcher::Error> {
    let answer = tokio::time::timeout(DEADLINE, api.get_opt(name)).await;
    let answer = answer.unwrap_or_else(|_| Err(kube::Error::Service("no answer within 1 s".into())));
    answer.map_err(watcher::Error::WatchFailed)
}
