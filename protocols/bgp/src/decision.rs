//! The Decision Process of RFC 4271 §9.1 as a pure function: which of several routes to one prefix to use.
//!
//! Only routers call it. What has to be excluded before (§9.1.2: a next hop that cannot be reached, a path with our
//! own AS) is the caller's, or was dropped by the Adj-RIB-In already.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::wire::{AsPath, AsSegmentKind, ReceivedRoute};

/// LOCAL_PREF of a route that carries none.
const DEFAULT_LOCAL_PREF: u32 = 100;

/// One route to the prefix in question, and whom it came from.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The route.
    pub route: &'a ReceivedRoute,
    /// The peer's address on the session.
    pub peer: IpAddr,
    /// The peer's BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Whether the peer is in another AS.
    pub external: bool,
    /// Interior cost to the next hop; 0 where it is on a connected network.
    pub interior_cost: u32,
}

/// How many routes may share the load, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multipath {
    /// At most so many, at least one.
    pub limit: usize,
    /// "Multipath relax": AS paths of equal length share although they name different ASes.
    pub relax: bool,
}

/// What was chosen, as positions in the candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The one best path: the one to tell others.
    pub best: usize,
    /// All that share the load, the best among them, ordered by peer address so that next hops keep their places.
    pub multipath: Vec<usize>,
}

/// Chooses among routes to one prefix; `None` if there are none.
pub fn select(candidates: &[Candidate<'_>], multipath: Multipath) -> Option<Selection> {
    let mut left: Vec<(usize, &Candidate<'_>)> = candidates.iter().enumerate().collect();
    // RFC 4271 §9.1.1: the degree of preference is LOCAL_PREF, for external routes our own policy, which has none.
    keep_least(&mut left, |c| Reverse(local_pref(c)));
    // RFC 4271 §9.1.2.2, in its order: a) AS path length, b) ORIGIN.
    keep_least(&mut left, |c| c.route.attributes.as_path.length());
    keep_least(&mut left, |c| c.route.attributes.origin);
    // c) MED, only among routes of the same neighbouring AS; absent is the lowest.
    let med = |c: &Candidate<'_>| c.route.attributes.med.unwrap_or(0);
    let mut least: BTreeMap<Option<u32>, u32> = BTreeMap::new();
    for (_, c) in &left {
        let least = least.entry(neighbor(c)).or_insert(u32::MAX);
        *least = (*least).min(med(c));
    }
    left.retain(|(_, c)| least.get(&neighbor(c)).is_none_or(|least| med(c) <= *least));
    // d) external before internal, e) interior cost.
    keep_least(&mut left, |c| !c.external);
    keep_least(&mut left, |c| c.interior_cost);
    // f) BGP Identifier, g) peer address; by position last, which callers keep stable.
    let (best, chosen) = left.iter().min_by_key(|(at, c)| (c.router_id, c.peer, *at)).copied()?;
    let shares =
        |c: &Candidate<'_>| multipath.relax || c.route.attributes.as_path == chosen.route.attributes.as_path;
    let mut others: Vec<_> = left.into_iter().filter(|(at, c)| *at != best && shares(c)).collect();
    others.sort_by_key(|(at, c)| (c.peer, c.router_id, *at));
    others.truncate(multipath.limit.saturating_sub(1));
    others.push((best, chosen));
    others.sort_by_key(|(at, c)| (c.peer, c.router_id, *at));
    Some(Selection { best, multipath: others.into_iter().map(|(at, _)| at).collect() })
}

fn keep_least<K: Ord>(left: &mut Vec<(usize, &Candidate<'_>)>, key: impl Fn(&Candidate<'_>) -> K) {
    if let Some(least) = left.iter().map(|(_, c)| key(c)).min() {
        left.retain(|(_, c)| key(c) == least);
    }
}

fn local_pref(candidate: &Candidate<'_>) -> u32 {
    match candidate.external {
        true => DEFAULT_LOCAL_PREF,
        false => candidate.route.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF),
    }
}

/// RFC 4271 §9.1.2.2 c: the AS the route was received from; none for a route from within our own AS.
fn neighbor(candidate: &Candidate<'_>) -> Option<u32> {
    let first = candidate.route.attributes.as_path.segments.first()?;
    match first.kind {
        AsSegmentKind::Sequence => first.asns.first().copied(),
        AsSegmentKind::Set => None,
    }
}

impl AsPath {
    /// Its length as RFC 4271 §9.1.2.2 a counts: an AS_SET is one, however many it names.
    pub fn length(&self) -> usize {
        let hops = |kind, asns: &[u32]| match kind {
            AsSegmentKind::Set => 1,
            AsSegmentKind::Sequence => asns.len(),
        };
        self.segments.iter().map(|segment| hops(segment.kind, &segment.asns)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{AsSegment, NextHop, Origin, PathAttributes};

    const ALL: Multipath = Multipath { limit: 64, relax: true };

    fn route(asns: &[u32]) -> ReceivedRoute {
        let as_path = AsPath::sequence(asns.iter().copied());
        let attributes = PathAttributes { as_path, ..PathAttributes::default() };
        ReceivedRoute { next_hop: NextHop::V4(Ipv4Addr::new(10, 0, 0, 9)), attributes }
    }

    fn from(last: u8, route: &ReceivedRoute) -> Candidate<'_> {
        let address = Ipv4Addr::new(10, 0, 0, last);
        Candidate { route, peer: IpAddr::V4(address), router_id: address, external: true, interior_cost: 0 }
    }

    fn best(candidates: &[Candidate<'_>]) -> usize {
        select(candidates, ALL).unwrap().best
    }

    #[test]
    fn of_no_routes_none_is_chosen() {
        assert_eq!(select(&[], ALL), None);
    }

    /// RFC 4271 §9.1.1.
    #[test]
    fn the_highest_local_pref_wins_among_internal_routes_whatever_the_path() {
        let (short, mut long) = (route(&[1]), route(&[1, 2, 3]));
        long.attributes.local_pref = Some(200);
        let internal = |last, route| Candidate { external: false, ..from(last, route) };
        assert_eq!(best(&[internal(1, &short), internal(2, &long)]), 1);
        assert_eq!(best(&[from(1, &short), from(2, &long)]), 0, "an external peer has no say in it");
    }

    /// RFC 4271 §9.1.2.2 a and b.
    #[test]
    fn the_shortest_path_wins_then_the_lowest_origin() {
        let (long, short, mut egp) = (route(&[1, 2]), route(&[3]), route(&[4]));
        egp.attributes.origin = Origin::Egp;
        assert_eq!(best(&[from(1, &long), from(2, &egp), from(3, &short)]), 2);
        let mut set = route(&[1]);
        let many = AsSegment { kind: AsSegmentKind::Set, asns: [7, 8, 9].as_slice().into() };
        set.attributes.as_path.segments.push(many);
        assert_eq!(set.attributes.as_path.length(), 2, "an AS_SET is one hop");
    }

    /// RFC 4271 §9.1.2.2 c.
    #[test]
    fn med_decides_only_among_routes_of_the_same_neighbour() {
        let with = |asn, med| {
            let mut route = route(&[asn]);
            route.attributes.med = med;
            route
        };
        let (dear, cheap, other) = (with(1, Some(20)), with(1, None), with(2, Some(99)));
        let chosen = select(&[from(1, &dear), from(2, &cheap), from(3, &other)], ALL).unwrap();
        assert_eq!((chosen.best, chosen.multipath), (1, vec![1, 2]));
    }

    /// RFC 4271 §9.1.2.2 d to g.
    #[test]
    fn external_beats_internal_then_cost_then_identifier_then_address() {
        let same = route(&[1]);
        let internal = Candidate { external: false, ..from(1, &same) };
        assert_eq!(best(&[internal, from(2, &same)]), 1);
        let far = Candidate { interior_cost: 10, ..from(1, &same) };
        assert_eq!(best(&[far, from(2, &same)]), 1);
        assert_eq!(best(&[from(3, &same), from(2, &same)]), 1);
        let twin = Candidate { peer: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), ..from(2, &same) };
        assert_eq!(best(&[from(2, &same), twin]), 1);
    }

    #[test]
    fn equal_routes_share_in_the_order_of_their_peers_however_they_are_given() {
        let routes = [route(&[65001]), route(&[65002]), route(&[65003]), route(&[65004, 1])];
        let mut candidates: Vec<_> = (1..=4u8).zip(&routes).map(|(last, route)| from(last, route)).collect();
        let peers = |candidates: &[Candidate<'_>]| {
            let chosen = select(candidates, ALL).unwrap();
            chosen.multipath.iter().map(|at| candidates[*at].peer).collect::<Vec<_>>()
        };
        let first = peers(&candidates);
        assert_eq!(first.len(), 3, "a longer path does not share");
        for _ in 0..4 {
            candidates.rotate_left(1);
            assert_eq!(peers(&candidates), first);
        }
    }

    #[test]
    fn without_relax_only_equal_paths_share_and_the_limit_keeps_the_best() {
        let (one, two) = (route(&[65001]), route(&[65002]));
        let candidates = [from(3, &two), from(2, &one), from(1, &two)];
        let strict = select(&candidates, Multipath { limit: 64, relax: false }).unwrap();
        assert_eq!((strict.best, strict.multipath), (2, vec![2, 0]));
        for limit in [0, 1] {
            let single = select(&candidates, Multipath { limit, relax: true }).unwrap();
            assert_eq!(single.multipath, [2]);
        }
    }
}
