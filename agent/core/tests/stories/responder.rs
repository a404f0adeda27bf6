//! Routers that track a host by probe.

use anyvip_core::boundary::{Answer, Answers, ProbeResult};
use anyvip_core::config::{Config, OnFailure};
use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";
const HTTP: &str = "0.0.0.0:8080";
const PORT: &str = "10.0.1.11:8053";

fn asked() -> Config {
    let mut config = config();
    config.responder.listen = Some(HTTP.parse().unwrap());
    config.responder.ports.insert("web".into(), PORT.parse().unwrap());
    config
}

fn world(config: Config) -> World {
    let mut world = World::new(config, kernel_view());
    world.start();
    world
}

fn said(world: &World) -> &Answers {
    world.answers.last().expect("something was said")
}

fn reason(world: &World) -> Option<Reason> {
    said(world).services[&"web".into()].reason
}

#[test]
fn probes_are_answered_with_the_health_of_the_service_and_told_once_per_change() {
    let mut world = world(asked());
    assert_eq!(said(&world).listen, Some(HTTP.parse().unwrap()));
    assert!(reason(&world).is_some(), "nothing is offered before it is known");
    world.until("offered", secs(10), |w| reason(w).is_none());
    assert_eq!(
        said(&world).services[&"web".into()],
        Answer { port: Some(PORT.parse().unwrap()), reason: None }
    );
    let before = world.answers.len();
    world.run(secs(60));
    assert_eq!(world.answers.len(), before, "nothing changed");
    world.say("tcp", ProbeResult::Fail);
    world.until("down", secs(10), |w| reason(w) == Some(Reason::Unhealthy));
    assert_eq!(world.answers.len(), before + 1);
    let status = world.service("web");
    let responder = status.responder.unwrap();
    assert_eq!((responder.answer, responder.reason), (503, Some(Reason::Unhealthy)));
    let probes = world.vip(VIP).peers.into_iter().find(|peer| peer.name == "probes").unwrap();
    assert_eq!((probes.advertised, probes.reason), (false, Some(Reason::Unhealthy)));
}

#[test]
fn a_drained_a_depreferenced_and_a_stopping_service_is_down_for_probes_which_know_nothing_between() {
    let mut config = asked();
    let web = config.services.get_mut(&"web".into()).unwrap();
    (web.on_failure, web.drain_time) = (OnFailure::Depreference, secs(60));
    let mut world = world(config);
    world.until("offered", secs(10), |w| reason(w).is_none() && w.hears("tor1", VIP));
    world.drain("web");
    assert_eq!(reason(&world), Some(Reason::Drained));
    world.run(secs(5));
    assert!(world.hears("tor1", VIP), "BGP goes on telling it as draining");
    world.undrain("web");
    world.until("offered", secs(10), |w| reason(w).is_none());
    world.say("tcp", ProbeResult::Fail);
    world.until("down", secs(10), |w| reason(w) == Some(Reason::Unhealthy));
    assert!(world.hears("tor1", VIP), "BGP goes on telling it as depreferenced");
    world.say("tcp", ProbeResult::Pass);
    world.until("offered", secs(10), |w| reason(w).is_none());
    world.give(Event::Terminate);
    assert_eq!(reason(&world), Some(Reason::Stopping));
}

#[test]
fn a_host_without_any_routing_protocol_answers_probes() {
    let mut config = asked();
    config.bgp.peers.clear();
    config.services.get_mut(&"web".into()).unwrap().peers.clear();
    let mut world = world(config);
    world.until("offered", secs(10), |w| reason(w).is_none());
    let peers = world.vip(VIP).peers;
    assert_eq!((peers.len(), peers[0].name.as_str(), peers[0].advertised), (1, "probes", true));
}

#[test]
fn a_reload_takes_the_responder_away_and_brings_it_back() {
    let mut world = world(asked());
    world.until("offered", secs(10), |w| reason(w).is_none());
    world.reload(config());
    assert_eq!(said(&world), &Answers::default());
    assert_eq!(world.service("web").responder, None);
    let request = world.reload(asked());
    world.until("answered", secs(10), |w| w.replies.contains_key(&request));
    assert!(world.replies[&request].text.contains("responder changed"), "{:?}", world.replies[&request]);
    assert_eq!(reason(&world), None);
}
