//! The Decision Process of RFC 4271 §9.1 as a pure function: which of several routes to one prefix to use.
//!
//! Only routers call it. What has to be excluded before (§9.1.2: a next hop that cannot be reached, a path with our
//! own AS) is the caller's, or was dropped by the Adj-RIB-In already.

use std::cmp::Reverse;
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
    let beaten = |c: &Candidate<'_>, by: &Candidate<'_>| neighbor(c) == neighbor(by) && med(by) < med(c);
    let all = left.clone();
    left.retain(|(_, c)| !all.iter().any(|(_, other)| beaten(c, other)));
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
