//! A new configuration on a living agent.

use anyvip_core::config::{Check, CheckKind};
use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";

fn running() -> World {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world
}

fn never_withheld(world: &World) {
    let withheld = world.withdrawals();
    assert_eq!(withheld, 0, "{}", world.tale());
}

fn with_checks(checks: Vec<Check>) -> Config {
    let mut config = config();
    config.services.get_mut(&"web".into()).unwrap().checks = checks;
    config
}

#[test]
fn the_same_configuration_again_changes_nothing() {
    let mut world = running();
    let sent = |w: &World| w.count(|a| matches!(a, Action::Bgp(anyvip_bgp::Action::Close { .. })));
    let request = world.reload(config());
    world.run(secs(5));
    assert_eq!(sent(&world), 0);
    assert_eq!(world.replies[&request], Reply { done: true, text: "nothing changed".into() });
    never_withheld(&world);
}

#[test]
fn an_edited_check_keeps_the_service_up_and_may_bring_it_down_after_fall() {
    let mut world = running();
    let mut slower = tcp_check("tcp");
    (slower.interval, slower.fall) = (ms(500), 3);
    if let CheckKind::Tcp(tcp) = &mut slower.kind {
        tcp.port = 81;
    }
    world.say("tcp", ProbeResult::Fail);
    let began = world.now;
    world.reload(with_checks(vec![slower]));
    assert_eq!(world.service("web").health, "up");
    world.until("withdrawn", secs(5), |w| !w.hears("tor1", VIP));
    assert!(world.now.since(began) >= ms(950), "three fails, not one");
    assert_eq!(world.reason(VIP), Some(Reason::Unhealthy));
}

#[test]
fn an_added_or_renamed_check_inherits_the_state_of_the_vip() {
    for checks in [
        vec![tcp_check("tcp"), tcp_check("more")],
        vec![tcp_check("tcp"), own_check("disk")],
        vec![tcp_check("renamed")],
        vec![own_check("only")],
    ] {
        let mut world = running();
        world.reload(with_checks(checks));
        assert_eq!(world.service("web").health, "up");
        world.run(secs(5));
        assert!(world.hears("tor1", VIP));
        never_withheld(&world);
    }
}

#[test]
fn an_added_check_brings_a_live_service_down_only_after_fall_failures() {
    let mut world = running();
    world.say("more", ProbeResult::Fail);
    world.reload(with_checks(vec![tcp_check("tcp"), tcp_check("more")]));
    world.until("one fail", secs(2), |w| w.service("web").checks[1].last.is_some());
    assert!(world.hears("tor1", VIP));
    world.until("withdrawn", secs(2), |w| !w.hears("tor1", VIP));
}

#[test]
fn an_added_check_on_a_service_that_is_down_does_not_lift_it() {
    let mut world = running();
    world.say("tcp", ProbeResult::Fail);
    world.until("withdrawn", secs(4), |w| !w.hears("tor1", VIP));
    world.reload(with_checks(vec![tcp_check("tcp"), own_check("disk")]));
    world.run(secs(10));
    assert_eq!(world.reason(VIP), Some(Reason::Unhealthy));
}

#[test]
fn a_removed_check_no_longer_holds_the_service_down_and_its_probe_is_given_up() {
    let mut config = with_checks(vec![tcp_check("tcp"), own_check("disk")]);
    config.services.get_mut(&"web".into()).unwrap().checks[1].timeout = secs(1);
    let mut world = World::new(config, kernel_view());
    world.say("disk", ProbeResult::Fail);
    world.start();
    world.run(secs(6));
    assert_eq!(world.reason(VIP), Some(Reason::Unhealthy));
    world.mute_probes = true;
    world.run(ms(1100));
    world.mute_probes = false;
    world.reload(with_checks(vec![tcp_check("tcp")]));
    assert!(world.count(|a| matches!(a, Action::CancelProbe { .. })) >= 1);
    world.until("announced", secs(1), |w| w.hears("tor1", VIP));
}

#[test]
fn new_vips_come_before_old_ones_go_and_old_ones_go_after_their_withdrawal_is_written() {
    let mut world = running();
    let mut next = config();
    next.services = [("web".into(), service(&["192.0.2.90"], vec![tcp_check("tcp")], &["tor1"]))].into();
    world.reload(next);
    world.until("swapped", secs(8), |w| {
        w.hears("tor1", "192.0.2.90") && w.view.addresses.iter().all(|a| a.address != ip(VIP))
    });
    let added = world.position("added", |a| {
        matches!(a, Action::Kernel { change: KernelRequest::AddVip { address, .. }, .. } if *address == ip("192.0.2.90"))
    });
    let removed = world.position("removed", |a| {
        matches!(a, Action::Kernel { change: KernelRequest::RemoveVip { address, .. }, .. } if *address == ip(VIP))
    });
    assert!(added < removed);
    world.run(secs(1));
    world.assert_in_agreement();
}

#[test]
fn a_removed_services_vip_stays_while_a_peer_may_still_send_to_it() {
    let mut world = running();
    world.routers.get_mut(&"tor1".into()).unwrap().reads = false;
    let mut without = config();
    without.services.clear();
    world.reload(without);
    world.run(secs(3));
    assert!(world.view.addresses.iter().any(|a| a.address == ip(VIP)));
    // The session ends at last, and with it what the peer knew.
    world.until("removed", secs(60), |w| w.view.addresses.iter().all(|a| a.address != ip(VIP)));
}

#[test]
fn a_vip_that_moves_to_another_service_stays_announced() {
    let mut world = running();
    let mut next = config();
    let web = next.services.remove(&"web".into()).unwrap();
    next.services.insert("site".into(), web);
    world.reload(next);
    world.run(secs(5));
    assert!(world.hears("tor1", VIP));
    assert_eq!(world.service("site").health, "up");
    assert_eq!(
        world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::RemoveVip { .. }, .. })),
        0
    );
}

#[test]
fn another_vip_interface_gets_the_vip_before_the_old_one_loses_it() {
    let mut view = kernel_view();
    view.links.insert(DUMMY, link("dummy0"));
    let mut world = World::new(config(), view);
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    let mut next = config();
    next.host.vip_interface = "dummy0".into();
    world.reload(next);
    world.run(secs(3));
    let on: Vec<u32> =
        world.view.addresses.iter().filter(|a| a.address == ip(VIP)).map(|a| a.interface).collect();
    assert_eq!(on, [DUMMY]);
    never_withheld(&world);
}

#[test]
fn an_added_peer_is_told_and_the_others_session_stays() {
    let mut world = running();
    let families = [anyvip_bgp::wire::Family::Ipv4];
    world.add_router("tor2".into(), ip("10.0.1.2"), &families);
    let mut next = config();
    next.bgp.peers.insert("tor2".into(), peer("10.0.1.2", &families));
    next.services.get_mut(&"web".into()).unwrap().peers.insert("tor2".into());
    world.reload(next);
    let watched = world.position(
        "watch",
        |a| matches!(a, Action::WatchRoutes { interests } if interests.contains(&ip("10.0.1.2"))),
    );
    assert!(watched > 0);
    world.until("told", secs(5), |w| w.hears("tor2", VIP));
    assert!(world.routers[&"tor1".into()].ends.is_empty());
    never_withheld(&world);
    let request = world.reload(config());
    world.until("tor2 is gone", secs(2), |w| !w.hears("tor2", VIP));
    assert!(world.replies[&request].text.contains("peer removed: tor2"));
    assert!(world.hears("tor1", VIP));
}

#[test]
fn a_refused_configuration_leaves_the_running_one() {
    let mut world = running();
    let request = world
        .command(Command::Reload { config: Err("config.toml:3:1: no such key".into()), keys: Vec::new() });
    let reply = &world.replies[&request];
    assert!(!reply.done && reply.text.contains("config.toml:3:1"));
    world.run(secs(3));
    assert!(world.hears("tor1", VIP));
}

#[test]
fn a_drained_service_that_leaves_and_returns_is_still_drained() {
    let mut world = running();
    world.drain("web");
    let mut without = config();
    without.services.clear();
    world.reload(without);
    world.run(secs(3));
    world.reload(config());
    world.run(secs(5));
    assert_eq!(world.reason(VIP), Some(Reason::Drained));
}

/// The configuration is the same, and yet a session may fall.
#[test]
fn a_key_that_changed_is_told() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    let keys = vec!["TCP MD5 of tor1".to_owned(), "BFD of 10.0.1.1".to_owned()];
    let request = world.command(Command::Reload { config: Ok(Box::new(config())), keys });
    world.run(secs(1));
    assert_eq!(world.replies[&request].text, "key changed: TCP MD5 of tor1, BFD of 10.0.1.1");
}
