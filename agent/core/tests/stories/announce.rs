//! What is told in each state of a service: depreferenced, draining, as prefixes.

use anyvip_bgp::Action as BgpAction;
use anyvip_bgp::wire::{Codec, Community, Family, Framer, Message, PathAttributes, Update};
use anyvip_core::config::*;
use anyvip_core::*;

use crate::world::*;

const VIP: &str = "192.0.2.80";
const ROUTE: &str = "192.0.2.80/32";

fn with(change: impl FnOnce(&mut Service)) -> Config {
    let mut config = config();
    change(config.services.get_mut(&"web".into()).unwrap());
    config
}

fn med(med: u32) -> Attributes {
    Attributes { med: Some(med), ..Attributes::default() }
}

fn running(config: Config) -> World {
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("announced", secs(10), |w| w.hears("tor1", VIP));
    world
}

/// Every form in which the router has held the route, and `None` where it had none.
fn forms(world: &mut World, route: &str, time: std::time::Duration) -> Vec<Option<PathAttributes>> {
    let end = world.now + time;
    let mut forms = vec![world.heard("tor1", route)];
    while world.now < end {
        world.run(ms(1));
        let form = world.heard("tor1", route);
        if forms.last() != Some(&form) {
            forms.push(form);
        }
    }
    forms
}

fn depreferencing() -> Config {
    with(|web| {
        web.on_failure = OnFailure::Depreference;
        web.announce.all.always = med(10);
        web.announce.all.depreferenced = med(1000);
    })
}

#[test]
fn an_unhealthy_service_that_depreferences_is_replaced_and_never_withdrawn() {
    let mut world = running(depreferencing());
    world.say("tcp", ProbeResult::Fail);
    let meds: Vec<Option<u32>> =
        forms(&mut world, ROUTE, secs(5)).into_iter().map(|form| form.expect("withdrawn").med).collect();
    assert_eq!(meds, [Some(10), Some(1000)]);
    let vip = world.vip(VIP);
    assert_eq!((vip.standing, vip.wanted, vip.reason), (Some(Standing::Depreferenced), true, None));
    assert_eq!(world.service("web").health, "down");
    world.say("tcp", ProbeResult::Pass);
    world.until("normal again", secs(5), |w| w.heard("tor1", ROUTE).unwrap().med == Some(10));
    assert_eq!(world.withdrawals(), 0);
    let told: Vec<Standing> = world
        .facts
        .iter()
        .filter_map(|(_, fact)| match fact {
            Fact::VerdictChanged { announced: true, standing, .. } => Some(*standing),
            _ => None,
        })
        .collect();
    assert_eq!(told, [Standing::Normal, Standing::Depreferenced, Standing::Normal]);
}

/// Every UPDATE that left the agent since then, as a reader of its own decodes it.
fn updates(world: &World, since: usize) -> Vec<Update> {
    let families = [Family::Ipv4, Family::Ipv6].into();
    let extended_next_hop = [Family::Ipv4].into();
    let codec =
        Codec { external: true, four_octet_as: true, families, extended_next_hop, ..Codec::before_open() };
    let mut framer = Framer::default();
    for (_, action) in world.actions.iter().skip(since) {
        if let Action::Bgp(BgpAction::Send { bytes, .. }) = action {
            framer.push(bytes);
        }
    }
    let frames = std::iter::from_fn(|| framer.next_frame());
    let messages = frames.map(|frame| Message::decode(&frame.unwrap(), &codec).unwrap());
    messages
        .filter_map(|message| match message {
            Message::Update(update) => Some(update),
            _ => None,
        })
        .collect()
}

/// RFC 4271 §3.1.
#[test]
fn on_the_wire_each_change_of_state_is_one_update_that_withdraws_nothing() {
    let mut config = depreferencing();
    let web = config.services.get_mut(&"web".into()).unwrap();
    web.vips.push(ip("192.0.2.81"));
    web.drain_time = secs(10);
    let mut world = running(config.clone());
    world.until("both", secs(5), |w| w.hears("tor1", "192.0.2.81"));
    world.run(secs(1));
    type Change = fn(&mut World);
    let changes: [(&str, Change, u32, usize); 4] = [
        ("unhealthy", |world| world.say("tcp", ProbeResult::Fail), 1000, 0),
        ("healthy", |world| world.say("tcp", ProbeResult::Pass), 10, 0),
        ("drained", |world| _ = world.drain("web"), 10, 1),
        ("put back", |world| _ = world.undrain("web"), 10, 0),
    ];
    for (what, change, med, communities) in changes {
        let since = world.actions.len();
        change(&mut world);
        world.run(secs(5));
        let updates = updates(&world, since);
        // The checks of two VIPs may come to their ends in two moments.
        assert!((1..=2).contains(&updates.len()), "{what}: {updates:?}");
        let prefixes: usize =
            updates.iter().flat_map(|update| &update.reach).map(|reach| reach.prefixes.len()).sum();
        assert_eq!(prefixes, 2, "{what}: each prefix once: {updates:?}");
        for update in updates {
            assert_eq!(update.withdrawn, [], "{what}");
            let attributes = &update.attributes;
            assert_eq!((attributes.med, attributes.communities.len()), (Some(med), communities), "{what}");
        }
    }
}

#[test]
fn a_service_that_was_never_healthy_is_told_only_once_a_check_has_decided() {
    let mut world = World::new(depreferencing(), kernel_view());
    world.say("tcp", ProbeResult::Fail);
    world.mute_probes = true;
    world.start();
    world.until("session", secs(5), |w| w.established("tor1"));
    world.run(secs(1));
    assert_eq!(world.reason(VIP), Some(Reason::NotYetChecked));
    world.mute_probes = false;
    world.until("depreferenced", secs(15), |w| w.heard("tor1", ROUTE).is_some());
    assert_eq!(world.heard("tor1", ROUTE).unwrap().med, Some(1000));
}

#[test]
fn explain_says_which_gate_lowers_the_route() {
    let mut world = running(depreferencing());
    world.say("tcp", ProbeResult::Fail);
    world.until("down", secs(5), |w| w.service("web").health == "down");
    let explanation = world.agent.explain(world.now, &"web".into()).unwrap();
    let gate = explanation.vips[0].gates.iter().find(|gate| gate.gate == Reason::Unhealthy).unwrap();
    assert_eq!((gate.open, gate.lowers), (true, Some(Standing::Depreferenced)));
    assert!(gate.text.ends_with("on_failure = \"depreference\""), "{}", gate.text);
}

fn draining(time: u64) -> Config {
    with(|web| {
        web.drain_time = secs(time);
        web.announce.all.always = med(10);
    })
}

/// RFC 8326.
#[test]
fn a_drained_service_is_told_as_draining_for_the_drain_time_and_then_withdrawn() {
    let mut world = running(draining(60));
    let request = world.drain("web");
    world.run(secs(1));
    let heard = world.heard("tor1", ROUTE).unwrap();
    assert_eq!((heard.communities.as_slice(), heard.med), (&[Community::GRACEFUL_SHUTDOWN][..], Some(10)));
    let service = world.service("web");
    let drain = service.drain.unwrap();
    assert_eq!(
        (service.admin.as_str(), drain.phase.as_str(), drain.left_ms),
        ("draining", "telling", Some(59_000))
    );
    assert_eq!(world.replies[&request].text, "drained: web; told as draining for 60s, then withdrawn");
    assert_eq!(world.vip(VIP).standing, Some(Standing::Draining));
    let forms = forms(&mut world, ROUTE, secs(65));
    assert_eq!(forms.len(), 2, "told as draining, then gone: {forms:?}");
    assert_eq!(forms[1], None);
    let drain = world.service("web").drain.unwrap();
    assert_eq!(
        (drain.phase.as_str(), drain.left_ms, world.reason(VIP)),
        ("withdrawn", None, Some(Reason::Drained))
    );
    assert!(world.vip(VIP).present);
}

#[test]
fn a_service_put_back_while_it_drains_is_replaced_and_stays() {
    let mut world = running(draining(60));
    world.drain("web");
    world.run(secs(30));
    world.undrain("web");
    let forms = forms(&mut world, ROUTE, secs(60));
    let communities: Vec<usize> =
        forms.into_iter().map(|form| form.expect("withdrawn").communities.len()).collect();
    assert_eq!(communities, [1, 0]);
    assert_eq!(world.service("web").admin, "enabled");
}

#[test]
fn a_service_that_fails_while_it_drains_is_withdrawn_at_once() {
    let mut config = draining(60);
    config.services.get_mut(&"web".into()).unwrap().on_failure = OnFailure::Depreference;
    let mut world = running(config);
    world.drain("web");
    world.run(secs(5));
    world.say("tcp", ProbeResult::Fail);
    world.until("withdrawn", secs(5), |w| !w.hears("tor1", VIP));
    assert_eq!(world.reason(VIP), Some(Reason::Unhealthy));
}

#[test]
fn a_restart_in_the_middle_of_a_drain_leaves_it_withdrawn() {
    let mut world = running(draining(60));
    world.drain("web");
    world.run(secs(10));
    let mut world = world.restart(draining(60));
    world.start();
    world.run(secs(20));
    assert_eq!(world.reason(VIP), Some(Reason::Drained));
    assert_eq!(world.service("web").admin, "drained");
    assert!(!world.hears("tor1", VIP));
}

#[test]
fn a_stop_in_the_middle_of_a_drain_withdraws_at_once() {
    let mut world = running(draining(60));
    world.drain("web");
    world.run(secs(10));
    world.give(Event::Terminate);
    world.run(secs(1));
    assert!(!world.hears("tor1", VIP));
    world.until("ended", secs(5), |w| w.exit == Some(0));
}

#[test]
fn one_peer_can_be_told_something_else() {
    let mut config = with(|web| {
        web.peers.insert("tor2".into());
        web.announce.all.always = med(10);
        web.announce.peers.insert("tor2".into(), Layers { always: med(20), ..Layers::default() });
    });
    config.bgp.peers.insert("tor2".into(), config.bgp.peers[&"tor1".into()].clone());
    let tor2 = config.bgp.peers.get_mut(&"tor2".into()).unwrap();
    tor2.remote = anyvip_bgp::Endpoint { address: ip("10.0.1.2"), interface: None, port: 179 }.into();
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("both", secs(10), |w| w.hears("tor1", VIP) && w.hears("tor2", VIP));
    let heard = |router| world.heard(router, ROUTE).unwrap().med;
    assert_eq!((heard("tor1"), heard("tor2")), (Some(10), Some(20)));
}

/// Two VIPs in a /24, one of them also in a /32.
fn prefixes() -> Config {
    with(|web| {
        web.vips = vec![ip(VIP), ip("192.0.2.81")];
        web.announce.prefixes = vec![net("192.0.2.0/24"), net("192.0.2.81/32")];
    })
}

#[test]
fn a_prefix_is_told_while_all_its_vips_may_be_and_goes_onto_no_interface() {
    let mut world = World::new(prefixes(), kernel_view());
    world.start();
    world.until("both", secs(10), |w| {
        w.heard("tor1", "192.0.2.0/24").is_some() && w.hears("tor1", "192.0.2.81")
    });
    assert!(!world.hears("tor1", VIP), "a VIP inside a prefix is not told by itself");
    assert!(world.view.addresses.iter().all(|a| a.prefix_len == 32 || a.address != ip("192.0.2.0")));
    assert!(world.vip(VIP).peers[0].advertised);

    world.probes.insert(("tcp".to_owned(), Some(ip(VIP))), ProbeResult::Fail);
    world.until("no prefix", secs(5), |w| w.heard("tor1", "192.0.2.0/24").is_none());
    assert_eq!(world.reason(VIP), Some(Reason::Unhealthy));
    assert_eq!(world.reason("192.0.2.81"), None, "its own prefix is still told");
    assert!(world.hears("tor1", "192.0.2.81"));
}

#[test]
fn a_vip_whose_only_prefix_waits_for_another_vip_says_so() {
    let mut config = prefixes();
    config.services.get_mut(&"web".into()).unwrap().announce.prefixes.pop();
    let mut world = World::new(config, kernel_view());
    world.start();
    world.until("told", secs(10), |w| w.heard("tor1", "192.0.2.0/24").is_some());
    world.probes.insert(("tcp".to_owned(), Some(ip(VIP))), ProbeResult::Fail);
    world.until("not told", secs(5), |w| w.heard("tor1", "192.0.2.0/24").is_none());
    assert_eq!(world.reason("192.0.2.81"), Some(Reason::PrefixWithheld));
    let explanation = world.agent.explain(world.now, &"web".into()).unwrap();
    let gate = explanation.vips[1].gates.iter().find(|gate| gate.gate == Reason::PrefixWithheld).unwrap();
    assert!(gate.text.contains(VIP), "{}", gate.text);
}

#[test]
fn vips_of_a_removed_service_go_only_after_its_prefix_was_withdrawn() {
    let mut world = World::new(prefixes(), kernel_view());
    world.start();
    world.until("told", secs(10), |w| w.heard("tor1", "192.0.2.0/24").is_some());
    let mut config = prefixes();
    config.services.clear();
    world.routers.get_mut(&"tor1".into()).unwrap().reads = false;
    world.reload(config);
    world.run(secs(2));
    assert!(world.view.addresses.iter().any(|a| a.address == ip(VIP)), "the router still believes in it");
}
