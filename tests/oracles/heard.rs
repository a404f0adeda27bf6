//! What a reader heard in one UPDATE, in words that all readers have. Expectations are worked out from the value that
//! was written, not from octets.

use std::net::Ipv4Addr;

use anyvip_bgp::wire::{AS_TRANS, AsPath, AsSegmentKind, Codec, NextHop, Update};
use ipnet::IpNet;

/// Whether a set, and the numbers.
pub(crate) type Segment = (bool, Vec<u32>);

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) announced: Vec<IpNet>,
    pub(crate) withdrawn: Vec<IpNet>,
    pub(crate) next_hop: Option<NextHop>,
    pub(crate) origin: Option<u8>,
    pub(crate) as_path: Option<Vec<Segment>>,
    pub(crate) as4_path: Option<Vec<Segment>>,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) atomic_aggregate: bool,
    pub(crate) aggregator: Option<(u32, Ipv4Addr)>,
    pub(crate) as4_aggregator: Option<(u32, Ipv4Addr)>,
    pub(crate) communities: Vec<u32>,
    pub(crate) extended: Vec<[u8; 8]>,
    pub(crate) large: Vec<[u32; 3]>,
    pub(crate) unknown: Vec<(u8, Vec<u8>)>,
}

impl Heard {
    /// What `update`, which has one `reach`, must sound like on a session of this codec.
    pub(crate) fn announced(codec: &Codec, update: &Update) -> Heard {
        let (attributes, reach) = (&update.attributes, &update.reach[0]);
        let trans = |asn: u32| u16::try_from(asn).map_or(u32::from(AS_TRANS), u32::from);
        let narrow = |asn: u32| if codec.four_octet_as { asn } else { trans(asn) };
        let path = segments(&attributes.as_path);
        let narrowed: Vec<Segment> =
            path.iter().map(|(set, asns)| (*set, asns.iter().copied().map(narrow).collect())).collect();
        let wide_aggregator = attributes.aggregator.filter(|(asn, _)| narrow(*asn) != *asn);
        Heard {
            announced: reach.prefixes.clone(),
            withdrawn: Vec::new(),
            next_hop: Some(reach.next_hop),
            origin: Some(attributes.origin as u8),
            as4_path: (narrowed != path).then_some(path),
            as_path: Some(narrowed),
            med: attributes.med,
            local_pref: attributes.local_pref.filter(|_| !codec.external),
            atomic_aggregate: attributes.atomic_aggregate,
            aggregator: attributes.aggregator.map(|(asn, address)| (narrow(asn), address)),
            as4_aggregator: wide_aggregator,
            communities: attributes.communities.iter().map(|community| community.0).collect(),
            extended: attributes.extended_communities.iter().map(|community| community.0).collect(),
            large: attributes.large_communities.iter().map(|c| [c.global, c.local1, c.local2]).collect(),
            unknown: attributes.unknown.iter().map(|known| (known.code, known.value.clone())).collect(),
        }
    }

    /// Several messages that differ in their prefixes only.
    pub(crate) fn merged(all: impl Iterator<Item = Heard>) -> Heard {
        let mut merged: Option<Heard> = None;
        for mut heard in all {
            let announced = std::mem::take(&mut heard.announced);
            let withdrawn = std::mem::take(&mut heard.withdrawn);
            let known = merged.get_or_insert_with(|| heard.clone());
            assert_eq!(Heard { announced: vec![], withdrawn: vec![], ..known.clone() }, heard);
            known.announced.extend(announced);
            known.withdrawn.extend(withdrawn);
        }
        merged.expect("at least one message")
    }

    /// For a reader whose typed extended communities are compared as octets written back.
    pub(crate) fn without_extended(&self) -> Heard {
        Heard { extended: Vec::new(), ..self.clone() }
    }

    /// For a reader that keeps lists and sets in sets.
    pub(crate) fn unordered(&self) -> Heard {
        let mut heard = self.clone();
        let paths = heard.as_path.iter_mut().chain(&mut heard.as4_path);
        for (_, asns) in paths.flatten().filter(|(set, _)| *set) {
            asns.sort_unstable();
            asns.dedup();
        }
        heard.communities.sort_unstable();
        heard.communities.dedup();
        heard.extended.sort_unstable();
        heard.extended.dedup();
        heard.large.sort_unstable();
        heard
    }
}

fn segments(path: &AsPath) -> Vec<Segment> {
    path.segments.iter().map(|s| (s.kind == AsSegmentKind::Set, s.asns.to_vec())).collect()
}
