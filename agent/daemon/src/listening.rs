//! The listener that passive peers need: told once when it cannot be had, tried again until it can. And which listeners of the
//! program that this process was before an upgrade go on, and where.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use anyvip_core::Config;
use anyvip_core::boundary::Fact;
use anyvip_core::status::Warning;
use anyvip_io::Connections;
use anyvip_io::connections::Signers;

use crate::driver::ARP_EVERY;

/// Gives the connections the listener that they will ask for, and returns those that the responder will; the others are closed: they
/// would be in the way of another address with the same port.
pub(crate) fn inherit(
    mut left: BTreeMap<SocketAddr, TcpListener>,
    mut signers: Signers,
    config: &Config,
    connections: &mut Connections,
) -> BTreeMap<SocketAddr, TcpListener> {
    let bgp = &config.bgp;
    if let Some(listener) = bgp.listen.and_then(|address| left.remove(&address)) {
        // A version that did not say for whom it had keys had them for peers that are mostly still there.
        signers.addresses.extend(bgp.peers.values().filter_map(|peer| peer.remote.address()));
        connections.inherit(listener, signers);
    }
    let asked = &config.responder;
    left.retain(|address, _| asked.listen.iter().chain(asked.ports.values()).any(|wanted| wanted == address));
    left
}

/// See the module's text.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    wanted: Option<SocketAddr>,
    bound: Option<SocketAddr>,
    /// Why it is not bound, as last told.
    refused: Option<String>,
}

impl Listening {
    pub(crate) fn warning(&self) -> Option<Warning> {
        let refused = self.refused.as_ref()?;
        let text =
            format!("{refused}: no peer can connect to us; tried again every {} s", ARP_EVERY.as_secs());
        Some(Warning { code: "not-listening".to_owned(), text })
    }

    /// Listens here from now on, or no longer.
    pub(crate) fn at(&mut self, address: Option<SocketAddr>, connections: &mut Connections) -> Option<Fact> {
        if let Some(bound) = self.bound.take() {
            connections.stop_listening(bound);
        }
        (self.wanted, self.refused) = (address, None);
        self.again(connections)
    }

    /// Whoever holds the port, or the address that is not there yet, may change.
    pub(crate) fn again(&mut self, connections: &mut Connections) -> Option<Fact> {
        let (Some(address), None) = (self.wanted, self.bound) else { return None };
        match connections.listen(address) {
            Ok(bound) => {
                self.bound = Some(bound);
                self.refused.take().map(|_| Fact::Lifecycle { text: format!("listening on {bound}") })
            }
            // Told once, not at each try.
            Err(failure) if self.refused.as_ref() != Some(&failure.text) => {
                self.refused = Some(failure.text);
                self.warning().map(|warning| Fact::PeerNotice { peer: None, text: warning.text })
            }
            Err(_) => None,
        }
    }
}
