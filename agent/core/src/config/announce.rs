//! What is told of a service, as meant: attributes in layers, and which layer counts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyvip_bgp::PeerName;
use anyvip_bgp::wire::{Community, ExtendedCommunity, LargeCommunity};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::keys::{AttributeLeaves, WrittenAnnounce};
use super::words::CommunityWord;

/// In which state of its service a route is told; the worse one of two is the larger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// All is well.
    #[default]
    Normal,
    /// Unhealthy, and `on_failure = "depreference"`.
    Depreferenced,
    /// Drained by an operator, within the drain time.
    Draining,
}

/// `[service.NAME.announce]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Announce {
    /// What is told instead of the VIPs; empty: the VIPs.
    pub prefixes: Vec<IpNet>,
    /// For all peers.
    pub all: Layers,
    /// For one peer, over that for all.
    pub peers: BTreeMap<PeerName, Layers>,
}

/// Attributes, and what overrides them in a state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Layers {
    pub always: Attributes,
    pub depreferenced: Attributes,
    pub draining: Attributes,
}

/// Keys of one layer; `None`: not written here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Attributes {
    pub med: Option<u32>,
    pub local_pref: Option<u32>,
    pub prepend: Option<u8>,
    pub communities: Option<Communities>,
    /// Next hop to tell instead of this host's address, per family of the address.
    pub next_hop: Option<Vec<IpAddr>>,
    /// Told as link bandwidth, in Mbit/s.
    pub weight: Option<u16>,
}

/// Communities of all kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Communities {
    pub standard: BTreeSet<Community>,
    pub extended: BTreeSet<ExtendedCommunity>,
    pub large: BTreeSet<LargeCommunity>,
}

impl Announce {
    /// What this peer is told in this state: of each key the most specific one.
    pub fn attributes(&self, peer: &PeerName, standing: Standing) -> Attributes {
        let own = self.peers.get(peer);
        let state = |layers: &Layers| match standing {
            Standing::Normal => Attributes::default(),
            Standing::Depreferenced => layers.depreferenced.clone(),
            Standing::Draining => layers.draining.clone(),
        };
        let base = own.map(|own| own.always.clone()).unwrap_or_default().or(&self.all.always);
        let mut specific = own.map(state).unwrap_or_default().or(&state(&self.all));
        if standing == Standing::Draining {
            // RFC 8326 §4: the community to all, and the lowest LOCAL_PREF to internal peers.
            specific.communities.get_or_insert_with(|| {
                let mut communities = base.communities.clone().unwrap_or_default();
                communities.standard.insert(Community::GRACEFUL_SHUTDOWN);
                communities
            });
            specific.local_pref.get_or_insert(0);
        }
        specific.or(&base)
    }

    /// The prefixes that are told for this VIP: its own, or those that cover it.
    pub fn routes(&self, vip: IpAddr) -> Vec<IpNet> {
        match self.prefixes.is_empty() {
            true => vec![IpNet::from(vip)],
            false => self.prefixes.iter().copied().filter(|prefix| prefix.contains(&vip)).collect(),
        }
    }
}

impl Attributes {
    /// This, and for keys that are not written here the other.
    fn or(self, other: &Attributes) -> Attributes {
        Attributes {
            med: self.med.or(other.med),
            local_pref: self.local_pref.or(other.local_pref),
            prepend: self.prepend.or(other.prepend),
            communities: self.communities.or_else(|| other.communities.clone()),
            next_hop: self.next_hop.or_else(|| other.next_hop.clone()),
            weight: self.weight.or(other.weight),
        }
    }
}

/// As written → as meant.
pub(super) fn announced(written: &WrittenAnnounce) -> Announce {
    let layers =
        |base, depreferenced: Option<AttributeLeaves<'_>>, draining: Option<AttributeLeaves<'_>>| Layers {
            always: attributes(base),
            depreferenced: depreferenced.map(attributes).unwrap_or_default(),
            draining: draining.map(attributes).unwrap_or_default(),
        };
    let peers = written.peer.value().into_iter().flatten().filter_map(|(name, own)| {
        let own = own.value()?;
        let (depreferenced, draining) = (own.depreferenced.value(), own.draining.value());
        let states = (depreferenced.map(|s| s.attributes()), draining.map(|s| s.attributes()));
        Some((PeerName(name.clone()), layers(own.attributes(), states.0, states.1)))
    });
    let (depreferenced, draining) = (written.depreferenced.value(), written.draining.value());
    let mut all =
        layers(written.attributes(), depreferenced.map(|s| s.attributes()), draining.map(|s| s.attributes()));
    // Everybody is told something: the defaults are written out here and nowhere else.
    all.always = all.always.or(&Attributes {
        prepend: Some(0),
        communities: Some(Communities::default()),
        next_hop: Some(Vec::new()),
        ..Attributes::default()
    });
    Announce {
        prefixes: written.prefixes.value().into_iter().flatten().map(|prefix| prefix.value.0).collect(),
        all,
        peers: peers.collect(),
    }
}

fn attributes(written: AttributeLeaves<'_>) -> Attributes {
    Attributes {
        med: written.med.value().map(|med| med.u32()),
        local_pref: written.local_pref.value().map(|preference| preference.u32()),
        prepend: written.prepend.value().map(|count| count.u8()),
        communities: written.communities.value().map(|words| {
            let mut communities = Communities::default();
            for word in words {
                match word.value {
                    CommunityWord::Standard(community) => drop(communities.standard.insert(community)),
                    CommunityWord::Extended(community) => drop(communities.extended.insert(community)),
                    CommunityWord::Large(community) => drop(communities.large.insert(community)),
                }
            }
            communities
        }),
        next_hop: written.next_hop.value().map(|hops| hops.0.iter().map(|hop| hop.value.0).collect()),
        weight: written.weight.value().map(|weight| weight.u16()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(med: u32, prepend: Option<u8>) -> Attributes {
        Attributes { med: Some(med), prepend, ..Attributes::default() }
    }

    #[test]
    fn of_each_key_the_most_specific_layer_counts() {
        let tor1 = PeerName::from("tor1");
        let mut announce =
            Announce { all: Layers { always: with(1, Some(1)), ..Layers::default() }, ..Announce::default() };
        let told = |announce: &Announce, standing| {
            let attributes = announce.attributes(&tor1, standing);
            (attributes.med.unwrap(), attributes.prepend.unwrap())
        };
        assert_eq!(told(&announce, Standing::Depreferenced), (1, 1));
        announce.peers.insert(tor1.clone(), Layers { always: with(2, None), ..Layers::default() });
        assert_eq!(told(&announce, Standing::Depreferenced), (2, 1));
        announce.all.depreferenced = with(3, Some(3));
        assert_eq!(told(&announce, Standing::Depreferenced), (3, 3), "the state goes before the peer");
        assert_eq!(told(&announce, Standing::Normal), (2, 1));
        announce.peers.get_mut(&tor1).unwrap().depreferenced = with(4, None);
        assert_eq!(told(&announce, Standing::Depreferenced), (4, 3));
        assert_eq!(told(&announce, Standing::Draining), (2, 1));
    }

    /// RFC 8326 §4.
    #[test]
    fn draining_adds_graceful_shutdown_unless_communities_are_written_for_it() {
        let tor1 = PeerName::from("tor1");
        let own: Community = "65001:100".parse().unwrap();
        let communities = Communities { standard: [own].into(), ..Communities::default() };
        let mut announce = Announce::default();
        announce.all.always = Attributes {
            communities: Some(communities.clone()),
            local_pref: Some(300),
            ..Attributes::default()
        };
        let draining = announce.attributes(&tor1, Standing::Draining);
        assert_eq!(
            draining.communities.unwrap().standard,
            BTreeSet::from([own, Community::GRACEFUL_SHUTDOWN])
        );
        assert_eq!(draining.local_pref, Some(0));
        announce.all.draining = Attributes {
            communities: Some(communities.clone()),
            local_pref: Some(7),
            ..Attributes::default()
        };
        let draining = announce.attributes(&tor1, Standing::Draining);
        assert_eq!((draining.communities, draining.local_pref), (Some(communities), Some(7)));
    }

    #[test]
    fn a_vip_is_told_by_itself_or_by_the_prefixes_around_it() {
        let vip: IpAddr = "192.0.2.80".parse().unwrap();
        let net = |text: &str| -> IpNet { text.parse().unwrap() };
        assert_eq!(Announce::default().routes(vip), [net("192.0.2.80/32")]);
        let prefixes = vec![net("192.0.2.0/24"), net("198.51.100.0/24"), net("192.1.0.0/16")];
        let announce = Announce { prefixes, ..Announce::default() };
        assert_eq!(announce.routes(vip), [net("192.0.2.0/24")]);
    }
}
