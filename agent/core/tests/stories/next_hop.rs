//! Next hops, families and the way back.

use std::collections::BTreeSet;

use anyvip_bgp::wire::{Family, NextHop};
use anyvip_core::config::ReturnPath;
use anyvip_core::*;

use crate::world::*;

const V4: &str = "192.0.2.80";
const V6: &str = "2001:db8:53::53";

fn both() -> Config {
    let mut config = config();
    config.services = [("web".into(), service(&[V4, V6], vec![tcp_check("tcp")], &["tor1"]))].into();
    config
}

/// Until everything has come that can.
fn settled(config: Config, view: KernelView) -> World {
    let mut world = World::new(config, view);
    world.start();
    world.run(secs(8));
    world
}

fn next_hop(world: &World, vip: &str) -> NextHop {
    world.routers[&"tor1".into()].heard[&host_route(vip)].next_hop
}

fn v6(text: &str) -> NextHop {
    NextHop::V6 { global: text.parse().unwrap(), link_local: None }
}

#[test]
fn an_ipv6_vip_over_an_ipv4_session_takes_a_global_address_of_the_interface_towards_the_peer() {
    let mut view = kernel_view();
    view.addresses.push(address(ETH0, "fe80::1/64"));
    let mut deprecated = address(ETH0, "2001:db8:1::1/64");
    deprecated.deprecated = true;
    let mut tentative = address(ETH0, "2001:db8:1::2/64");
    tentative.tentative = true;
    view.addresses.extend([deprecated, tentative]);
    let world = settled(both(), view);
    assert_eq!(next_hop(&world, V6), v6("2001:db8:1::11"));
    assert_eq!(next_hop(&world, V4), NextHop::V4([10, 0, 1, 11].into()));
}

#[test]
fn a_daemon_on_this_host_is_told_the_address_under_which_others_reach_it() {
    let mut config = both();
    config.bgp.peers.insert("tor1".into(), peer("127.0.0.1", &[Family::Ipv4, Family::Ipv6]));
    // Lower ones: on the loopback, a VIP, and one beside the default route.
    let mut view = kernel_view();
    view.links.insert(ETH1, link("eth1"));
    view.addresses.extend([
        address(LO, "10.0.0.1/32"),
        address(ETH0, "10.0.1.2/24"),
        address(ETH1, "10.0.0.2/24"),
    ]);
    config.services.insert("other".into(), service(&["10.0.1.2"], vec![tcp_check("tcp")], &["tor1"]));
    let mut world = settled(config, view);
    assert_eq!(next_hop(&world, V4), NextHop::V4([10, 0, 1, 11].into()));
    assert_eq!(next_hop(&world, V6), v6("2001:db8:1::11"));
    world.view.addresses.retain(|a| a.interface != ETH0);
    world.show();
    world.run(secs(2));
    assert_eq!(next_hop(&world, V4), NextHop::V4([10, 0, 0, 2].into()), "better than none");
    assert_eq!(world.peer_reason(V6, "tor1"), Some(Reason::NoNextHop));
}

#[test]
fn without_such_an_address_the_vip_is_withheld_from_this_peer_alone_with_a_reason() {
    let mut view = kernel_view();
    view.addresses.retain(|a| a.address != ip("2001:db8:1::11"));
    // A VIP on the very interface is no next hop.
    let mut world = settled(both(), view);
    assert_eq!(world.peer_reason(V6, "tor1"), Some(Reason::NoNextHop));
    assert_eq!(world.reason(V6), None);
    assert!(world.hears("tor1", V4));
    world.view.addresses.push(address(ETH0, "2001:db8:1::12/64"));
    world.show();
    world.until("announced", secs(1), |w| w.hears("tor1", V6));
}

#[test]
fn a_vip_is_never_a_next_hop() {
    let mut view = kernel_view();
    view.addresses.retain(|a| a.address != ip("2001:db8:1::11"));
    let mut config = both();
    config.services.insert("other".into(), service(&["2001:db8:1::53"], vec![], &["tor1"]));
    view.addresses.push(address(ETH0, "2001:db8:1::53/64"));
    let world = settled(config, view);
    assert_eq!(world.peer_reason(V6, "tor1"), Some(Reason::NoNextHop));
}

#[test]
fn a_configured_next_hop_wins_in_its_family() {
    let mut config = both();
    config.services.get_mut(&"web".into()).unwrap().announce.all.always.next_hop =
        Some(vec![ip("10.0.1.99")]);
    let world = settled(config, kernel_view());
    assert_eq!(next_hop(&world, V4), NextHop::V4([10, 0, 1, 99].into()));
    assert_eq!(next_hop(&world, V6), v6("2001:db8:1::11"));
}

#[test]
fn an_ipv4_vip_over_an_ipv6_session_takes_the_interfaces_ipv4_address_or_by_agreement_an_ipv6_one() {
    let over_v6 = || {
        let mut config = both();
        let families = [Family::Ipv4, Family::Ipv6];
        config.bgp.peers = [("tor1".into(), peer("2001:db8:1::1", &families))].into();
        config
    };
    let world = settled(over_v6(), kernel_view());
    assert_eq!(next_hop(&world, V4), NextHop::V4([10, 0, 1, 11].into()));
    assert_eq!(next_hop(&world, V6), v6("2001:db8:1::11"));

    let mut view = kernel_view();
    view.addresses.retain(|a| !(a.interface == ETH0 && a.address.is_ipv4()));
    let world = settled(over_v6(), view);
    // Both speakers offer RFC 8950.
    assert_eq!(next_hop(&world, V4), v6("2001:db8:1::11"));
}

#[test]
fn a_family_that_the_peer_does_not_agree_to_is_a_reason_of_that_peer() {
    let mut world = World::new(both(), kernel_view());
    world.add_router("tor1".into(), ip("10.0.1.1"), &[Family::Ipv4]);
    world.start();
    world.run(secs(8));
    assert!(world.hears("tor1", V4));
    assert_eq!(world.peer_reason(V6, "tor1"), Some(Reason::FamilyNotNegotiated));
}

#[test]
fn an_attribute_change_is_one_implicit_replace() {
    let mut world = settled(both(), kernel_view());
    let mut config = both();
    config.services.get_mut(&"web".into()).unwrap().announce.all.always.med = Some(50);
    world.reload(config);
    world.run(secs(1));
    assert_eq!(world.routers[&"tor1".into()].heard[&host_route(V4)].attributes.med, Some(50));
    let withheld = world.withdrawals();
    assert_eq!(withheld, 0);
}

/// eth0 towards tor1, default route through eth1.
fn asymmetric(all: u32, eth0: u32) -> KernelView {
    let mut view = kernel_view();
    view.links.insert(ETH1, link("eth1"));
    view.addresses.push(address(ETH1, "10.0.2.11/24"));
    view.routes.retain(|route| route.destination != net("0.0.0.0/0"));
    view.routes.push(route("0.0.0.0/0", 100, Some("10.0.2.1"), ETH1));
    view.routes.push(route("0.0.0.0/0", 200, Some("10.0.1.1"), ETH0));
    view.all.rp_filter = all;
    view.links.get_mut(&ETH0).unwrap().settings.rp_filter = eth0;
    view
}

#[test]
fn strict_filtering_without_a_way_back_withholds_ipv4_and_names_the_sysctl() {
    let mut world = settled(both(), asymmetric(0, 1));
    assert_eq!(world.peer_reason(V4, "tor1"), Some(Reason::ReturnPath));
    assert_eq!(world.peer_reason(V6, "tor1"), None);
    let explained = world.agent.explain(world.now, &"web".into()).unwrap();
    let gates = &explained.vips[0].peers[0].gates;
    let gate = gates.iter().find(|g| g.gate == Reason::ReturnPath).unwrap();
    assert_eq!(gate.remedy.as_deref(), Some("sysctl -w net.ipv4.conf.eth0.rp_filter=2"));
    world.view.links.get_mut(&ETH0).unwrap().settings.rp_filter = 2;
    world.show();
    world.until("announced", secs(1), |w| w.hears("tor1", V4));
}

#[test]
fn loose_filtering_and_a_way_back_of_the_same_metric_are_fine() {
    for (all, eth0) in [(0, 0), (2, 1), (0, 2)] {
        assert_eq!(settled(both(), asymmetric(all, eth0)).peer_reason(V4, "tor1"), None);
    }
    let mut view = asymmetric(1, 0);
    for route in &mut view.routes {
        route.metric = 0;
    }
    assert_eq!(settled(both(), view).peer_reason(V4, "tor1"), None);
}

#[test]
fn return_path_warn_only_warns() {
    let mut config = both();
    config.host.return_path = ReturnPath::Warn;
    let world = settled(config, asymmetric(1, 0));
    assert_eq!(world.peer_reason(V4, "tor1"), None);
    assert!(world.warned("return-path") && world.hears("tor1", V4));
}

#[test]
fn each_service_is_told_to_its_own_peers_only() {
    let mut config = both();
    config.bgp.peers.insert("tor2".into(), peer("10.0.1.2", &[Family::Ipv4, Family::Ipv6]));
    config.services.insert("dns".into(), service(&["192.0.2.53"], vec![], &["tor2"]));
    let world = settled(config, kernel_view());
    let told: BTreeSet<_> = world.routers[&"tor2".into()].heard.keys().copied().collect();
    assert_eq!(told, [host_route("192.0.2.53")].into());
    assert!(!world.hears("tor1", "192.0.2.53"));
}
