//! Making connections: refusals, back-off, collisions, guards, strangers.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyvip_bgp::wire::{Message, Notification};
use anyvip_bgp::{Action, ConnectionId, DownReason, Event, PeerState};
use anyvip_machine::{Failure, FailureKind, Time};

use crate::world::{Listening, World, name, prefix, route};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn connects(world: &World, who: usize) -> Vec<Time> {
    world.times(who, |action| matches!(action, Action::Connect { .. }))
}

#[test]
fn a_configured_peer_is_connected_to_at_once() {
    let mut world = World::new(1).start();
    assert_eq!(connects(&world, 0), [world.now]);
    assert_eq!(world.states(), [PeerState::Connect, PeerState::Active]);
    world.run_for(100 * MS);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    assert_eq!(connects(&world, 1), [], "the other end only listens");
    let states = world.log.iter().filter_map(|(_, who, action)| match action {
        Action::StateChanged { to, .. } if *who == 0 => Some(*to),
        _ => None,
    });
    let states: Vec<_> = states.collect();
    assert_eq!(
        states,
        [PeerState::Connect, PeerState::OpenSent, PeerState::OpenConfirm, PeerState::Established]
    );
}

#[test]
fn a_refused_connection_is_tried_again_each_second_within_a_quarter() {
    let mut world = World::new(2);
    world.listening[1] = Listening::Refuses;
    let mut world = world.start();
    world.run_for(100 * SECOND);
    let tries = connects(&world, 0);
    assert!((80..=134).contains(&tries.len()), "{}", tries.len());
    for pair in tries.windows(2) {
        let gap = pair[1].since(pair[0]);
        assert!((750 * MS..=1260 * MS).contains(&gap), "{gap:?}");
    }
    assert_eq!(world.last_error(0), "connection refused");
    world.heal();
    world.run_for(2 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

#[test]
fn a_peer_that_accepts_and_resets_is_tried_about_once_a_second() {
    let mut world = World::new(3);
    world.listening[1] = Listening::Resets;
    let mut world = world.start();
    world.run_for(60 * SECOND);
    let tries = connects(&world, 0).len();
    assert!((45..=82).contains(&tries), "{tries}");
    assert!(world.log.len() < 1000, "{} actions", world.log.len());
    world.heal();
    world.run_for(2 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

#[test]
fn a_peer_that_never_answers_the_open_is_given_up_after_half_a_minute() {
    let mut world = World::new(4);
    world.listening[1] = Listening::Ignores;
    let mut world = world.start();
    world.run_for(29 * SECOND);
    assert_eq!(world.state(0), PeerState::OpenSent);
    world.run_for(2 * SECOND);
    assert_eq!(world.last_error(0), "we said: Hold Timer Expired (4/0)");
    world.run_for(600 * SECOND);
    assert!(connects(&world, 0).len() <= 22);
    world.heal();
    world.run_for(35 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

fn backed_off(world: &mut World, notification: Notification, times: usize) -> Vec<Duration> {
    let codec = anyvip_bgp::wire::Codec::before_open();
    let bytes = Message::Notification(notification).encode(&codec);
    let mut speaker = anyvip_bgp::Speaker::new(anyvip_machine::Seed::new(5));
    let mut now = Time::from_secs(1);
    let mut actions = speaker.handle(now, Event::Configure(world.configs[0].clone()));
    let mut waits = Vec::new();
    for _ in 0..times {
        let connection = actions.iter().find_map(|action| match action {
            Action::Connect { connection, .. } => Some(*connection),
            _ => None,
        });
        let connection = connection.unwrap();
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 40000);
        let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 179);
        let _ = speaker.handle(now, Event::Connected { connection, local, remote });
        let _ = speaker.handle(now, Event::Received { connection, bytes: bytes.clone() });
        let next = speaker.next_deadline().unwrap();
        waits.push(next.since(now));
        now = next;
        actions = speaker.handle(now, Event::DeadlineReached);
    }
    waits
}

#[test]
fn after_error_notifications_tries_become_rarer_up_to_half_a_minute() {
    let mut world = World::new(5);
    let waits = backed_off(&mut world, Notification::bad_peer_as(65009), 8);
    for (wait, most) in waits.iter().zip([1, 2, 4, 8, 16, 30, 30, 30]) {
        let most = most * SECOND;
        assert!((most * 3 / 4..=most).contains(wait), "{waits:?}");
    }
}

/// RFC 4486, RFC 9384: what an operator planned, and BFD.
#[test]
fn after_a_planned_cease_tries_stay_as_frequent_as_ever() {
    let mut world = World::new(6);
    for subcode in [2, 4, 6, 10] {
        let waits = backed_off(&mut world, Notification::cease(subcode, Some("maintenance")), 8);
        assert!(waits.iter().all(|wait| (750 * MS..=1250 * MS).contains(wait)), "{subcode}: {waits:?}");
    }
    for subcode in [1, 3, 5, 7, 8, 9] {
        let waits = backed_off(&mut world, Notification::cease(subcode, None), 4);
        assert!(waits[3] >= 6 * SECOND, "{subcode}: {waits:?}");
    }
}

/// RFC 4271 §6.2.
#[test]
fn a_peer_of_another_as_than_configured_is_told_so() {
    let mut world = World::new(7);
    world.peer_config(1).asn = 65009;
    let mut world = world.start();
    let since = world.now;
    world.run_for(100 * SECOND);
    assert_eq!(world.notifications(1, since)[0], Notification::bad_peer_as(65001));
    assert_eq!(world.last_error(0), "peer said: OPEN Message Error/Bad Peer AS (2/2)");
    // 1, 2, 4, 8, 16, 30 s.
    assert!((5..=9).contains(&connects(&world, 0).len()), "{:?}", connects(&world, 0));
    world.peer_config(1).asn = 65001;
    world.configure(1);
    world.run_for(35 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

/// RFC 6286 §2.2.
#[test]
fn two_internal_peers_with_one_identifier_do_not_talk() {
    let mut world = World::new(8);
    world.configs[1].asn = 65001;
    world.configs[1].router_id = world.configs[0].router_id;
    world.peer_config(0).asn = 65001;
    let mut world = world.start();
    world.run_for(100 * MS);
    let since = Time::ZERO;
    let said = [world.notifications(0, since), world.notifications(1, since)].concat();
    assert!(said.contains(&Notification::bad_bgp_identifier()), "{said:?}");
}

fn colliding(seed: u64, delay: Duration, jitter: Duration) -> World {
    let mut world = World::new(seed);
    world.peer_config(1).connect = true;
    (world.delay, world.jitter) = (delay, jitter);
    world.start()
}

/// RFC 4271 §6.8.
#[test]
fn when_both_connect_at_once_the_connection_of_the_higher_identifier_stays() {
    let mut world = colliding(9, MS, Duration::ZERO);
    world.run_for(SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    assert_eq!(world.connections(), 1);
    // b has 10.0.0.2: the one it initiated.
    let closed = world.log.iter().filter_map(|(_, who, action)| match action {
        Action::Close { connection } => Some((*who, *connection)),
        _ => None,
    });
    for (who, connection) in closed {
        assert_eq!(matches!(connection, ConnectionId::Initiated(_)), who == 0, "{who} closed {connection:?}");
    }
    for who in [0, 1] {
        assert_eq!(world.times(who, |action| matches!(action, Action::SessionUp { .. })).len(), 1);
        assert_eq!(world.times(who, |action| matches!(action, Action::SessionDown { .. })).len(), 0);
    }
}

/// RFC 6286 §2.3.
#[test]
fn with_equal_identifiers_the_connection_of_the_higher_as_stays() {
    let mut world = World::new(10);
    world.peer_config(1).connect = true;
    world.configs[0].router_id = world.configs[1].router_id;
    let mut world = world.start();
    world.run_for(SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    let local = world.speakers[1].as_ref().unwrap().peer(&name(0)).unwrap().facts.unwrap().local;
    assert_ne!(local.port(), 179, "AS 65002 initiated it");
}

#[test]
fn whatever_the_delays_a_collision_leaves_exactly_one_session_that_both_agree_on() {
    for seed in 0..300 {
        let mut world = colliding(seed, MS, Duration::from_millis(seed % 40));
        world.run_for(20 * SECOND);
        assert_eq!(world.states(), [PeerState::Established; 2], "seed {seed}");
        assert_eq!(world.connections(), 1, "seed {seed}");
        let ends = |who: usize| {
            let view = world.speakers[who].as_ref().unwrap().peer(&name(1 - who)).unwrap();
            let facts = view.facts.unwrap();
            [facts.local, facts.remote]
        };
        let mut other = ends(1);
        other.reverse();
        assert_eq!(ends(0), other, "seed {seed}");
    }
}

#[test]
fn a_connection_beside_an_established_session_is_refused_and_the_session_stays() {
    let mut world = World::established(11);
    let since = world.now;
    let connection = ConnectionId::Accepted(99);
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 179);
    let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 50000);
    world.tell(1, Event::Accepted { connection, local, remote });
    let refused = world.notifications(1, since);
    assert_eq!(refused, [Notification::cease(Notification::CONNECTION_COLLISION_RESOLUTION, None)]);
    assert!(world.log.iter().any(|(_, _, action)| matches!(action, Action::Rejected { .. })));
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

/// RFC 4486 §4.
#[test]
fn a_stranger_is_told_that_the_connection_is_rejected() {
    let mut world = World::established(12);
    let connection = ConnectionId::Accepted(99);
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 179);
    let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 50000);
    let actions =
        world.speakers[1].as_mut().unwrap().handle(world.now, Event::Accepted { connection, local, remote });
    let last = Message::Notification(Notification::cease(Notification::CONNECTION_REJECTED, None));
    let bytes = last.encode(&anyvip_bgp::wire::Codec::before_open());
    assert!(matches!(&actions[0], Action::Rejected { remote: from, .. } if *from == remote));
    assert_eq!(actions[1..], [Action::Send { connection, bytes }, Action::Close { connection }]);
    let late = world.speakers[1].as_mut().unwrap().handle(world.now, Event::Sent { connection });
    assert_eq!(late, []);
}

#[test]
fn a_connect_that_the_driver_never_answers_is_counted_and_tried_again() {
    let mut world = World::new(13);
    let mut world = {
        world.cut = true;
        world.start()
    };
    world.run_for(12 * SECOND);
    assert_eq!(connects(&world, 0).len(), 2);
    let view = world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap();
    assert_eq!(view.counters.unanswered, 1);
    // The answer to the first one comes after all: that connection is closed and the second one used.
    world.heal();
    world.run_for(SECOND);
    let closed = Action::Close { connection: ConnectionId::Initiated(1) };
    assert_eq!(world.times(0, |action| *action == closed).len(), 1);
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

#[test]
fn a_peer_that_connects_again_replaces_its_former_attempt() {
    let mut world = World::new(14);
    world.peer_config(0).connect = false;
    let mut world = world.start();
    let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 179);
    let remote = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 50000);
    let first = ConnectionId::Accepted(90);
    world.tell(1, Event::Accepted { connection: first, local, remote });
    assert_eq!(world.state(1), PeerState::OpenSent);
    world.peer_config(0).connect = true;
    world.configure(0);
    world.run_for(SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    assert_eq!(world.connections(), 1);
}

#[test]
fn a_session_that_was_reset_comes_back_after_about_a_second_with_its_routes() {
    let mut world = World::established(15);
    world.want(0, [(prefix(1), route(1))].into());
    world.run_for(SECOND);
    let since = world.now;
    world.reset_all();
    world.run_for(100 * MS);
    assert!(world.heard[1].is_empty());
    let down = world.log.iter().find_map(|(_, who, action)| match action {
        Action::SessionDown { reason, was_established, .. } if *who == 0 => {
            Some((reason.clone(), *was_established))
        }
        _ => None,
    });
    assert_eq!(down, Some((DownReason::Connection(Failure::new(FailureKind::Reset, "Reset")), true)));
    world.run_for(1500 * MS);
    assert_eq!(world.heard[1].len(), 1);
    let again = connects(&world, 0).into_iter().find(|at| *at > since).unwrap();
    assert!((750 * MS..=1260 * MS).contains(&again.since(since)));
}

/// RFC 4271 §6.1, §6.6 with RFC 6608.
#[test]
fn nonsense_ends_the_session_with_the_right_notification_and_only_that_session() {
    let codec = anyvip_bgp::wire::Codec::before_open();
    let cases = [
        (vec![0; 19], (1, 1)),
        ([&[0xff; 16][..], &[0, 18, 4]].concat(), (1, 2)),
        ([&[0xff; 16][..], &[0, 19, 9]].concat(), (1, 3)),
        (
            Message::Open(anyvip_bgp::wire::Open::new(65002, 9, Ipv4Addr::new(10, 0, 0, 2), Vec::new()))
                .encode(&codec),
            (5, 3),
        ),
        ([&[0xff; 16][..], &[0, 23, 2, 0, 9, 0, 0]].concat(), (3, 1)),
    ];
    for (bytes, (code, subcode)) in cases {
        let mut world = World::established(16);
        let since = world.now;
        world.tell(0, Event::Received { connection: ConnectionId::Initiated(1), bytes });
        let said: Vec<_> = world.notifications(0, since).iter().map(|n| (n.code, n.subcode)).collect();
        assert_eq!(said, [(code, subcode)]);
        world.run_for(5 * SECOND);
        assert_eq!(world.states(), [PeerState::Established; 2], "and it comes back");
    }
}
