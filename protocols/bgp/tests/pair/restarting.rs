//! A process takes over from another, and the peer keeps what it was told meanwhile (RFC 4724 §4.1).

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyvip_bgp::wire::{Capability, Family, GracefulRestart, Message};
use anyvip_bgp::{Event, PeerState};
use anyvip_machine::Time;

use crate::world::{Routes, World, name, prefix, route};

const MS: Duration = Duration::from_millis(1);
const RESTART_TIME: Duration = Duration::from_secs(10);

/// Both ends speak of graceful restart.
fn world(seed: u64) -> World {
    let mut world = World::new(seed);
    for who in [0, 1] {
        world.peer_config(who).session.graceful_restart = Some(RESTART_TIME);
    }
    world
}

fn restarting(peers: impl IntoIterator<Item = usize>) -> Event {
    Event::Restarting { peers: peers.into_iter().map(name).collect() }
}

fn offers(world: &World, since: Time) -> Vec<GracefulRestart> {
    let opens = world.messages(0, since).into_iter().filter_map(|message| match message {
        Message::Open(open) => Some(open.capabilities),
        _ => None,
    });
    let restart = |capability| match capability {
        Capability::GracefulRestart(restart) => Some(restart),
        _ => None,
    };
    opens.flat_map(|capabilities| capabilities.into_iter().filter_map(restart)).collect()
}

fn ends_of_rib(world: &World, since: Time) -> BTreeSet<Family> {
    let end = |message| match message {
        Message::Update(update) => update.end_of_rib,
        _ => None,
    };
    world.messages(0, since).into_iter().filter_map(end).collect()
}

/// The process of host 0 ends without a word and another begins.
fn hand_over(world: &mut World, inherits: bool) -> Time {
    world.crash(0);
    world.reset_all();
    world.run_for(100 * MS);
    let since = world.now;
    world.take_over(0, inherits.then(|| restarting([1])));
    world.run_for(2000 * MS);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    since
}

fn flags(offer: &GracefulRestart) -> (bool, BTreeSet<bool>) {
    (offer.restarted, offer.families.iter().map(|(_, preserved)| *preserved).collect())
}

#[test]
fn a_process_that_inherits_says_so_and_holds_end_of_rib_until_it_is_let_go() {
    let mut world = world(1).start();
    world.wanted[0] = Routes::from([(prefix(1), route(1)), (prefix(2), route(1))]);
    world.run_for(500 * MS);
    assert_eq!(
        flags(&offers(&world, Time::ZERO)[0]),
        (false, [false].into()),
        "the first life knows no past"
    );
    let facts = world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap().facts.unwrap().clone();
    assert_eq!(facts.graceful_restart, Some(RESTART_TIME));
    let since = hand_over(&mut world, true);
    assert_eq!(flags(&offers(&world, since)[0]), (true, [true].into()));
    assert_eq!(world.heard[1].len(), 2, "what is wanted is told at once");
    assert!(ends_of_rib(&world, since).is_empty());
    assert!(!world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap().said_end_of_rib());
    // One of them turns out dead: it is gone before the peer is told that this is all.
    world.want(0, Routes::from([(prefix(1), route(1))]));
    world.run_for(100 * MS);
    assert!(ends_of_rib(&world, since).is_empty());
    world.tell(0, restarting([]));
    world.run_for(100 * MS);
    assert_eq!(ends_of_rib(&world, since), [Family::Ipv4, Family::Ipv6].into());
    assert_eq!(world.heard[1].len(), 1);
    assert!(world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap().said_end_of_rib());
}

/// RFC 4724 §4.2: "If the Forwarding State bit … is not set … the Receiving Speaker MUST immediately remove all the stale routes".
#[test]
fn a_process_that_inherits_nothing_makes_the_peer_forget_and_holds_nothing_back() {
    let mut world = world(2).start();
    world.wanted[0] = Routes::from([(prefix(1), route(1))]);
    world.run_for(500 * MS);
    let since = hand_over(&mut world, false);
    assert_eq!(flags(&offers(&world, since)[0]), (false, [false].into()));
    assert_eq!(ends_of_rib(&world, since), [Family::Ipv4, Family::Ipv6].into());
}

/// A connection that broke under a living process: it knows what it told, and takes nothing back.
#[test]
fn a_process_that_lost_its_connection_keeps_its_routes_and_has_not_restarted() {
    let mut world = world(3).start();
    world.wanted[0] = Routes::from([(prefix(1), route(1))]);
    world.run_for(500 * MS);
    let since = world.now;
    world.reset_all();
    world.run_for(3000 * MS);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    assert_eq!(flags(&offers(&world, since)[0]), (false, [true].into()));
    assert_eq!(ends_of_rib(&world, since), [Family::Ipv4, Family::Ipv6].into());
}

#[test]
fn a_peer_that_keeps_nothing_is_not_kept_waiting() {
    let mut world = world(4);
    world.peer_config(1).session.graceful_restart = None;
    let mut world = world.start();
    world.run_for(500 * MS);
    let facts = world.speakers[0].as_ref().unwrap().peer(&name(1)).unwrap().facts.unwrap().clone();
    assert_eq!(facts.graceful_restart, None);
    let since = hand_over(&mut world, true);
    assert_eq!(ends_of_rib(&world, since), [Family::Ipv4, Family::Ipv6].into());
}
