//! What is written, what cannot be, and what past runs left behind.

use anyvip_core::state::{StoredState, StoredStateRead};
use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";

#[test]
fn a_drain_that_cannot_be_written_holds_and_says_so_honestly() {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world.disk_full = true;
    let request = world.drain("web");
    world.run(secs(1));
    let reply = &world.replies[&request];
    assert!(!reply.done && reply.text.contains("no space left on device"), "{reply:?}");
    assert!(!world.hears("tor1", VIP), "drained all the same");
    assert!(world.warned("state-not-written"));
    world.run(secs(60));
    assert_eq!(world.count(|a| matches!(a, Action::Record(Fact::PersistFailed { .. }))), 1, "told once");
    world.disk_full = false;
    world.until("written", secs(31), |w| w.disk.as_ref().unwrap().drained.contains_key(&"web".into()));
    assert!(!world.warned("state-not-written"));
}

#[test]
fn an_unreadable_state_withholds_and_leaves_guard_vip_and_file_alone() {
    let mut view = kernel_view();
    let mut vip = address(LO, "192.0.2.80/32");
    vip.protocol = kernel::VIP_PROTOCOL;
    view.addresses.push(vip);
    let before = view.clone();
    let unreadable = StoredStateRead::Unreadable("expected value at line 1".into());
    let mut world = World::with_state(config(), view, unreadable, 1);
    world.start();
    world.run(secs(30));
    assert_eq!(world.reason(VIP), Some(Reason::StateUnreadable));
    assert_eq!(world.view, before);
    let changes = |a: &Action| matches!(a, Action::Kernel { .. } | Action::Persist { .. });
    assert_eq!(world.count(changes), 0);
    assert!(world.warned("state-unreadable"));
    let request = world.drain("web");
    assert!(!world.replies[&request].done);
    world.give(Event::Terminate);
    world.until("exit", secs(5), |w| w.exit == Some(0));
    assert_eq!(world.count(changes), 0);
}

#[test]
fn a_state_of_a_newer_version_is_unreadable() {
    let state = StoredState { version: 2, ..StoredState::default() };
    let mut world = World::with_state(config(), kernel_view(), StoredStateRead::Read(state), 1);
    world.start();
    world.run(secs(5));
    assert_eq!(world.reason(VIP), Some(Reason::StateUnreadable));
}

#[test]
fn after_three_unclean_exits_announcing_waits_and_then_begins_by_itself() {
    let mut world = World::new(config(), kernel_view());
    for n in 0..4 {
        world.start();
        world.run(secs(4));
        if n == 3 {
            break;
        }
        assert!(world.hears("tor1", VIP), "run {n}");
        world = world.restart(config());
    }
    assert_eq!(world.reason(VIP), Some(Reason::CrashLoop));
    assert!(world.warned("crash-loop") && world.vip(VIP).present);
    world.until("announced", secs(7), |w| w.hears("tor1", VIP));
    assert!(world.now.as_millis() >= 10_000);
}

#[test]
fn an_orderly_stop_ends_a_crash_loop() {
    let mut world = World::new(config(), kernel_view());
    for _ in 0..3 {
        world.start();
        world.run(secs(4));
        world = world.restart(config());
    }
    world.start();
    world.run(secs(1));
    assert_eq!(world.reason(VIP), Some(Reason::CrashLoop));
    assert_eq!(world.count(|a| matches!(a, Action::Record(Fact::HeldBack { .. }))), 1);
    world.give(Event::Terminate);
    world.until("exit", secs(5), |w| w.exit == Some(0));
    let mut world = world.restart(config());
    world.start();
    world.until("announced at once", secs(5), |w| w.hears("tor1", VIP));
}

#[test]
fn orderly_restarts_are_no_crash_loop() {
    let mut world = World::new(config(), kernel_view());
    for _ in 0..6 {
        world.start();
        world.until("announced", secs(5), |w| w.hears("tor1", VIP));
        world.give(Event::Terminate);
        world.until("exit", secs(5), |w| w.exit == Some(0));
        world = world.restart(config());
    }
    assert!(world.disk.unwrap().unclean_exits.is_empty());
}

#[test]
fn an_operator_does_not_wait_for_the_pause_after_a_failed_write() {
    let mut world = World::new(config(), kernel_view());
    world.disk_full = true;
    world.start();
    // By now the pause between two tries is half a minute.
    world.run(secs(90));
    for service_is_in in [false, true] {
        let request = if service_is_in { world.undrain("web") } else { world.drain("web") };
        world.run(secs(1));
        let reply = world.replies.get(&request).expect("answered at once");
        assert!(!reply.done && reply.text.contains("no space left"), "{reply:?}");
    }
}
