//! The ARP guard.

use anyvip_core::kernel::{Ipv4Settings, KernelView};
use anyvip_core::*;
use anyvip_machine::{Failure, FailureKind};

use crate::world::*;

const VIP: &str = "192.0.2.80";

fn running() -> World {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world
}

fn set(view: &mut KernelView, index: u32, arp_ignore: u32, arp_announce: u32) {
    let link = view.links.get_mut(&index).unwrap();
    link.settings = Ipv4Settings { arp_ignore, arp_announce, ..link.settings };
}

#[test]
fn a_lost_guard_withholds_within_one_view_and_is_put_back() {
    for (ignore, announce) in [(0, 2), (1, 0), (1, 1), (0, 0)] {
        let mut world = running();
        set(&mut world.view, ETH0, ignore, announce);
        world.show();
        assert_eq!(world.reason(VIP), Some(Reason::ArpNotGuarded));
        assert_eq!(world.vip(VIP).arp_guarded, Some(false));
        world.until("announced again", secs(2), |w| w.hears("tor1", VIP));
        let settings = world.view.links[&ETH0].settings;
        assert_eq!((settings.arp_ignore, settings.arp_announce), (1, 2));
        assert_eq!(world.disk.as_ref().unwrap().arp["eth0"].ignore, 0, "the first values are kept");
    }
}

#[test]
fn values_set_on_all_interfaces_count_as_a_guard() {
    let mut view = kernel_view();
    (view.all.arp_ignore, view.all.arp_announce) = (1, 2);
    let mut world = World::new(config(), view);
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::SetArp { .. }, .. })), 0);
}

#[test]
fn a_new_uplink_is_guarded_before_it_counts() {
    let mut world = running();
    world.view.links.insert(ETH1, link("eth1"));
    world.view.addresses.push(address(ETH1, "10.0.2.11/24"));
    world.view.routes.push(route("0.0.0.0/0", 100, Some("10.0.2.1"), ETH1));
    world.show();
    assert_eq!(world.reason(VIP), None, "a newcomer does not cut off what is announced");
    world.run(secs(1));
    assert_eq!(world.view.links[&ETH1].settings.arp_ignore, 1);
    let withheld = world.withdrawals();
    assert_eq!(withheld, 0);
}

#[test]
fn a_new_uplink_that_cannot_be_guarded_withholds_after_one_guard_period() {
    for obedience in [Obedience::Mute, Obedience::No(Failure::new(FailureKind::PermissionDenied, "no"))] {
        let mut world = running();
        world.obedience = obedience.clone();
        world.view.links.insert(ETH1, link("eth1"));
        world.view.routes.push(route("0.0.0.0/0", 100, Some("10.0.2.1"), ETH1));
        world.show();
        let limit = if obedience == Obedience::Mute { ms(5010) } else { ms(20) };
        world.until("withheld", limit, |w| w.reason(VIP) == Some(Reason::ArpNotGuarded));
    }
}

#[test]
fn a_new_uplink_is_silenced_although_the_disk_is_full_because_the_vip_is_there_already() {
    let mut world = running();
    world.disk_full = true;
    world.view.links.insert(ETH1, link("eth1"));
    world.view.addresses.push(address(ETH1, "10.0.2.11/24"));
    world.view.routes.push(route("0.0.0.0/0", 100, Some("10.0.2.1"), ETH1));
    world.show();
    world.until("guarded", secs(2), |w| w.view.links[&ETH1].settings.arp_ignore == 1);
    assert!(!world.disk.as_ref().unwrap().arp.contains_key("eth1"), "its values could not be written");
    world.disk_full = false;
    world.until("written", secs(40), |w| w.disk.as_ref().unwrap().arp.contains_key("eth1"));
    assert_eq!(world.disk.as_ref().unwrap().arp["eth1"].ignore, 0, "as they were before the guard");
}

#[test]
fn an_interface_that_leads_to_a_peer_is_an_uplink_and_a_dummy_is_not() {
    let mut view = kernel_view();
    view.links.insert(DUMMY, link("dummy0"));
    view.routes.retain(|route| route.destination.prefix_len() != 0);
    view.routes.push(route("10.0.1.0/25", 0, None, DUMMY));
    let mut world = World::new(config(), view);
    world.start();
    world.run(secs(3));
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 1);
    assert_eq!(world.view.links[&DUMMY].settings.arp_ignore, 0);
}

#[test]
fn configured_uplinks_are_guarded_and_no_others() {
    let mut config = config();
    config.host.uplinks = Some(["eth1".into(), "eth7".into()].into());
    let mut view = kernel_view();
    view.links.insert(ETH1, link("eth1"));
    let mut world = World::new(config, view);
    world.start();
    world.run(secs(3));
    assert_eq!(world.view.links[&ETH1].settings.arp_ignore, 1);
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 0);
    assert!(world.warned("uplink-missing"));
}

#[test]
fn a_host_whose_address_sits_only_on_lo_is_not_cut_off() {
    let mut view = kernel_view();
    view.addresses.retain(|a| !(a.interface == ETH0 && a.address.is_ipv4()));
    view.addresses.push(address(LO, "10.0.1.11/32"));
    let mut world = World::new(config(), view);
    world.start();
    world.run(secs(5));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::SetArp { .. }, .. })), 0);
    assert!(world.warned("arp-guard-unsafe"));
    assert_eq!(world.reason(VIP), Some(Reason::ArpGuardUnsafe), "the cause, not the missing VIP");
    let explained = world.agent.explain(world.now, &"web".into()).unwrap();
    let gates = &explained.vips[0].gates;
    assert!(!gates.iter().find(|g| g.gate == Reason::ArpGuardUnsafe).unwrap().open);
    assert!(!world.hears("tor1", VIP));
}

#[test]
fn ipv6_needs_no_guard() {
    let mut config = config();
    config.services = [("web".into(), service(&["2001:db8::53"], vec![tcp_check("tcp")], &["tor1"]))].into();
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "2001:db8::53"));
    assert_eq!(world.vip("2001:db8::53").arp_guarded, None);
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 0);
}

#[test]
fn the_guard_goes_after_the_last_ipv4_vip_and_former_values_come_back() {
    let mut view = kernel_view();
    set(&mut view, ETH0, 0, 1);
    let mut world = World::new(config(), view);
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    let mut without = config();
    without.services.clear();
    world.reload(without);
    world.until("put back", secs(5), |w| w.view.links[&ETH0].settings.arp_announce == 1);
    let removed = world
        .position("removed", |a| matches!(a, Action::Kernel { change: KernelRequest::RemoveVip { .. }, .. }));
    let restored = world.position("restored", |a| {
        matches!(a, Action::Kernel { change: KernelRequest::SetArp { ignore: 0, announce: 1, .. }, .. })
    });
    assert!(removed < restored);
    world.run(secs(1));
    assert!(world.disk.as_ref().unwrap().arp.is_empty());
}

#[test]
fn values_that_somebody_changed_since_are_not_put_back() {
    let mut world = running();
    let mut without = config();
    without.services.clear();
    set(&mut world.view, ETH0, 2, 2);
    world.reload(without);
    world.show();
    world.run(secs(5));
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 2);
    assert!(world.disk.as_ref().unwrap().arp.is_empty());
}
