//! What checks do to announcements.

use anyvip_core::config::{Check, OnError};
use anyvip_core::*;

use crate::world::*;

fn running() -> World {
    with(config())
}

fn with(config: Config) -> World {
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", "192.0.2.80"));
    world
}

#[test]
fn a_service_that_dies_is_withdrawn_and_comes_back_when_it_heals() {
    let mut world = running();
    world.say("tcp", ProbeResult::Fail);
    world.until("withdrawn", secs(3), |w| !w.hears("tor1", "192.0.2.80"));
    assert_eq!(world.reason("192.0.2.80"), Some(Reason::Unhealthy));
    assert_eq!(world.service("web").health, "down");
    assert!(world.established("tor1"), "a withdrawal costs no session");
    world.say("tcp", ProbeResult::Pass);
    world.until("back", secs(3), |w| w.hears("tor1", "192.0.2.80"));
    world.run(secs(1));
    world.assert_in_agreement();
}

#[test]
fn the_withdrawal_leaves_in_the_answer_to_the_deciding_probe() {
    let mut world = running();
    world.say("tcp", ProbeResult::Fail);
    world.until("down", secs(3), |w| w.service("web").health == "down");
    let fact = world.position("check down", |a| {
        matches!(a, Action::Record(Fact::CheckChanged { to: boundary::HealthState::Down, .. }))
    });
    let sent = world.actions[fact..].iter().find(|(_, a)| matches!(a, Action::Bgp(_))).unwrap();
    assert_eq!(sent.0, world.actions[fact].0, "the UPDATE waits for nothing");
}

#[test]
fn one_check_flapping_below_fall_never_withdraws() {
    let mut world = running();
    for _ in 0..30 {
        world.say("tcp", ProbeResult::Fail);
        world.until("one fail", secs(2), |w| {
            w.service("web").checks[0].last.as_ref().unwrap().result == ProbeResult::Fail
        });
        world.say("tcp", ProbeResult::Pass);
        world.until("one pass", secs(2), |w| {
            w.service("web").checks[0].last.as_ref().unwrap().result == ProbeResult::Pass
        });
    }
    assert_eq!(world.withdrawals(), 0);
}

#[test]
fn a_probe_that_cannot_be_made_holds_and_is_shown() {
    let mut world = running();
    world.say("tcp", ProbeResult::Error);
    world.run(secs(30));
    assert!(world.hears("tor1", "192.0.2.80"));
    assert_eq!(world.service("web").checks[0].state, "error");
    let told = world.count(|a| matches!(a, Action::Record(Fact::CheckError { detail: Some(_), .. })));
    assert_eq!(told, 1, "once for the whole run of errors");
    world.say("tcp", ProbeResult::Fail);
    world.until("withdrawn", secs(3), |w| !w.hears("tor1", "192.0.2.80"));
}

#[test]
fn with_on_error_fail_a_probe_that_cannot_be_made_withdraws() {
    let mut config = config();
    config.services.get_mut(&"web".into()).unwrap().on_error = OnError::Fail;
    let mut world = with(config);
    world.say("tcp", ProbeResult::Error);
    world.until("withdrawn", secs(4), |w| !w.hears("tor1", "192.0.2.80"));
    assert_eq!(world.reason("192.0.2.80"), Some(Reason::CheckError));
    assert_eq!(world.service("web").health, "error");
    world.say("tcp", ProbeResult::Pass);
    world.until("back", secs(4), |w| w.hears("tor1", "192.0.2.80"));
}

#[test]
fn an_unanswered_probe_is_an_error_after_its_guard_and_counted_as_a_bug() {
    let mut world = running();
    world.mute_probes = true;
    world.until("error", secs(15), |w| w.service("web").checks[0].state == "error");
    assert!(world.warned("internal"));
    assert!(world.hears("tor1", "192.0.2.80"), "no answer is no failure of the service");
    world.mute_probes = false;
    world.until("probing goes on", secs(15), |w| w.service("web").checks[0].state == "up");
}

#[test]
fn a_check_of_its_own_gates_every_vip_and_a_check_on_a_vip_gates_that_one() {
    let mut config = config();
    let vips = ["192.0.2.80", "192.0.2.81"];
    config
        .services
        .insert("web".into(), service(&vips, vec![tcp_check("tcp"), own_check("disk")], &["tor1"]));
    let mut world = with(config);
    world.until("both", secs(5), |w| w.hears("tor1", "192.0.2.81"));
    world.probes.insert(("tcp".into(), Some(ip("192.0.2.81"))), ProbeResult::Fail);
    world.until("one gone", secs(4), |w| !w.hears("tor1", "192.0.2.81"));
    assert!(world.hears("tor1", "192.0.2.80"));
    assert_eq!(world.service("web").health, "down", "down if any is down");
    world.say("disk", ProbeResult::Fail);
    world.until("both gone", secs(4), |w| !w.hears("tor1", "192.0.2.80"));
}

#[test]
fn a_service_is_unknown_until_each_check_is_decided() {
    let mut config = config();
    let slow = Check { interval: secs(20), rise: 1, ..own_check("slow") };
    config.services.get_mut(&"web".into()).unwrap().checks.push(slow);
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("the quick one is up", secs(5), |w| w.service("web").checks[0].state == "up");
    if world.service("web").checks[1].state == "unknown" {
        assert_eq!(world.reason("192.0.2.80"), Some(Reason::NotYetChecked));
    }
    world.until("announced", secs(25), |w| w.hears("tor1", "192.0.2.80"));
    assert_eq!(world.service("web").checks[1].state, "up");
}

#[test]
fn without_checks_a_service_is_up() {
    let mut config = config();
    config.services.get_mut(&"web".into()).unwrap().checks.clear();
    let world = with(config);
    assert_eq!(world.service("web").health, "up");
}

#[test]
fn a_session_that_comes_back_is_told_everything_again() {
    let mut world = running();
    world.kill_router("tor1");
    world.run(secs(3));
    assert_eq!(world.peer_reason("192.0.2.80", "tor1"), Some(Reason::SessionDown));
    assert_eq!(world.reason("192.0.2.80"), None, "the service is wanted, the peer is away");
    let errors = world.count(|a| matches!(a, Action::Record(Fact::PeerDown { was_established: false, .. })));
    assert!(errors <= 1, "equal failures of attempts are told once");
    world.revive_router("tor1");
    world.until("announced again", secs(10), |w| w.hears("tor1", "192.0.2.80"));
}

#[test]
fn what_was_known_of_a_vip_is_forgotten_when_it_was_away_for_long() {
    let mut world = running();
    world.obedience = Obedience::No(anyvip_machine::Failure::new(
        anyvip_machine::FailureKind::PermissionDenied,
        "operation not permitted",
    ));
    world.view.addresses.retain(|a| a.address != ip("192.0.2.80"));
    world.show();
    world.run(secs(20));
    assert_eq!(world.reason("192.0.2.80"), Some(Reason::VipMissing));
    // Meanwhile the service died; the old "up" must not be announced.
    world.say("tcp", ProbeResult::Fail);
    world.obedience = Obedience::Yes;
    world.until("there again", secs(40), |w| w.vip("192.0.2.80").present);
    assert_eq!(world.reason("192.0.2.80"), Some(Reason::NotYetChecked));
    world.until("down", secs(5), |w| w.reason("192.0.2.80") == Some(Reason::Unhealthy));
}
