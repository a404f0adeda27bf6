//! Every message we know, damaged in seeded ways: no panic, nothing illegal to answer with, nothing half understood.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "fixtures are files")]

use std::net::{Ipv4Addr, Ipv6Addr};

use anyvip_bgp::wire::{
    AfiSafi, AsPath, Capability, Codec, Community, ExtendedCommunity, Family, Framer, LargeCommunity,
    MAX_MESSAGE_LEN, Message, NextHop, Notification, Open, Origin, PathAttributes, Reach, UnknownAttribute,
    Update, pack_announcements,
};
use anyvip_machine::Seed;

mod fixtures;

const CASES: u64 = 200_000;

#[test]
fn a_damaged_message_is_answered_legally_or_read_wholly() {
    let codecs = codecs();
    let mut whole = own_messages(&codecs);
    for fixture in fixtures::all() {
        whole.extend(fixture.messages);
    }
    let (mut read, mut survived, mut refused) = (0, 0, 0);
    for case in 0..CASES {
        let mut seed = Seed::new(case);
        let mut bytes = pick(&whole, &mut seed).clone();
        for _ in 0..=seed.below(3) {
            damage(&mut bytes, &whole, &mut seed);
        }
        // Most of the time the header is put right again, so that the damage is met further in.
        if seed.chance(900) {
            mend_header(&mut bytes);
        }
        let codec = pick(&codecs, &mut seed);
        frame_up(&bytes, case);
        match Message::decode(&bytes, codec) {
            Ok(message) => {
                read += 1;
                survived +=
                    u32::from(matches!(&message, Message::Update(update) if !update.errors.is_empty()));
                again(message, codec, case);
            }
            Err(notification) => {
                refused += 1;
                legal(&notification, case);
            }
        }
    }
    // The damage must neither be so mild nor so harsh that one of the three ways is never gone.
    assert!(read > 20_000 && survived > 5_000 && refused > 20_000, "{read} {survived} {refused}");
}

/// The stream is cut into the same frames whatever the pieces, and each frame is as long as it says.
fn frame_up(bytes: &[u8], case: u64) {
    let mut framer = Framer::default();
    framer.push(bytes);
    while let Some(frame) = framer.next_frame() {
        match frame {
            Ok(frame) => assert!((19..=MAX_MESSAGE_LEN).contains(&frame.len()), "case {case}"),
            Err(notification) => legal(&notification, case),
        }
    }
    assert!(framer.pending() < MAX_MESSAGE_LEN, "case {case}");
}

fn legal(notification: &Notification, case: u64) {
    let named = notification.subcode_name().is_some() || (notification.code, notification.subcode) == (2, 0);
    assert!(named && matches!(notification.code, 1..=3 | 7), "case {case}: {notification}");
    let message = Message::Notification(notification.clone()).encode(&Codec::before_open());
    assert!(message.len() <= MAX_MESSAGE_LEN, "case {case}");
    assert!(Message::decode(&message, &Codec::before_open()).is_ok(), "case {case}");
}

fn again(message: Message, codec: &Codec, case: u64) {
    let bytes = message.encode(codec);
    let mut framer = Framer::default();
    if codec.extended_messages {
        framer.allow_extended();
    }
    framer.push(&bytes);
    let mut messages = Vec::new();
    while let Some(frame) = framer.next_frame() {
        messages.push(Message::decode(&frame.unwrap(), codec).unwrap_or_else(|n| panic!("case {case}: {n}")));
    }
    assert_eq!(framer.pending(), 0, "case {case}");
    let Message::Update(mut update) = message else {
        assert_eq!(messages, [message], "case {case}");
        return;
    };
    let updates = messages.into_iter().map(|message| match message {
        Message::Update(update) => {
            assert_eq!(update.errors, [], "case {case}");
            update
        }
        other => panic!("case {case}: {other:?}"),
    });
    let updates = fixtures::as_meant(updates.collect());
    // Merged from two octets and four, a path may be longer than what it came from; then it is withdrawn.
    let (attributes, reach) = (update.attributes.clone(), std::mem::take(&mut update.reach));
    for reach in reach {
        let Reach { family, next_hop, prefixes } = &reach;
        match pack_announcements(codec, &attributes, next_hop, *family, prefixes, &mut Vec::new()) {
            Ok(_) => update.reach.push(reach),
            Err(_) => update.withdrawn.extend(reach.prefixes),
        }
    }
    if update.reach.is_empty() {
        update.attributes = PathAttributes::default();
    }
    assert_eq!(updates, fixtures::as_meant(vec![update]), "case {case}");
}

fn damage(bytes: &mut Vec<u8>, whole: &[Vec<u8>], seed: &mut Seed) {
    let at = index(bytes.len(), seed);
    match seed.below(8) {
        0 | 1 => bytes[at] ^= 1 << seed.below(8),
        2 => bytes[at] = *pick(&[0, 1, 2, 3, 4, 5, 14, 15, 32, 33, 0x40, 0x80, 0xc0, 128, 129, 255], seed),
        // Most length fields have one octet or two and are small.
        3 => bytes[at] = bytes[at].wrapping_add(*pick(&[1, 2, 4, 255, 254, 252], seed)),
        4 => bytes.truncate(at.max(1)),
        5 => {
            bytes.insert(at, u8::try_from(seed.below(256)).unwrap());
        }
        6 => {
            let other = pick(whole, seed);
            let from = index(other.len(), seed);
            bytes.extend_from_slice(&other[from..]);
        }
        _ => {
            let upto = at + index(bytes.len() - at, seed);
            let piece = bytes[at..upto].to_vec();
            let to = index(bytes.len(), seed);
            bytes.splice(to..to, piece);
        }
    }
    bytes.truncate(2 * MAX_MESSAGE_LEN);
}

fn mend_header(bytes: &mut Vec<u8>) {
    bytes.truncate(MAX_MESSAGE_LEN);
    bytes.resize(bytes.len().max(19), 0);
    bytes[..16].fill(0xff);
    let length = u16::try_from(bytes.len()).unwrap();
    bytes[16..18].copy_from_slice(&length.to_be_bytes());
}

fn index(length: usize, seed: &mut Seed) -> usize {
    usize::try_from(seed.below(u64::try_from(length).unwrap())).unwrap()
}

fn pick<'a, T>(from: &'a [T], seed: &mut Seed) -> &'a T {
    &from[index(from.len(), seed)]
}

fn codecs() -> Vec<Codec> {
    let mut codecs = vec![Codec::before_open()];
    for external in [true, false] {
        for four_octet_as in [true, false] {
            for extended in [true, false] {
                codecs.push(Codec {
                    external,
                    four_octet_as,
                    families: [Family::Ipv4, Family::Ipv6].into(),
                    extended_next_hop: extended.then_some(Family::Ipv4).into_iter().collect(),
                    ..Codec::before_open()
                });
            }
        }
    }
    // What was sent without path identifiers, read as if it had them, and the other way round (RFC 7911).
    let both = std::collections::BTreeSet::from([Family::Ipv4, Family::Ipv6]);
    codecs.push(Codec {
        families: both.clone(),
        add_path: both.clone(),
        four_octet_as: true,
        ..Codec::before_open()
    });
    codecs.push(Codec {
        families: both,
        extended_messages: true,
        four_octet_as: true,
        ..Codec::before_open()
    });
    codecs
}

fn own_messages(codecs: &[Codec]) -> Vec<Vec<u8>> {
    let capabilities = vec![
        Capability::Multiprotocol(Family::Ipv4.into()),
        Capability::Multiprotocol(AfiSafi { afi: 25, safi: 70 }),
        Capability::RouteRefresh,
        Capability::ExtendedMessage,
        Capability::ExtendedNextHop(vec![(Family::Ipv4.into(), 2); 3]),
        Capability::FourOctetAs(4_200_000_001),
        Capability::Unknown { code: 73, value: b"name".to_vec() },
    ];
    let open = |capabilities| Open::new(4_200_000_001, 9, Ipv4Addr::new(10, 0, 0, 1), capabilities);
    // More than 255 octets of capabilities: RFC 9072.
    let long = Capability::Unknown { code: 200, value: vec![7; 200] };
    let mut messages = vec![
        Message::Open(open(capabilities.clone())),
        Message::Open(open([capabilities, vec![long.clone(), long]].concat())),
        Message::Keepalive,
        Message::RouteRefresh { family: Family::Ipv6.into(), subtype: 0 },
        Message::RouteRefresh { family: Family::Ipv4.into(), subtype: 1 },
        Message::Notification(Notification::cease(2, Some("maintenance"))),
        Message::Notification(Notification::update_error(2, &[0x40, 77, 1, 5])),
        Message::Update(Update { end_of_rib: Some(Family::Ipv4), ..Update::default() }),
        Message::Update(Update { end_of_rib: Some(Family::Ipv6), ..Update::default() }),
    ];
    let global = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    let link_local = Some(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
    let next_hops = [
        (Family::Ipv4, NextHop::V4(Ipv4Addr::new(10, 0, 0, 1))),
        (Family::Ipv4, NextHop::V6 { global, link_local: None }),
        (Family::Ipv6, NextHop::V6 { global, link_local }),
    ];
    for (family, next_hop) in next_hops {
        let texts = match family {
            Family::Ipv4 => ["0.0.0.0/0", "192.0.2.53/32", "10.0.0.0/9"],
            Family::Ipv6 => ["::/0", "2001:db8::53/128", "2001:db8:100::/41"],
        };
        let prefixes: Vec<_> = texts.iter().map(|text| text.parse().unwrap()).collect();
        messages.push(Message::Update(Update { withdrawn: prefixes.clone(), ..Update::default() }));
        messages.push(Message::Update(Update {
            reach: vec![Reach { family, next_hop, prefixes }],
            attributes: attributes(),
            ..Update::default()
        }));
    }
    let each = codecs.iter().flat_map(|codec| messages.iter().map(|message| message.encode(codec)));
    each.filter(|bytes| !bytes.is_empty()).collect()
}

fn attributes() -> PathAttributes {
    PathAttributes {
        origin: Origin::Incomplete,
        as_path: "65001 4200000001 {64512,4200000002} 65002".parse::<AsPath>().unwrap(),
        med: Some(50),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some((4_200_000_001, Ipv4Addr::new(10, 0, 0, 9))),
        communities: [Community::NO_EXPORT, Community(0xfde9_0064)].into_iter().collect(),
        extended_communities: vec!["rt:65001:7".parse::<ExtendedCommunity>().unwrap()],
        large_communities: vec![LargeCommunity { global: 65001, local1: 1, local2: 2 }],
        only_to_customer: Some(65001),
        unknown: vec![UnknownAttribute { flags: 0xe0, code: 99, value: b"kept".to_vec() }],
    }
}
