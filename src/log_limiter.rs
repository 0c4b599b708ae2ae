//! Limits repeated log lines. [`LogLimiter`] is for faults that clients or servers can repeat at will: the first is
//! logged immediately, the later ones are counted. [`CurrentProblems`] is for objects that are read again and again: a
//! problem is logged when it begins or changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, info, warn};

/// Interval between the lines about one fault.
const QUIET: Duration = Duration::from_secs(30);

/// The recently logged faults, and the number of times that each has recurred since. Clones share them.
///
/// Callers build the texts from a closed set of faults and the names of members, so there are few of them.
#[derive(Clone, Debug, Default)]
pub struct LogLimiter(Arc<Mutex<HashMap<String, u64>>>);

impl LogLimiter {
    /// Returns true if the caller should log this fault in full, because it was not logged recently. Otherwise counts
    /// the fault: a line with the count follows 30 s after the first line, and then every 30 s while the fault recurs.
    /// Must be called on a tokio runtime.
    pub fn should_log(&self, fault: &str) -> bool {
        self.should_log_at(Level::WARN, fault)
    }

    /// Works like [`Self::should_log`], with this level (info or warn) for the line with the count.
    pub fn should_log_at(&self, level: Level, fault: &str) -> bool {
        {
            // One lock for look-up and insertion, so that only one of several concurrent callers logs.
            let mut recent = self.lock();
            if let Some(more) = recent.get_mut(fault) {
                *more += 1;
                return false;
            }
            recent.insert(fault.to_owned(), 0);
        }
        tokio::spawn(self.clone().count(level, fault.to_owned()));
        true
    }

    /// Logs the counts until the fault has not recurred for [`QUIET`].
    async fn count(self, level: Level, fault: String) {
        loop {
            tokio::time::sleep(QUIET).await;
            let more = self.lock().get_mut(&fault).map_or(0, std::mem::take);
            if more == 0 {
                self.lock().remove(&fault);
                return;
            }
            let seconds = QUIET.as_secs();
            match level {
                Level::WARN => warn!("… and {more} more like it in the last {seconds} s: {fault}"),
                _ => info!("… and {more} more like it in the last {seconds} s: {fault}"),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        // The counts are only logged, so a panic of another holder does no harm.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The current problem of each object. A problem is logged when it begins or changes, and not each time the object is
/// read.
#[derive(Debug, Default)]
pub struct CurrentProblems(HashMap<String, String>);

impl CurrentProblems {
    /// Records an object's problem. Returns true if the caller should log it, because the object had none or a
    /// different one.
    pub fn is_new(&mut self, object: &str, problem: &str) -> bool {
        if self.0.get(object).is_some_and(|known| known == problem) {
            return false;
        }
        self.0.insert(object.to_owned(), problem.to_owned());
        true
    }

    /// Records that an object has no problem. Returns true if it had one before.
    pub fn solved(&mut self, object: &str) -> bool {
        self.0.remove(object).is_some()
    }
}

/// A log that tests can read.
#[cfg(test)]
pub(crate) mod capture {
    use std::io::{self, Write};

    use super::*;

    #[derive(Clone, Default)]
    pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Log {
        /// Redirects this thread's log, messages and fields, to this value until the guard is dropped.
        pub(crate) fn install(&self) -> tracing::subscriber::DefaultGuard {
            let writer = self.clone();
            let subscriber = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .without_time()
                .with_level(false)
                .with_target(false)
                .with_ansi(false)
                .finish();
            tracing::subscriber::set_default(subscriber)
        }

        /// Returns the lines since the last call.
        pub(crate) fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap();
            text.lines().map(|line| line.trim().to_owned()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::capture::Log;
    use super::*;

    #[test]
    fn a_problem_is_new_when_it_begins_or_changes_and_after_it_was_solved() {
        let mut problems = CurrentProblems::default();
        assert!(problems.is_new("pod a", "no address"));
        assert!(!problems.is_new("pod a", "no address"));
        assert!(problems.is_new("pod b", "no address"), "another object");
        assert!(problems.is_new("pod a", "no port"), "another problem");
        assert!(problems.solved("pod a"));
        assert!(!problems.solved("pod a"), "it had none");
        assert!(problems.is_new("pod a", "no port"), "it has begun again");
    }

    #[tokio::test]
    async fn of_threads_that_meet_the_same_fault_at_once_one_logs_it() {
        const ROUNDS: usize = 10_000;
        let (log_limiter, runtime) = (LogLimiter::default(), tokio::runtime::Handle::current());
        let (arrived, logged) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let thread = || {
            let _runtime = runtime.enter();
            for round in 0..ROUNDS {
                let fault = round.to_string();
                // The other thread is at most a few instructions away.
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 * (round + 1) {
                    std::thread::yield_now();
                }
                logged.fetch_add(log_limiter.should_log(&fault).into(), Ordering::SeqCst);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(thread);
            scope.spawn(thread);
        });
        assert_eq!(logged.into_inner(), ROUNDS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_is_logged_once_then_counted_and_logged_again_after_a_quiet_time() {
        let log = Log::default();
        let _logs_here = log.install();
        let log_limiter = LogLimiter::default();
        let after = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;

        let logged = (0..342).filter(|_| log_limiter.should_log("a is gone")).count();
        assert_eq!(logged, 1);
        assert!(log_limiter.should_log("b is gone"), "another fault");
        after(29).await;
        assert_eq!(log.lines(), Vec::<String>::new());
        after(2).await;
        assert_eq!(log.lines(), ["… and 341 more like it in the last 30 s: a is gone"]);
        assert!(!log_limiter.should_log("a is gone"), "it has recurred within 30 s");
        assert!(log_limiter.should_log("b is gone"), "it was quiet for 30 s");
        after(30).await;
        assert_eq!(log.lines(), ["… and 1 more like it in the last 30 s: a is gone"]);
        after(30).await;
        assert_eq!(log.lines(), Vec::<String>::new());
        assert!(log_limiter.should_log("a is gone"));
        assert_eq!(log_limiter.lock().len(), 1, "a fault that does not recur is forgotten");
    }
}
