//! Configure and Stop.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_bgp::wire::{Family, Notification};
use anyvip_bgp::{Action, DownReason, Endpoint, Event, PeerConfig, PeerName, PeerState, Receive, Speaker};
use anyvip_machine::{Seed, Time};

use crate::world::{Routes, World, name, peer, prefix, route};

const SECOND: Duration = Duration::from_secs(1);

fn stranger() -> (PeerName, PeerConfig) {
    let mut config = peer(1, 65009);
    let address = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    config.remote = Endpoint { address, interface: None, port: 179 }.into();
    config.connect = false;
    (PeerName::from("c"), config)
}

fn ups(world: &World, who: usize) -> usize {
    world.times(who, |action| matches!(action, Action::SessionUp { .. })).len()
}

#[test]
fn the_same_configuration_again_does_nothing() {
    let mut world = World::established(1);
    let config = world.configs[0].clone();
    assert_eq!(world.speakers[0].as_mut().unwrap().handle(world.now, Event::Configure(config)), []);
}

#[test]
fn adding_and_removing_another_peer_and_changing_timers_leaves_a_session_alone() {
    let mut world = World::established(2);
    let (other, config) = stranger();
    world.configs[0].peers.insert(other.clone(), config);
    world.peer_config(0).connect_retry = 5 * SECOND;
    world.configure(0);
    world.run_for(SECOND);
    assert_eq!(world.speakers[0].as_ref().unwrap().peers().count(), 2);
    world.configs[0].peers.remove(&other);
    world.configure(0);
    world.run_for(SECOND);
    assert_eq!(world.speakers[0].as_ref().unwrap().peers().count(), 1);
    assert_eq!((ups(&world, 0), ups(&world, 1)), (1, 1));
    assert_eq!(world.states(), [PeerState::Established; 2]);
}

/// RFC 4486 §4.
#[test]
fn a_peer_that_is_taken_out_is_told_that_it_is_de_configured() {
    let mut world = World::established(3);
    let since = world.now;
    world.configs[0].peers.clear();
    world.configure(0);
    world.run_for(SECOND / 10);
    let last = Notification::cease(Notification::PEER_DECONFIGURED, None);
    assert_eq!(world.notifications(0, since), std::slice::from_ref(&last));
    let down = Action::SessionDown { peer: name(1), was_established: true, reason: DownReason::WeSaid(last) };
    assert_eq!(world.times(0, |action| *action == down), [since]);
    assert_eq!(world.speakers[0].as_ref().unwrap().peers().count(), 0);
    assert_eq!(world.speakers[0].as_ref().unwrap().next_deadline(), None);
    assert!(world.speakers[0].as_ref().unwrap().is_silent());
    assert_eq!(world.last_error(1), "peer said: Cease/Peer De-configured (6/3)");
}

/// RFC 4486 §4.
#[test]
fn a_change_of_what_was_negotiated_resets_that_session_and_it_comes_back_changed() {
    let mut world = World::established(4);
    world.want(0, [(prefix(1), route(1))].into());
    world.run_for(SECOND);
    let since = world.now;
    world.peer_config(0).families = [Family::Ipv4].into();
    world.configure(0);
    world.run_for(3 * SECOND);
    let reset = Notification::cease(Notification::OTHER_CONFIGURATION_CHANGE, None);
    assert_eq!(world.notifications(0, since), std::slice::from_ref(&reset));
    let down =
        Action::SessionDown { peer: name(1), was_established: true, reason: DownReason::WeSaid(reset) };
    assert_eq!(world.times(0, |action| *action == down), [since]);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    let view = world.speakers[1].as_ref().unwrap().peer(&name(0)).unwrap();
    assert_eq!(view.facts.unwrap().families, [Family::Ipv4].into());
    assert_eq!(world.heard[1].len(), 1);
}

fn calls(world: &World, since: Time) -> Vec<Duration> {
    let calls = world.times(0, |action| matches!(action, Action::Connect { .. }));
    calls.into_iter().filter(|at| *at >= since).map(|at| at.since(since)).collect()
}

/// FRR 8.4 loses a neighbour of a listen range whose next connection comes before it has taken in the end of the last.
#[test]
fn a_peer_that_was_just_left_is_given_a_moment_before_it_is_called_again() {
    let mut world = World::established(12);
    let wait = SECOND / 5..=SECOND / 4;
    let since = world.now;
    world.peer_config(0).families = [Family::Ipv4].into();
    world.configure(0);
    world.run_for(3 * SECOND);
    assert!(matches!(calls(&world, since)[..], [at] if wait.contains(&at)), "{:?}", calls(&world, since));
    // Under another name it is the same peer, and where there is no connection nobody was left.
    let mut config = world.configs[0].clone();
    let peer = config.peers.remove(&name(1)).unwrap();
    config.peers.insert(PeerName::from("renamed"), peer);
    let renamed = |speaker: &Option<Speaker>| {
        let mut speaker = speaker.clone().unwrap();
        let actions = speaker.handle(world.now, Event::Configure(config.clone()));
        let calls = actions.iter().filter(|action| matches!(action, Action::Connect { .. })).count();
        (calls, speaker.next_deadline().unwrap().since(world.now))
    };
    let (calls, first) = renamed(&world.speakers[0]);
    assert!(calls == 0 && wait.contains(&first), "{calls} calls, then after {first:?}");
    assert_eq!(renamed(&Some(Speaker::new(Seed::new(1)))).0, 1);
}

#[test]
fn a_new_as_number_or_identifier_of_our_own_resets_every_session() {
    let mut world = World::established(5);
    world.configs[0].router_id = Ipv4Addr::new(10, 9, 9, 9);
    world.configure(0);
    world.run_for(3 * SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    let view = world.speakers[1].as_ref().unwrap().peer(&name(0)).unwrap();
    assert_eq!(view.facts.unwrap().router_id, Ipv4Addr::new(10, 9, 9, 9));
    assert_eq!(ups(&world, 0), 2);
}

/// RFC 2918.
#[test]
fn asking_for_more_routes_takes_a_refresh_and_asking_for_fewer_takes_nothing() {
    let mut world = World::new(6);
    world.peer_config(1).receive = Receive::Nothing;
    let mut world = world.start();
    world.wanted[0] = (0..5).map(|number| (prefix(number), route(1))).collect();
    world.run_for(SECOND);
    assert!(world.heard[1].is_empty());
    world.peer_config(1).receive = Receive::All;
    world.configure(1);
    world.run_for(SECOND);
    assert_eq!(world.heard[1].len(), 5);
    world.peer_config(1).receive = Receive::Only([prefix(2)].into());
    world.configure(1);
    assert_eq!(world.heard[1].keys().collect::<Vec<_>>(), [&prefix(2)]);
    assert_eq!((ups(&world, 0), ups(&world, 1)), (1, 1));
}

/// RFC 9003.
#[test]
fn stop_tells_the_peer_why_and_starts_nothing_again() {
    let mut world = World::established(7);
    let since = world.now;
    world.tell(0, Event::Stop { text: "rack move, ticket 7".to_owned() });
    world.run_for(100 * SECOND);
    let last = Notification::cease(Notification::ADMINISTRATIVE_SHUTDOWN, Some("rack move, ticket 7"));
    assert_eq!(world.notifications(0, since), std::slice::from_ref(&last));
    let down = Action::SessionDown { peer: name(1), was_established: true, reason: DownReason::WeSaid(last) };
    assert_eq!(world.times(0, |action| *action == down), [since]);
    assert_eq!(world.last_error(1), "peer said: Cease/Administrative Shutdown (6/2): rack move, ticket 7");
    assert_eq!(world.state(0), PeerState::Idle);
    assert!(world.speakers[0].as_ref().unwrap().is_silent());
    assert_eq!(world.speakers[0].as_ref().unwrap().next_deadline(), None);
    assert_eq!(world.times(0, |action| matches!(action, Action::Connect { .. })).len(), 1);
    world.configure(0);
    world.run_for(SECOND);
    assert_eq!(world.state(0), PeerState::Idle);
}

#[test]
fn a_stopped_speaker_rejects_who_connects() {
    let mut world = World::established(8);
    world.tell(1, Event::Stop { text: String::new() });
    let since = world.now;
    world.run_for(3 * SECOND);
    let said = world.notifications(1, since);
    assert!(said.contains(&Notification::cease(Notification::CONNECTION_REJECTED, None)), "{said:?}");
    assert_ne!(world.state(0), PeerState::Established);
}

#[test]
fn stop_also_ends_an_attempt_that_has_come_only_half_way() {
    for milliseconds in 0..8 {
        let mut world = World::new(9).start();
        world.run_for(Duration::from_millis(milliseconds));
        world.tell(0, Event::Stop { text: "early".to_owned() });
        world.run_for(60 * SECOND);
        assert_eq!(world.state(0), PeerState::Idle);
        assert_ne!(world.state(1), PeerState::Established);
        assert_eq!(world.connections(), 0, "after {milliseconds} ms");
        assert!(world.speakers[0].as_ref().unwrap().is_silent());
    }
}

#[test]
fn a_peer_may_be_told_to_connect_or_to_wait_while_it_runs() {
    let mut world = World::new(10);
    world.peer_config(0).connect = false;
    let mut world = world.start();
    world.run_for(10 * SECOND);
    assert_eq!(world.states(), [PeerState::Active; 2]);
    world.peer_config(0).connect = true;
    world.configure(0);
    world.run_for(SECOND);
    assert_eq!(world.states(), [PeerState::Established; 2]);
    world.peer_config(0).connect = false;
    world.configure(0);
    world.run_for(SECOND);
    assert_eq!(ups(&world, 0), 1);
    world.reset_all();
    world.run_for(10 * SECOND);
    assert_eq!(world.states(), [PeerState::Active; 2]);
}

#[test]
fn wanted_routes_without_a_session_or_a_peer_are_forgotten() {
    let mut world = World::new(11);
    world.peer_config(0).connect = false;
    let mut world = world.start();
    let routes: Routes = [(prefix(1), route(1))].into();
    let speaker = world.speakers[0].as_mut().unwrap();
    let event = Event::Wanted { peer: name(1), routes: routes.clone() };
    assert_eq!(speaker.handle(world.now, event), []);
    assert_eq!(speaker.handle(world.now, Event::Wanted { peer: PeerName::from("nobody"), routes }), []);
}
