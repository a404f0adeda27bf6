//! Draining and putting back.

use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";

fn running() -> World {
    let mut world = World::new(config(), kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world
}

#[test]
fn a_drained_service_is_withdrawn_while_its_vip_stays_and_checks_go_on() {
    let mut world = running();
    let request = world.drain("web");
    assert_eq!(world.service("web").admin, "draining");
    assert_eq!(world.service("web").drain.unwrap().waiting_for, ["tor1"]);
    world.until("drained", secs(2), |w| w.service("web").admin == "drained");
    world.run(secs(5));
    assert!(!world.hears("tor1", VIP));
    assert_eq!(world.reason(VIP), Some(Reason::Drained));
    assert!(world.vip(VIP).present);
    assert_eq!(world.service("web").health, "up");
    assert_eq!(world.service("web").drain.unwrap().reason.as_deref(), Some("disk swap"));
    assert!(world.replies[&request].done);
    world.undrain("web");
    world.until("back", secs(2), |w| w.hears("tor1", VIP));
}

#[test]
fn the_reply_comes_after_the_state_is_on_disk() {
    let mut world = running();
    world.disk_slow = Some(secs(1));
    let request = world.drain("web");
    world.run(ms(900));
    assert!(!world.hears("tor1", VIP), "withdrawn at once");
    assert!(!world.replies.contains_key(&request), "but not promised yet");
    world.run(ms(200));
    assert!(world.replies[&request].done);
    assert!(world.disk.as_ref().unwrap().drained.contains_key(&"web".into()));
}

#[test]
fn draining_waits_for_the_peer_that_has_not_taken_its_withdrawal() {
    let mut world = running();
    world.routers.get_mut(&"tor1".into()).unwrap().reads = false;
    world.drain("web");
    world.run(secs(2));
    assert_eq!(world.service("web").admin, "draining");
    assert_eq!(world.service("web").drain.unwrap().waiting_for, ["tor1"]);
}

#[test]
fn a_drained_service_stays_drained_over_a_crash_and_a_reboot() {
    let mut world = running();
    world.drain("web");
    world.run(secs(1));
    let mut world = world.restart(config());
    world.start();
    world.run(secs(10));
    assert_eq!(world.reason(VIP), Some(Reason::Drained));
    assert_eq!(world.service("web").admin, "drained");
    assert_eq!(world.count(|a| matches!(a, Action::Record(Fact::VerdictChanged { announced: true, .. }))), 0);
    assert_eq!(world.service("web").drain.unwrap().reason.as_deref(), Some("disk swap"));
}

#[test]
fn an_unknown_service_is_refused_with_the_known_names() {
    let mut world = running();
    for request in [world.drain("wep"), world.undrain("wep")] {
        let reply = &world.replies[&request];
        assert!(!reply.done && reply.text.contains("configured: web"), "{reply:?}");
    }
    assert_eq!(world.service("web").admin, "enabled");
}

#[test]
fn all_services_are_drained_and_put_back_together() {
    let mut config = config();
    config.services.insert("dns".into(), service(&["192.0.2.53"], vec![tcp_check("tcp")], &["tor1"]));
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("both", secs(10), |w| w.hears("tor1", VIP) && w.hears("tor1", "192.0.2.53"));
    world.command(Command::Drain { service: None, reason: None });
    world.until("none", secs(1), |w| !w.hears("tor1", VIP) && !w.hears("tor1", "192.0.2.53"));
    let request = world.command(Command::Undrain { service: None });
    world.until("both again", secs(1), |w| w.hears("tor1", VIP) && w.hears("tor1", "192.0.2.53"));
    world.run(secs(1));
    assert_eq!(world.replies[&request].text, "put back: dns, web");
}
