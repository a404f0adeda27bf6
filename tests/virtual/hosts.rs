//! What happens to hosts.

use anyvip_core::Reason;
use anyvip_virtual::world::{Condition, Fault, Probing};

use crate::lab::{Small, established, next_hops, secs, uses, vip};

#[test]
fn a_service_that_dies_is_withdrawn_everywhere_and_comes_back_when_it_serves_again() {
    let mut lab = Small::new(1);
    lab.service("h1", Condition::Dead);
    let took = lab
        .until("h1 is withdrawn", secs(5), |world| !uses(world, "tor0", "h1") && !uses(world, "tor1", "h1"));
    assert!(took < secs(3), "two failures at one check a second: {took:?}");
    assert!(uses(&lab.world, "tor0", "h0") && established(&lab.world, "h1", "tor0"));
    lab.service("h1", Condition::Serving);
    lab.until("h1 is back", secs(5), |world| next_hops(world, "tor0") == 3 && next_hops(world, "tor1") == 3);
}

#[test]
fn an_agent_that_is_killed_is_gone_from_the_routers_at_once_and_adopts_its_vip_when_it_returns() {
    let mut lab = Small::new(2);
    let host = lab.node("h0");
    lab.fault(Fault::KillAgent { host });
    let took =
        lab.until("h0 is gone", secs(1), |world| !uses(world, "tor0", "h0") && !uses(world, "tor1", "h0"));
    assert!(took < secs(1), "its kernel closes the connections: {took:?}");
    assert!(lab.world.host(host).unwrap().kernel.has(vip()), "the VIP stays");
    lab.fault(Fault::StartAgent { host });
    lab.until("h0 is back", secs(10), |world| next_hops(world, "tor0") == 3);
    let agent = lab.world.host(host).unwrap().agent().unwrap();
    let status = agent.status(lab.world.now());
    assert!(status.services[0].vips[0].owned);
}

#[test]
fn a_host_that_loses_power_is_missed_only_when_the_link_or_the_hold_time_tells() {
    let mut lab = Small::new(3);
    let host = lab.node("h2");
    lab.fault(Fault::PowerOff { host });
    lab.until("the routers see the link go", secs(1), |world| next_hops(world, "tor0") == 2);
    lab.fault(Fault::PowerOn { host, state: true });
    lab.until("h2 is back", secs(10), |world| next_hops(world, "tor0") == 3 && next_hops(world, "tor1") == 3);
    assert_eq!(lab.world.host(host).unwrap().boots, 2);
}

#[test]
fn a_frozen_agent_loses_its_sessions_by_hold_time_and_wins_them_back() {
    let mut lab = Small::new(4);
    let node = lab.node("h0");
    lab.fault(Fault::Freeze { node });
    let took = lab.until("the hold time ends", secs(12), |world| !uses(world, "tor0", "h0"));
    assert!(took > secs(6), "{took:?}");
    lab.pass(secs(5));
    lab.fault(Fault::Continue { node });
    lab.until("h0 is back", secs(10), |world| uses(world, "tor0", "h0") && uses(world, "tor1", "h0"));
}

#[test]
fn a_freeze_within_the_hold_time_costs_no_session_because_what_came_is_read_first() {
    let mut lab = Small::new(5);
    let node = lab.node("h0");
    for _ in 0..20 {
        lab.fault(Fault::Freeze { node });
        lab.pass(secs(5));
        lab.fault(Fault::Continue { node });
        lab.pass(secs(3));
        assert!(uses(&lab.world, "tor0", "h0") && uses(&lab.world, "tor1", "h0"), "{}", lab.tale());
    }
}

#[test]
fn a_deleted_vip_is_put_back_and_one_that_somebody_fights_for_is_withheld() {
    let mut lab = Small::new(6);
    let host = lab.node("h1");
    lab.fault(Fault::DeleteAddress { host, address: vip() });
    lab.until("it is put back", secs(2), |world| world.host(host).unwrap().kernel.has(vip()));
    for _ in 0..12 {
        lab.fault(Fault::DeleteAddress { host, address: vip() });
        lab.pass(secs(2));
    }
    let status = lab.world.host(host).unwrap().agent().unwrap().status(lab.world.now());
    assert_eq!(status.services[0].vips[0].reason, Some(Reason::VipContested));
    assert!(!uses(&lab.world, "tor0", "h1"));
}

#[test]
fn arp_values_that_somebody_changed_are_found_within_a_guard_period_and_set_again() {
    let mut lab = Small::new(7);
    let host = lab.node("h0");
    let index = lab.world.host(host).unwrap().kernel.index_of("eth0").unwrap();
    assert!(lab.world.host(host).unwrap().kernel.arp_guarded(index));
    lab.fault(Fault::SetArp { host, interface: "eth0".into(), ignore: 0, announce: 0 });
    assert!(!lab.world.host(host).unwrap().kernel.arp_guarded(index));
    lab.until("it is guarded again", secs(6), |world| world.host(host).unwrap().kernel.arp_guarded(index));
}

#[test]
fn a_kernel_that_refuses_is_asked_again_until_it_obeys() {
    let mut lab = Small::new(8);
    let host = lab.node("h0");
    lab.fault(Fault::NetlinkRefuses { host, kind: Some(anyvip_machine::FailureKind::PermissionDenied) });
    lab.fault(Fault::DeleteAddress { host, address: vip() });
    lab.until("it is withdrawn", secs(2), |world| !uses(world, "tor0", "h0"));
    lab.pass(secs(20));
    lab.fault(Fault::NetlinkRefuses { host, kind: None });
    lab.until("it is announced again", secs(40), |world| uses(world, "tor0", "h0"));
}

#[test]
fn a_view_that_comes_late_withdraws_nothing() {
    let mut lab = Small::new(9);
    let host = lab.node("h0");
    lab.fault(Fault::ViewLag { host, lag: secs(20) });
    lab.fault(Fault::SetArp { host, interface: "lo".into(), ignore: 1, announce: 0 });
    for _ in 0..30 {
        lab.pass(secs(1));
        assert!(uses(&lab.world, "tor0", "h0"));
    }
}

#[test]
fn probes_that_cannot_be_made_change_nothing_and_those_that_hang_count_as_failures() {
    let mut lab = Small::new(10);
    let host = lab.node("h0");
    lab.fault(Fault::Probes { host, service: None, probing: Probing::Error });
    lab.pass(secs(30));
    assert!(uses(&lab.world, "tor0", "h0"));
    lab.fault(Fault::Probes { host, service: None, probing: Probing::Hangs });
    lab.until("it is withdrawn", secs(5), |world| !uses(world, "tor0", "h0"));
}

#[test]
fn an_uplink_that_flaps_shortly_keeps_its_agent_announced_on_the_other() {
    let mut lab = Small::new(11);
    let (port, _) = lab.port("h0", "eth0");
    lab.fault(Fault::Port { port, up: false });
    lab.until("tor0 misses h0", secs(1), |world| !uses(world, "tor0", "h0"));
    lab.pass(secs(20));
    assert!(uses(&lab.world, "tor1", "h0"));
    lab.fault(Fault::Port { port, up: true });
    lab.until("tor0 has h0 again", secs(40), |world| uses(world, "tor0", "h0"));
}

#[test]
fn a_crash_loop_makes_announcing_wait() {
    let mut lab = Small::new(12);
    let host = lab.node("h0");
    for _ in 0..5 {
        lab.fault(Fault::KillAgent { host });
        lab.pass(secs(1));
        lab.fault(Fault::StartAgent { host });
        lab.pass(secs(4));
    }
    let status = lab.world.host(host).unwrap().agent().unwrap().status(lab.world.now());
    assert_eq!(status.services[0].vips[0].reason, Some(Reason::CrashLoop));
    lab.until("it announces in the end", secs(400), |world| uses(world, "tor0", "h0"));
}
