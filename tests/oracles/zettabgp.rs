use std::net::{IpAddr, Ipv4Addr};

use anyvip_bgp::wire::NextHop;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zettabgp::message::update::BgpUpdateMessage;
use zettabgp::prelude::*;

use crate::heard::{Heard, Segment};

/// It knows no IPv4 routes with an IPv6 next hop (RFC 8950) and drops link-local next hops; AS4_PATH and
/// AS4_AGGREGATOR are opaque to it.
pub(crate) fn can_read(expected: &Heard) -> bool {
    let v4 = expected.announced.iter().any(|prefix| matches!(prefix, IpNet::V4(_)));
    match expected.next_hop {
        Some(NextHop::V6 { link_local, .. }) => !v4 && link_local.is_none(),
        _ => true,
    }
}

pub(crate) fn update(frame: &[u8], four_octet_as: bool) -> Heard {
    let mut session =
        BgpSessionParams::new(65001, 9, BgpTransportMode::IPv4, Ipv4Addr::new(10, 0, 0, 1), Vec::new());
    // Otherwise it guesses path identifiers wherever prefixes begin with zeroes.
    session.fuzzy_pathid = false;
    session.has_as32bit = four_octet_as;
    let mut update = BgpUpdateMessage::new();
    update.decode_from(&session, &frame[19..]).expect("an UPDATE zettabgp reads");
    let mut heard = Heard {
        announced: prefixes(&update.updates),
        withdrawn: prefixes(&update.withdraws),
        ..Heard::default()
    };
    for attribute in &update.attrs {
        value(attribute, &session, &mut heard);
    }
    heard
}

fn value(attribute: &BgpAttrItem, session: &BgpSessionParams, heard: &mut Heard) {
    match attribute {
        BgpAttrItem::Origin(origin) => {
            heard.origin = Some(match origin.value {
                BgpAttrOrigin::Igp => 0,
                BgpAttrOrigin::Egp => 1,
                BgpAttrOrigin::Incomplete => 2,
            });
        }
        BgpAttrItem::ASPath(path) => heard.as_path = Some(segments(path)),
        BgpAttrItem::NextHop(next_hop) => heard.next_hop = Some(NextHop::from(next_hop.value)),
        BgpAttrItem::MED(med) => heard.med = Some(med.value),
        BgpAttrItem::LocalPref(local_pref) => heard.local_pref = Some(local_pref.value),
        BgpAttrItem::AtomicAggregate(_) => heard.atomic_aggregate = true,
        BgpAttrItem::AggregatorAS(aggregator) => heard.aggregator = Some((aggregator.asn, aggregator.addr)),
        BgpAttrItem::CommunityList(list) => {
            heard.communities = list.value.iter().map(|community| community.value).collect();
        }
        BgpAttrItem::ExtCommunityList(list) => heard.extended = list.value.iter().map(octets).collect(),
        BgpAttrItem::LargeCommunityList(list) => {
            heard.large = list.value.iter().map(|c| [c.ga, c.ldp1, c.ldp2]).collect();
        }
        BgpAttrItem::MPUpdates(reach) => {
            heard.next_hop = match reach.nexthop {
                BgpAddr::V4(address) => Some(NextHop::from(IpAddr::V4(address))),
                BgpAddr::V6(address) => Some(NextHop::from(IpAddr::V6(address))),
                _ => None,
            };
            heard.announced.extend(prefixes(&reach.addrs));
        }
        BgpAttrItem::MPWithdraws(unreach) => heard.withdrawn.extend(prefixes(&unreach.addrs)),
        BgpAttrItem::Unknown(unknown) if unknown.params.typecode == 17 => {
            let wide = BgpSessionParams { has_as32bit: true, ..session.clone() };
            let path = BgpASpath::decode_from(&wide, &unknown.value).expect("a path zettabgp reads");
            heard.as4_path = Some(segments(&path));
        }
        BgpAttrItem::Unknown(unknown) if unknown.params.typecode == 18 => {
            let wide = BgpAggregatorAS::decode_from(session, &unknown.value).expect("eight octets");
            heard.as4_aggregator = Some((wide.asn, wide.addr));
        }
        BgpAttrItem::Unknown(unknown) => heard.unknown.push((unknown.params.typecode, unknown.value.clone())),
        other => panic!("zettabgp read {other:?}"),
    }
}

fn segments(path: &BgpASpath) -> Vec<Segment> {
    let segment = |item: &BgpASitem| match item {
        BgpASitem::Seq(sequence) => (false, sequence.value.iter().map(|asn| asn.value).collect()),
        BgpASitem::Set(set) => (true, set.value.iter().map(|asn| asn.value).collect()),
    };
    path.value.iter().map(segment).collect()
}

fn octets(community: &BgpExtCommunity) -> [u8; 8] {
    let ([a, b], [c, d, e, f]) = (community.a.to_be_bytes(), community.b.to_be_bytes());
    [community.ctype, community.subtype, a, b, c, d, e, f]
}

fn prefixes(addresses: &BgpAddrs) -> Vec<IpNet> {
    match addresses {
        BgpAddrs::None => Vec::new(),
        BgpAddrs::IPV4U(nets) => {
            nets.iter().map(|net| Ipv4Net::new(net.addr, net.prefixlen).expect("up to 32").into()).collect()
        }
        BgpAddrs::IPV6U(nets) => {
            nets.iter().map(|net| Ipv6Net::new(net.addr, net.prefixlen).expect("up to 128").into()).collect()
        }
        other => panic!("zettabgp read {other:?}"),
    }
}
