use std::collections::BTreeSet;

use ipnet::IpNet;

use super::*;
use crate::error::{EncodeError, Severity};
use crate::wire::{AsPath, Codec, Community, Framer, Message, Notification, UnknownAttribute};

fn codec() -> Codec {
    Codec {
        external: true,
        four_octet_as: true,
        families: [Family::Ipv4, Family::Ipv6].into(),
        ..Codec::before_open()
    }
}

fn attributes() -> PathAttributes {
    PathAttributes {
        as_path: AsPath::sequence([65001]),
        communities: [Community::NO_EXPORT].into_iter().collect(),
        ..PathAttributes::default()
    }
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn v4() -> NextHop {
    NextHop::V4("10.0.0.1".parse().unwrap())
}

fn v6() -> NextHop {
    NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None }
}

fn whole_messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    framer.push(bytes);
    let messages = std::iter::from_fn(|| framer.next_frame()).map(Result::unwrap).collect();
    assert_eq!(framer.pending(), 0);
    messages
}

fn pack_announcements(
    codec: &Codec,
    attributes: &PathAttributes,
    next_hop: &NextHop,
    family: Family,
    prefixes: &[IpNet],
) -> Result<Vec<Vec<u8>>, EncodeError> {
    let mut out = Vec::new();
    let count = super::pack_announcements(codec, attributes, next_hop, family, prefixes, &mut out);
    let messages = whole_messages(&out);
    assert_eq!(count.as_ref().unwrap_or(&0), &messages.len());
    count.map(|_| messages)
}

fn pack_withdrawals(codec: &Codec, prefixes: &[IpNet]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let count = super::pack_withdrawals(codec, prefixes, &mut out);
    let messages = whole_messages(&out);
    assert_eq!(count, messages.len());
    messages
}

fn decode(message: &[u8], codec: &Codec) -> Update {
    match Message::decode(message, codec) {
        Ok(Message::Update(update)) => update,
        other => panic!("{other:?}"),
    }
}

/// An UPDATE out of its three fields.
fn message(withdrawn: &[u8], list: &[u8], announced: &[u8]) -> Vec<u8> {
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap().to_be_bytes();
    let body = [&length(withdrawn), withdrawn, &length(list), list, announced].concat();
    super::super::frame(super::super::Kind::Update, &body)
}

const ORIGIN: &[u8] = &[0x40, 1, 1, 0];
const AS_PATH: &[u8] = &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe9];
const NEXT_HOP: &[u8] = &[0x40, 3, 4, 10, 0, 0, 1];
/// 192.0.2.53/32.
const VIP: &[u8] = &[32, 192, 0, 2, 53];
/// MP_UNREACH_NLRI of 2001:db8::53/128's family, nothing in it.
const NO_UNREACH: &[u8] = &[0x80, 15, 3, 0, 2, 1];

fn mp_reach(next_hop: &[u8], nlri: &[u8]) -> Vec<u8> {
    let value = [&[0, 2, 1, u8::try_from(next_hop.len()).unwrap()], next_hop, &[0], nlri].concat();
    [&[0x80, 14, u8::try_from(value.len()).unwrap()], value.as_slice()].concat()
}

#[test]
fn each_family_goes_where_its_next_hop_puts_it() {
    let extended = Codec { extended_next_hop: [Family::Ipv4].into(), ..codec() };
    let cases = [
        (Family::Ipv4, v4(), "192.0.2.53/32", false),
        (Family::Ipv4, v6(), "192.0.2.53/32", true),
        (Family::Ipv6, v6(), "2001:db8::53/128", true),
    ];
    for (family, next_hop, prefix, multiprotocol) in cases {
        let prefixes = prefixes(&[prefix]);
        let messages = pack_announcements(&extended, &attributes(), &next_hop, family, &prefixes).unwrap();
        assert_eq!(messages.len(), 1);
        // RFC 7606 §5.1: the very first attribute.
        assert_eq!(messages[0][24] == 14, multiprotocol);
        let update = decode(&messages[0], &extended);
        assert_eq!(update.reach, [Reach { family, next_hop, prefixes }]);
        assert_eq!(update.attributes, attributes());
        assert_eq!(update.errors, []);
    }
}

#[test]
fn many_prefixes_fill_messages_and_no_message_is_too_long() {
    let family = Family::Ipv6;
    let many: Vec<IpNet> = (0..2000u32).map(|n| format!("2001:db8:{n:x}::/48").parse().unwrap()).collect();
    let messages = pack_announcements(&codec(), &attributes(), &v6(), family, &many).unwrap();
    // 7 octets each.
    assert_eq!(messages.len(), 4);
    assert!(messages.iter().all(|message| message.len() <= 4096));
    assert!(messages[0].len() > 4096 - 7);
    let heard: Vec<IpNet> =
        messages.iter().flat_map(|message| decode(message, &codec()).reach.remove(0).prefixes).collect();
    assert_eq!(heard, many);

    let messages = pack_withdrawals(&codec(), &many);
    assert_eq!(messages.len(), 4);
    let heard: Vec<IpNet> = messages.iter().flat_map(|message| decode(message, &codec()).withdrawn).collect();
    assert_eq!(heard, many);
}

#[test]
fn what_the_session_cannot_carry_is_the_callers_error() {
    let ipv4_only = Codec { families: [Family::Ipv4].into(), ..codec() };
    let pack = |codec: &Codec, attributes: &PathAttributes, next_hop, family, prefix| {
        pack_announcements(codec, attributes, &next_hop, family, &prefixes(&[prefix])).unwrap_err()
    };
    let (ipv4, ipv6) = (Family::Ipv4, Family::Ipv6);
    assert_eq!(
        pack(&ipv4_only, &attributes(), v6(), ipv6, "2001:db8::/32"),
        EncodeError::FamilyNotNegotiated { family: ipv6 }
    );
    assert_eq!(
        pack(&codec(), &attributes(), v4(), ipv6, "2001:db8::/32"),
        EncodeError::NextHopOfOtherFamily { family: ipv6, next_hop: v4() }
    );
    assert_eq!(
        pack(&codec(), &attributes(), v6(), ipv4, "192.0.2.0/24"),
        EncodeError::NextHopOfOtherFamily { family: ipv4, next_hop: v6() }
    );
    assert!(matches!(
        pack(&codec(), &attributes(), v4(), ipv4, "2001:db8::/32"),
        EncodeError::PrefixOfOtherFamily { .. }
    ));
}

#[test]
fn attributes_may_fill_a_message_up_to_the_last_prefix() {
    let packed = |communities: usize, prefix: &str| {
        let communities = vec![Community(1); communities].into();
        let attributes = PathAttributes { communities, ..attributes() };
        pack_announcements(&codec(), &attributes, &v4(), Family::Ipv4, &prefixes(&[prefix]))
    };
    // 23 octets of UPDATE, 20 of ORIGIN, AS_PATH and NEXT_HOP, 4 of header, 4 for each community.
    let most = (4096 - 23 - 20 - 4) / 4;
    assert_eq!(packed(most, "0.0.0.0/0").unwrap()[0].len(), 4096);
    assert_eq!(packed(most, "10.0.0.0/8"), Err(EncodeError::AttributesTooLong { length: 20 + 4 + 4 * most }));
}

#[test]
fn end_of_rib_is_known_in_both_forms_and_only_for_families_in_use() {
    for family in [Family::Ipv4, Family::Ipv6] {
        let update = decode(&end_of_rib(family), &codec());
        assert_eq!(update, Update { end_of_rib: Some(family), ..Update::default() });
        let nothing = Codec { families: BTreeSet::new(), ..codec() };
        assert_eq!(decode(&end_of_rib(family), &nothing), Update::default());
    }
    let withdrawing = message(VIP, NO_UNREACH, &[]);
    assert_eq!(decode(&withdrawing, &codec()).end_of_rib, None);
}

/// RFC 6793 §4.2.2, §4.2.3.
#[test]
fn four_octet_numbers_cross_a_two_octet_session() {
    let old = Codec { four_octet_as: false, ..codec() };
    let attributes = PathAttributes {
        as_path: "65001 4200000001 {4200000002,3}".parse().unwrap(),
        aggregator: Some((4_200_000_001, "10.0.0.9".parse().unwrap())),
        ..attributes()
    };
    let messages =
        pack_announcements(&old, &attributes, &v4(), Family::Ipv4, &prefixes(&["192.0.2.0/24"])).unwrap();
    assert_eq!(decode(&messages[0], &old).attributes, attributes);
    // RFC 6793 §4.2.3: aggregated anew by somebody who knows two octets only, the four-octet path is out of date.
    let list = [
        ORIGIN,
        &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0x5b, 0xa0],
        NEXT_HOP,
        &[0xc0, 7, 6, 0xfd, 0xe9, 10, 0, 0, 9],
        &[0xc0, 17, 6, 2, 1, 0xfa, 0x56, 0xea, 1],
        &[0xc0, 18, 8, 0xfa, 0x56, 0xea, 1, 10, 0, 0, 8],
    ]
    .concat();
    let heard = decode(&message(&[], &list, VIP), &old).attributes;
    assert_eq!(heard.as_path.to_string(), "65001 23456");
    assert_eq!(heard.aggregator, Some((65001, "10.0.0.9".parse().unwrap())));
}

#[test]
fn an_unknown_transitive_attribute_is_passed_on_partial_and_a_non_transitive_one_is_not() {
    let unknown = [&[0xd0, 99, 0, 2, 7, 7][..], &[0x80, 98, 1, 7]].concat();
    let list = [ORIGIN, AS_PATH, NEXT_HOP, &unknown].concat();
    let update = decode(&message(&[], &list, VIP), &codec());
    assert_eq!(update.attributes.unknown, [UnknownAttribute { flags: 0xc0, code: 99, value: vec![7, 7] }]);
    assert_eq!(update.errors, []);
    let again = whole_messages(&update.encode(&codec()));
    assert_eq!(decode(&again[0], &codec()).attributes.unknown[0].flags, 0xe0);
}

/// RFC 4271 §5.1.5.
#[test]
fn local_pref_stays_within_the_as() {
    let attributes = PathAttributes { local_pref: Some(200), ..attributes() };
    let internal = Codec { external: false, ..codec() };
    let pack = |codec: &Codec| {
        pack_announcements(codec, &attributes, &v4(), Family::Ipv4, &prefixes(&["192.0.2.0/24"]))
            .unwrap()
            .remove(0)
    };
    assert_eq!(decode(&pack(&internal), &internal).attributes.local_pref, Some(200));
    assert_eq!(decode(&pack(&codec()), &internal).attributes.local_pref, None);
    let update = decode(&pack(&internal), &codec());
    assert_eq!(update.attributes.local_pref, None);
    assert_eq!(update.reach.len(), 1);
    assert_eq!(update.errors[0].severity, Severity::Discard);
}

/// One attribute more than a good UPDATE has, and what it costs: RFC 7606 §7 and the RFCs it names.
#[test]
fn every_malformed_attribute_costs_what_its_rfc_says() {
    use Severity::{Discard, TreatAsWithdraw};
    let cases: &[(&str, &[u8], Severity)] = &[
        ("MED of 3 octets, §7.4", &[0x80, 4, 3, 0, 0, 0], TreatAsWithdraw),
        ("MED called transitive, §3 c", &[0xc0, 4, 4, 0, 0, 0, 1], TreatAsWithdraw),
        ("LOCAL_PREF from outside, §7.5", &[0x40, 5, 1, 0], Discard),
        ("ATOMIC_AGGREGATE with a value, §7.6", &[0x40, 6, 1, 0], Discard),
        ("AGGREGATOR of 6 octets, §7.7", &[0xc0, 7, 6, 0, 1, 10, 0, 0, 1], Discard),
        ("AGGREGATOR with AS 0, RFC 7607", &[0xc0, 7, 8, 0, 0, 0, 0, 10, 0, 0, 1], Discard),
        ("COMMUNITIES of 5 octets, §7.8", &[0xc0, 8, 5, 0, 0, 0, 0, 0], TreatAsWithdraw),
        ("COMMUNITIES of nothing, §7.8", &[0xc0, 8, 0], TreatAsWithdraw),
        ("ORIGINATOR_ID from outside, §7.9", &[0x80, 9, 3, 0, 0, 0], Discard),
        ("CLUSTER_LIST from outside, §7.10", &[0x80, 10, 3, 0, 0, 0], Discard),
        ("EXTENDED COMMUNITIES of 7 octets, §7.14", &[0xc0, 16, 7, 0, 0, 0, 0, 0, 0, 0], TreatAsWithdraw),
        ("LARGE_COMMUNITY of 4 octets, RFC 8092 §5", &[0xc0, 32, 4, 0, 0, 0, 0], TreatAsWithdraw),
        ("AS4_PATH among four-octet speakers, RFC 6793 §6", &[0xc0, 17, 1, 0], Discard),
        ("AS4_AGGREGATOR among them", &[0xc0, 18, 1, 0], Discard),
        ("a second ORIGIN, §3 g", &[0x40, 1, 1, 2], Discard),
        ("a list that ends inside an attribute, §4", &[0x40, 5, 9, 0], TreatAsWithdraw),
        ("a list that ends inside a header, §4", &[0x40], TreatAsWithdraw),
    ];
    for (what, attribute, severity) in cases {
        let list = [ORIGIN, AS_PATH, NEXT_HOP, attribute].concat();
        let update = decode(&message(&[], &list, VIP), &codec());
        assert_eq!(update.errors.len(), 1, "{what}: {:?}", update.errors);
        assert_eq!(update.errors[0].severity, *severity, "{what}");
        if *severity == Discard {
            assert_eq!(update.reach[0].prefixes, prefixes(&["192.0.2.53/32"]), "{what}");
            assert_eq!(update.attributes.origin, super::super::Origin::Igp, "{what}");
        } else {
            assert_eq!(update.withdrawn, prefixes(&["192.0.2.53/32"]), "{what}");
            assert_eq!((update.reach, update.attributes), Default::default(), "{what}");
        }
    }
}

/// RFC 7606 §7.1 to §7.3, and §3 d for each of the three that must be there.
#[test]
fn a_bad_or_missing_mandatory_attribute_withdraws_the_routes() {
    let cases: &[(&str, [&[u8]; 3], u8)] = &[
        ("no ORIGIN", [&[], AS_PATH, NEXT_HOP], 1),
        ("ORIGIN 3", [&[0x40, 1, 1, 3], AS_PATH, NEXT_HOP], 1),
        ("ORIGIN of 2 octets", [&[0x40, 1, 2, 0, 0], AS_PATH, NEXT_HOP], 1),
        ("optional ORIGIN", [&[0xc0, 1, 1, 0], AS_PATH, NEXT_HOP], 1),
        ("no AS_PATH", [ORIGIN, &[], NEXT_HOP], 2),
        ("a segment cut short", [ORIGIN, &[0x40, 2, 6, 2, 2, 0, 0, 0, 1], NEXT_HOP], 2),
        ("an octet left over", [ORIGIN, &[0x40, 2, 7, 2, 1, 0, 0, 0xfd, 0xe9, 0], NEXT_HOP], 2),
        ("an empty segment", [ORIGIN, &[0x40, 2, 2, 2, 0], NEXT_HOP], 2),
        ("a confederation", [ORIGIN, &[0x40, 2, 6, 3, 1, 0, 0, 0xfd, 0xe9], NEXT_HOP], 2),
        ("AS 0", [ORIGIN, &[0x40, 2, 6, 2, 1, 0, 0, 0, 0], NEXT_HOP], 2),
        ("no NEXT_HOP", [ORIGIN, AS_PATH, &[]], 3),
        ("NEXT_HOP of 5 octets", [ORIGIN, AS_PATH, &[0x40, 3, 5, 10, 0, 0, 1, 0]], 3),
        ("NEXT_HOP 0.0.0.0", [ORIGIN, AS_PATH, &[0x40, 3, 4, 0, 0, 0, 0]], 3),
        ("NEXT_HOP 224.0.0.1", [ORIGIN, AS_PATH, &[0x40, 3, 4, 224, 0, 0, 1]], 3),
    ];
    for (what, list, code) in cases {
        let update = decode(&message(&[], &list.concat(), VIP), &codec());
        assert_eq!(update.withdrawn, prefixes(&["192.0.2.53/32"]), "{what}");
        assert_eq!(update.reach, [], "{what}");
        let told: Vec<_> = update.errors.iter().map(|error| (error.code, error.severity)).collect();
        assert_eq!(told, [(*code, Severity::TreatAsWithdraw)], "{what}");
    }
}

#[test]
fn what_leaves_nothing_to_rely_on_resets_the_session() {
    let good = [ORIGIN, AS_PATH, NEXT_HOP].concat();
    let with = |attribute: &[u8]| message(&[], &[&good, attribute].concat(), VIP);
    let overrun = |at: usize| {
        let mut bytes = message(&[], &good, VIP);
        bytes[at] = 0xff;
        bytes
    };
    let cases: &[(&str, Vec<u8>, u8, &[u8])] = &[
        ("withdrawn routes beyond the message, §3 b", overrun(19), 1, &[]),
        ("attributes beyond the message, §3 b", overrun(21), 1, &[]),
        ("a prefix of 33 bits, §5.3", message(&[], &good, &[33, 1, 2, 3, 4, 5]), 10, &[]),
        ("a prefix cut short, §5.3", message(&[], &good, &[24, 1, 2]), 10, &[]),
        ("a withdrawn prefix cut short, §5.3", message(&[24, 1, 2], &[], &[]), 10, &[]),
        ("an unknown well-known attribute", with(&[0x40, 77, 1, 5]), 2, &[0x40, 77, 1, 5]),
        ("two MP_UNREACH_NLRI, §3 g", with(&[NO_UNREACH, NO_UNREACH].concat()), 1, &[]),
        ("MP_UNREACH_NLRI without a family", with(&[0x80, 15, 2, 0, 2]), 9, &[0x80, 15, 2, 0, 2]),
        ("a bad attribute without routes, §5.2", message(&[], &[0x40, 1, 1, 9], &[]), 6, &[0x40, 1, 1, 9]),
        ("a cut list without routes, §5.2", message(VIP, &[0x40, 1], &[]), 1, &[]),
    ];
    for (what, bytes, subcode, data) in cases {
        let expected = Notification { code: 3, subcode: *subcode, data: data.to_vec() };
        assert_eq!(Message::decode(bytes, &codec()), Err(expected), "{what}");
    }
}

/// RFC 7606 §5.3, §7.11: the other family lives on.
#[test]
fn a_multiprotocol_attribute_that_cannot_be_read_disables_its_family_only() {
    let global = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let cases: &[(&str, Vec<u8>)] = &[
        ("a next hop of 15 octets", mp_reach(&global[1..], &[0])),
        ("an IPv4 next hop", mp_reach(&[10, 0, 0, 1], &[0])),
        ("a prefix of 129 bits", mp_reach(&global, &[129])),
        ("a prefix cut short", mp_reach(&global, &[64, 1])),
        ("a next hop longer than the attribute", vec![0x80, 14, 4, 0, 2, 1, 16]),
        ("nothing behind the family", vec![0x80, 14, 3, 0, 2, 1]),
        ("a withdrawn prefix cut short", vec![0x80, 15, 5, 0, 2, 1, 64, 1]),
    ];
    for (what, attribute) in cases {
        let list = [attribute, ORIGIN, AS_PATH, NEXT_HOP].concat();
        let update = decode(&message(&[], &list, VIP), &codec());
        let told: Vec<_> = update.errors.iter().map(|error| error.severity).collect();
        assert_eq!(told, [Severity::DisableFamily(Family::Ipv6)], "{what}");
        assert_eq!(update.reach.len(), 1, "{what}");
        assert_eq!(update.reach[0].family, Family::Ipv4, "{what}");
        assert_eq!(update.withdrawn, [], "{what}");
        // Not looked at where the session does not have the family.
        let ipv4 = Codec { families: [Family::Ipv4].into(), ..codec() };
        assert_eq!(decode(&message(&[], &list, VIP), &ipv4).errors, [], "{what}");
    }
}

/// RFC 7606 §3 c: the attribute's routes are known, so they can be withdrawn.
#[test]
fn mp_reach_with_wrong_flags_withdraws_what_it_announced() {
    let global = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut reach = mp_reach(&global, &[16, 0x20, 1]);
    reach[0] = 0xc0;
    let update = decode(&message(&[], &[&reach, ORIGIN, AS_PATH].concat(), &[]), &codec());
    assert_eq!(update.withdrawn, prefixes(&["2001::/16"]));
    assert_eq!(update.reach, []);
}

/// RFC 4271 §4.3, §6.3.
#[test]
fn odd_prefixes_are_put_right() {
    let list = [ORIGIN, AS_PATH, NEXT_HOP].concat();
    let announced = [VIP, &[4, 0xe0], &[12, 10, 0xff]].concat();
    let update = decode(&message(&[VIP, &[8, 11]].concat(), &list, &announced), &codec());
    assert_eq!(update.withdrawn, prefixes(&["11.0.0.0/8"]));
    assert_eq!(update.reach[0].prefixes, prefixes(&["192.0.2.53/32", "10.240.0.0/12"]));
    assert_eq!(update.errors.len(), 1);
}

/// RFC 7606 §7.5, §7.9, §7.10: the same attributes are judged by their length where they belong.
#[test]
fn attributes_of_internal_sessions_are_judged_there() {
    let internal = Codec { external: false, ..codec() };
    let cases: [(&[u8], bool); 6] = [
        (&[0x40, 5, 4, 0, 0, 0, 200], true),
        (&[0x40, 5, 3, 0, 0, 0], false),
        (&[0x80, 9, 4, 10, 0, 0, 1], true),
        (&[0x80, 9, 5, 10, 0, 0, 1, 0], false),
        (&[0x80, 10, 8, 10, 0, 0, 1, 10, 0, 0, 2], true),
        (&[0x80, 10, 0], false),
    ];
    for (attribute, good) in cases {
        let list = [ORIGIN, AS_PATH, NEXT_HOP, attribute].concat();
        let update = decode(&message(&[], &list, VIP), &internal);
        assert_eq!((update.errors.is_empty(), update.withdrawn.is_empty()), (good, good), "{attribute:?}");
        // Reflection is not ours to pass on.
        assert_eq!(update.attributes.unknown, []);
    }
}

/// RFC 6793 §6: confederation segments are left out of AS4_PATH, anything malformed discards it, nothing is withdrawn.
#[test]
fn as4_path_is_mended_or_discarded() {
    let old = Codec { four_octet_as: false, ..codec() };
    let as_path: &[u8] = &[0x40, 2, 6, 2, 2, 0xfd, 0xe9, 0x5b, 0xa0];
    let cases: [(&[u8], &str, usize); 5] = [
        (&[2, 1, 0xfa, 0x56, 0xea, 1], "65001 4200000001", 0),
        (&[3, 1, 0, 0, 0, 9, 2, 1, 0xfa, 0x56, 0xea, 1], "65001 4200000001", 0),
        (&[2, 2, 0xfa, 0x56, 0xea, 1], "65001 23456", 1),
        (&[2, 1, 0, 0, 0, 0], "65001 23456", 1),
        (&[9, 1, 0xfa, 0x56, 0xea, 1], "65001 23456", 1),
    ];
    for (value, path, errors) in cases {
        let as4_path = [&[0xc0, 17, u8::try_from(value.len()).unwrap()], value].concat();
        let list = [ORIGIN, as_path, NEXT_HOP, &as4_path].concat();
        let update = decode(&message(&[], &list, VIP), &old);
        assert_eq!(update.attributes.as_path.to_string(), path, "{value:?}");
        assert_eq!(update.errors.len(), errors, "{value:?}");
        assert!(update.errors.iter().all(|error| error.severity == Severity::Discard));
    }
}

#[test]
fn what_cannot_be_announced_is_withdrawn_rather_than_left_as_it_was() {
    let prefixes = prefixes(&["192.0.2.53/32"]);
    let reach = vec![Reach { family: Family::Ipv4, next_hop: v6(), prefixes: prefixes.clone() }];
    let update = Update { reach, attributes: attributes(), ..Update::default() };
    let messages = whole_messages(&update.encode(&codec()));
    assert_eq!(messages.len(), 1);
    assert_eq!(decode(&messages[0], &codec()), Update { withdrawn: prefixes, ..Update::default() });
    assert!(Message::Update(Update::default()).encode(&codec()).is_empty());
}

/// The worst error of an UPDATE counts (RFC 7606 §2), for what it touches.
#[test]
fn several_errors_cost_what_each_of_them_costs() {
    // IPv6 cannot be read, IPv4 is withdrawn, the second ORIGIN is nothing.
    let list = [&mp_reach(&[1], &[]), AS_PATH, NEXT_HOP, &[0x40, 1, 1, 9], ORIGIN].concat();
    let update = decode(&message(&[], &list, VIP), &codec());
    let told: Vec<_> = update.errors.iter().map(|error| error.severity).collect();
    assert_eq!(told, [Severity::DisableFamily(Family::Ipv6), Severity::TreatAsWithdraw, Severity::Discard]);
    assert_eq!(update.withdrawn, prefixes(&["192.0.2.53/32"]));
    assert_eq!(update.reach, []);
}

#[test]
fn families_that_the_session_does_not_have_are_not_looked_at() {
    let ipv6 = Codec { families: [Family::Ipv6].into(), ..codec() };
    let list = [ORIGIN, AS_PATH, NEXT_HOP].concat();
    assert_eq!(decode(&message(&[8, 10], &list, VIP), &ipv6), Update::default());
    assert_eq!(pack_withdrawals(&ipv6, &prefixes(&["192.0.2.53/32"])), Vec::<Vec<u8>>::new());
}
