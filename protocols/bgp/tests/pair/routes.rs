//! What is wanted, what is sent, what is heard.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyvip_bgp::wire::{AfiSafi, AsPath, Codec, Community, Family, Message, NextHop, Update};
use anyvip_bgp::{Action, ConnectionId, Event, PeerState, Receive, RouteAttributes};
use ipnet::IpNet;

use crate::world::{Routes, World, name, prefix, route};

const MS: Duration = Duration::from_millis(1);

fn updates(world: &World, who: usize, since: anyvip_machine::Time) -> Vec<Update> {
    let update = |message| match message {
        Message::Update(update) => Some(update),
        _ => None,
    };
    world.messages(who, since).into_iter().filter_map(update).collect()
}

fn many(count: u32, next_hop: u8) -> Routes {
    (0..count).map(|number| (prefix(number), route(next_hop))).collect()
}

fn ipv6_prefix() -> IpNet {
    IpNet::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 128).unwrap()
}

#[test]
fn a_wanted_route_is_heard_with_our_as_in_front_and_gone_when_it_is_not_wanted() {
    let mut world = World::established(1);
    let mut told = route(1);
    (told.prepend, told.med, told.local_pref) = (2, Some(50), Some(300));
    told.communities.insert(Community(65001 << 16 | 100));
    world.want(0, [(prefix(1), told)].into());
    world.run_for(10 * MS);
    let heard = &world.heard[1][&prefix(1)];
    assert_eq!(heard.next_hop, route(1).next_hop);
    // RFC 4271 §5.1.2.
    let path = AsPath::sequence([65001; 3]);
    assert_eq!(heard.attributes.as_path, path);
    assert_eq!(heard.attributes.med, Some(50));
    // RFC 4271 §5.1.5: not to external peers.
    assert_eq!(heard.attributes.local_pref, None);
    assert_eq!(heard.attributes.communities[..], [Community(65001 << 16 | 100)]);
    world.want(0, Routes::new());
    world.run_for(10 * MS);
    assert!(world.heard[1].is_empty());
}

/// RFC 4271 §5.1.2, §5.1.5.
#[test]
fn an_internal_peer_gets_local_pref_and_no_as_of_ours() {
    let mut world = World::new(2);
    world.configs[1].asn = 65001;
    world.peer_config(0).asn = 65001;
    let mut world = world.start();
    world.run_for(100 * MS);
    let mut preferred = route(1);
    preferred.local_pref = Some(300);
    world.want(0, [(prefix(1), route(1)), (prefix(2), preferred)].into());
    world.run_for(10 * MS);
    let heard = |number| &world.heard[1][&prefix(number)].attributes;
    assert_eq!(heard(1).as_path, AsPath::default());
    assert_eq!((heard(1).local_pref, heard(2).local_pref), (Some(100), Some(300)));
}

/// RFC 4271 §3.1: the new attributes replace the old ones.
#[test]
fn changed_attributes_are_one_update_and_never_a_withdrawal() {
    let mut world = World::established(3);
    world.want(0, [(prefix(1), route(1)), (prefix(2), route(1))].into());
    world.run_for(10 * MS);
    let since = world.now;
    let mut worse = route(1);
    worse.med = Some(100);
    world.want(0, [(prefix(1), worse.clone()), (prefix(2), worse)].into());
    world.run_for(10 * MS);
    let sent = updates(&world, 0, since);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].withdrawn.is_empty());
    assert_eq!(sent[0].attributes.med, Some(100));
    assert_eq!(sent[0].reach[0].prefixes, [prefix(1), prefix(2)]);
    assert_eq!(world.heard[1][&prefix(2)].attributes.med, Some(100));
}

#[test]
fn the_same_wanted_set_again_sends_nothing() {
    let mut world = World::established(4);
    world.want(0, many(3, 1));
    world.run_for(10 * MS);
    let since = world.now;
    world.want(0, many(3, 1));
    world.run_for(10 * MS);
    assert_eq!(updates(&world, 0, since), []);
}

/// RFC 4271 §9.2 leaves the order open.
#[test]
fn withdrawals_go_out_before_announcements() {
    let mut world = World::established(5);
    world.want(0, many(2, 1));
    world.run_for(10 * MS);
    let since = world.now;
    world.want(0, [(prefix(0), route(9)), (prefix(7), route(1))].into());
    world.run_for(10 * MS);
    let sent = updates(&world, 0, since);
    assert_eq!(sent[0].withdrawn, [prefix(1)]);
    assert!(sent[1..].iter().all(|update| update.withdrawn.is_empty()));
    assert_eq!(sent.len(), 3);
}

/// RFC 4724 §2.
#[test]
fn end_of_rib_follows_the_first_routes_once_for_each_family() {
    let mut world = World::new(6).start();
    world.wanted[0] = many(2, 1);
    world.run_for(100 * MS);
    world.want(0, many(3, 1));
    world.run_for(100 * MS);
    let sent = updates(&world, 0, anyvip_machine::Time::ZERO);
    assert_eq!(sent[0].reach[0].prefixes.len(), 2);
    assert_eq!(sent[1].end_of_rib, Some(Family::Ipv4));
    assert_eq!(sent[2].end_of_rib, Some(Family::Ipv6));
    assert_eq!(sent[3].reach[0].prefixes.len(), 1);
    assert_eq!(sent.len(), 4);
}

#[test]
fn a_thousand_prefixes_with_equal_attributes_take_a_handful_of_messages() {
    let mut world = World::established(7);
    let since = world.now;
    world.want(0, many(1000, 1));
    world.run_for(10 * MS);
    let sent = updates(&world, 0, since);
    assert!(sent.len() <= 3, "{} messages", sent.len());
    assert_eq!(world.heard[1].len(), 1000);
    let advertised = world
        .times(0, |action| matches!(action, Action::Advertised { announced, .. } if announced.len() == 1000));
    assert_eq!(advertised.len(), 1);
}

#[test]
fn a_hundred_thousand_prefixes_arrive_in_sends_of_at_most_64_kib() {
    let mut world = World::established(8);
    let since = world.now;
    world.want(0, many(100_000, 1));
    world.run_for(100 * MS);
    assert_eq!(world.heard[1].len(), 100_000);
    // `messages` asserts the length of each Send.
    assert!(updates(&world, 0, since).len() < 150);
    let since = world.now;
    world.want(0, Routes::new());
    world.run_for(100 * MS);
    assert!(world.heard[1].is_empty());
    assert!(updates(&world, 0, since).len() < 150);
}

#[test]
fn while_a_send_is_in_flight_only_the_newest_wish_survives() {
    let mut world = World::established(9);
    world.want(0, many(1, 1));
    world.run_for(10 * MS);
    world.stalled[0] = true;
    let since = world.now;
    world.want(0, many(2, 1));
    // All of this happens behind the kernel's back.
    for next_hop in 2..50 {
        world.want(0, many(5, next_hop));
    }
    world.want(0, [(prefix(0), route(77)), (prefix(1), route(1)), (prefix(2), route(50))].into());
    world.run_for(10 * MS);
    assert_eq!(updates(&world, 0, since).len(), 1, "one Send in flight");
    world.heal();
    world.run_for(10 * MS);
    let sent = updates(&world, 0, since);
    // Prefix 1 went out first and is as it should be; 3 and 4 came and went and were never sent.
    let said: Vec<_> =
        sent.iter().flat_map(|update| &update.reach).flat_map(|reach| &reach.prefixes).collect();
    assert_eq!(said, [&prefix(1), &prefix(2), &prefix(0)]);
    assert!(sent.iter().all(|update| update.withdrawn.is_empty()));
    assert_eq!(world.heard[1][&prefix(0)].next_hop, route(77).next_hop);
}

#[test]
fn advertised_is_told_when_the_kernel_took_it_and_not_before() {
    let mut world = World::established(10);
    world.stalled[0] = true;
    let advertised = |action: &Action| matches!(action, Action::Advertised { .. });
    world.want(0, many(1, 1));
    world.run_for(10 * MS);
    assert_eq!(world.times(0, advertised), []);
    world.heal();
    world.run_for(10 * MS);
    assert_eq!(world.times(0, advertised).len(), 1);
    world.want(0, Routes::new());
    world.run_for(10 * MS);
    let last = world.log.iter().rev().find_map(|(_, _, action)| match action {
        Action::Advertised { announced, withdrawn, peer } => Some((peer, announced, withdrawn)),
        _ => None,
    });
    assert_eq!(last, Some((&name(1), &vec![], &vec![prefix(0)])));
}

/// RFC 2918 §4.
#[test]
fn a_route_refresh_is_answered_with_all_routes_of_that_family() {
    let mut world = World::established(11);
    let v6 =
        RouteAttributes::originated(NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None });
    let mut wanted = many(3, 1);
    wanted.insert(ipv6_prefix(), v6);
    world.want(0, wanted);
    world.run_for(10 * MS);
    let since = world.now;
    for subtype in [0, 1, 2] {
        let refresh = Message::RouteRefresh { family: AfiSafi::from(Family::Ipv4), subtype };
        let bytes = refresh.encode(&Codec::before_open());
        world.tell(0, Event::Received { connection: ConnectionId::Initiated(1), bytes });
    }
    world.run_for(10 * MS);
    let sent = updates(&world, 0, since);
    assert_eq!(sent.len(), 1, "RFC 7313 subtypes mean nothing without its capability");
    assert_eq!(sent[0].reach[0].prefixes, [prefix(0), prefix(1), prefix(2)]);
}

/// RFC 8950 §4, RFC 4760 §8: what was not negotiated is never sent.
#[test]
fn only_negotiated_families_and_next_hops_go_out() {
    let v6_hop = NextHop::V6 { global: "2001:db8::1".parse().unwrap(), link_local: None };
    let wanted: Routes = [
        (prefix(1), route(1)),
        (prefix(2), RouteAttributes::originated(v6_hop)),
        (ipv6_prefix(), RouteAttributes::originated(v6_hop)),
    ]
    .into();
    let mut world = World::established(12);
    world.want(0, wanted.clone());
    world.run_for(10 * MS);
    assert_eq!(world.heard[1].len(), 3, "IPv4 over an IPv6 next hop is negotiated between us");
    let mut world = World::new(13);
    world.peer_config(1).families = [Family::Ipv6].into();
    let mut world = world.start();
    world.wanted[0] = wanted;
    world.run_for(100 * MS);
    assert_eq!(world.heard[1].keys().collect::<Vec<_>>(), [&ipv6_prefix()]);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

#[test]
fn ipv6_routes_do_not_take_an_ipv4_next_hop() {
    let mut world = World::established(14);
    let since = world.now;
    world.want(0, [(ipv6_prefix(), route(1)), (prefix(1), route(1))].into());
    world.run_for(10 * MS);
    assert_eq!(world.heard[1].keys().collect::<Vec<_>>(), [&prefix(1)]);
    assert_eq!(updates(&world, 0, since).len(), 1, "nothing went out that only the other end would drop");
    let told = world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap().advertised().unwrap();
    assert!(!told.contains_key(&ipv6_prefix()), "{told:?}");
}

#[test]
fn what_nobody_asked_for_is_counted_and_dropped() {
    let mut world = World::new(15);
    world.peer_config(1).receive = Receive::Only([prefix(1)].into());
    let mut world = world.start();
    world.wanted[0] = many(10, 1);
    world.run_for(100 * MS);
    assert_eq!(world.heard[1].keys().collect::<Vec<_>>(), [&prefix(1)]);
    let speaker = world.speakers[1].as_ref().unwrap();
    let view = speaker.peer(&name(0)).unwrap();
    assert_eq!((view.counters.prefixes_heard, view.counters.prefixes_dropped), (10, 9));
    assert_eq!(view.received().unwrap().len(), 1);
}

/// RFC 4271 §9.1.2.
#[test]
fn a_path_with_our_own_as_is_dropped_and_takes_away_what_was_there() {
    let mut world = World::established(16);
    world.want(0, many(1, 1));
    world.run_for(10 * MS);
    assert_eq!(world.heard[1].len(), 1);
    let mut looped = route(1);
    looped.as_path = AsPath::sequence([64999, 65002]);
    world.want(0, [(prefix(0), looped)].into());
    world.run_for(10 * MS);
    assert!(world.heard[1].is_empty());
}

/// RFC 6793 §4.1.
#[test]
fn an_as_number_of_four_octets_is_agreed_on_and_told() {
    let mut world = World::new(17);
    world.configs[0].asn = 4_200_000_001;
    world.peer_config(1).asn = 4_200_000_001;
    let mut world = world.start();
    world.run_for(100 * MS);
    world.want(0, [(prefix(1), route(1))].into());
    world.run_for(10 * MS);
    let path = &world.heard[1][&prefix(1)].attributes.as_path;
    assert_eq!(path, &AsPath::sequence([4_200_000_001]));
}

#[test]
fn a_route_whose_attributes_fit_no_message_is_withheld_and_its_former_self_withdrawn() {
    let mut world = World::established(18);
    world.want(0, many(2, 1));
    world.run_for(10 * MS);
    let mut huge = route(1);
    huge.communities = (0..2000).map(Community).collect();
    world.want(0, [(prefix(0), huge), (prefix(1), route(1))].into());
    world.run_for(10 * MS);
    assert_eq!(world.heard[1].keys().collect::<Vec<_>>(), [&prefix(1)]);
    world.want(0, many(2, 1));
    world.run_for(10 * MS);
    assert_eq!(world.heard[1].len(), 2);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

#[test]
fn a_status_view_tells_what_was_advertised_and_counted() {
    let mut world = World::established(19);
    world.want(0, many(2, 1));
    world.run_for(10 * MS);
    let view = world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap();
    assert_eq!(view.advertised().unwrap(), &many(2, 1));
    assert_eq!(view.pending(), 0);
    let facts = view.facts.unwrap();
    assert_eq!(facts.router_id, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(facts.hold_time, Some(Duration::from_secs(9)));
    // Two End-of-RIB and one with both prefixes.
    assert_eq!((view.counters.established, view.counters.updates_out), (1, 3));
    let view = world.speakers[1].as_ref().unwrap().peer(&name(0)).unwrap();
    assert_eq!((view.counters.updates_in, view.counters.prefixes_heard), (3, 2));
}

/// RFC 8654 §4: only where both said so; then the same routes are told in fewer messages.
#[test]
fn long_messages_are_written_only_where_both_ends_take_them() {
    let count = |agreed: [bool; 2]| {
        let mut world = World::new(18);
        for (who, extended_messages) in agreed.into_iter().enumerate() {
            world.peer_config(who).session.extended_messages = extended_messages;
        }
        let mut world = world.start();
        world.run_for(100 * MS);
        let since = world.now;
        world.want(0, many(5000, 1));
        world.run_for(100 * MS);
        assert_eq!(world.heard[1].len(), 5000);
        assert_eq!(world.states(), [PeerState::Established; 2]);
        updates(&world, 0, since).len()
    };
    let (plain, long) = (count([false, false]), count([true, true]));
    assert_eq!((plain, long), (7, 1), "25,000 octets of prefixes");
    assert_eq!((count([true, false]), count([false, true])), (plain, plain));
}
