//! Tells errors that mean a lack of resources at pgnorth from errors of a peer.

use std::io;

use rustix::io::Errno;

/// Returns what pgnorth or its host lacks, and the fix, if that is the cause of `error`.
pub(crate) fn lack(error: &io::Error) -> Option<&'static str> {
    let lack = match Errno::from_io_error(error)? {
        Errno::MFILE => {
            "pgnorth has reached its limit of open files; raise the hard limit (LimitNOFILE= or ulimit -Hn), or lower \
             --max-sessions"
        }
        Errno::NFILE => "this host has reached its limit of open files; raise fs.file-max",
        Errno::NOSPC => "pgnorth's user has reached its limit of epoll watches; raise fs.epoll.max_user_watches",
        Errno::NOMEM | Errno::NOBUFS => {
            "the kernel has no memory for it; raise the memory limit of pgnorth or of its host, or lower --max-sessions"
        }
        _ => return None,
    };
    Some(lack)
}
