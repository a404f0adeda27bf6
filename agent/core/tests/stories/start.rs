//! How an agent comes up: order in, adoption, and what is not its own.

use anyvip_core::*;

use crate::world::*;

fn is_set_arp(action: &Action) -> bool {
    matches!(
        action,
        Action::Kernel { change: KernelRequest::SetArp { interface: ETH0, ignore: 1, announce: 2 }, .. }
    )
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
