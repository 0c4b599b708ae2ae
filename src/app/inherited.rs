//! Listeners that another process opened: systemd, or the pgnorth that this process replaces.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use anyhow::{Result, bail};

use crate::handover::PassedListener;
use crate::proxy;

/// The listeners that were passed to this process and are not in use yet.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<Waiting>);

#[derive(Debug)]
struct Waiting {
    /// The flag and the address in the old process's settings; `None` if systemd passed the listener to this process.
    asked: Option<(String, SocketAddr)>,
    activated: bool,
    listener: TcpListener,
}

/// Copies of the listeners in use, for a successor. They keep the listeners open.
#[derive(Debug, Default)]
pub(super) struct Listeners(Vec<(PassedListener, TcpListener)>);

impl Inherited {
    /// Returns the set of listeners that systemd opened.
    pub(super) fn from_systemd(listeners: Vec<TcpListener>) -> Self {
        let waiting = listeners.into_iter().map(|listener| Waiting {
            asked: None,
            activated: true,
            listener,
        });
        Self(waiting.collect())
    }

    /// Returns the set of listeners of the old process.
    pub(super) fn from_predecessor(passed: Vec<PassedListener>, files: Vec<OwnedFd>) -> Self {
        let waiting = passed.into_iter().zip(files).map(|(passed, file)| Waiting {
            asked: Some((passed.flag, passed.asked)),
            activated: passed.activated,
            listener: file.into(),
        });
        Self(waiting.collect())
    }

    /// Removes and returns the listener for the address that this flag names, and true if systemd opened the listener.
    /// A listener of systemd needs to have the same port, but not the same address.
    ///
    /// # Errors
    /// Returns an error that names the port if systemd passed several listeners with this port.
    pub(super) fn take(&mut self, flag: &str, asked: SocketAddr) -> Result<Option<(TcpListener, bool)>> {
        let port = |waiting: &Waiting| waiting.listener.local_addr().map(|address| address.port()).ok();
        let is_it = |waiting: &Waiting| match &waiting.asked {
            Some((other, address)) => other == flag && *address == asked,
            None => port(waiting) == Some(asked.port()),
        };
        let found: Vec<usize> = (0..self.0.len()).filter(|number| is_it(&self.0[*number])).collect();
        match found[..] {
            [] => Ok(None),
            // Several listeners with port 0 are in the order of the settings.
            [one, ..] if found.len() == 1 || self.0[one].asked.is_some() => {
                let waiting = self.0.remove(one);
                Ok(Some((waiting.listener, waiting.activated)))
            }
            _ => bail!(
                "systemd passed {} listeners for port {}; keep only one ListenStream= with this port in the .socket \
                 units",
                found.len(),
                asked.port()
            ),
        }
    }

    /// Returns copies of the old process's listeners for this flag that have this port at other addresses.
    ///
    /// # Errors
    /// Returns the system's error if no further file can be opened.
    pub(super) fn beside(&self, flag: &str, port: u16) -> std::io::Result<Vec<TcpListener>> {
        let is_it = |waiting: &&Waiting| {
            let is_flags = waiting.asked.as_ref().is_some_and(|(other, _)| other == flag);
            is_flags
                && waiting
                    .listener
                    .local_addr()
                    .is_ok_and(|address| address.port() == port)
        };
        (self.0.iter().filter(is_it))
            .map(|waiting| waiting.listener.try_clone())
            .collect()
    }

    /// Checks that every listener of systemd is in use: clients of an unused listener would wait forever.
    ///
    /// # Errors
    /// Returns an error that names the address and the settings.
    pub(super) fn check_used(&self) -> Result<()> {
        let unused = self.0.iter().find(|waiting| waiting.asked.is_none());
        match unused.map(|waiting| waiting.listener.local_addr()) {
            None => Ok(()),
            Some(address) => bail!(
                "systemd passed a listener on {}, but none of --listen, --route, --ports and --admin uses this port; \
                 correct ListenStream= in the .socket unit, or the setting",
                address.map_or_else(|error| error.to_string(), |address| address.to_string())
            ),
        }
    }
}

impl Listeners {
    /// Keeps a copy of a listener in use, so that the listener stays open.
    ///
    /// # Errors
    /// Returns the system's error if no further file can be opened.
    pub(super) fn keep(
        &mut self,
        flag: &str,
        asked: SocketAddr,
        activated: bool,
        listener: &TcpListener,
    ) -> std::io::Result<()> {
        let flag = flag.to_owned();
        let passed = PassedListener { flag, asked, activated };
        self.0.push((passed, listener.try_clone()?));
        Ok(())
    }

    /// Makes the ports exclusive to this process again after a failed reload.
    pub(super) fn keep_ports(&self) {
        self.0.iter().for_each(|(_, listener)| proxy::keep_port(listener));
    }

    /// Returns copies of the listeners in use, for a successor.
    ///
    /// # Errors
    /// Returns the system's error if no further file can be opened.
    pub(super) fn copies(&self) -> std::io::Result<(Vec<PassedListener>, Vec<OwnedFd>)> {
        let copy =
            |(passed, listener): &(PassedListener, TcpListener)| Ok((passed.clone(), listener.try_clone()?.into()));
        let copies: std::io::Result<Vec<_>> = self.0.iter().map(copy).collect();
        Ok(copies?.into_iter().unzip())
    }
}
