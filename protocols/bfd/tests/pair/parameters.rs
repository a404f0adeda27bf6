use std::time::Duration;

use anyvip_bfd::wire::ControlPacket;
use anyvip_bfd::{Event, Fact, State};

use crate::world::{World, ms, name};

fn intervals(world: &World, host: usize) -> (Option<Duration>, Option<Duration>) {
    let session = world.hosts[host].table.session(&name()).unwrap();
    (session.transmit, session.detection)
}

/// RFC 5880 §6.8.2, §6.8.4: the slower wish of the two counts for each direction, the sender's multiplier for the receiver.
#[test]
fn each_direction_has_the_pace_that_both_ends_can_bear() {
    let world = World::up(1, |host, config| {
        let wishes = [(50, 300, 3), (100, 20, 5)][host];
        config.desired_min_tx = ms(wishes.0);
        config.required_min_rx = ms(wishes.1);
        config.multiplier = wishes.2;
    });
    assert_eq!(intervals(&world, 0), (Some(ms(50)), Some(ms(5 * 300))));
    assert_eq!(intervals(&world, 1), (Some(ms(300)), Some(ms(3 * 50))));
}

/// RFC 5880 §6.5, §6.8.3
#[test]
fn a_change_of_parameters_is_agreed_by_a_poll_sequence_and_never_flaps() {
    for seed in 0..30 {
        let mut world = World::up(seed, |_, config| config.multiplier = 10);
        world.loss = 100;
        for (tx, rx) in [(300, 300), (10, 10), (1000, 20), (20, 1000), (50, 50)] {
            world.hosts[0].sent.clear();
            world.change(0, |config| {
                config.desired_min_tx = ms(tx);
                config.required_min_rx = ms(rx);
            });
            assert!(world.hosts[0].sent[0].1.poll, "the change is told at once");
            world.run(ms(20_000));
            let (transmit, _) = intervals(&world, 0);
            assert_eq!(transmit, Some(ms(tx.max(50))), "seed {seed}");
            assert!(!world.hosts[0].table.session(&name()).unwrap().polling);
            assert!(world.hosts[0].changes.is_empty(), "seed {seed}: {:?}", world.hosts[0].changes);
        }
    }
}

/// RFC 5880 §6.8.3: "the actual transmission interval used MUST NOT change until the Poll Sequence … has terminated".
#[test]
fn without_an_answer_a_slower_pace_does_not_begin() {
    let mut world = World::up(2, |_, config| config.multiplier = 100);
    world.cut[1] = true;
    world.change(0, |config| config.desired_min_tx = ms(1000));
    world.hosts[0].sent.clear();
    world.run(ms(2000));
    assert!(world.hosts[0].sent.len() >= 38, "{}", world.hosts[0].sent.len());
    assert!(world.hosts[0].sent.iter().all(|(_, packet, _)| packet.poll));
    world.cut[1] = false;
    world.run(ms(2000));
    assert_eq!(intervals(&world, 0).0, Some(ms(1000)));
    assert_eq!(world.states(), [State::Up, State::Up]);
}

/// RFC 5880 §6.8.6: "with the Poll (P) bit clear, and the Final (F) bit set", whatever the timer says.
#[test]
fn each_poll_is_answered_at_once_by_one_final() {
    let mut world = World::up(3, |_, _| {});
    let (_, packet, _) = world.hosts[1].sent.last().cloned().unwrap_or_else(|| {
        world.run(ms(60));
        world.hosts[1].sent.last().cloned().unwrap()
    });
    let due = world.hosts[0].table.next_deadline();
    world.hosts[0].sent.clear();
    world.forge(0, ControlPacket { poll: true, ..packet }.encode());
    let finals: Vec<bool> = world.hosts[0].sent.iter().map(|(_, packet, _)| packet.final_).collect();
    assert_eq!(finals, [true]);
    // The pace goes on as if nothing had been sent.
    assert!(world.hosts[0].table.next_deadline() <= due.map(|due| due.max(world.now + ms(50))));
}

/// RFC 5880 §6.8.3: "MUST honor the new interval immediately".
#[test]
fn a_peer_that_bears_more_gets_it_at_once_and_one_that_bears_less_gets_less() {
    let mut world = World::up(4, |host, config| {
        if host == 1 {
            config.required_min_rx = ms(1000);
        }
    });
    assert_eq!(intervals(&world, 0).0, Some(ms(1000)));
    world.change(1, |config| config.required_min_rx = ms(50));
    world.run(ms(1));
    assert!(world.hosts[0].table.next_deadline().unwrap() <= world.now + ms(50));
    world.run(ms(500));
    assert_eq!(intervals(&world, 0).0, Some(ms(50)));
    assert_eq!(intervals(&world, 1).1, Some(ms(150)));
    assert!(world.hosts.iter().all(|host| host.changes.is_empty()));
}

/// RFC 5880 §6.6, §6.8.7: we never ask for demand mode; a peer that does is not sent periodic packets while both are Up.
#[test]
fn demand_mode_is_granted_and_never_asked_for() {
    let mut world = World::up(5, |_, _| {});
    world.run(ms(100));
    assert!(world.hosts.iter().all(|host| host.sent.iter().all(|(_, packet, _)| !packet.demand)));
    let (_, packet, _) = world.hosts[1].sent.last().cloned().unwrap();
    world.hosts[1].stopped = true;
    world.hosts[0].sent.clear();
    for _ in 0..20 {
        world.forge(0, ControlPacket { demand: true, ..packet.clone() }.encode());
        world.run(ms(50));
    }
    assert_eq!(world.hosts[0].sent.len(), 0, "nothing to say, and nobody who wants to hear it");
    assert_eq!(world.state(0), State::Up);
    // A change is told, and polled for until it is answered.
    world.change(0, |config| config.required_min_rx = ms(100));
    assert!(world.hosts[0].sent[0].1.poll);
    world.forge(0, ControlPacket { demand: true, final_: true, ..packet.clone() }.encode());
    // Silence of the peer is still found.
    world.run_until(ms(301), |world| world.state(0) == State::Down);
    assert!(!world.hosts[0].sent.last().unwrap().1.demand);
}

/// RFC 5880 §6.8.7: "if bfd.RemoteMinRxInterval is zero".
#[test]
fn a_peer_that_wants_no_periodic_packets_gets_none() {
    let mut world = World::up(6, |_, _| {});
    world.run(ms(100));
    let (_, packet, _) = world.hosts[1].sent.last().cloned().unwrap();
    world.hosts[1].stopped = true;
    world.run(ms(5));
    world.hosts[0].sent.clear();
    world.forge(0, ControlPacket { required_min_rx: 0, ..packet.clone() }.encode());
    world.run(ms(100));
    assert_eq!(world.hosts[0].sent.len(), 0);
    world.forge(0, packet.encode());
    world.run(ms(60));
    assert!(!world.hosts[0].sent.is_empty());
}

#[test]
fn what_was_negotiated_is_told_when_it_stands() {
    let mut world = World::pair(7, |_, _| {});
    world.run(ms(5000));
    let told: Vec<_> = world.hosts[0]
        .others
        .iter()
        .filter_map(|action| match action {
            Fact::Negotiated(negotiated) => Some((negotiated.transmit, negotiated.detection)),
            _ => None,
        })
        .collect();
    assert_eq!(told.last(), Some(&(Some(ms(50)), ms(150))), "{told:?}");
    world.hosts[0].others.clear();
    world.handle(0, Event::Wanted { sessions: world.hosts[0].wanted.clone(), lease: None });
    world.run(ms(1000));
    assert_eq!(world.hosts[0].others, []);
}
