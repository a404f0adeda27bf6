//! Three independent readers of every BGP message that anyvip can write.
//!
//! netgauze and bgpkit also write back what they read, which must be the same octets. zettabgp reads UPDATEs only, and
//! only ours: its message decoder loops for ever on some 33 octets, and its AS_PATH encoder writes AS_SEQUENCE as
//! AS_SET (type 1) and the reverse. RFC 4271 §4.3 says AS_SET is 1 and AS_SEQUENCE is 2; its decoder agrees, and so do
//! we. Nobody should "fix" ours to please its encoder.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use anyvip_bgp::wire::{Codec, Framer, Message};
use proptest::prelude::*;

mod bgpkit;
mod generate;
mod heard;
mod netgauze;
mod zettabgp;

use heard::Heard;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn announcements_mean_the_same_to_every_reader((codec, update) in generate::announcement()) {
        let expected = Heard::announced(&codec, &update);
        let frames = frames(&Message::Update(update), &codec);
        let read = |reader: &dyn Fn(&[u8]) -> Heard| Heard::merged(frames.iter().map(|frame| reader(frame)));
        prop_assert_eq!(&read(&|frame| netgauze::update(frame, codec.four_octet_as)), &expected);
        if bgpkit::can_read(&expected) {
            let heard = read(&|frame| bgpkit::update(frame, codec.four_octet_as));
            prop_assert_eq!(heard, expected.without_extended());
        }
        // It takes the IPv4 next hop of RFC 8950 for another address and drops link-local ones.
        if zettabgp::can_read(&expected) {
            prop_assert_eq!(
                read(&|frame| zettabgp::update(frame, codec.four_octet_as)).unordered(),
                expected.unordered()
            );
        }
    }

    #[test]
    fn withdrawals_mean_the_same_to_every_reader((codec, update) in generate::withdrawal()) {
        let expected = Heard { withdrawn: update.withdrawn.clone(), ..Heard::default() };
        let frames = frames(&Message::Update(update), &codec);
        let read = |reader: &dyn Fn(&[u8]) -> Heard| Heard::merged(frames.iter().map(|frame| reader(frame)));
        prop_assert_eq!(&read(&|frame| netgauze::update(frame, codec.four_octet_as)), &expected);
        if bgpkit::can_read(&expected) {
            prop_assert_eq!(&read(&|frame| bgpkit::update(frame, codec.four_octet_as)), &expected);
        }
        prop_assert_eq!(&read(&|frame| zettabgp::update(frame, codec.four_octet_as)), &expected);
    }

    #[test]
    fn opens_mean_the_same_to_every_reader(open in generate::open()) {
        let frame = &frames(&Message::Open(open.clone()), &Codec::before_open())[0];
        // netgauze does not know RFC 9072.
        if frame[28] != 255 {
            netgauze::open(frame, &open);
        }
        bgpkit::open(frame, &open);
    }

    #[test]
    fn notifications_mean_the_same_to_every_reader(notification in generate::notification()) {
        let frame = &frames(&Message::Notification(notification.clone()), &Codec::before_open())[0];
        netgauze::notification(frame, &notification);
        bgpkit::notification(frame, &notification);
    }

    #[test]
    fn we_read_what_we_write((codec, update) in prop_oneof![generate::announcement(), generate::withdrawal()]) {
        let mut whole = anyvip_bgp::wire::Update::default();
        for frame in frames(&Message::Update(update.clone()), &codec) {
            let Ok(Message::Update(part)) = Message::decode(&frame, &codec) else { panic!("{frame:02x?}") };
            prop_assert_eq!(&part.errors, &[]);
            whole.withdrawn.extend(part.withdrawn);
            whole.attributes = part.attributes;
            for reach in part.reach {
                match whole.reach.first_mut() {
                    Some(first) => first.prefixes.extend(reach.prefixes),
                    None => whole.reach.push(reach),
                }
            }
        }
        let mut expected = update;
        if codec.external {
            expected.attributes.local_pref = None;
        }
        prop_assert_eq!(whole, expected);
    }
}

#[test]
fn keepalive_route_refresh_and_end_of_rib_are_known_to_every_reader() {
    use anyvip_bgp::wire::{Family, Update};
    for family in [Family::Ipv4, Family::Ipv6] {
        let codec = Codec { families: [family].into(), ..Codec::before_open() };
        for subtype in 0..=2 {
            let frame = &frames(&Message::RouteRefresh { family: family.into(), subtype }, &codec)[0];
            netgauze::route_refresh(frame, family, subtype);
            bgpkit::route_refresh(frame, family, subtype);
        }
        let update = Update { end_of_rib: Some(family), ..Update::default() };
        let frame = &frames(&Message::Update(update), &codec)[0];
        netgauze::end_of_rib(frame, family);
        bgpkit::end_of_rib(frame);
    }
    let keepalive = &frames(&Message::Keepalive, &Codec::before_open())[0];
    netgauze::keepalive(keepalive);
    bgpkit::keepalive(keepalive);
}

fn frames(message: &Message, codec: &Codec) -> Vec<Vec<u8>> {
    let mut framer = Framer::default();
    framer.push(&message.encode(codec));
    let frames: Vec<Vec<u8>> =
        std::iter::from_fn(|| framer.next_frame()).map(|frame| frame.expect("a frame of ours")).collect();
    assert_eq!(framer.pending(), 0);
    assert!(!frames.is_empty());
    frames
}
