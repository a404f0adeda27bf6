//! The end in order.

use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";

fn running(config: Config) -> World {
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world
}

fn is_close(action: &Action) -> bool {
    matches!(action, Action::Bgp(anyvip_bgp::Action::Close { .. }))
}

#[test]
fn sigterm_withdraws_waits_the_stop_time_ceases_writes_a_clean_exit_and_exits_zero() {
    let mut world = running(config());
    let begun = world.now;
    world.give(Event::Terminate);
    world.until("withdrawn", secs(1), |w| !w.hears("tor1", VIP));
    assert!(world.established("tor1"), "the session outlives the withdrawal");
    assert_eq!(world.count(is_close), 0);
    assert_eq!(world.reason(VIP), Some(Reason::Stopping));
    world.until("exit", secs(3), |w| w.exit.is_some());
    assert!(world.now.since(begun) >= secs(2));
    assert_eq!(world.exit, Some(0));
    world.run(secs(1));
    assert_eq!(world.disk.as_ref().unwrap().running_since, None);
    let ends = &world.routers[&"tor1".into()].ends;
    assert!(ends[0].contains("code: 6, subcode: 2"), "Cease, administrative shutdown: {ends:?}");
    assert!(world.view.addresses.iter().any(|a| a.address == ip(VIP)), "the VIP stays");
    assert_eq!(world.view.links[&ETH0].settings.arp_ignore, 1, "and so does the guard");
    let close = world.position("close", is_close);
    let exit = world.position("exit", |a| matches!(a, Action::Exit { .. }));
    assert!(close < exit);
}

#[test]
fn a_second_sigterm_skips_the_wait() {
    let mut config = config();
    config.host.stop_time = secs(3600);
    let mut world = running(config);
    world.give(Event::Terminate);
    world.run(secs(5));
    assert_eq!(world.exit, None);
    world.give(Event::Terminate);
    world.until("exit", secs(1), |w| w.exit == Some(0));
    assert_eq!(world.disk.as_ref().unwrap().running_since, None);
}

#[test]
fn with_nothing_announced_there_is_nothing_to_wait_for() {
    let mut world = World::new(config(), kernel_view());
    world.routers.get_mut(&"tor1".into()).unwrap().up = false;
    world.start();
    world.run(secs(5));
    world.give(Event::Terminate);
    world.until("exit", ms(100), |w| w.exit == Some(0));
}

#[test]
fn a_peer_that_takes_nothing_does_not_hold_the_stop_for_ever() {
    let mut world = running(config());
    world.routers.get_mut(&"tor1".into()).unwrap().reads = false;
    world.give(Event::Terminate);
    // The stop time is two seconds, but begins when everybody knows.
    world.run(secs(4));
    assert_eq!((world.count(is_close), world.exit), (0, None), "the withdrawal may still be taken");
    world.until("exit", secs(10), |w| w.exit == Some(0));
    assert_eq!(world.disk.as_ref().unwrap().running_since, None, "the exit is clean");
}

#[test]
fn stop_removes_vip_takes_vips_then_the_guard_then_exits() {
    let mut config = config();
    config.host.stop_removes_vip = true;
    let mut world = running(config);
    world.give(Event::Terminate);
    world.until("exit", secs(5), |w| w.exit == Some(0));
    let order = [
        world.position("close", is_close),
        world
            .position("VIP", |a| matches!(a, Action::Kernel { change: KernelRequest::RemoveVip { .. }, .. })),
        world.position("guard", |a| {
            matches!(a, Action::Kernel { change: KernelRequest::SetArp { ignore: 0, .. }, .. })
        }),
        world.position("exit", |a| matches!(a, Action::Exit { .. })),
    ];
    assert!(order.is_sorted(), "{order:?}");
    let alarm = |a: &Action| {
        matches!(
            a,
            Action::Record(Fact::ArpChanged { guarded: false, .. } | Fact::PeerDown { planned: false, .. })
        )
    };
    assert_eq!(world.count(alarm), 0, "what we do ourselves is no alarm: {}", world.tale());
    let state = world.disk.as_ref().unwrap();
    assert!(state.owned.is_empty() && state.arp.is_empty());
    assert!(world.view.addresses.iter().all(|a| a.address != ip(VIP)));
}

#[test]
fn a_disk_that_fails_at_the_end_does_not_keep_the_process() {
    let mut world = running(config());
    world.disk_full = true;
    world.give(Event::Terminate);
    world.until("exit", secs(20), |w| w.exit == Some(0));
}

#[test]
fn commands_are_refused_while_stopping() {
    let mut world = running(config());
    world.give(Event::Terminate);
    let request = world.drain("web");
    assert!(!world.replies[&request].done);
}
