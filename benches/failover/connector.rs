//! The way of one client to the primary: one address, or libpq with the addresses of all members.

use std::net::SocketAddr;

use crate::libpq::{Libpq, conninfo};
use crate::session::{Failure, Session};
use crate::support::Rig;
use crate::tls::Tls;

/// A way to the primary.
pub enum Connector {
    Address(SocketAddr, Option<Tls>),
    Libpq {
        conninfo: String,
        /// A process without a session, from its start or from the session before.
        spare: Option<Box<Libpq>>,
    },
}

impl Connector {
    pub fn address(address: SocketAddr, tls: Option<Tls>) -> Self {
        Self::Address(address, tls)
    }

    pub fn libpq(rig: &Rig, with_tls: bool) -> Self {
        Self::Libpq {
            conninfo: conninfo(rig, with_tls),
            spare: None,
        }
    }

    /// Opens a session. Cancel-safe: libpq's process ends with a call that is dropped.
    pub async fn open(&mut self) -> Result<Session, Failure> {
        match self {
            Self::Address(address, tls) => Session::open(*address, tls.as_ref()).await,
            Self::Libpq { conninfo, spare } => {
                let libpq = spare.take().unwrap_or_else(|| Box::new(Libpq::start()));
                let (opened, libpq) = Session::open_by_libpq(libpq, conninfo).await;
                match opened {
                    Ok(()) => Ok(Session::Libpq(libpq)),
                    Err(failure) => {
                        *spare = Some(libpq);
                        Err(failure)
                    }
                }
            }
        }
    }

    /// Closes a session. libpq's process remains, unless the session hangs in it.
    pub async fn close(&mut self, session: Session) {
        if let (Self::Libpq { spare, .. }, Session::Libpq(mut libpq)) = (self, session)
            && !libpq.is_busy()
            && libpq.call("close", "").await.is_ok()
        {
            *spare = Some(libpq);
        }
    }
}
