//! VIPs that others delete, refuse, or own.

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

fn delete(world: &mut World) {
    world.view.addresses.retain(|a| a.address != ip(VIP));
    world.show();
}

fn adds(world: &World) -> usize {
    world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::AddVip { .. }, .. }))
}

#[test]
fn a_vip_of_ours_that_somebody_deletes_is_added_again_at_once() {
    let mut world = running();
    let before = adds(&world);
    delete(&mut world);
    assert_eq!(adds(&world), before + 1, "in answer to the very view that lacks it");
    assert_eq!(world.reason(VIP), Some(Reason::VipMissing), "withheld while it is not seen");
    world.until("announced again", secs(2), |w| w.hears("tor1", VIP));
    world.run(secs(2));
    world.assert_in_agreement();
}

#[test]
fn the_sixth_deletion_within_a_minute_is_a_contest_until_a_minute_of_quiet() {
    let mut world = running();
    for n in 1..=6 {
        delete(&mut world);
        if n < 6 {
            world.until("back", secs(2), |w| w.vip(VIP).present);
            assert_ne!(world.reason(VIP), Some(Reason::VipContested), "after {n}");
        }
    }
    let after_six = adds(&world);
    world.run(secs(9));
    assert_eq!(adds(&world), after_six, "not fought for at once any more");
    world.until("put back after a pause", secs(3), |w| w.vip(VIP).present);
    assert_eq!(world.reason(VIP), Some(Reason::VipContested));
    assert!(world.warned("vip-contested") && !world.hears("tor1", VIP));
    world.run(secs(45));
    assert!(!world.hears("tor1", VIP));
    world.until("quiet for a minute", secs(10), |w| w.hears("tor1", VIP));
}

#[test]
fn five_deletions_spread_over_minutes_are_no_contest() {
    let mut world = running();
    for _ in 0..20 {
        delete(&mut world);
        world.until("back", secs(2), |w| w.vip(VIP).present);
        world.run(secs(15));
        assert_eq!(world.reason(VIP), None);
    }
}

#[test]
fn a_refusal_is_shown_asked_again_with_pauses_and_told_once() {
    let mut world = World::new(config(), kernel_view());
    world.obedience =
        Obedience::No(Failure::new(FailureKind::PermissionDenied, "operation not permitted (CAP_NET_ADMIN)"));
    world.start();
    world.run(secs(100));
    let asked = world.count(|a| matches!(a, Action::Kernel { .. }));
    assert!((5..=9).contains(&asked), "1, 2, 4, 8, 16, 30 s: {asked}");
    assert_eq!(world.count(|a| matches!(a, Action::Record(Fact::KernelRefused { .. }))), 1);
    let warnings = world.status().warnings;
    assert!(
        warnings.iter().any(|w| w.code == "not-guarded" && w.text.contains("CAP_NET_ADMIN")),
        "{warnings:?}"
    );
    world.obedience = Obedience::Yes;
    world.until("announced", secs(40), |w| w.hears("tor1", VIP));
}

#[test]
fn a_kernel_that_never_answers_is_asked_again_after_ten_seconds() {
    let mut world = World::new(config(), kernel_view());
    world.obedience = Obedience::Mute;
    world.start();
    world.run(secs(9));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { .. })), 1);
    world.obedience = Obedience::Yes;
    world.until("announced", secs(20), |w| w.hears("tor1", VIP));
}

#[test]
fn a_tentative_vip_is_not_there_yet() {
    let mut view = kernel_view();
    let mut vip = address(LO, "192.0.2.80/32");
    vip.tentative = true;
    view.addresses.push(vip);
    let mut world = World::new(config(), view);
    world.start();
    world.run(secs(5));
    assert_eq!(world.reason(VIP), Some(Reason::VipMissing));
    world.view.addresses.last_mut().unwrap().tentative = false;
    world.show();
    world.until("announced", secs(5), |w| w.hears("tor1", VIP));
}

#[test]
fn a_vip_on_the_uplink_itself_is_withheld_because_no_guard_silences_it() {
    let mut view = kernel_view();
    view.addresses.push(address(ETH0, "192.0.2.80/32"));
    let mut world = World::new(config(), view);
    world.start();
    world.run(secs(5));
    assert_eq!(world.reason(VIP), Some(Reason::ArpNotGuarded));
    assert_eq!(world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::AddVip { .. }, .. })), 0);
}

#[test]
fn a_vip_of_ours_that_somebody_replaced_by_his_own_is_not_ours_any_more() {
    let mut world = running();
    delete_and_replace(&mut world);
    assert!(!world.vip(VIP).owned && world.vip(VIP).present);
    let mut without = config();
    without.services.clear();
    world.reload(without);
    world.run(secs(15));
    assert!(world.view.addresses.iter().any(|a| a.address == ip(VIP)));
}

fn delete_and_replace(world: &mut World) {
    for vip in world.view.addresses.iter_mut().filter(|a| a.address == ip(VIP)) {
        vip.protocol = 0;
    }
    world.show();
}

#[test]
fn a_vip_that_cannot_come_does_not_keep_the_old_one_for_ever() {
    let mut world = running();
    let mut next = config();
    next.services = [("web".into(), service(&["192.0.2.90"], vec![tcp_check("tcp")], &["tor1"]))].into();
    world.obedience = Obedience::Mute;
    world.view.links.get_mut(&ETH0).unwrap().settings.arp_ignore = 0;
    world.show();
    world.reload(next);
    world.run(secs(5));
    assert_eq!(
        world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::RemoveVip { .. }, .. })),
        0
    );
    world.run(secs(6));
    assert_eq!(
        world.count(|a| matches!(a, Action::Kernel { change: KernelRequest::RemoveVip { .. }, .. })),
        1
    );
}
