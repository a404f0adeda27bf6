//! RFC 5880 §6.8.6: what is not heard, and that nothing comes of it.

use std::time::Duration;

use anyvip_bfd::wire::{AuthenticationSection, ControlPacket};
use anyvip_bfd::{Arrival, Discard, Discriminator, Event, Hops, State};

use crate::world::{World, config, ms, name};

/// A packet of host 1 as it would come next.
fn genuine(world: &mut World) -> ControlPacket {
    world.run(ms(60));
    world.hosts[1].sent.last().unwrap().1.clone()
}

#[test]
fn what_breaks_a_rule_changes_nothing_and_is_named() {
    let mut world = World::up(1, |_, _| {});
    let packet = genuine(&mut world);
    let other = Discriminator::new(packet.your_discriminator.unwrap().get() ^ 1);
    let cases: Vec<(ControlPacket, Discard)> = vec![
        (
            ControlPacket { your_discriminator: other, ..packet.clone() },
            Discard::UnknownDiscriminator { discriminator: other.unwrap().get() },
        ),
        (
            ControlPacket { your_discriminator: None, state: State::Init, ..packet.clone() },
            Discard::DiscriminatorMissing { state: State::Init },
        ),
        (ControlPacket { detect_multiplier: 0, ..packet.clone() }, Discard::NoDetectMultiplier),
        (
            ControlPacket {
                authentication: Some(AuthenticationSection::Unreadable { octets: vec![1, 3, 9] }),
                ..packet.clone()
            },
            Discard::AuthenticationUnexpected,
        ),
    ];
    world.hosts[1].stopped = true;
    world.run(ms(1));
    let due = world.hosts[0].table.next_deadline();
    for (bad, reason) in cases {
        // Were it heard, the session would go down.
        let bad =
            ControlPacket { state: if bad.state == State::Up { State::Down } else { bad.state }, ..bad };
        world.forge(0, bad.encode());
        assert_eq!(world.hosts[0].discards.pop(), Some((Some(name()), reason)));
        assert_eq!((world.state(0), world.hosts[0].table.next_deadline()), (State::Up, due));
    }
    let session = world.hosts[0].table.session(&name()).unwrap();
    assert_eq!(session.counters.discarded, 4);
    assert!(session.last_discard.is_some());
}

#[test]
fn a_packet_that_lost_its_first_ttl_did_not_come_from_this_link() {
    let mut world = World::up(2, |_, _| {});
    for ttl in [Some(254), Some(1), None] {
        let down = ControlPacket { state: State::Down, ..genuine(&mut world) };
        world.ttl = ttl;
        world.forge(0, down.encode());
        world.ttl = Some(255);
        assert_eq!(world.states(), [State::Up, State::Up], "RFC 5881 §5: {ttl:?}");
    }
    // Told once a minute at most, however often it happens.
    assert_eq!(world.hosts[0].discards.len(), 1);
    assert_eq!(world.hosts[0].discards[0].1, Discard::NotFromThisLink { ttl: Some(254) });
    world.run(ms(60_000));
    world.ttl = Some(3);
    world.forge(0, vec![0; 24]);
    assert_eq!(world.hosts[0].discards.len(), 2);
}

/// RFC 5883 §3, §5
#[test]
fn multihop_sessions_have_a_port_and_a_least_ttl_of_their_own() {
    let mut world = World::pair(3, |_, config| config.path.hops = Hops::Multi { min_ttl: 250 });
    world.ttl = Some(249);
    world.run(ms(5000));
    assert_eq!(world.states(), [State::Down, State::Down]);
    assert_eq!(world.hosts[0].discards[0].1, Discard::TooFar { ttl: Some(249), minimum: 250 });
    world.ttl = Some(250);
    world.run_until(ms(3000), |world| world.states() == [State::Up, State::Up]);
    // The single hop port is no way in, even with 255.
    let down = ControlPacket { state: State::Down, ..genuine(&mut world) };
    world.ttl = Some(255);
    world.forge(0, down.encode());
    assert_eq!(world.hosts[0].discards.last().unwrap().1, Discard::OtherKind);
    assert_eq!(world.states(), [State::Up, State::Up]);
}

/// RFC 5881 §3, §6: link-local neighbours are told apart by the interface.
#[test]
fn the_same_link_local_address_on_two_interfaces_is_two_neighbours() {
    let mut world = World::new(4);
    for interface in ["eth0", "eth1"] {
        let mut wanted = config(1);
        wanted.path.remote = "fe80::1".parse().unwrap();
        wanted.path.interface = Some(interface.to_owned());
        world.want(0, interface.into(), wanted);
    }
    let peer =
        ControlPacket { state: State::Down, your_discriminator: None, ..world.hosts[0].sent[0].1.clone() };
    let arrival = |interface: Option<&str>| Arrival {
        remote: "fe80::1".parse().unwrap(),
        local: "fe80::2".parse().unwrap(),
        interface: interface.map(str::to_owned),
        ttl: Some(255),
        multihop: false,
    };
    world.handle(0, Event::Received { arrival: arrival(Some("eth1")), bytes: peer.encode() });
    let state = |world: &World, name: &str| world.hosts[0].table.session(&name.into()).unwrap().state;
    assert_eq!((state(&world, "eth0"), state(&world, "eth1")), (State::Down, State::Init));
    for elsewhere in [Some("eth2"), None] {
        world.handle(0, Event::Received { arrival: arrival(elsewhere), bytes: peer.encode() });
    }
    assert_eq!(world.hosts[0].table.strays(), 2);
    assert_eq!(world.hosts[0].discards, [(None, Discard::NoSession)]);
}

/// RFC 5880 §6.3: after a restart of the peer its first packets know nothing of us.
#[test]
fn a_peer_that_restarted_takes_the_session_down_and_up_again() {
    let mut world = World::up(5, |_, _| {});
    let packet = genuine(&mut world);
    let fresh = ControlPacket {
        state: State::Down,
        my_discriminator: Discriminator::new(77).unwrap(),
        your_discriminator: None,
        ..packet
    };
    world.hosts[1].stopped = true;
    world.forge(0, fresh.encode());
    assert_eq!(world.state(0), State::Down);
    let ours = world.hosts[0].table.session(&name()).unwrap().discriminator;
    assert_eq!(world.hosts[0].sent.last().unwrap().1.your_discriminator, Discriminator::new(77));
    let next = ControlPacket { state: State::Init, your_discriminator: Some(ours), ..fresh };
    world.forge(0, next.encode());
    assert_eq!(world.state(0), State::Up);
}

#[test]
fn four_kilobytes_of_garbage_and_a_flood_leave_memory_and_session_alone() {
    let mut world = World::up(6, |_, _| {});
    let mut seed = anyvip_machine::Seed::new(6);
    for _ in 0..20_000 {
        let length = seed.below(80);
        let bytes: Vec<u8> = (0..length).map(|_| u8::try_from(seed.below(256)).unwrap()).collect();
        world.forge(0, bytes);
    }
    world.forge(0, vec![0xff; 4096]);
    assert!(world.hosts[0].discards.len() < 20, "{:?}", world.hosts[0].discards);
    world.run(Duration::from_secs(1));
    assert_eq!(world.states(), [State::Up, State::Up]);
}
