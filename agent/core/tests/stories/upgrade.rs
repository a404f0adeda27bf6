//! One version of the program makes room for another, and no route is lost.

use anyvip_bfd::{Cause, Diagnostic, Fact as BfdFact, Negotiated, State, StateChanged, Wish};
use anyvip_bgp::PeerName;
use anyvip_core::boundary::{HealthState, ProbeResult};
use anyvip_core::config::{Bfd, StaticPeer};
use anyvip_core::restored::{Inheritance, Restored};
use anyvip_core::*;
use anyvip_machine::{Failure, FailureKind};

use crate::world::*;

const VIP: &str = "192.0.2.80";
const OTHER: &str = "192.0.2.81";
const GUARD: Bfd = Bfd {
    interval: std::time::Duration::from_millis(300),
    multiplier: 3,
    strict: true,
    min_ttl: None,
    authentication: None,
};

/// The router agrees to keep routes.
fn graceful() -> Config {
    let mut config = config();
    config.bgp.peers.get_mut(&"tor1".into()).unwrap().session.graceful_restart = Some(secs(10));
    config
}

fn running(config: Config) -> World {
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world.run(secs(1));
    world
}

fn upgrade(world: &mut World, force: bool) -> Reply {
    let request = world.command(Command::Upgrade { to: "anyvip 9".to_owned(), force });
    world.run(ms(1));
    world.replies[&request].clone()
}

/// What is handed down; the old process is about to be replaced.
fn handed_down(world: &mut World) -> Restored {
    world.until("handed down", secs(5), |w| w.count(|a| matches!(a, Action::HandDown { .. })) == 1);
    let found = world.actions.iter().rev().find_map(|(_, action)| match action {
        Action::HandDown { restored } => Some(restored.clone()),
        _ => None,
    });
    world.give(Event::HandedDown { result: Ok(()) });
    assert_eq!(world.count(|a| matches!(a, Action::Replace)), 1);
    found.unwrap()
}

fn heir(world: World, config: Config, restored: Restored, age: u64) -> World {
    let inheritance = Inheritance { from: "0.0.9".to_owned(), age: secs(age), restored };
    let mut world = world.replaced(config, inheritance);
    world.start();
    world
}

fn ends_of_rib_said(world: &World) -> bool {
    world.agent.speaker().peer(&PeerName::from("tor1")).unwrap().said_end_of_rib()
}

fn phase(world: &World) -> String {
    world.status().upgrade.map_or_else(String::new, |upgrade| upgrade.phase)
}

fn path(world: &mut World, from: State, to: State, cause: Cause) {
    let change = StateChanged { session: "10.0.1.1".into(), from, to, diagnostic: Diagnostic::NONE, cause };
    world.give(Event::Bfd(BfdFact::StateChanged(change)));
}

fn negotiated(world: &mut World, transmit: std::time::Duration) {
    let agreed = Negotiated { session: "10.0.1.1".into(), transmit: Some(transmit), detection: ms(900) };
    world.give(Event::Bfd(BfdFact::Negotiated(agreed)));
}

#[test]
fn the_heir_announces_before_any_check_and_says_that_this_is_all_when_its_own_checks_have_decided() {
    let mut world = running(graceful());
    assert_eq!(world.status().peers[0].graceful_restart_s, Some(10));
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    let check = &restored.services[&"web".into()].checks[0];
    assert_eq!((check.state, check.age < secs(2)), (HealthState::Up, true));
    let mut world = heir(world, graceful(), restored, 1);
    world.until("announced", ms(900), |w| w.hears("tor1", VIP));
    assert!(world.status().services[0].checks[0].inherited_ms.is_some());
    assert_eq!((world.status().services[0].health.as_str(), phase(&world).as_str()), ("up", "taking_over"));
    assert_eq!(world.status().upgrade.unwrap().waiting_for, ["tor1"]);
    assert!(!ends_of_rib_said(&world));
    world.until("decided", secs(3), |w| w.status().services[0].checks[0].inherited_ms.is_none());
    world.run(ms(1));
    assert!(ends_of_rib_said(&world));
    assert_eq!(phase(&world), "done");
    assert_eq!(world.withdrawals(), 0);
    world.run(secs(60));
    assert!(world.hears("tor1", VIP) && world.disk.as_ref().unwrap().unclean_exits.is_empty());
}

#[test]
fn a_service_that_is_found_dead_is_withdrawn_before_the_router_is_told_that_this_is_all() {
    let mut config = graceful();
    config.services.insert("dns".into(), service(&[OTHER], vec![own_check("dns")], &["tor1"]));
    let mut world = running(config.clone());
    world.until("both", secs(5), |w| w.hears("tor1", OTHER));
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    world.say("dns", ProbeResult::Fail);
    let mut world = heir(world, config, restored, 0);
    world.until("announced", ms(500), |w| w.hears("tor1", VIP));
    while world.status().services.iter().any(|s| s.checks.iter().any(|check| check.inherited_ms.is_some())) {
        assert!(!ends_of_rib_said(&world), "{}", world.tale());
        world.run(ms(5));
    }
    assert!(!world.hears("tor1", OTHER) && world.hears("tor1", VIP));
    assert!(ends_of_rib_said(&world));
}

#[test]
fn a_service_that_cannot_be_checked_keeps_routers_waiting_for_half_a_minute_and_no_longer() {
    let mut world = running(graceful());
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    world.say("tcp", ProbeResult::Error);
    let mut world = heir(world, graceful(), restored, 0);
    world.run(ms(29_900));
    assert!(world.hears("tor1", VIP) && !ends_of_rib_said(&world));
    world.run(ms(200));
    assert!(world.hears("tor1", VIP) && ends_of_rib_said(&world));
    let upgrade = world.status().upgrade.unwrap();
    assert!(
        upgrade.text.contains("not all was decided within 30 s towards tor1; not checked yet: web"),
        "{upgrade:?}"
    );
}

#[test]
fn health_that_was_heard_of_more_than_30_s_ago_is_not_believed() {
    let mut world = running(graceful());
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    let mut world = heir(world, graceful(), restored, 30);
    world.run(ms(1));
    assert_eq!(world.reason(VIP), Some(Reason::NotYetChecked));
    assert_eq!(world.status().services[0].checks[0].inherited_ms, None);
    world.until("checked", secs(5), |w| w.hears("tor1", VIP));
}

#[test]
fn a_router_that_would_drop_routes_is_named_and_nothing_happens_unless_by_force() {
    let mut world = running(config());
    let plan = world.agent.upgrade_plan(world.now);
    let lost: Vec<_> = plan.lost().map(|line| format!("{}: {}", line.subject, line.text)).collect();
    assert_eq!(
        lost,
        ["peer tor1: drops 1 route until the new session stands: graceful_restart is off for it"]
    );
    let refused = upgrade(&mut world, false);
    assert!(!refused.done && refused.text.contains(&lost[0]), "{}", refused.text);
    assert_eq!(phase(&world), "");
    world.run(secs(5));
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. })), 0);
    assert!(upgrade(&mut world, true).done);
    handed_down(&mut world);
    assert!(!upgrade(&mut world, true).done, "one at a time");
}

#[test]
fn the_plan_names_what_cannot_be_kept() {
    let mut config = graceful();
    let mut slow = tcp_check("slow");
    slow.interval = secs(60);
    (slow.rise, slow.fall) = (1, 1);
    config.services.insert("backup".into(), service(&[OTHER], vec![slow], &["tor1"]));
    config.statics.insert("rtr".into(), StaticPeer { address: ip("10.0.1.1"), interface: None, bfd: GUARD });
    config.services.get_mut(&"web".into()).unwrap().statics.insert("rtr".into());
    let mut world = World::new(config, kernel_view());
    world.start();
    path(&mut world, State::Init, State::Up, Cause::Handshake);
    world.until("both", secs(90), |w| w.hears("tor1", VIP) && w.hears("tor1", OTHER));
    world.run(secs(35));
    let plan = world.agent.upgrade_plan(world.now);
    let line = |subject: &str| {
        let line = plan.lines.iter().find(|line| line.subject == subject).unwrap();
        (line.kept, line.text.clone())
    };
    assert_eq!(line("peer tor1"), (true, "keeps 2 routes for up to 10 s".to_owned()));
    assert!(!line("static peer rtr").0);
    let (kept, text) = line("service backup");
    assert!(!kept && text.contains("slow was not answered in the last 30 s"), "{text}");
    assert!(line("service web").0);
}

#[test]
fn the_plan_says_that_a_passive_peer_has_to_call_again_and_that_probes_have_to_wait() {
    let mut config = graceful();
    config.responder.listen = Some("0.0.0.0:8090".parse().unwrap());
    config.responder.ports.insert("web".into(), "10.0.1.11:8053".parse().unwrap());
    let mut world = running(config.clone());
    config.bgp.peers.get_mut(&"tor1".into()).unwrap().connect = false;
    world.reload(config);
    world.run(ms(1));
    let line = |world: &World, subject: &str| {
        let plan = world.agent.upgrade_plan(world.now);
        let line = plan.lines.into_iter().find(|line| line.subject == subject).unwrap();
        assert!(line.kept, "{subject}");
        line.text
    };
    assert_eq!(
        line(&world, "peer tor1"),
        "keeps 1 route for up to 10 s if it calls us again within that time"
    );
    let text = line(&world, "probes");
    assert!(text.starts_with("on 0.0.0.0:8090, 10.0.1.11:8053 wait for the new version"), "{text}");
    // The port of a service that is not offered is closed anyway.
    world.drain("web");
    let text = line(&world, "probes");
    assert!(text.starts_with("on 0.0.0.0:8090 wait"), "{text}");
}

#[test]
fn a_service_that_only_probes_know_of_is_named_where_it_cannot_be_inherited() {
    let mut config = config();
    let mut slow = tcp_check("slow");
    slow.interval = secs(60);
    (slow.rise, slow.fall) = (1, 1);
    config.services = [("backup".into(), service(&[VIP], vec![slow], &[]))].into();
    config.responder.listen = Some("0.0.0.0:8090".parse().unwrap());
    let mut world = World::new(config, kernel_view());
    world.start();
    let lost = |world: &World| -> Vec<String> {
        world.agent.upgrade_plan(world.now).lost().map(|line| line.subject.clone()).collect()
    };
    let offered = |world: &World| {
        world.answers.last().is_some_and(|said| said.services[&"backup".into()].reason.is_none())
    };
    world.until("offered", secs(90), offered);
    assert!(lost(&world).is_empty());
    world.run(secs(35));
    assert_eq!(lost(&world), ["service backup"]);
}

/// Announced over a path that BFD guards with a packet each 300 ms, and asked to become another version.
fn guarded_and_asked() -> World {
    let mut config = graceful();
    config.bgp.bfd.insert("tor1".into(), GUARD);
    let mut world = World::new(config, kernel_view());
    world.start();
    path(&mut world, State::Init, State::Up, Cause::Handshake);
    negotiated(&mut world, ms(300));
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    assert!(upgrade(&mut world, false).done);
    world
}

/// RFC 5880 §6.5: nothing is given up before the peer has agreed to wait.
#[test]
fn bfd_that_guards_a_peer_is_slowed_down_first_and_fast_again_if_nothing_comes_of_it() {
    let mut world = guarded_and_asked();
    let sends =
        |world: &World| world.bfd.0.values().map(|session| (session.wish, session.desired_min_tx)).next();
    assert_eq!(sends(&world), Some((Wish::Up, secs(1))));
    assert_eq!(world.bfd.0.values().next().unwrap().required_min_rx, ms(300), "we notice as fast as ever");
    world.run(ms(500));
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. })), 0, "the router has to agree");
    negotiated(&mut world, secs(1));
    handed_down(&mut world);
    let failure = Failure::new(FailureKind::NotFound, "cannot become /x: No such file or directory");
    world.give(Event::NotReplaced { failure });
    assert_eq!(sends(&world), Some((Wish::Up, ms(300))));
    let upgrade = world.status().upgrade.unwrap();
    assert_eq!(upgrade.phase, "failed");
    assert!(upgrade.text.contains("this version goes on: cannot become /x"), "{upgrade:?}");
    assert!(world.established("tor1") && world.hears("tor1", VIP));
}

#[test]
fn a_router_that_does_not_agree_to_fewer_packets_is_not_waited_for_longer_than_two_seconds() {
    let mut world = guarded_and_asked();
    world.run(ms(1_900));
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. })), 0);
    world.run(ms(200));
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. })), 1);
}

#[test]
fn with_strict_bfd_the_router_is_not_told_that_this_is_all_before_the_path_is_up() {
    let mut config = graceful();
    config.bgp.bfd.insert("tor1".into(), GUARD);
    let mut world = World::new(config.clone(), kernel_view());
    world.start();
    path(&mut world, State::Init, State::Up, Cause::Handshake);
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    let mut world = heir(world, config, restored, 0);
    world.run(secs(10));
    assert_eq!(world.peer_reason(VIP, "tor1"), Some(Reason::BfdDown));
    assert!(!ends_of_rib_said(&world));
    path(&mut world, State::Down, State::Up, Cause::TakenOver);
    world.run(ms(10));
    assert!(world.hears("tor1", VIP) && ends_of_rib_said(&world));
}

#[test]
fn nothing_is_handed_down_before_all_that_was_ordered_is_on_disk() {
    let mut world = running(graceful());
    world.disk_slow = Some(secs(2));
    world.drain("web");
    assert!(upgrade(&mut world, false).done);
    world.run(ms(1_500));
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. })), 0);
    let restored = handed_down(&mut world);
    let mut world = heir(world, graceful(), restored, 0);
    world.run(secs(3));
    assert_eq!(world.reason(VIP), Some(Reason::Drained));
    assert!(!world.hears("tor1", VIP) && ends_of_rib_said(&world));
}

#[test]
fn a_disk_that_is_full_leaves_the_old_version_in_place() {
    let mut world = running(graceful());
    world.disk_full = true;
    world.drain("web");
    world.run(secs(1));
    assert!(upgrade(&mut world, true).done);
    world.until("given up", secs(20), |w| phase(w) == "failed");
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. })), 0);
    assert!(world.status().upgrade.unwrap().text.contains("no space left on device"));
    let mut world = running(graceful());
    assert!(upgrade(&mut world, false).done);
    world.until("handed down", secs(5), |w| w.count(|a| matches!(a, Action::HandDown { .. })) == 1);
    let failure = Failure::new(FailureKind::Exhausted, "no space left on device");
    world.give(Event::HandedDown { result: Err(failure) });
    assert_eq!((phase(&world).as_str(), world.count(|a| matches!(a, Action::Replace))), ("failed", 0));
}

#[test]
fn a_stop_ends_an_upgrade_and_an_unanswered_one_is_given_up() {
    let mut world = running(graceful());
    world.disk_mute = true;
    world.drain("web");
    assert!(upgrade(&mut world, true).done);
    world.disk_mute = false;
    world.give(Event::Terminate);
    world.until("exit", secs(40), |w| w.exit.is_some());
    assert_eq!(world.count(|a| matches!(a, Action::HandDown { .. } | Action::Replace)), 0);
    let mut world = running(graceful());
    assert!(upgrade(&mut world, false).done);
    handed_down(&mut world);
    world.until("given up", secs(11), |w| phase(w) == "failed");
    assert!(world.established("tor1") && world.hears("tor1", VIP));
}

#[test]
fn a_service_that_is_told_as_draining_is_told_so_for_what_is_left() {
    let mut config = graceful();
    config.services.get_mut(&"web".into()).unwrap().drain_time = secs(20);
    let mut world = running(config.clone());
    world.drain("web");
    world.run(secs(5));
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    let mut world = heir(world, config, restored, 1);
    world.until("told on", secs(3), |w| w.hears("tor1", VIP));
    world.run(secs(10));
    assert!(world.hears("tor1", VIP));
    world.run(secs(4));
    assert!(!world.hears("tor1", VIP));
    assert_eq!(world.service("web").admin, "drained");
}

#[test]
fn an_heir_is_no_unclean_exit_and_makes_good_for_those_before() {
    let mut world = running(graceful());
    for _ in 0..4 {
        world.crash(graceful());
        world.run(ms(50));
    }
    assert_eq!(world.reason(VIP), Some(Reason::CrashLoop));
    world.until("announced", secs(60), |w| w.hears("tor1", VIP));
    world.run(secs(1));
    assert!(upgrade(&mut world, false).done);
    let restored = handed_down(&mut world);
    let mut world = heir(world, graceful(), restored, 0);
    world.run(secs(1));
    assert!(world.hears("tor1", VIP));
    assert!(world.disk.as_ref().unwrap().unclean_exits.is_empty());
    // One that crashes then is one.
    world.crash(graceful());
    world.run(secs(1));
    assert_eq!(world.disk.as_ref().unwrap().unclean_exits.len(), 1);
}
