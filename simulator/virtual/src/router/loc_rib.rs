//! Loc-RIB (RFC 4271 §3.2): what was learned, and what of it is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyvip_bgp::PeerName;
use anyvip_bgp::wire::ReceivedRoute;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Hop;
use super::ranking::Ranking;

/// More next hops than this are not used at once.
pub const MULTIPATH_LIMIT: usize = 64;

/// A route, and what the decision process asks about whom it came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// The route.
    pub route: ReceivedRoute,
    /// The peer's address on the session.
    pub address: IpAddr,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Whether the peer is in another AS.
    pub external: bool,
    /// The interface the peer is on.
    pub interface: String,
}

/// Routes by prefix: all learned ones, the best, and the next hops in use.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LocRib {
    learned: BTreeMap<IpNet, Ranking>,
    best: BTreeMap<IpNet, PeerName>,
    installed: BTreeMap<IpNet, Vec<Hop>>,
}

impl LocRib {
    /// Notes a route of a peer, or (`None`) that it has none to this prefix any more.
    pub fn learn(&mut self, prefix: IpNet, peer: &PeerName, route: Option<Learned>) {
        if route.is_some() {
            self.learned.entry(prefix).or_default().learn(peer, route);
        } else if let Some(ranking) = self.learned.get_mut(&prefix) {
            ranking.learn(peer, None);
            if ranking.routes.is_empty() {
                self.learned.remove(&prefix);
            }
        }
    }

    /// What a peer has told.
    pub fn prefixes_of(&self, peer: &PeerName) -> BTreeSet<IpNet> {
        self.learned
            .iter()
            .filter(|(_, ranking)| ranking.routes.contains_key(peer))
            .map(|(prefix, _)| *prefix)
            .collect()
    }

    /// Forgets all routes of a peer and names their prefixes.
    pub fn forget(&mut self, peer: &PeerName) -> BTreeSet<IpNet> {
        let prefixes = self.prefixes_of(peer);
        for prefix in &prefixes {
            self.learn(*prefix, peer, None);
        }
        prefixes
    }

    /// Runs the decision process for a prefix. `Some` is the new set of next hops (empty: none), `None` no change.
    pub fn choose(&mut self, prefix: IpNet) -> Option<Vec<Hop>> {
        let chosen = self.learned.get(&prefix).and_then(Ranking::choose);
        let mut hops = match chosen {
            Some((best, hops)) => {
                if self.best.get(&prefix) != Some(best) {
                    self.best.insert(prefix, best.clone());
                }
                hops
            }
            None => {
                self.best.remove(&prefix);
                Vec::new()
            }
        };
        // By next hop, not by peer: the place of a hop must not depend on how its session runs.
        hops.sort();
        hops.dedup_by(|a, b| (a.address, &a.interface) == (b.address, &b.interface));
        let former = match hops.is_empty() {
            true => self.installed.remove(&prefix).unwrap_or_default(),
            false => self.installed.insert(prefix, hops.clone()).unwrap_or_default(),
        };
        (former != hops).then_some(hops)
    }

    /// What each peer has told us of a prefix.
    pub fn learned(&self, prefix: &IpNet) -> impl Iterator<Item = (&PeerName, &Learned)> {
        self.learned.get(prefix).into_iter().flat_map(|ranking| &ranking.routes)
    }

    /// Next hops in use, by prefix.
    pub fn installed(&self) -> &BTreeMap<IpNet, Vec<Hop>> {
        &self.installed
    }

    /// The best route to each prefix and the peer it came from.
    pub fn best(&self) -> impl Iterator<Item = (&IpNet, &PeerName, &Learned)> {
        self.best
            .iter()
            .filter_map(|(prefix, peer)| Some((prefix, peer, self.learned.get(prefix)?.routes.get(peer)?)))
    }
}
