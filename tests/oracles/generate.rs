//! Every message that anyvip can write.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyvip_bgp::wire::{
    AfiSafi, AsPath, AsSegment, AsSegmentKind, Capability, Codec, Community, ExtendedCommunity, Family,
    LargeCommunity, NextHop, Notification, Open, Origin, PathAttributes, Reach, UnknownAttribute, Update,
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;

fn codec() -> impl Strategy<Value = Codec> {
    (any::<bool>(), any::<bool>()).prop_map(|(external, four_octet_as)| Codec {
        external,
        four_octet_as,
        families: [Family::Ipv4, Family::Ipv6].into(),
        extended_next_hop: [Family::Ipv4].into(),
        ..Codec::before_open()
    })
}

pub(crate) fn announcement() -> impl Strategy<Value = (Codec, Update)> {
    (codec(), attributes(), reach()).prop_map(|(codec, mut attributes, reach)| {
        if !codec.four_octet_as {
            // Read back, neighbouring sequences are one (RFC 6793 §4.2.3 counts hops, not segments).
            join_sequences(&mut attributes.as_path);
        }
        (codec, Update { reach: vec![reach], attributes, ..Update::default() })
    })
}

pub(crate) fn withdrawal() -> impl Strategy<Value = (Codec, Update)> {
    let prefixes = prop_oneof![prefixes(Family::Ipv4), prefixes(Family::Ipv6)];
    (codec(), prefixes).prop_map(|(codec, withdrawn)| (codec, Update { withdrawn, ..Update::default() }))
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    let families = prop_oneof![
        Just(AfiSafi::from(Family::Ipv4)),
        Just(AfiSafi::from(Family::Ipv6)),
        Just(AfiSafi { afi: 1, safi: 2 }),
    ];
    let capability = prop_oneof![
        families.clone().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        vec((families, Just(2)), 1..5).prop_map(Capability::ExtendedNextHop),
        (1..=u32::MAX).prop_map(Capability::FourOctetAs),
        (150..=180u8, vec(any::<u8>(), 0..100)).prop_map(|(code, value)| Capability::Unknown { code, value }),
    ];
    (1..=u32::MAX, prop_oneof![Just(0), 3..=u16::MAX], unicast_address(), vec(capability, 0..12)).prop_map(
        |(asn, hold_time, router_id, capabilities)| Open::new(asn, hold_time, router_id, capabilities),
    )
}

/// With the named constructors, as the state machines use them.
pub(crate) fn notification() -> impl Strategy<Value = Notification> {
    let data = || vec(any::<u8>(), 0..300);
    prop_oneof![
        Just(Notification::connection_not_synchronized()),
        any::<u16>().prop_map(Notification::bad_message_length),
        any::<u8>().prop_map(Notification::bad_message_type),
        Just(Notification::unsupported_version_number()),
        any::<u32>().prop_map(Notification::bad_peer_as),
        Just(Notification::bad_bgp_identifier()),
        Just(Notification::unsupported_optional_parameter()),
        Just(Notification::unacceptable_hold_time()),
        data().prop_map(|data| Notification::unsupported_capability(&data)),
        (prop_oneof![1..=6u8, 8..=11u8], data())
            .prop_map(|(subcode, data)| Notification::update_error(subcode, &data)),
        Just(Notification::hold_timer_expired()),
        (1..=3u8).prop_map(Notification::fsm_error),
        (1..=10u8, option::of(".{0,300}"))
            .prop_map(|(subcode, text)| Notification::cease(subcode, text.as_deref())),
        data().prop_map(|data| Notification::route_refresh_error(1, &data)),
    ]
}

fn reach() -> impl Strategy<Value = Reach> {
    let v4 = any::<[u8; 4]>().prop_map(|[a, b, c, d]| NextHop::V4(Ipv4Addr::new(1 + a % 200, b, c, d)));
    let v6 = (any::<u128>(), option::of(any::<u64>())).prop_map(|(global, local)| NextHop::V6 {
        global: Ipv6Addr::from((0x2001 << 112) | (global >> 16)),
        link_local: local.map(|local| Ipv6Addr::from((0xfe80 << 112) | u128::from(local))),
    });
    let reach = |family, next_hop: BoxedStrategy<NextHop>| {
        (next_hop, prefixes(family)).prop_map(move |(next_hop, prefixes)| Reach {
            family,
            next_hop,
            prefixes,
        })
    };
    prop_oneof![
        3 => reach(Family::Ipv4, v4.boxed()),
        1 => reach(Family::Ipv4, v6.clone().boxed()),
        3 => reach(Family::Ipv6, v6.boxed()),
    ]
}

/// Mostly few, sometimes more than one message holds.
fn prefixes(family: Family) -> impl Strategy<Value = Vec<IpNet>> {
    prop_oneof![20 => vec(prefix(family), 1..8), 1 => vec(prefix(family), 800..1600)]
}

/// Host routes are what we announce most; a default route is seldom.
fn bits(most: u8) -> impl Strategy<Value = u8> {
    prop_oneof![300 => 1..=most, 100 => Just(most), 1 => Just(0)]
}

fn prefix(family: Family) -> BoxedStrategy<IpNet> {
    match family {
        Family::Ipv4 => (any::<[u8; 4]>(), bits(32))
            .prop_map(|([a, b, c, d], bits)| {
                let net = Ipv4Net::new(Ipv4Addr::new(1 + a % 200, b, c, d), bits).expect("up to 32");
                IpNet::V4(net.trunc())
            })
            .boxed(),
        Family::Ipv6 => (any::<u128>(), bits(128))
            .prop_map(|(address, bits)| {
                let address = Ipv6Addr::from((0x2 << 124) | (address >> 4));
                IpNet::V6(Ipv6Net::new(address, bits).expect("up to 128").trunc())
            })
            .boxed(),
    }
}

fn attributes() -> impl Strategy<Value = PathAttributes> {
    let origin = prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)];
    let aggregator = option::of((asn(), any::<u32>().prop_map(Ipv4Addr::from)));
    let metrics = (option::of(any::<u32>()), option::of(any::<u32>()), any::<bool>(), aggregator);
    let large: BoxedStrategy<BTreeSet<[u32; 3]>> = btree_set(any::<[u32; 3]>(), 0..6).boxed();
    let extended = prop_oneof![
        // A type that no reader has a name for.
        any::<[u8; 7]>().prop_map(|[a, b, c, d, e, f, g]| [0x3f, a, b, c, d, e, f, g]),
        // Route target and origin in their three forms, and link bandwidth.
        (0..=2u8, 2..=3u8, any::<[u8; 6]>())
            .prop_map(|(kind, subtype, [a, b, c, d, e, f])| [kind, subtype, a, b, c, d, e, f]),
        any::<u16>().prop_map(|asn| {
            let [a, b] = asn.to_be_bytes();
            [0x40, 4, a, b, 0x4b, 0x3e, 0xbc, 0x20]
        }),
    ];
    let communities = (vec(any::<u32>(), 0..80), vec(extended, 0..40), large);
    let unknown = btree_map(200..=250u8, vec(any::<u8>(), 0..300), 0..3);
    (origin, as_path(), metrics, communities, unknown).prop_map(
        |(origin, as_path, metrics, (communities, extended, large), unknown)| PathAttributes {
            origin,
            as_path,
            med: metrics.0,
            local_pref: metrics.1,
            atomic_aggregate: metrics.2,
            aggregator: metrics.3,
            communities: communities.into_iter().map(Community).collect(),
            extended_communities: extended.into_iter().map(ExtendedCommunity).collect(),
            large_communities: large
                .into_iter()
                .map(|[global, local1, local2]| LargeCommunity { global, local1, local2 })
                .collect(),
            only_to_customer: None,
            unknown: unknown
                .into_iter()
                .map(|(code, value)| UnknownAttribute { flags: 0xe0, code, value })
                .collect(),
        },
    )
}

/// A few short segments, and now and then one that is full. Three full ones, written twice (RFC 6793), would leave no
/// room for a prefix.
fn as_path() -> impl Strategy<Value = AsPath> {
    let segment = |asns: BoxedStrategy<Vec<u32>>| {
        let kind = prop_oneof![1 => Just(AsSegmentKind::Set), 3 => Just(AsSegmentKind::Sequence)];
        (kind, asns).prop_map(|(kind, asns)| AsSegment { kind, asns: asns.into() })
    };
    let short = vec(segment(vec(asn(), 1..6).boxed()), 0..4);
    let full = option::weighted(0.1, segment(vec(asn(), 255).boxed()));
    (full, short).prop_map(|(full, short)| AsPath { segments: full.into_iter().chain(short).collect() })
}

/// As likely of two octets as of four; never 0, and never AS_TRANS, which is nobody's own.
fn asn() -> impl Strategy<Value = u32> {
    prop_oneof![1..=23455u32, 23457..=65535u32, 65536..=u32::MAX]
}

fn join_sequences(path: &mut AsPath) {
    let mut joined: Vec<AsSegment> = Vec::new();
    for segment in path.segments.drain(..) {
        match joined.last_mut() {
            Some(last)
                if (last.kind, segment.kind) == (AsSegmentKind::Sequence, AsSegmentKind::Sequence)
                    && last.asns.len() + segment.asns.len() <= 255 =>
            {
                last.asns.extend(segment.asns);
            }
            _ => joined.push(segment),
        }
    }
    path.segments = joined.into();
}

/// Any number but zero is a BGP Identifier (RFC 6286); netgauze still wants it to be the address of a host.
fn unicast_address() -> impl Strategy<Value = Ipv4Addr> {
    any::<[u8; 4]>().prop_map(|[a, b, c, d]| Ipv4Addr::new(1 + a % 120, b, c, d))
}
