//! Writes the log on a separate thread. Other threads only queue their lines and never wait: if nothing reads stderr,
//! lines are lost, and the lost lines are counted.

use std::io::{self, Write};
use std::mem::take;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::metrics::Count;
use tracing::warn;
use tracing_subscriber::fmt::MakeWriter;

/// Limit of bytes that wait to be written. At about 200 bytes a line it is enough for a burst, and small compared with
/// the memory of sessions.
const CAPACITY: usize = 1 << 20;
/// Pause before a write is repeated that would have blocked: another process may have made stderr non-blocking.
const RETRY: Duration = Duration::from_millis(20);

/// The queue of lines. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    buffer: Mutex<Buffer>,
    changed: Condvar,
    /// Counts the lost lines.
    lost: Count,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: Vec<u8>,
    /// Lines lost since the last report in the log.
    unreported: u64,
    /// True while the thread writes lines that it has taken.
    writing: bool,
}

/// One line that is being formatted. When it is dropped, it is queued as a whole.
pub(super) struct Line<'queue> {
    queue: &'queue Queue,
    bytes: Vec<u8>,
}

impl Queue {
    /// Starts the thread. It runs as long as the process, and may be blocked in a write when the process ends.
    ///
    /// # Errors
    /// Returns the system's error if the thread cannot be started.
    pub(super) fn start(sink: impl Write + Send + 'static, lost: Count) -> io::Result<Self> {
        let queue = Self(Arc::new(Inner {
            buffer: Mutex::default(),
            changed: Condvar::new(),
            lost,
        }));
        let reader = queue.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || reader.write_to(sink))?;
        Ok(queue)
    }

    /// Queues a line with its line break. Never waits for the log's reader.
    pub(super) fn push(&self, line: &[u8]) {
        let mut buffer = self.lock();
        if buffer.lines.len() + line.len() > CAPACITY {
            buffer.unreported += 1;
            self.0.lost.inc();
            return;
        }
        buffer.lines.extend_from_slice(line);
        drop(buffer);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, at most for `patience`.
    pub(super) fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut buffer = self.lock();
        while buffer.writing || !buffer.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.0.changed.wait_timeout(buffer, left);
            buffer = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write_to(&self, mut sink: impl Write) {
        loop {
            let (lines, unreported) = self.take();
            if unreported > 0 {
                // The queue is empty now; this line follows those that fitted.
                warn!(
                    lines = unreported,
                    "log lines were lost because nothing read standard error"
                );
            }
            let unwritten = write(&mut sink, &lines);
            let lines = unwritten.iter().filter(|byte| **byte == b'\n').count();
            self.0.lost.inc_by(lines as u64);
            self.lock().writing = false;
            self.0.changed.notify_all();
        }
    }

    /// Waits for lines and takes all of them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut buffer = self.lock();
        while buffer.lines.is_empty() {
            buffer = self.0.changed.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        buffer.writing = true;
        (take(&mut buffer.lines), take(&mut buffer.unreported))
    }

    /// Locks the buffer. A panic leaves only whole lines in it, so poisoning does not matter.
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.0.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all lines, however long that takes. Returns the rest if the sink is broken.
fn write<'lines>(sink: &mut impl Write, mut lines: &'lines [u8]) -> &'lines [u8] {
    while !lines.is_empty() {
        match sink.write(lines) {
            Ok(0) => return lines,
            Ok(count) => lines = &lines[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => return lines,
        }
    }
    lines
}

impl<'queue> MakeWriter<'queue> for Queue {
    type Writer = Line<'queue>;

    fn make_writer(&'queue self) -> Line<'queue> {
        Line {
            queue: self,
            bytes: Vec::new(),
        }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.queue.push(&self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    const HANG: Duration = Duration::from_secs(60);

    /// A sink whose writes complete only when the test allows it.
    struct Stuck(Sender<Vec<u8>>, Receiver<io::Result<()>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).unwrap();
            self.1.recv().unwrap()?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the queue, the writes in progress, and a sender that completes them.
    fn stuck() -> (Queue, Receiver<Vec<u8>>, Sender<io::Result<()>>) {
        let ((written, seen), (let_go, allowed)) = (channel(), channel());
        let lost = Count::default();
        let queue = Queue::start(Stuck(written, allowed), lost).unwrap();
        (queue, seen, let_go)
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_and_those_that_do_are_kept_whole() {
        let (queue, seen, let_go) = stuck();
        queue.push(b"first\n");
        assert_eq!(seen.recv_timeout(HANG).unwrap(), b"first\n");
        // From here on the thread is stuck.
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..CAPACITY / line.len() + 3 {
            queue.push(&line);
        }
        assert_eq!(queue.0.lost.get(), 3);
        let_go.send(Ok(())).unwrap();
        assert_eq!(seen.recv_timeout(HANG).unwrap(), line.repeat(CAPACITY / line.len()));
        assert_eq!(queue.lock().unreported, 0, "reported");
        let_go.send(Ok(())).unwrap();
        queue.flush(HANG);
        assert_eq!(queue.0.lost.get(), 3);
    }

    #[test]
    fn a_flush_waits_for_the_last_line_and_not_for_ever() {
        let (queue, seen, let_go) = stuck();
        queue.push(b"last\n");
        seen.recv_timeout(HANG).unwrap();
        queue.flush(Duration::ZERO);
        assert!(queue.lock().writing);
        let_go.send(Ok(())).unwrap();
        queue.flush(HANG);
        assert!(!queue.lock().writing);
    }

    #[test]
    fn a_closed_standard_error_loses_lines_and_a_non_blocking_one_does_not() {
        let (queue, seen, let_go) = stuck();
        queue.push(b"one\ntwo\n");
        seen.recv_timeout(HANG).unwrap();
        let_go.send(Err(io::ErrorKind::WouldBlock.into())).unwrap();
        assert_eq!(seen.recv_timeout(HANG).unwrap(), b"one\ntwo\n", "once more");
        let_go.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        queue.flush(HANG);
        assert_eq!(queue.0.lost.get(), 2);
    }
}
