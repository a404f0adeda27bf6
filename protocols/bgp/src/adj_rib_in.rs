//! What one peer told us, as far as it was asked for (RFC 4271 §3.2).

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::Receive;
use crate::wire::{AsPath, Family, ReceivedRoute, Update};

/// Changes of routes as [`Action::RoutesChanged`](crate::Action::RoutesChanged) tells them.
pub(crate) type Changes = Vec<(IpNet, Option<ReceivedRoute>)>;

/// The routes of one Established session in our direction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AdjRibIn {
    receive: Receive,
    asn: u32,
    routes: BTreeMap<IpNet, ReceivedRoute>,
}

/// What an UPDATE brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Learned {
    pub(crate) changes: Changes,
    /// Announced prefixes.
    pub(crate) heard: u64,
    /// Those of them that were not kept: not asked for, or with our own AS in their path.
    pub(crate) dropped: u64,
}

impl AdjRibIn {
    /// Keeps what `receive` names; `asn` is our own.
    pub(crate) fn new(receive: Receive, asn: u32) -> AdjRibIn {
        AdjRibIn { receive, asn, routes: BTreeMap::new() }
    }

    /// Takes an UPDATE: what it withdraws, then what it announces (RFC 4271 §4.3: a prefix in both is announced).
    pub(crate) fn learn(&mut self, update: Update) -> Learned {
        let mut learned = Learned::default();
        let mut changes = BTreeMap::new();
        for prefix in &update.withdrawn {
            if self.routes.remove(prefix).is_some() {
                changes.insert(*prefix, None);
            }
        }
        // RFC 4271 §9.1.2: a path with our own AS is a loop. It takes the place of what the peer said before.
        let looped = contains(&update.attributes.as_path, self.asn);
        for reach in update.reach {
            for prefix in reach.prefixes {
                learned.heard += 1;
                if looped || !self.receive.keeps(&prefix) {
                    learned.dropped += 1;
                    if self.routes.remove(&prefix).is_some() {
                        changes.insert(prefix, None);
                    }
                    continue;
                }
                let route = ReceivedRoute { next_hop: reach.next_hop, attributes: update.attributes.clone() };
                let former = self.routes.insert(prefix, route.clone());
                if former.as_ref() != Some(&route) || changes.contains_key(&prefix) {
                    changes.insert(prefix, Some(route));
                }
            }
        }
        learned.changes = changes.into_iter().collect();
        learned
    }

    /// Forgets everything of this family (RFC 7606 §2, "AFI/SAFI disable").
    pub(crate) fn forget_family(&mut self, family: Family) -> Changes {
        self.forget(|prefix| Family::of(prefix) == family)
    }

    /// Forgets everything; the session is over.
    pub(crate) fn forget_all(&mut self) -> Changes {
        self.forget(|_| true)
    }

    /// Asks for something else from now on. What is no longer asked for is forgotten.
    pub(crate) fn ask_for(&mut self, receive: Receive) -> Changes {
        self.receive = receive.clone();
        self.forget(|prefix| !receive.keeps(prefix))
    }

    /// The routes that are kept.
    pub(crate) fn routes(&self) -> &BTreeMap<IpNet, ReceivedRoute> {
        &self.routes
    }

    fn forget(&mut self, gone: impl Fn(&IpNet) -> bool) -> Changes {
        let prefixes: Vec<IpNet> = self.routes.keys().filter(|prefix| gone(prefix)).copied().collect();
        for prefix in &prefixes {
            self.routes.remove(prefix);
        }
        prefixes.into_iter().map(|prefix| (prefix, None)).collect()
    }
}

impl Receive {
    /// Whether routes to this prefix are kept.
    pub fn keeps(&self, prefix: &IpNet) -> bool {
        match self {
            Receive::Nothing => false,
            Receive::Only(prefixes) => prefixes.contains(prefix),
            Receive::All => true,
        }
    }

    /// Whether `self` keeps something that `former` dropped, so that the peer has to be asked again (RFC 2918).
    pub(crate) fn asks_more_than(&self, former: &Receive) -> bool {
        let empty = BTreeSet::new();
        match (self, former) {
            (Receive::Nothing, _) | (_, Receive::All) => false,
            (Receive::All, _) => true,
            (Receive::Only(now), Receive::Only(then)) => !now.is_subset(then),
            (Receive::Only(now), Receive::Nothing) => !now.is_subset(&empty),
        }
    }
}

fn contains(path: &AsPath, asn: u32) -> bool {
    path.segments.iter().any(|segment| segment.asns.contains(&asn))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire::{AsSegment, AsSegmentKind, NextHop, PathAttributes, Reach};

    const HOP: NextHop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn prefixes(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|prefix| prefix.parse().unwrap()).collect()
    }

    fn update(withdrawn: &str, announced: &str, asns: &[u32]) -> Update {
        let path = AsSegment { kind: AsSegmentKind::Sequence, asns: asns.to_vec() };
        Update {
            withdrawn: prefixes(withdrawn),
            reach: vec![Reach { family: Family::Ipv4, next_hop: HOP, prefixes: prefixes(announced) }],
            attributes: PathAttributes {
                as_path: AsPath { segments: vec![path] },
                ..PathAttributes::default()
            },
            ..Update::default()
        }
    }

    fn told(learned: &Learned) -> Vec<(String, bool)> {
        learned.changes.iter().map(|(prefix, route)| (prefix.to_string(), route.is_some())).collect()
    }

    #[test]
    fn the_same_route_again_changes_nothing_and_a_withdrawal_of_nothing_neither() {
        let mut rib = AdjRibIn::new(Receive::All, 65000);
        assert_eq!(told(&rib.learn(update("", "192.0.2.1/32", &[1]))), [("192.0.2.1/32".to_owned(), true)]);
        assert!(rib.learn(update("192.0.2.9/32", "192.0.2.1/32", &[1])).changes.is_empty());
        assert_eq!(rib.routes().len(), 1);
    }

    /// RFC 4271 §4.3.
    #[test]
    fn a_prefix_both_withdrawn_and_announced_is_announced() {
        let mut rib = AdjRibIn::new(Receive::All, 65000);
        let _ = rib.learn(update("", "192.0.2.1/32", &[1]));
        let learned = rib.learn(update("192.0.2.1/32", "192.0.2.1/32", &[1]));
        assert_eq!(told(&learned), [("192.0.2.1/32".to_owned(), true)]);
        assert_eq!(rib.routes().len(), 1);
    }

    /// RFC 4271 §9.1.2.
    #[test]
    fn a_looped_path_takes_the_place_of_the_route_before_and_is_not_kept() {
        let mut rib = AdjRibIn::new(Receive::All, 65000);
        let _ = rib.learn(update("", "192.0.2.1/32", &[1]));
        let learned = rib.learn(update("", "192.0.2.1/32 192.0.2.2/32", &[1, 65000]));
        assert_eq!(told(&learned), [("192.0.2.1/32".to_owned(), false)]);
        assert_eq!((learned.heard, learned.dropped), (2, 2));
        assert!(rib.routes().is_empty());
    }

    #[test]
    fn asking_for_less_forgets_and_says_so_and_only_asking_for_more_needs_the_peer() {
        let only = |text| Receive::Only(prefixes(text).into_iter().collect());
        let mut rib = AdjRibIn::new(Receive::All, 65000);
        let _ = rib.learn(update("", "192.0.2.1/32 192.0.2.2/32", &[1]));
        let changes = rib.ask_for(only("192.0.2.2/32"));
        assert_eq!(changes, [(prefixes("192.0.2.1/32")[0], None)]);
        assert!(only("192.0.2.1/32").asks_more_than(&Receive::Nothing));
        assert!(only("192.0.2.1/32 192.0.2.2/32").asks_more_than(&only("192.0.2.1/32")));
        assert!(!only("192.0.2.1/32").asks_more_than(&only("192.0.2.1/32 192.0.2.2/32")));
        assert!(!only("").asks_more_than(&Receive::Nothing));
        assert!(!Receive::Nothing.asks_more_than(&Receive::All));
        assert!(Receive::All.asks_more_than(&only("192.0.2.1/32")));
    }

    #[test]
    fn a_family_or_everything_may_be_forgotten_at_once() {
        let mut rib = AdjRibIn::new(Receive::All, 65000);
        let _ = rib.learn(update("", "192.0.2.1/32 192.0.2.2/32", &[1]));
        assert!(rib.forget_family(Family::Ipv6).is_empty());
        assert_eq!(rib.forget_all().len(), 2);
        assert!(rib.routes().is_empty());
    }
}
