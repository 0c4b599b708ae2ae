//! The state that pairs share: [`Traffic`] across all workers, [`IoContext`] on one worker.

use std::sync::Arc;
use std::time::Duration;

use super::pipes::{BUFFER, Pipe, Pipes};
use crate::metrics::Count;
use crate::proxy::forward::reactor::{Kernel, Syscalls};

/// The pool of pipes, the counters and the timeouts of all workers.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) pipes: Pipes,
    /// Bytes delivered to leaders.
    pub(crate) to_leader: Count,
    /// Bytes delivered to clients.
    pub(crate) to_client: Count,
    /// TCP_USER_TIMEOUT of clients' sockets; zero if the system's default applies.
    pub(crate) client_timeout: Duration,
    /// TCP_USER_TIMEOUT of leaders' sockets; zero if the system's default applies.
    pub(crate) leader_timeout: Duration,
    /// Time for which a client's FIN is held back, so that the leader's FIN can come first.
    pub(crate) fin_delay: Duration,
}

/// The resources with which a worker moves bytes. One pair at a time uses them.
pub(crate) struct IoContext<S = Kernel> {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) syscalls: S,
    pub(crate) traffic: Arc<Traffic>,
    /// True if a pipe was lent since the worker last checked.
    pub(crate) lent_pipe: bool,
}

impl<S: Syscalls> IoContext<S> {
    pub(crate) fn new(traffic: Arc<Traffic>, syscalls: S) -> Self {
        Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            syscalls,
            traffic,
            lent_pipe: false,
        }
    }

    /// Returns an empty pipe, if one is available.
    pub(crate) fn take_pipe(&mut self) -> Option<Pipe> {
        let pipe = self.traffic.pipes.take();
        self.lent_pipe |= pipe.is_some();
        pipe
    }
}
