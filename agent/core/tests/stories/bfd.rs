//! BFD as guard of BGP peers, and as bearer of health.

use std::time::Duration;

use anyvip_bfd::{Cause, Diagnostic, Discard, Fact as BfdFact, SessionConfig, State, StateChanged, Wish};
use anyvip_core::boundary::ProbeResult;
use anyvip_core::config::{Bfd, StaticPeer};
use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";
const GUARD: Bfd = Bfd {
    interval: Duration::from_millis(300),
    multiplier: 3,
    strict: false,
    min_ttl: None,
    authentication: None,
};

fn guarded(strict: bool) -> World {
    let mut config = config();
    config.bgp.bfd.insert("tor1".into(), Bfd { strict, ..GUARD });
    let mut world = World::new(config, kernel_view());
    world.start();
    world
}

/// No BGP at all: a router at 10.0.1.1 that tracks this host.
fn tracked() -> World {
    let mut config = config();
    config.bgp.peers.clear();
    config.services.get_mut(&"web".into()).unwrap().peers.clear();
    config.services.get_mut(&"web".into()).unwrap().statics.insert("rtr".into());
    config.statics.insert("rtr".into(), StaticPeer { address: ip("10.0.1.1"), interface: None, bfd: GUARD });
    let mut world = World::new(config, kernel_view());
    world.start();
    world
}

fn changed(world: &mut World, from: State, to: State, cause: Cause) {
    let (session, diagnostic) = ("10.0.1.1".into(), Diagnostic::NONE);
    let change = StateChanged { session, from, to, diagnostic, cause };
    world.give(Event::Bfd(BfdFact::StateChanged(change)));
}

fn wanted(world: &World) -> &SessionConfig {
    world.bfd.0.get(&"10.0.1.1".into()).expect("the session is wanted")
}

#[test]
fn a_guarded_peer_has_a_session_and_its_failure_closes_bgp_with_cease_10() {
    let mut world = guarded(false);
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    assert_eq!((wanted(&world).wish, wanted(&world).carries_health), (Wish::Up, false));
    changed(&mut world, State::Init, State::Up, Cause::Handshake);
    changed(&mut world, State::Up, State::Down, Cause::DetectionTimeExpired);
    let status = world.status();
    assert_ne!(status.peers[0].state, "Established");
    assert!(status.peers[0].last_error.as_ref().unwrap().contains("BFD Down"), "{:?}", status.peers[0]);
    let bfd = status.peers[0].bfd.as_ref().unwrap();
    assert_eq!(bfd.state, "Down");
    assert_eq!(bfd.last_down.as_deref(), Some("nothing heard for the detection time"));
    // The path is tried again as always.
    world.until("announced again", secs(10), |w| w.hears("tor1", VIP));
}

/// RFC 5882 §3.2, §4.2
#[test]
fn what_never_was_up_or_was_switched_off_closes_nothing() {
    let mut world = guarded(false);
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    changed(&mut world, State::Down, State::Init, Cause::Handshake);
    changed(&mut world, State::Init, State::Down, Cause::DetectionTimeExpired);
    changed(&mut world, State::Init, State::Up, Cause::Handshake);
    changed(&mut world, State::Up, State::Down, Cause::NeighborAdminDown);
    assert!(world.established("tor1") && world.hears("tor1", VIP));
    let signalled = Cause::NeighborSignaledDown { diagnostic: Diagnostic::NONE };
    changed(&mut world, State::Up, State::Down, signalled);
    assert_ne!(world.status().peers[0].state, "Established");
}

#[test]
fn with_strict_nothing_is_told_until_bfd_is_up() {
    let mut world = guarded(true);
    world.until("established", secs(10), |w| w.established("tor1"));
    world.run(secs(5));
    assert_eq!(world.peer_reason(VIP, "tor1"), Some(Reason::BfdDown));
    assert!(!world.hears("tor1", VIP));
    changed(&mut world, State::Init, State::Up, Cause::Handshake);
    world.until("announced", secs(2), |w| w.hears("tor1", VIP));
    // Switched off over there: the session stays, and nothing is told on it.
    changed(&mut world, State::Up, State::Down, Cause::NeighborAdminDown);
    world.until("withdrawn", secs(2), |w| !w.hears("tor1", VIP));
    assert!(world.established("tor1"));
}

#[test]
fn the_lease_is_renewed_each_second_and_only_while_there_are_sessions() {
    let mut world = guarded(false);
    for _ in 0..10 {
        world.run(secs(1));
        let lease = world.bfd.1.unwrap();
        let left = lease.since(world.now);
        assert!(left > secs(2) && left <= secs(4), "{left:?}");
    }
    let plain = config();
    world.reload(plain);
    assert_eq!((world.bfd.0.len(), world.bfd.1), (0, None));
    let before = world.count(|action| matches!(action, Action::BfdWanted { .. }));
    world.run(secs(10));
    assert_eq!(world.count(|action| matches!(action, Action::BfdWanted { .. })), before);
}

#[test]
fn a_static_peer_follows_health_and_drain_and_is_held_down_never_switched_off() {
    let held = Wish::HeldDown(Diagnostic::CONCATENATED_PATH_DOWN);
    let mut world = tracked();
    assert_eq!((wanted(&world).wish, wanted(&world).carries_health), (held, true), "unknown is not healthy");
    world.until("healthy", secs(10), |w| wanted(w).wish == Wish::Up);
    changed(&mut world, State::Init, State::Up, Cause::Handshake);
    let status = world.status();
    assert_eq!((status.peers[0].protocol.as_str(), status.peers[0].state.as_str()), ("static", "Up"));
    assert!(world.vip(VIP).peers[0].advertised);
    world.say("tcp", ProbeResult::Fail);
    world.until("held down", secs(5), |w| wanted(w).wish == held);
    assert_eq!(world.peer_reason(VIP, "rtr"), Some(Reason::Unhealthy));
    world.say("tcp", ProbeResult::Pass);
    world.until("up again", secs(5), |w| wanted(w).wish == Wish::Up);
    world.drain("web");
    assert_eq!(wanted(&world).wish, held);
    world.undrain("web");
    assert_eq!(wanted(&world).wish, Wish::Up);
    world.give(Event::Terminate);
    assert_eq!(wanted(&world).wish, held, "a planned stop takes the route away first");
    world.until("gone", secs(20), |w| w.exit == Some(0));
}

/// Anybody on the link may send nonsense: it is trouble while the session is down, and news for a minute while it is Up.
#[test]
fn a_refused_packet_is_shown_with_its_age_and_not_for_ever_while_the_session_stands() {
    let mut config = config();
    let mut world = World::new(config.clone(), kernel_view());
    world.start();
    world.run(secs(100));
    config.bgp.bfd.insert("tor1".into(), GUARD);
    world.reload(config);
    world.run(secs(1));
    let bfd = |world: &World| world.status().peers[0].bfd.clone().unwrap();
    assert!(bfd(&world).for_ms < 5_000, "it is down since it is wanted: {:?}", bfd(&world));
    let refused = || {
        let reason = Discard::NotFromThisLink { ttl: Some(254) };
        Event::Bfd(BfdFact::Discarded { session: Some("10.0.1.1".into()), remote: ip("10.0.1.1"), reason })
    };
    world.give(refused());
    world.run(secs(300));
    let text = "a packet was refused: TTL 254 instead of 255: it did not come from this link";
    assert_eq!(bfd(&world).trouble.as_deref(), Some(text));
    assert!((300_000..302_000).contains(&bfd(&world).trouble_for_ms.unwrap()));
    changed(&mut world, State::Init, State::Up, Cause::Handshake);
    assert_eq!(bfd(&world).trouble, None);
    world.give(refused());
    world.run(secs(30));
    assert_eq!(bfd(&world).trouble.as_deref(), Some(text));
    world.run(secs(60));
    assert_eq!(bfd(&world).trouble, None, "none has come for a minute");
    changed(&mut world, State::Up, State::Down, Cause::DetectionTimeExpired);
    world.run(secs(10));
    assert!((10_000..12_000).contains(&bfd(&world).last_down_for_ms.unwrap()));
}
