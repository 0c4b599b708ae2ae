//! The lowest layer of forwarding: one epoll per worker, the files in it, and sockets that record their readiness.
//!
//! A socket is used in two ways. While a session is being opened it is a [`Socket`], whose async methods wait for
//! epoll. When the session is forwarded it becomes a [`PolledStream`], which the relay tries whenever epoll reports an
//! event. Both are the same file in the same epoll, so nothing is registered twice and no event is lost in between.

mod epoll;
mod lack;
mod listener;
mod registry;
mod socket;
mod stream;
mod syscalls;
mod token;
mod unsent;
mod wakeups;

pub(crate) use epoll::{EVENT_BATCH, Epoll};
pub(crate) use lack::lack;
pub(crate) use listener::{Listener, accept};
pub(crate) use registry::Reactor;
pub(crate) use socket::Socket;
pub(crate) use stream::PolledStream;
pub(crate) use syscalls::{Kernel, Syscalls};
pub(crate) use token::{Side, Token};
pub(crate) use unsent::has_unsent;
pub(crate) use wakeups::{Eventfd, Timerfd};
