//! The listeners of the proxy: inherited from another process, or bound.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use crate::admin::{Admin, BoundRoute};
use crate::app::inherited::{Inherited, Listeners};
use crate::proxy::{self, Proxy, Settings};

/// Opens the admin port: on an inherited listener, or on a new one.
pub(super) fn admin(asked: SocketAddr, inherited: &mut Inherited, listeners: &mut Listeners) -> Result<Admin> {
    let taken = inherited.take("admin", asked)?;
    let activated = matches!(taken, Some((_, true)));
    let admin = match taken {
        Some((listener, _)) => Admin::adopt(listener),
        None => Admin::bind(asked),
    };
    let admin = admin.context("cannot serve the admin port (--admin)")?;
    listeners.keep("admin", asked, activated, admin.listener())?;
    Ok(admin)
}

/// Opens the port of a route: on an inherited listener, or on a new one. A listener of systemd outlives this process,
/// and so do the clients in its backlog.
pub(super) fn listen(
    asked: SocketAddr,
    route: proxy::Route,
    proxy: &mut Proxy,
    settings: &Settings,
    inherited: &mut Inherited,
    listeners: &mut Listeners,
) -> Result<BoundRoute> {
    let (kind, upstream, slot) = (route.kind, route.upstream, route.slot.clone());
    let cannot = || format!("cannot listen for clients of the route {kind} (--listen, --route, --ports)");
    let taken = inherited.take("listen", asked)?;
    let activated = matches!(taken, Some((_, true)));
    let listener = match taken {
        Some((listener, _)) => proxy.adopt(listener, activated, route, settings).with_context(cannot)?,
        None => match inherited.beside("listen", asked.port())? {
            former if former.is_empty() => proxy.bind(asked, route, settings).with_context(cannot)?,
            former => proxy.bind_beside(asked, former, route, settings).with_context(cannot)?,
        },
    };
    listeners.keep("listen", asked, activated, listener)?;
    Ok(BoundRoute {
        kind,
        upstream,
        address: listener.local_addr()?,
        slot,
        fitness: None,
    })
}
