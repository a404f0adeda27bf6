//! Peers that are known by their link: found by their advertisements or by their own connection, kept while they answer.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyvip_bgp::wire::{Family, NextHop};
use anyvip_bgp::{Action as BgpAction, Endpoint, PeerConfig, Rejection, Remote};
use anyvip_core::boundary::Learned;
use anyvip_core::config::Bfd;
use anyvip_core::*;
use anyvip_machine::{Failure, FailureKind};
use anyvip_nd::wire::{Message, RouterAdvertisement};
use anyvip_nd::{Action as NdAction, Event as NdEvent, InterfaceName};

use crate::world::*;

const VIP: &str = "192.0.2.80";
const VIP6: &str = "2001:db8:53::53";
const ROUTER: &str = "fe80::1";
const OTHER: &str = "fe80::2";
const BOTH: [Family; 2] = [Family::Ipv4, Family::Ipv6];

fn unnumbered() -> Config {
    let mut config = config();
    let remote = Remote::OnLink { interface: "eth0".into(), port: 179, neighbour: None };
    let peer = PeerConfig { remote, ..peer(ROUTER, &BOTH) };
    config.bgp.peers = [("tor1".into(), peer)].into();
    config.services.get_mut(&"web".into()).unwrap().vips.push(ip(VIP6));
    config
}

/// `eth0` with a link-local address alone.
fn view() -> KernelView {
    let mut view = kernel_view();
    view.addresses.retain(|address| address.interface != ETH0);
    view.addresses.push(address(ETH0, "fe80::11/64"));
    view.routes = vec![route("0.0.0.0/0", 0, Some(ROUTER), ETH0)];
    view
}

fn started(config: Config) -> World {
    let mut world = World::new(config, view());
    world.add_router("tor1".into(), ip(ROUTER), &BOTH);
    world.start();
    world
}

fn advertise(world: &mut World, from: &str) {
    let source: Ipv6Addr = from.parse().unwrap();
    let bytes = Message::Advertisement(RouterAdvertisement::of_a_host()).encode();
    let interface = InterfaceName::from("eth0");
    world.give(Event::Nd(NdEvent::Received { interface, source, hop_limit: Some(255), bytes }));
}

/// Where the agent has connected to.
fn called(world: &World) -> Vec<String> {
    let connects = world.actions.iter().filter_map(|(_, action)| match action {
        Action::Bgp(BgpAction::Connect { remote, .. }) => {
            Some(format!("{}%{}", remote.address, remote.interface.as_deref().unwrap_or("?")))
        }
        _ => None,
    });
    connects.collect()
}

fn peer_of(world: &World) -> status::PeerStatus {
    world.status().peers[0].clone()
}

#[test]
fn a_router_that_advertises_itself_is_called_and_told_both_families() {
    let mut world = started(unnumbered());
    world.run(secs(20));
    assert_eq!(called(&world), [] as [String; 0], "nobody is known");
    let peer = peer_of(&world);
    assert_eq!((peer.address.as_str(), peer.state.as_str()), ("eth0", "Active"));
    assert_eq!(peer.waiting_for.as_deref(), Some("no router has been heard on eth0"));
    let sent = world.links.iter().filter(|action| matches!(action, NdAction::Send { .. })).count();
    assert!(sent >= 5, "the router learns us from our advertisements: {sent}");
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP) && w.hears("tor1", VIP6));
    assert_eq!(called(&world), ["fe80::1%eth0"]);
    let link_local = "fe80::11".parse().unwrap();
    let hop = NextHop::V6 { global: link_local, link_local: Some(link_local) };
    for vip in [VIP, VIP6] {
        assert_eq!(world.routers[&"tor1".into()].heard[&host_route(vip)].next_hop, hop, "{vip}");
    }
    let peer = peer_of(&world);
    assert_eq!((peer.address.as_str(), peer.waiting_for), ("fe80::1%eth0", None));
    let learned = Fact::NeighbourLearned {
        peer: "tor1".into(),
        interface: "eth0".into(),
        address: ROUTER.parse().unwrap(),
        how: Learned::Advertised,
    };
    assert_eq!(world.facts.iter().filter(|(_, fact)| *fact == learned).count(), 1);
}

#[test]
fn a_global_address_of_the_link_is_told_beside_the_link_local_one() {
    let mut world = started(unnumbered());
    world.view.addresses.push(address(ETH0, "2001:db8:1::11/64"));
    world.view.addresses.push(address(ETH0, "10.0.1.11/24"));
    world.show();
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP6) && w.hears("tor1", VIP));
    let hop = NextHop::V6 { global: "2001:db8:1::11".parse().unwrap(), link_local: "fe80::11".parse().ok() };
    for vip in [VIP, VIP6] {
        assert_eq!(world.routers[&"tor1".into()].heard[&host_route(vip)].next_hop, hop, "{vip}");
    }
}

#[test]
fn a_router_that_connects_is_known_by_that() {
    let mut config = unnumbered();
    config.bgp.listen = Some("[::]:179".parse().unwrap());
    let mut world = started(config);
    world.run(secs(3));
    world.somebody_connects(ip(ROUTER)).unwrap();
    let opens = world.actions.iter().any(|(_, action)| {
        matches!(
            action,
            Action::Bgp(BgpAction::Send { connection: anyvip_bgp::ConnectionId::Accepted(_), .. })
        )
    });
    assert!(opens, "it is answered with an OPEN");
    assert_eq!(peer_of(&world).address, "fe80::1%eth0");
    // Whoever connects while that one is about to answer is nobody.
    world.somebody_connects(ip(OTHER)).unwrap();
    assert_eq!(peer_of(&world).address, "fe80::1%eth0");
    assert!(world.facts.iter().any(|(_, fact)| {
        matches!(fact, Fact::PeerNotice { peer: None, text }
            if text.starts_with("connection from fe80::2%eth0 refused: tor1 on eth0 is fe80::1, and"))
    }));
}

/// Who calls and is not heard is counted, and `status` says who it was and what helps, for ten minutes.
#[test]
fn connections_that_are_turned_away_are_told_with_their_place_and_the_remedy() {
    let mut config = unnumbered();
    config.bgp.listen = Some("[::]:179".parse().unwrap());
    let mut world = started(config);
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP));
    assert_eq!(world.status().turned_away, None);
    let warnings = |world: &World| -> Vec<String> {
        let all = world.status().warnings.into_iter();
        all.filter(|warning| warning.code == "turned-away").map(|warning| warning.text).collect()
    };
    assert!(warnings(&world).is_empty());

    world.somebody_connects("10.9.9.9".parse().unwrap()).unwrap();
    let text = &warnings(&world)[0];
    assert!(text.contains("connection from 10.9.9.9 refused: no peer has this address"), "{text}");
    assert!(text.contains("write [bgp.peer.NAME] with address = \"10.9.9.9\""), "{text}");

    world.somebody_is_turned_away(ip(OTHER), Rejection::Unsigned);
    let text = &warnings(&world)[0];
    assert!(text.contains("connection from fe80::2%eth0 refused: not known to be signed"), "{text}");

    let (wanted, through) = ("eth0".to_owned(), "eth1".to_owned());
    world.somebody_is_turned_away("10.0.1.1".parse().unwrap(), Rejection::OtherInterface { wanted, through });
    let text = &warnings(&world)[0];
    assert!(
        text.contains("connection from 10.0.1.1 refused: the peer with this address is on eth0"),
        "{text}"
    );
    assert!(
        text.contains("came through eth1; has a cable") && text.contains("3 connections turned away so far"),
        "{text}"
    );
    let told =
        world.facts.iter().filter(|(_, fact)| matches!(fact, Fact::PeerNotice { peer: None, .. })).count();
    assert_eq!(told, 3);

    // A flood is counted, not told.
    for _ in 0..1000 {
        world.somebody_is_turned_away(ip(OTHER), Rejection::Unsigned);
    }
    let told =
        world.facts.iter().filter(|(_, fact)| matches!(fact, Fact::PeerNotice { peer: None, .. })).count();
    assert!(told <= 5, "{told}");
    assert_eq!(world.status().turned_away.unwrap().connections, 1003);
    world.run(secs(601));
    assert!(warnings(&world).is_empty(), "it is long ago");
    assert_eq!(world.status().turned_away.unwrap().connections, 1003);
}

/// A cable in the wrong port: the text names the peer and where it should be.
#[test]
fn a_peer_that_calls_by_another_link_than_its_own_is_named() {
    let mut config = unnumbered();
    config.bgp.listen = Some("[::]:179".parse().unwrap());
    let endpoint = Endpoint { address: ip("fe80::9"), interface: Some("eth1".into()), port: 179 };
    config.bgp.peers.insert("tor2".into(), PeerConfig { remote: endpoint.into(), ..peer(ROUTER, &BOTH) });
    let mut view = view();
    view.links.insert(ETH1, link("eth1"));
    let mut world = World::new(config, view);
    world.add_router("tor1".into(), ip(ROUTER), &BOTH);
    world.start();
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP));
    world.somebody_connects(ip("fe80::9")).unwrap();
    let last = world.status().turned_away.unwrap().last;
    assert!(
        last.contains("connection from fe80::9%eth0 refused: tor2 has this address, but on eth1"),
        "{last}"
    );
}

#[test]
fn a_neighbour_that_answers_is_not_replaced_by_one_who_only_advertises() {
    let mut world = started(unnumbered());
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP));
    for _ in 0..20 {
        advertise(&mut world, OTHER);
        world.run(secs(1));
    }
    assert_eq!(peer_of(&world).address, "fe80::1%eth0");
    assert_eq!(called(&world).len(), 1);
    let warnings = world.status().warnings;
    let several = warnings.iter().find(|warning| warning.code == "several-routers").unwrap();
    assert!(several.text.contains("fe80::1, fe80::2"), "{}", several.text);
}

#[test]
fn a_router_with_another_link_local_address_is_found_after_its_session_ended() {
    let mut world = started(unnumbered());
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP));
    world.routers.get_mut(&"tor1".into()).unwrap().address = ip(OTHER);
    world.kill_router("tor1");
    world.revive_router("tor1");
    advertise(&mut world, OTHER);
    world.until("told again", secs(20), |w| w.hears("tor1", VIP));
    assert_eq!(peer_of(&world).address, "fe80::2%eth0");
}

/// A neighbour that refuses must not be asked more often because there are two.
#[test]
fn of_several_that_advertise_each_is_tried_in_turn_and_none_in_a_hurry() {
    let mut world = started(unnumbered());
    world.routers.get_mut(&"tor1".into()).unwrap().up = false;
    for _ in 0..60 {
        advertise(&mut world, ROUTER);
        advertise(&mut world, OTHER);
        world.run(secs(1));
    }
    let called = called(&world);
    for neighbour in ["fe80::1%eth0", "fe80::2%eth0"] {
        assert!(called.iter().filter(|one| *one == neighbour).count() > 10, "{called:?}");
    }
    assert!(called.len() < 100, "{}", called.len());
}

#[test]
fn a_link_that_cannot_be_used_is_named_with_its_cure() {
    let mut world = started(unnumbered());
    let mut seen = |change: &dyn Fn(&mut KernelView), text: &str, cure: &str| {
        world.view = view();
        change(&mut world.view);
        world.show();
        assert_eq!(peer_of(&world).waiting_for.as_deref(), Some(text));
        let explained = world.agent.explain(world.now, &"web".into()).unwrap();
        let gates = &explained.vips[0].peers[0].gates;
        let gate = gates.iter().find(|gate| gate.gate == Reason::SessionDown).unwrap();
        assert!(gate.text.contains(text), "{}", gate.text);
        assert!(gate.remedy.as_ref().unwrap().contains(cure), "{:?}", gate.remedy);
    };
    seen(&|view| drop(view.links.remove(&ETH0)), "there is no interface eth0", "ip link");
    let eth0 = |view: &mut KernelView, change: fn(&mut kernel::Link)| {
        change(view.links.get_mut(&ETH0).unwrap());
    };
    seen(&|view| eth0(view, |link| link.up = false), "eth0 is down", "ip link set eth0 up");
    seen(&|view| eth0(view, |link| link.carrier = false), "eth0 has no carrier", "cable");
    seen(
        &|view| view.addresses.retain(|address| address.interface != ETH0),
        "eth0 has no link-local address",
        "disable_ipv6=0",
    );
    seen(
        &|view| view.addresses.last_mut().unwrap().tentative = true,
        "fe80::11 on eth0 is still being tested, or somebody else has it",
        "dadfailed",
    );
    seen(&|_| {}, "no router has been heard on eth0", "neighbor IF interface");
    let (interface, failure) = ("eth0".into(), Failure::new(FailureKind::PermissionDenied, "not permitted"));
    world.give(Event::Nd(NdEvent::Done { interface, result: Err(failure) }));
    assert!(peer_of(&world).waiting_for.unwrap().starts_with("router advertisements do not leave eth0"));
}

#[test]
fn a_link_that_goes_and_comes_back_is_asked_again_and_the_session_follows() {
    let mut world = started(unnumbered());
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP));
    world.view.links.get_mut(&ETH0).unwrap().carrier = false;
    world.show();
    world.kill_router("tor1");
    world.revive_router("tor1");
    world.run(secs(5));
    world.links.clear();
    world.view.links.get_mut(&ETH0).unwrap().carrier = true;
    world.show();
    world.until("told again", secs(10), |w| w.hears("tor1", VIP));
    world.run(secs(2));
    assert!(world.links.iter().any(|action| matches!(action, NdAction::Send { .. })));
}

/// An interface that is removed and made again has another number.
#[test]
fn an_interface_made_anew_is_another_link() {
    let mut world = started(unnumbered());
    advertise(&mut world, ROUTER);
    world.until("told", secs(5), |w| w.hears("tor1", VIP));
    world.view.links.remove(&ETH0);
    world.show();
    assert_ne!(peer_of(&world).state, "Established", "there is no way to that neighbour any more");
    assert!(world.links.iter().any(|action| matches!(action, NdAction::Close { .. })));
}

#[test]
fn a_configured_link_local_address_needs_no_advertisement() {
    let mut config = unnumbered();
    let endpoint = Endpoint { address: ip(ROUTER), interface: Some("eth0".into()), port: 179 };
    config.bgp.peers.get_mut(&"tor1".into()).unwrap().remote = endpoint.into();
    let mut world = started(config);
    world.until("told", secs(10), |w| w.hears("tor1", VIP));
    assert_eq!(peer_of(&world).address, "fe80::1%eth0");
    let sent = world.links.iter().any(|action| matches!(action, NdAction::Send { .. }));
    assert!(sent, "but the router may need one of ours");
}

#[test]
fn bfd_follows_the_neighbour() {
    let mut config = unnumbered();
    let bfd = Bfd {
        interval: Duration::from_millis(300),
        multiplier: 3,
        strict: false,
        min_ttl: None,
        authentication: None,
    };
    config.bgp.bfd.insert("tor1".into(), bfd);
    let mut world = started(config);
    world.run(secs(2));
    assert!(world.bfd.0.is_empty());
    advertise(&mut world, ROUTER);
    let session = world.bfd.0.get(&"fe80::1%eth0".into()).expect("a session");
    assert_eq!(session.path.interface.as_deref(), Some("eth0"));
}

#[test]
fn the_interface_of_a_peer_is_guarded_against_arp() {
    let mut bare = view();
    bare.routes.clear();
    let mut world = World::new(unnumbered(), bare);
    world.start();
    world.run(secs(2));
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 1);
}
