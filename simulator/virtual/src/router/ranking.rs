//! All routes to one prefix in the order of preference, kept in order: a router with ten thousand peers cannot look at
//! all of them for each UPDATE.
//!
//! MED does not order routes: it compares only those of one neighbouring AS (RFC 4271 §9.1.2.2 c). Where a route carries
//! one, the whole Decision Process decides.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyvip_bgp::PeerName;
use anyvip_bgp::decision::{self, Candidate, Multipath};
use anyvip_bgp::wire::{NextHop, Origin};
use serde::{Deserialize, Serialize};

use super::{Hop, Learned, MULTIPATH_LIMIT};

/// LOCAL_PREF of a route that carries none, and of all external ones (RFC 4271 §9.1.1).
const DEFAULT_LOCAL_PREF: u32 = 100;

/// What the Decision Process compares before it breaks ties, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Class {
    /// The larger LOCAL_PREF is better.
    dislike: u32,
    path_length: usize,
    origin: Origin,
    internal: bool,
}

/// See the module's text.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Ranking {
    pub(super) routes: BTreeMap<PeerName, Learned>,
    /// Routes that carry a MED.
    meds: usize,
    /// For the order of next hops.
    by_address: BTreeSet<(Class, IpAddr, Ipv4Addr, PeerName)>,
    /// For the tie-break f) and g).
    by_id: BTreeSet<(Class, Ipv4Addr, IpAddr, PeerName)>,
}

impl Ranking {
    /// A peer's route, or (`None`) that it has none any more.
    pub(super) fn learn(&mut self, peer: &PeerName, route: Option<Learned>) {
        if let Some(former) = self.routes.remove(peer) {
            let (class, address, id) = (class(&former), former.address, former.router_id);
            self.meds -= usize::from(former.route.attributes.med.is_some());
            self.by_address.remove(&(class, address, id, peer.clone()));
            self.by_id.remove(&(class, id, address, peer.clone()));
        }
        if let Some(route) = route {
            let (class, address, id) = (class(&route), route.address, route.router_id);
            self.meds += usize::from(route.route.attributes.med.is_some());
            self.by_address.insert((class, address, id, peer.clone()));
            self.by_id.insert((class, id, address, peer.clone()));
            self.routes.insert(peer.clone(), route);
        }
    }

    /// The best route's peer, and the next hops of all that share the load.
    pub(super) fn choose(&self) -> Option<(&PeerName, Vec<Hop>)> {
        if self.meds > 0 {
            return self.decide();
        }
        let (class, _, _, best) = self.by_id.first()?;
        let others = self.by_address.iter().take_while(|(other, ..)| other == class);
        let others = others.map(|(.., peer)| peer).filter(|peer| *peer != best).take(MULTIPATH_LIMIT - 1);
        Some((best, hops(others.chain([best]).filter_map(|peer| self.routes.get(peer)))))
    }

    /// The same by the whole Decision Process.
    fn decide(&self) -> Option<(&PeerName, Vec<Hop>)> {
        let routes: Vec<(&PeerName, &Learned)> = self.routes.iter().collect();
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
        let selection = decision::select(&candidates, multipath)?;
        let (best, _) = routes.get(selection.best)?;
        let chosen = selection.multipath.iter().filter_map(|at| routes.get(*at));
        Some((best, hops(chosen.map(|(_, learned)| *learned))))
    }
}

fn class(learned: &Learned) -> Class {
    let attributes = &learned.route.attributes;
    let local_pref = match learned.external {
        true => DEFAULT_LOCAL_PREF,
        false => attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
    };
    Class {
        dislike: u32::MAX - local_pref,
        path_length: attributes.as_path.length(),
        origin: attributes.origin,
        internal: !learned.external,
    }
}

/// The kernel takes weights up to this.
const MOST_WEIGHT: u64 = 256;

/// The next hops of these routes. Their weights are as their link bandwidths, exactly where numbers up to 256 can say it; if one
/// of them has none, all are equal (draft-ietf-idr-link-bandwidth §2).
fn hops<'a>(routes: impl Iterator<Item = &'a Learned>) -> Vec<Hop> {
    let routes: Vec<(&Learned, Option<u64>)> = routes.map(|learned| (learned, bandwidth(learned))).collect();
    let known: Option<Vec<u64>> = routes.iter().map(|(_, bandwidth)| *bandwidth).collect();
    let known = known.unwrap_or_default();
    let unit = known.iter().copied().fold(0, gcd).max(1);
    let most = known.iter().copied().max().unwrap_or(0);
    let weight = |bandwidth: u64| match most / unit <= MOST_WEIGHT {
        true => bandwidth / unit,
        false => {
            ((u128::from(bandwidth) * u128::from(MOST_WEIGHT) * 2 + u128::from(most))
                / (u128::from(most) * 2)) as u64
        }
    };
    let weights = known.into_iter().map(weight).chain(std::iter::repeat(1));
    let hop = |((learned, _), weight): ((&Learned, _), u64)| {
        let address = match learned.route.next_hop {
            NextHop::V4(address) => IpAddr::V4(address),
            NextHop::V6 { global, .. } => IpAddr::V6(global),
        };
        Hop { address, interface: learned.interface.clone(), weight: weight.clamp(1, MOST_WEIGHT) as u16 }
    };
    routes.into_iter().zip(weights).map(hop).collect()
}

/// Octets a second that a route came with, if any.
fn bandwidth(learned: &Learned) -> Option<u64> {
    let communities = &learned.route.attributes.extended_communities;
    communities.iter().find_map(|community| community.bandwidth()).filter(|rate| *rate > 0)
}

fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use anyvip_bgp::wire::{AsPath, ExtendedCommunity, PathAttributes, ReceivedRoute};
    use anyvip_machine::Seed;

    use super::*;

    /// Few values each, so that ties are many.
    fn drawn(seed: &mut Seed, peer: u64) -> Learned {
        let length = 1 + seed.below(2);
        let asns: Vec<u32> = (0..length).map(|_| 65_000 + seed.below(3) as u32).collect();
        let external = seed.below(4) > 0;
        let origin = if seed.below(3) > 0 { Origin::Igp } else { Origin::Incomplete };
        Learned {
            route: ReceivedRoute {
                next_hop: NextHop::V4(Ipv4Addr::new(10, 1, 0, peer as u8)),
                attributes: PathAttributes {
                    origin,
                    as_path: AsPath::sequence(asns),
                    local_pref: (!external).then(|| 90 + 10 * seed.below(3) as u32),
                    ..PathAttributes::default()
                },
            },
            address: IpAddr::from([10, 0, 0, peer as u8]),
            router_id: Ipv4Addr::new(10, 0, 0, seed.below(5) as u8),
            external,
            interface: format!("eth{peer}"),
        }
    }

    #[test]
    fn weights_are_as_link_bandwidths_if_all_routes_have_one() {
        let mut seed = Seed::new(3);
        let mut weights = |rates: &[Option<u16>]| {
            let mut ranking = Ranking::default();
            for (peer, rate) in (1..).zip(rates) {
                let mut route = drawn(&mut seed, peer);
                route.external = true;
                route.route.attributes = PathAttributes::default();
                let told = rate.map(|rate| ExtendedCommunity::link_bandwidth(65_001, rate));
                route.route.attributes.extended_communities = told.into_iter().collect();
                ranking.learn(&PeerName(format!("p{peer}")), Some(route));
            }
            let mut hops = ranking.choose().unwrap().1;
            hops.sort();
            hops.into_iter().map(|hop| hop.weight).collect::<Vec<_>>()
        };
        assert_eq!(weights(&[Some(1), Some(3)]), [1, 3]);
        assert_eq!(weights(&[Some(200), Some(200), Some(100)]), [2, 2, 1]);
        assert_eq!(weights(&[Some(1), None]), [1, 1]);
        assert_eq!(weights(&[None, None]), [1, 1]);
        assert_eq!(weights(&[Some(1), Some(60_000)]), [1, 256], "nobody is left out by rounding");
        assert_eq!(weights(&[Some(30_001), Some(60_000)]), [128, 256]);
        assert_eq!(weights(&[Some(256), Some(1)]), [256, 1]);
    }

    #[test]
    fn what_is_kept_in_order_says_the_same_as_the_whole_decision_process() {
        let mut seed = Seed::new(11);
        let mut ranking = Ranking::default();
        for step in 0..4000 {
            let peer = seed.below(100);
            let route = seed.chance(700).then(|| drawn(&mut seed, peer));
            ranking.learn(&PeerName(format!("p{peer}")), route);
            let sorted = |chosen: Option<(&PeerName, Vec<Hop>)>| {
                chosen.map(|(best, mut hops)| {
                    hops.sort();
                    (best.clone(), hops)
                })
            };
            assert_eq!(sorted(ranking.choose()), sorted(ranking.decide()), "step {step}");
        }
    }
}
