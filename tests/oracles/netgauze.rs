use std::collections::HashMap;
use std::net::IpAddr;

use anyvip_bgp::wire::{Family, NextHop, Notification, Open};
use ipnet::IpNet;
use netgauze_bgp_pkt::BgpMessage;
use netgauze_bgp_pkt::capabilities::BgpCapability;
use netgauze_bgp_pkt::path_attribute::{
    Aggregator, AsPath, AsPathSegmentType, MpReach, MpUnreach, PathAttributeValue,
};
use netgauze_bgp_pkt::wire::deserializer::BgpParsingContext;
use netgauze_parse_utils::WritablePdu;
use netgauze_parse_utils::reader::SliceReader;
use netgauze_parse_utils::traits::ParseFromWithOneInput;

use crate::heard::{Heard, Segment};

/// Strict about everything, and what it writes back must be what it read.
fn read(frame: &[u8], four_octet_as: bool) -> BgpMessage {
    let mut context =
        BgpParsingContext::new(four_octet_as, HashMap::new(), HashMap::new(), true, true, true, true);
    let mut reader = SliceReader::new(frame);
    let message = BgpMessage::parse(&mut reader, &mut context).expect("a message netgauze reads");
    assert!(reader.is_empty());
    let mut written = Vec::new();
    message.write(&mut written).expect("a message netgauze writes");
    assert_eq!(written, frame);
    message
}

pub(crate) fn keepalive(frame: &[u8]) {
    assert_eq!(read(frame, true), BgpMessage::KeepAlive);
}

pub(crate) fn route_refresh(frame: &[u8], family: Family, subtype: u8) {
    let BgpMessage::RouteRefresh(refresh) = read(frame, true) else { panic!("{frame:02x?}") };
    let afi = refresh.address_type().address_family() as u16;
    assert_eq!(afi, if family == Family::Ipv4 { 1 } else { 2 });
    assert_eq!(refresh.operation_type() as u8, subtype);
}

pub(crate) fn end_of_rib(frame: &[u8], family: Family) {
    let BgpMessage::Update(update) = read(frame, true) else { panic!("{frame:02x?}") };
    let address_type = update.end_of_rib().expect("End-of-RIB");
    assert_eq!(address_type.address_family() as u16, if family == Family::Ipv4 { 1 } else { 2 });
}

pub(crate) fn open(frame: &[u8], expected: &Open) {
    let BgpMessage::Open(open) = read(frame, true) else { panic!("{frame:02x?}") };
    assert_eq!((open.version(), open.my_as(), open.hold_time()), (4, expected.asn, expected.hold_time));
    assert_eq!(open.bgp_id(), expected.router_id);
    let fours = |capability: &&BgpCapability| match capability {
        BgpCapability::FourOctetAs(four) => Some(four.asn4()),
        _ => None,
    };
    assert_eq!(open.capabilities().len(), expected.capabilities.len());
    if let Some(asn) = open.capabilities().iter().find_map(fours) {
        assert_eq!(asn, expected.real_asn());
    }
}

pub(crate) fn notification(frame: &[u8], expected: &Notification) {
    // Its types are one per code and subcode; that the octets are the same again says that it knew ours.
    let BgpMessage::Notification(_) = read(frame, true) else { panic!("{frame:02x?}") };
    assert_eq!(frame[19..], [&[expected.code, expected.subcode], expected.data.as_slice()].concat());
}

pub(crate) fn update(frame: &[u8], four_octet_as: bool) -> Heard {
    let BgpMessage::Update(update) = read(frame, four_octet_as) else { panic!("{frame:02x?}") };
    let mut heard = Heard {
        announced: update.nlri().iter().map(|nlri| IpNet::V4(nlri.network().address())).collect(),
        withdrawn: update.withdraw_routes().iter().map(|nlri| IpNet::V4(nlri.network().address())).collect(),
        ..Heard::default()
    };
    for attribute in update.path_attributes() {
        value(attribute.value(), &mut heard);
    }
    heard
}

fn value(value: &PathAttributeValue, heard: &mut Heard) {
    match value {
        PathAttributeValue::Origin(origin) => heard.origin = Some(*origin as u8),
        PathAttributeValue::AsPath(AsPath::As4PathSegments(segments)) => {
            heard.as_path =
                Some(segments.iter().map(|s| segment(s.segment_type(), s.as_numbers())).collect());
        }
        PathAttributeValue::AsPath(AsPath::As2PathSegments(segments)) => {
            heard.as_path =
                Some(segments.iter().map(|s| segment(s.segment_type(), s.as_numbers())).collect());
        }
        PathAttributeValue::As4Path(path) => {
            let segments = path.segments().iter();
            heard.as4_path = Some(segments.map(|s| segment(s.segment_type(), s.as_numbers())).collect());
        }
        PathAttributeValue::NextHop(next_hop) => heard.next_hop = Some(NextHop::V4(next_hop.next_hop())),
        PathAttributeValue::MultiExitDiscriminator(med) => heard.med = Some(med.metric()),
        PathAttributeValue::LocalPreference(local_pref) => heard.local_pref = Some(local_pref.metric()),
        PathAttributeValue::AtomicAggregate(_) => heard.atomic_aggregate = true,
        PathAttributeValue::Aggregator(Aggregator::As2Aggregator(aggregator)) => {
            heard.aggregator = Some((u32::from(*aggregator.asn()), aggregator.origin()));
        }
        PathAttributeValue::Aggregator(Aggregator::As4Aggregator(aggregator)) => {
            heard.aggregator = Some((*aggregator.asn(), aggregator.origin()));
        }
        PathAttributeValue::Communities(list) => {
            heard.communities = list.communities().iter().map(|community| community.value()).collect();
        }
        PathAttributeValue::ExtendedCommunities(list) => {
            heard.extended = list.communities().iter().map(octets).collect();
        }
        PathAttributeValue::LargeCommunities(list) => {
            let words = |c: &netgauze_bgp_pkt::community::LargeCommunity| {
                [c.global_admin(), c.local_data1(), c.local_data2()]
            };
            heard.large = list.communities().iter().map(words).collect();
        }
        PathAttributeValue::MpReach(MpReach::Ipv4Unicast { next_hop, next_hop_local, nlri }) => {
            heard.next_hop = Some(match next_hop {
                IpAddr::V4(address) => NextHop::V4(*address),
                IpAddr::V6(global) => NextHop::V6 { global: *global, link_local: *next_hop_local },
            });
            heard.announced.extend(nlri.iter().map(|nlri| IpNet::V4(nlri.network().address())));
        }
        PathAttributeValue::MpReach(MpReach::Ipv6Unicast { next_hop_global, next_hop_local, nlri }) => {
            heard.next_hop = Some(NextHop::V6 { global: *next_hop_global, link_local: *next_hop_local });
            heard.announced.extend(nlri.iter().map(|nlri| IpNet::V6(nlri.network().address())));
        }
        PathAttributeValue::MpUnreach(MpUnreach::Ipv6Unicast { nlri }) => {
            heard.withdrawn.extend(nlri.iter().map(|nlri| IpNet::V6(nlri.network().address())));
        }
        // AS4_AGGREGATOR is opaque to it.
        PathAttributeValue::UnknownAttribute(unknown) if unknown.code() == 18 => {
            let [a, b, c, d, address @ ..]: [u8; 8] = unknown.value().try_into().expect("eight octets");
            heard.as4_aggregator = Some((u32::from_be_bytes([a, b, c, d]), address.into()));
        }
        PathAttributeValue::UnknownAttribute(unknown) => {
            heard.unknown.push((unknown.code(), unknown.value().to_vec()));
        }
        other => panic!("netgauze read {other:?}"),
    }
}

fn segment<T: Copy + Into<u32>>(kind: AsPathSegmentType, asns: &[T]) -> Segment {
    (kind == AsPathSegmentType::AsSet, asns.iter().map(|asn| (*asn).into()).collect())
}

fn octets(community: &netgauze_bgp_pkt::community::ExtendedCommunity) -> [u8; 8] {
    let mut written = Vec::new();
    community.write(&mut written).expect("an extended community netgauze writes");
    written.try_into().expect("eight octets")
}
