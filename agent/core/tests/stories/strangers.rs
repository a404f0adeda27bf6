//! Whoever opens a TCP connection to the agent, or speaks on one: what peers say when they are wrong, early, late or mad.

use std::net::Ipv4Addr;

use anyvip_bgp::wire::*;
use anyvip_machine::Seed;
use ipnet::IpNet;

use crate::world::net;

/// What a connected peer may say next: mostly sense in a senseless order.
pub(crate) fn says(dice: &mut Seed) -> Vec<u8> {
    let mut bytes = match dice.below(10) {
        0..3 => open(dice),
        3..5 => Message::Keepalive.encode(&codec()),
        5..7 => update(dice),
        7 => Message::RouteRefresh { family: AfiSafi::from(Family::Ipv4), subtype: dice.below(3) as u8 }
            .encode(&codec()),
        8 => {
            let (code, subcode) = (dice.below(9) as u8, dice.below(11) as u8);
            let data = (0..dice.below(20)).map(|_| dice.bits() as u8).collect();
            Message::Notification(Notification { code, subcode, data }).encode(&codec())
        }
        _ => (0..dice.below(200)).map(|_| dice.bits() as u8).collect(),
    };
    if dice.chance(250) && !bytes.is_empty() {
        for _ in 0..=dice.below(3) {
            let at = dice.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.below(8);
        }
    }
    if dice.chance(100) {
        bytes.truncate(dice.below(bytes.len() as u64 + 1) as usize);
    }
    bytes
}

/// An OPEN that the agent would take, and a KEEPALIVE: with these a session may come up.
pub(crate) fn introduces_itself(dice: &mut Seed) -> Vec<u8> {
    [open(dice), Message::Keepalive.encode(&codec())].concat()
}

fn codec() -> Codec {
    let both = [Family::Ipv4, Family::Ipv6];
    Codec {
        external: true,
        four_octet_as: true,
        families: both.into(),
        extended_next_hop: both.into(),
        ..Codec::before_open()
    }
}

fn open(dice: &mut Seed) -> Vec<u8> {
    let asn = if dice.chance(900) { 65001 } else { dice.below(70_000) as u32 };
    let mut capabilities = vec![Capability::FourOctetAs(asn), Capability::RouteRefresh];
    for family in [Family::Ipv4, Family::Ipv6] {
        if dice.chance(800) {
            capabilities.push(Capability::Multiprotocol(AfiSafi::from(family)));
        }
    }
    let hold_time = [0, 3, 9, 90, 1][dice.below(5) as usize];
    // Sometimes the agent's own identifier, and smaller and larger ones than it, for collisions.
    let router_id = [[10, 0, 1, 1], [10, 0, 1, 11], [10, 0, 0, 1], [10, 0, 9, 9]][dice.below(4) as usize];
    Message::Open(Open::new(asn, hold_time, Ipv4Addr::from(router_id), capabilities)).encode(&codec())
}

/// Routes of all kinds, also to our own VIPs.
fn update(dice: &mut Seed) -> Vec<u8> {
    let known = ["192.0.2.80/32", "192.0.2.0/24", "0.0.0.0/0", "203.0.113.0/24"];
    let prefixes: Vec<IpNet> = known.iter().filter(|_| dice.chance(400)).map(|text| net(text)).collect();
    let mut update = Update::default();
    if dice.chance(300) {
        update.withdrawn = prefixes;
    } else if !prefixes.is_empty() {
        let next_hop = NextHop::V4(Ipv4Addr::new(10, 0, 1, 1));
        update.reach = vec![Reach { family: Family::Ipv4, next_hop, prefixes }];
        update.attributes.as_path = AsPath::sequence(vec![65001, 65011]);
        update.attributes.med = dice.chance(500).then(|| dice.below(1000) as u32);
    } else {
        update.end_of_rib = Some(Family::Ipv4);
    }
    Message::Update(update).encode(&codec())
}
