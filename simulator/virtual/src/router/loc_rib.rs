//! Loc-RIB (RFC 4271 §3.2): what was learned, and what of it is in use.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyvip_bgp::PeerName;
use anyvip_bgp::decision::{self, Candidate, Multipath};
use anyvip_bgp::wire::{NextHop, ReceivedRoute};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Hop;

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
    learned: BTreeMap<IpNet, BTreeMap<PeerName, Learned>>,
    best: BTreeMap<IpNet, PeerName>,
    installed: BTreeMap<IpNet, Vec<Hop>>,
}

impl LocRib {
    /// Notes a route of a peer, or (`None`) that it has none to this prefix any more.
    pub fn learn(&mut self, prefix: IpNet, peer: &PeerName, route: Option<Learned>) {
        match route {
            Some(route) => {
                self.learned.entry(prefix).or_default().insert(peer.clone(), route);
            }
            None => {
                if let Some(routes) = self.learned.get_mut(&prefix) {
                    routes.remove(peer);
                    if routes.is_empty() {
                        self.learned.remove(&prefix);
                    }
                }
            }
        }
    }

    /// Forgets all routes of a peer and names their prefixes.
    pub fn forget(&mut self, peer: &PeerName) -> BTreeSet<IpNet> {
        let prefixes: BTreeSet<IpNet> = self
            .learned
            .iter()
            .filter(|(_, routes)| routes.contains_key(peer))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in &prefixes {
            self.learn(*prefix, peer, None);
        }
        prefixes
    }

    /// Runs the decision process for a prefix. `Some` is the new set of next hops (empty: none), `None` no change.
    pub fn choose(&mut self, prefix: IpNet) -> Option<Vec<Hop>> {
        let routes: Vec<(&PeerName, &Learned)> = self.learned.get(&prefix).into_iter().flatten().collect();
        let candidates: Vec<Candidate<'_>> = routes
            .iter()
            .map(|(_, learned)| Candidate {
                route: &learned.route,
                peer: learned.address,
                router_id: learned.router_id,
                external: learned.external,
                interior_cost: 0,
            })
            .collect();
        let multipath = Multipath { limit: MULTIPATH_LIMIT, relax: true };
        let mut hops = Vec::new();
        match decision::select(&candidates, multipath) {
            Some(selection) => {
                if let Some((peer, _)) = routes.get(selection.best) {
                    self.best.insert(prefix, (*peer).clone());
                }
                let chosen = selection.multipath.iter().filter_map(|at| routes.get(*at));
                hops.extend(chosen.map(|(_, learned)| Hop {
                    address: match learned.route.next_hop {
                        NextHop::V4(address) => IpAddr::V4(address),
                        NextHop::V6 { global, .. } => IpAddr::V6(global),
                    },
                    interface: learned.interface.clone(),
                }));
            }
            None => {
                self.best.remove(&prefix);
            }
        }
        // By next hop, not by peer: the place of a hop must not depend on how its session runs.
        hops.sort();
        hops.dedup();
        let former = match hops.is_empty() {
            true => self.installed.remove(&prefix).unwrap_or_default(),
            false => self.installed.insert(prefix, hops.clone()).unwrap_or_default(),
        };
        (former != hops).then_some(hops)
    }

    /// What each peer has told us of a prefix.
    pub fn learned(&self, prefix: &IpNet) -> impl Iterator<Item = (&PeerName, &Learned)> {
        self.learned.get(prefix).into_iter().flatten()
    }

    /// Next hops in use, by prefix.
    pub fn installed(&self) -> &BTreeMap<IpNet, Vec<Hop>> {
        &self.installed
    }

    /// The best route to each prefix and the peer it came from.
    pub fn best(&self) -> impl Iterator<Item = (&IpNet, &PeerName, &Learned)> {
        self.best
            .iter()
            .filter_map(|(prefix, peer)| Some((prefix, peer, self.learned.get(prefix)?.get(peer)?)))
    }
}
