//! What one peer told us, as far as it was asked for (RFC 4271 §3.2).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyvip_machine::Time;
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
    /// Where the peer tells all its paths (RFC 7911): by prefix and path identifier.
    #[serde(with = "crate::status::pairs")]
    paths: BTreeMap<(IpNet, u32), ReceivedRoute>,
    /// Ways to prefixes that were asked for by name, back to ourselves: not kept, but the peer does show them.
    echoes: BTreeSet<(IpNet, Option<u32>)>,
    pub(crate) tally: Tally,
}

/// What the peer has announced on this session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) heard: u64,
    pub(crate) dropped: u64,
    /// Announced since `minute` began.
    recent: u64,
    minute: Time,
    /// It was more than its limit in some minute.
    pub(crate) beyond_limit: bool,
}

/// A router that knows more ways than this to one address is not listened to any further: what is kept stays bounded.
const MOST_PATHS: usize = 256;
const MINUTE: Duration = Duration::from_secs(60);

impl Tally {
    /// Counts; gives the number within this minute at the one moment when it goes beyond the limit.
    fn count(&mut self, now: Time, learned: &Learned, limit: Option<u32>) -> Option<u64> {
        self.heard += learned.heard;
        self.dropped += learned.dropped;
        if now.since(self.minute) >= MINUTE {
            (self.minute, self.recent) = (now, 0);
        }
        self.recent += learned.heard;
        let beyond = !self.beyond_limit && limit.is_some_and(|limit| self.recent > u64::from(limit));
        self.beyond_limit |= beyond;
        beyond.then_some(self.recent)
    }
}

/// What an UPDATE brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Learned {
    pub(crate) changes: Changes,
    /// Announced prefixes.
    pub(crate) heard: u64,
    /// Those of them that were not kept: not asked for, or with our own AS in their path.
    pub(crate) dropped: u64,
    /// Set at the one moment of a session when the peer goes beyond its limit: how many it announced within a minute.
    pub(crate) beyond_limit: Option<u64>,
}

impl AdjRibIn {
    /// Keeps what `receive` names; `asn` is our own.
    pub(crate) fn new(receive: Receive, asn: u32) -> AdjRibIn {
        AdjRibIn {
            receive,
            asn,
            routes: BTreeMap::new(),
            paths: BTreeMap::new(),
            echoes: BTreeSet::new(),
            tally: Tally::default(),
        }
    }

    /// The same as [`learn`](Self::learn), counted against a limit.
    pub(crate) fn hear(&mut self, now: Time, update: Update, limit: Option<u32>) -> Learned {
        let mut learned = self.learn(update);
        learned.beyond_limit = self.tally.count(now, &learned, limit);
        learned
    }

    /// Takes an UPDATE: what it withdraws, then what it announces (RFC 4271 §4.3: a prefix in both is announced).
    pub(crate) fn learn(&mut self, update: Update) -> Learned {
        let mut learned = Learned::default();
        let mut changes = BTreeMap::new();
        for prefix in &update.withdrawn {
            self.echoes.remove(&(*prefix, None));
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
                    self.echo(prefix, None, looped);
                    if self.routes.remove(&prefix).is_some() {
                        changes.insert(prefix, None);
                    }
                    continue;
                }
                self.echoes.remove(&(prefix, None));
                let route = ReceivedRoute { next_hop: reach.next_hop, attributes: update.attributes.clone() };
                let former = self.routes.insert(prefix, route.clone());
                if former.as_ref() != Some(&route) || changes.contains_key(&prefix) {
                    changes.insert(prefix, Some(route));
                }
            }
        }
        for path in &update.paths {
            let key = (path.prefix, path.path_id);
            let Some(next_hop) = path.next_hop else {
                self.echoes.remove(&(path.prefix, Some(path.path_id)));
                if self.paths.remove(&key).is_some() {
                    changes.insert(path.prefix, self.any_path(path.prefix));
                }
                continue;
            };
            learned.heard += 1;
            let full = !self.paths.contains_key(&key) && self.paths_to(path.prefix).count() >= MOST_PATHS;
            if looped || full || !self.receive.keeps(&path.prefix) {
                learned.dropped += 1;
                self.echo(path.prefix, Some(path.path_id), looped);
                if self.paths.remove(&key).is_some() {
                    changes.insert(path.prefix, self.any_path(path.prefix));
                }
                continue;
            }
            self.echoes.remove(&(path.prefix, Some(path.path_id)));
            let route = ReceivedRoute { next_hop, attributes: update.attributes.clone() };
            if self.paths.insert(key, route.clone()).as_ref() != Some(&route) {
                changes.insert(path.prefix, Some(route));
            }
        }
        learned.changes = changes.into_iter().collect();
        learned
    }

    /// All ways to a prefix that are kept.
    pub(crate) fn ways(&self, prefix: IpNet) -> impl Iterator<Item = &ReceivedRoute> {
        self.routes.get(&prefix).into_iter().chain(self.paths_to(prefix))
    }

    /// Whether the peer shows the prefix at all, be it only the way back to us.
    pub(crate) fn shows(&self, prefix: IpNet) -> bool {
        let echoed = (prefix, None)..=(prefix, Some(u32::MAX));
        self.ways(prefix).next().is_some() || self.echoes.range(echoed).next().is_some()
    }

    fn paths_to(&self, prefix: IpNet) -> impl Iterator<Item = &ReceivedRoute> {
        self.paths.range((prefix, 0)..=(prefix, u32::MAX)).map(|(_, route)| route)
    }

    fn any_path(&self, prefix: IpNet) -> Option<ReceivedRoute> {
        self.paths_to(prefix).next().cloned()
    }

    /// Remembers that the peer shows us our own way to a prefix that was asked for by name.
    fn echo(&mut self, prefix: IpNet, path_id: Option<u32>, looped: bool) {
        let asked = matches!(&self.receive, Receive::Only(prefixes) if prefixes.contains(&prefix));
        let room = self.echoes.range((prefix, None)..=(prefix, Some(u32::MAX))).count() < MOST_PATHS;
        if looped && asked && room {
            self.echoes.insert((prefix, path_id));
        }
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
        let all = self.routes.keys().chain(self.paths.keys().map(|(prefix, _)| prefix));
        let prefixes: BTreeSet<IpNet> = all.filter(|prefix| gone(prefix)).copied().collect();
        self.routes.retain(|prefix, _| !prefixes.contains(prefix));
        self.paths.retain(|(prefix, _), _| !prefixes.contains(prefix));
        self.echoes.retain(|(prefix, _)| !gone(prefix));
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
    use crate::wire::{NextHop, PathAttributes, PathChange, Reach};

    const HOP: NextHop = NextHop::V4(Ipv4Addr::new(10, 0, 0, 9));

    fn prefixes(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|prefix| prefix.parse().unwrap()).collect()
    }

    fn update(withdrawn: &str, announced: &str, asns: &[u32]) -> Update {
        Update {
            withdrawn: prefixes(withdrawn),
            reach: vec![Reach { family: Family::Ipv4, next_hop: HOP, prefixes: prefixes(announced) }],
            attributes: PathAttributes {
                as_path: AsPath::sequence(asns.iter().copied()),
                ..PathAttributes::default()
            },
            ..Update::default()
        }
    }

    fn path(prefix: &str, path_id: u32, next_hop: Option<NextHop>) -> PathChange {
        PathChange { prefix: prefix.parse().unwrap(), path_id, next_hop }
    }

    /// RFC 7911 §3.
    #[test]
    fn several_paths_to_a_prefix_come_and_go_one_by_one() {
        let only = |text| Receive::Only(prefixes(text).into_iter().collect());
        let mut rib = AdjRibIn::new(only("192.0.2.1/32"), 65000);
        let vip = prefixes("192.0.2.1/32")[0];
        let told_by = |asn, paths| Update { paths, ..update("", "", &[asn]) };
        let learned = rib
            .learn(told_by(1, vec![path("192.0.2.1/32", 1, Some(HOP)), path("192.0.2.9/32", 1, Some(HOP))]));
        assert_eq!((learned.heard, learned.dropped), (2, 1));
        let _ = rib.learn(told_by(2, vec![path("192.0.2.1/32", 2, Some(HOP))]));
        assert_eq!(rib.ways(vip).count(), 2);
        let _ = rib.learn(told_by(3, vec![path("192.0.2.1/32", 2, Some(HOP))]));
        assert_eq!(rib.ways(vip).count(), 2, "the same identifier replaces");
        let learned = rib.learn(told_by(0, vec![path("192.0.2.1/32", 1, None)]));
        assert_eq!(told(&learned), [("192.0.2.1/32".to_owned(), true)], "one is left");
        let learned = rib.learn(told_by(65000, vec![path("192.0.2.1/32", 2, Some(HOP))]));
        assert_eq!(told(&learned), [("192.0.2.1/32".to_owned(), false)], "a loop takes its place");
        assert_eq!((rib.ways(vip).count(), rib.shows(vip)), (0, true), "our own way is shown");
        let _ = rib.learn(told_by(0, vec![path("192.0.2.1/32", 2, None)]));
        assert!(!rib.shows(vip));
    }

    #[test]
    fn endless_paths_to_one_prefix_are_dropped_beyond_a_bound() {
        let mut rib = AdjRibIn::new(Receive::All, 65000);
        let all = (0..1000).map(|id| path("192.0.2.1/32", id, Some(HOP))).collect();
        let learned = rib.learn(Update { paths: all, ..update("", "", &[1]) });
        assert_eq!((learned.heard, learned.dropped), (1000, 744));
        assert_eq!(rib.forget_all().len(), 1);
        let all = (0..1000).map(|id| path("192.0.2.1/32", id, Some(HOP))).collect();
        let _ = rib.ask_for(Receive::Only(prefixes("192.0.2.1/32").into_iter().collect()));
        let _ = rib.learn(Update { paths: all, ..update("", "", &[65000]) });
        assert_eq!(rib.echoes.len(), MOST_PATHS);
    }

    #[test]
    fn a_limit_is_told_once_and_counts_what_comes_within_a_minute() {
        let mut rib = AdjRibIn::new(Receive::Nothing, 65000);
        let mut hear = |secs| {
            rib.hear(Time::from_secs(secs), update("", "192.0.2.1/32 192.0.2.2/32", &[1]), Some(3))
                .beyond_limit
        };
        assert_eq!([hear(0), hear(61), hear(130)], [None; 3], "two a minute");
        assert_eq!([hear(131), hear(132), hear(200), hear(201)], [Some(4), None, None, None]);
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
