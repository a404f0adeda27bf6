use anyvip_bgp::wire::{AfiSafi, Capability, Family, NextHop, Notification, Open};
use bgpkit_parser::models::{
    AsPath, AsPathSegment, AsnLength, AttributeValue, BgpMessage, CapabilityValue, Community, NextHopAddress,
    Nlri, ParamValue,
};
use bgpkit_parser::parser::bgp::parse_bgp_message;

use crate::heard::{Heard, Segment};

/// Without a warning, and what it writes back must be what it read.
fn read(frame: &[u8], four_octet_as: bool) -> BgpMessage {
    let length = if four_octet_as { AsnLength::Bits32 } else { AsnLength::Bits16 };
    let mut bytes = frame.to_vec().into();
    let message = parse_bgp_message(&mut bytes, false, &length).expect("a message bgpkit reads");
    if let BgpMessage::Update(update) = &message {
        assert_eq!(update.attributes.validation_warnings(), []);
    }
    let written = message.encode(length).expect("a message bgpkit writes");
    assert_eq!(written.to_vec(), frame);
    message
}

/// It guesses path identifiers (RFC 7911) wherever a prefix begins with a zero, as a default route does.
pub(crate) fn can_read(expected: &Heard) -> bool {
    expected.announced.iter().chain(&expected.withdrawn).all(|prefix| prefix.prefix_len() != 0)
}

pub(crate) fn keepalive(frame: &[u8]) {
    assert_eq!(read(frame, true), BgpMessage::KeepAlive);
}

pub(crate) fn route_refresh(frame: &[u8], family: Family, subtype: u8) {
    let BgpMessage::RouteRefresh(refresh) = read(frame, true) else { panic!("{frame:02x?}") };
    assert_eq!(AfiSafi { afi: refresh.afi, safi: refresh.safi }, family.into());
    assert_eq!(refresh.subtype, subtype);
}

pub(crate) fn end_of_rib(frame: &[u8]) {
    let BgpMessage::Update(update) = read(frame, true) else { panic!("{frame:02x?}") };
    assert!(update.is_end_of_rib());
}

pub(crate) fn open(frame: &[u8], expected: &Open) {
    let BgpMessage::Open(open) = read(frame, true) else { panic!("{frame:02x?}") };
    assert_eq!(
        (open.version, open.asn.into(), open.hold_time),
        (4, u32::from(expected.asn), expected.hold_time)
    );
    assert_eq!(open.bgp_identifier, expected.router_id);
    let values = open.opt_params.iter().flat_map(|parameter| match &parameter.param_value {
        ParamValue::Capacities(capabilities) => capabilities.as_slice(),
        ParamValue::Raw(raw) => panic!("bgpkit read a raw parameter {raw:02x?}"),
    });
    let values: Vec<&CapabilityValue> = values.map(|capability| &capability.value).collect();
    assert_eq!(values.len(), expected.capabilities.len());
    for (value, expected) in values.into_iter().zip(&expected.capabilities) {
        match (value, expected) {
            (CapabilityValue::MultiprotocolExtensions(value), Capability::Multiprotocol(family)) => {
                assert_eq!((value.afi as u16, value.safi as u8), (family.afi, family.safi));
            }
            (CapabilityValue::RouteRefresh(_), Capability::RouteRefresh) => {}
            (CapabilityValue::FourOctetAs(value), Capability::FourOctetAs(asn)) => {
                assert_eq!(value.asn, *asn);
            }
            (CapabilityValue::ExtendedNextHop(value), Capability::ExtendedNextHop(pairs)) => {
                assert_eq!(value.entries.len(), pairs.len());
                for (entry, (family, next_hop)) in value.entries.iter().zip(pairs) {
                    assert_eq!((entry.nlri_afi as u16, entry.nlri_safi as u8), (family.afi, family.safi));
                    assert_eq!(entry.nexthop_afi as u16, *next_hop);
                }
            }
            (CapabilityValue::Raw(value), Capability::Unknown { value: expected, .. }) => {
                assert_eq!(value, expected);
            }
            other => panic!("bgpkit read {other:?}"),
        }
    }
}

pub(crate) fn notification(frame: &[u8], expected: &Notification) {
    let BgpMessage::Notification(notification) = read(frame, true) else { panic!("{frame:02x?}") };
    assert_eq!(notification.error.get_codes(), (expected.code, expected.subcode));
    assert_eq!(notification.data, expected.data);
}

pub(crate) fn update(frame: &[u8], four_octet_as: bool) -> Heard {
    let BgpMessage::Update(update) = read(frame, four_octet_as) else { panic!("{frame:02x?}") };
    let mut heard = Heard {
        announced: update.announced_prefixes.iter().map(|prefix| prefix.prefix).collect(),
        withdrawn: update.withdrawn_prefixes.iter().map(|prefix| prefix.prefix).collect(),
        ..Heard::default()
    };
    for value in &update.attributes {
        match value {
            AttributeValue::Origin(origin) => heard.origin = Some(*origin as u8),
            AttributeValue::AsPath(path) => heard.as_path = Some(segments(path)),
            AttributeValue::As4Path(path) => heard.as4_path = Some(segments(path)),
            AttributeValue::NextHop(next_hop) => heard.next_hop = Some(NextHop::from(*next_hop)),
            AttributeValue::MultiExitDiscriminator(med) => heard.med = Some(*med),
            AttributeValue::LocalPreference(local_pref) => heard.local_pref = Some(*local_pref),
            AttributeValue::AtomicAggregate => heard.atomic_aggregate = true,
            AttributeValue::Aggregator { asn, id } => heard.aggregator = Some(((*asn).into(), *id)),
            AttributeValue::As4Aggregator { asn, id } => heard.as4_aggregator = Some(((*asn).into(), *id)),
            AttributeValue::Communities(list) => heard.communities = list.iter().map(community).collect(),
            // Typed; compared as the octets that are written back.
            AttributeValue::ExtendedCommunities(_) => {}
            AttributeValue::LargeCommunities(list) => {
                heard.large =
                    list.iter().map(|c| [c.global_admin, c.local_data[0], c.local_data[1]]).collect();
            }
            AttributeValue::MpReachNlri(nlri) => {
                heard.next_hop = next_hop(nlri);
                heard.announced.extend(nlri.prefixes.iter().map(|prefix| prefix.prefix));
            }
            AttributeValue::MpUnreachNlri(nlri) => {
                heard.withdrawn.extend(nlri.prefixes.iter().map(|prefix| prefix.prefix));
            }
            AttributeValue::Raw(raw) | AttributeValue::Unknown(raw) | AttributeValue::Deprecated(raw) => {
                heard.unknown.push((raw.code, raw.bytes.to_vec()))
            }
            other => panic!("bgpkit read {other:?}"),
        }
    }
    heard
}

fn next_hop(nlri: &Nlri) -> Option<NextHop> {
    Some(match nlri.next_hop? {
        NextHopAddress::Ipv4(address) => NextHop::V4(address),
        NextHopAddress::Ipv6(global) => NextHop::V6 { global, link_local: None },
        NextHopAddress::Ipv6LinkLocal(global, local) => NextHop::V6 { global, link_local: Some(local) },
        other => panic!("bgpkit read {other:?}"),
    })
}

fn segments(path: &AsPath) -> Vec<Segment> {
    let segment = |segment: &AsPathSegment| match segment {
        AsPathSegment::AsSequence(asns) => (false, asns.iter().map(|asn| (*asn).into()).collect()),
        AsPathSegment::AsSet(asns) => (true, asns.iter().map(|asn| (*asn).into()).collect()),
        other => panic!("bgpkit read {other:?}"),
    };
    path.segments.iter().map(segment).collect()
}

fn community(community: &Community) -> u32 {
    match community {
        Community::NoExport => 0xffff_ff01,
        Community::NoAdvertise => 0xffff_ff02,
        Community::NoExportSubConfed => 0xffff_ff03,
        Community::Custom(asn, value) => u32::from(*asn) << 16 | u32::from(*value),
    }
}
