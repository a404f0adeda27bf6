//! How an agent comes up: order in, adoption, and what is not its own.

use anyvip_core::kernel::VIP_PROTOCOL;
use anyvip_core::*;

use crate::world::*;

fn is_set_arp(action: &Action) -> bool {
    let change = KernelRequest::SetArp { interface: ETH0, ignore: 1, announce: 2 };
    matches!(action, Action::Kernel { change: asked, .. } if *asked == change)
}

fn is_add_vip(action: &Action) -> bool {
    matches!(action, Action::Kernel { change: KernelRequest::AddVip { interface: LO, .. }, .. })
}

#[test]
fn old_values_are_on_disk_before_the_guard_and_the_guard_is_seen_before_the_vip() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    let persist = world.position(
        "persist",
        |a| matches!(a, Action::Persist { state, .. } if state.arp.contains_key("eth0")),
    );
    let guard = world.position("guard", is_set_arp);
    let vip = world.position("VIP", is_add_vip);
    let probe = world.position("probe", |a| matches!(a, Action::StartProbe { .. }));
    let announced = world
        .position("verdict", |a| matches!(a, Action::Record(Fact::VerdictChanged { announced: true, .. })));
    assert!(persist < guard && guard < vip && vip < probe && probe < announced);
    let was = &world.disk.as_ref().unwrap().arp["eth0"];
    assert_eq!((was.ignore, was.announce, was.interface), (0, 0, ETH0));
    world.run(secs(3));
    world.assert_in_agreement();
}

#[test]
fn nothing_is_asked_of_the_kernel_while_the_disk_has_not_answered() {
    let mut world = World::new(config(), kernel_view());
    world.disk_slow = Some(secs(5));
    world.start();
    world.run(secs(4));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { .. })), 0);
    world.until("announced", secs(30), |w| w.hears("tor1", "192.0.2.80"));
}

#[test]
fn a_steady_agent_records_nothing_and_writes_nothing() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.run(secs(20));
    let (facts, persists) = (world.facts.len(), world.count(|a| matches!(a, Action::Persist { .. })));
    world.show();
    world.run(secs(120));
    assert_eq!(world.facts.len(), facts, "{}", world.tale());
    assert_eq!(world.count(|a| matches!(a, Action::Persist { .. })), persists);
}

#[test]
fn after_a_crash_the_vip_and_the_guard_are_adopted_and_the_former_values_stay_known() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    let mut world = world.restart(config());
    world.start();
    world.until("announced again", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { .. })), 0, "nothing had to be changed");
    assert!(world.vip("192.0.2.80").owned);
    assert_eq!(world.disk.as_ref().unwrap().arp["eth0"].ignore, 0);
}

#[test]
fn a_marked_address_is_adopted_without_any_record() {
    let mut view = kernel_view();
    let mut vip = address(LO, "192.0.2.80/32");
    vip.protocol = VIP_PROTOCOL;
    view.addresses.push(vip);
    let mut world = World::new(config(), view);
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    assert!(world.vip("192.0.2.80").owned);
    assert_eq!(world.count(is_add_vip), 0);
}

#[test]
fn a_marked_address_that_nobody_wants_any_more_is_removed() {
    let mut view = kernel_view();
    let mut old = address(LO, "192.0.2.99/32");
    old.protocol = VIP_PROTOCOL;
    view.addresses.push(old);
    let mut world = World::new(config(), view);
    world.start();
    world.run(secs(10));
    assert!(world.view.addresses.iter().all(|a| a.address != ip("192.0.2.99")));
    assert!(world.disk.as_ref().unwrap().owned.iter().all(|o| o.address != ip("192.0.2.99")));
}

#[test]
fn records_of_another_boot_are_void() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.run(secs(5));
    let mut state = world.disk.clone().unwrap();
    state.owned = state
        .owned
        .into_iter()
        .map(|mut o| {
            o.boot_id = "boot-0".into();
            o
        })
        .collect();
    for former in state.arp.values_mut() {
        former.boot_id = "boot-0".into();
        former.ignore = 7;
    }
    // After the reboot somebody else put the VIP there.
    let mut view = kernel_view();
    view.addresses.push(address(LO, "192.0.2.80/32"));
    let mut world = World::with_state(config(), view, state::StoredStateRead::Read(state), 3);
    world.start();
    world.run(secs(10));
    assert!(!world.vip("192.0.2.80").owned);
    assert_eq!(world.disk.as_ref().unwrap().arp["eth0"].ignore, 0, "read anew, not the other boot's");
}

#[test]
fn a_foreign_vip_is_used_shown_and_never_changed() {
    let mut view = kernel_view();
    view.addresses.push(address(LO, "192.0.2.80/32"));
    let mut world = World::new(config(), view);
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    let vip = world.vip("192.0.2.80");
    assert!(vip.present && !vip.owned && world.warned("foreign-vip"));
    let mut without = config();
    without.services.clear();
    world.reload(without);
    world.run(secs(10));
    assert!(!world.hears("tor1", "192.0.2.80"));
    assert!(world.view.addresses.iter().any(|a| a.address == ip("192.0.2.80")), "it is not ours to remove");
}

#[test]
fn no_probe_leaves_before_its_vip_is_there() {
    let mut view = kernel_view();
    view.links.get_mut(&LO).unwrap().up = false;
    let mut world = World::new(config(), view);
    world.start();
    world.run(secs(10));
    assert_eq!(world.count(|a| matches!(a, Action::StartProbe { .. })), 0);
    assert_eq!(world.reason("192.0.2.80"), Some(Reason::VipMissing));
    let explained = world.agent.explain(world.now, &"web".into()).unwrap();
    let gate = explained.vips[0].gates.iter().find(|g| g.gate == Reason::VipMissing).unwrap();
    assert_eq!(gate.remedy.as_deref(), Some("ip link set lo up"));
    world.view.links.get_mut(&LO).unwrap().up = true;
    world.show();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
}

#[test]
fn every_gate_is_explained_and_only_closed_ones_have_a_remedy() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    let explained = world.agent.explain(world.now, &"web".into()).unwrap();
    let vip = &explained.vips[0];
    assert_eq!((vip.gates.len(), vip.peers[0].gates.len()), (12, 5));
    for gate in vip.gates.iter().chain(&vip.peers[0].gates) {
        assert!(gate.open && gate.remedy.is_none() && !gate.text.is_empty(), "{gate:?}");
    }
    assert!(vip.peers[0].advertised);
    assert_eq!(world.agent.explain(world.now, &"none".into()), None);
}

#[test]
fn an_agent_written_down_and_read_back_goes_on_the_same() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.run(ms(2500));
    let text = serde_json::to_string(&world.agent).unwrap();
    let mut copy: Agent = serde_json::from_str(&text).unwrap();
    let at = world.agent.next_deadline().unwrap();
    assert_eq!(copy.next_deadline(), Some(at));
    let mut original = world.agent.clone();
    for _ in 0..5 {
        let at = original.next_deadline().unwrap();
        assert_eq!(copy.handle(at, Event::DeadlineReached), original.handle(at, Event::DeadlineReached));
        assert_eq!(copy.status(at), original.status(at));
    }
}

#[test]
fn without_connecting_it_prepares_guard_and_vips_and_leaves_them_when_it_ends() {
    let mut prepare = config();
    prepare.bgp.peers.values_mut().for_each(|peer| peer.connect = false);
    let mut world = World::new(prepare, kernel_view());
    world.start();
    world.until("prepared", secs(1), |w| w.vip("192.0.2.80").present);
    world.give(Event::Terminate);
    world.until("exit", secs(1), |w| w.exit == Some(0));
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 1);
    assert_eq!(world.count(|a| matches!(a, Action::Bgp(_))), 0);
}

#[test]
fn without_services_it_cleans_up_what_a_killed_agent_left_behind() {
    let before = kernel_view();
    let mut world = World::new(config(), before.clone());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    let mut nothing = config();
    nothing.services.clear();
    nothing.bgp.peers.clear();
    nothing.host.stop_removes_vip = true;
    let mut world = world.restart(nothing);
    world.start();
    world.give(Event::Terminate);
    world.until("exit", secs(1), |w| w.exit == Some(0));
    assert_eq!(world.view, before);
    let state = world.disk.unwrap();
    assert!(state.owned.is_empty() && state.arp.is_empty());
}

#[test]
fn a_vip_is_added_only_after_the_state_that_names_it_is_on_disk() {
    let mut config = config();
    config.services = [("web".into(), service(&["2001:db8::53"], vec![tcp_check("tcp")], &["tor1"]))].into();
    let mut world = World::new(config, kernel_view());
    world.disk_slow = Some(secs(5));
    world.start();
    world.run(secs(4));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { .. })), 0);
    world.until("there", secs(10), |w| w.vip("2001:db8::53").present);
    assert!(world.disk.as_ref().unwrap().owned.iter().any(|owned| owned.address == ip("2001:db8::53")));
}

/// The agent does nothing about it, so it must say who has to.
#[test]
fn a_peer_that_has_to_call_is_waited_for_in_words() {
    let mut config = config();
    config.bgp.listen = Some("0.0.0.0:179".parse().unwrap());
    config.bgp.peers.get_mut(&"tor1".into()).unwrap().connect = false;
    let mut world = World::new(config, kernel_view());
    world.start();
    world.run(secs(5));
    let peers = world.status().peers;
    let tor1 = peers.iter().find(|peer| peer.name == "tor1").unwrap();
    assert_eq!(tor1.waiting_for.as_deref(), Some("passive: the peer has to connect to 0.0.0.0:179"));
    let explained = world.agent.explain(world.now, &"web".into()).unwrap();
    let peer = explained.vips[0].peers.iter().find(|peer| peer.name == "tor1").unwrap();
    let gate = peer.gates.iter().find(|gate| gate.gate == Reason::SessionDown).unwrap();
    assert!(gate.text.contains("passive: the peer has to connect to 0.0.0.0:179"), "{gate:?}");
    assert_eq!(gate.remedy.as_deref(), Some("let the router connect to this host, or remove passive"));
}
