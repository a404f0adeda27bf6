//! Everything that may come at all, in any order: strangers, garbage, answers that are late, doubled or to nobody, half a kernel
//! view, reloads that turn everything over, stops. The observer beside the world judges after every event, and an agent
//! restored from a checkpoint does the same as the one that was written down.

use std::collections::BTreeSet;

use anyvip_bgp::wire::Family;
use anyvip_bgp::{Event as BgpEvent, PeerConfig};
use anyvip_core::*;
use anyvip_machine::{Failure, FailureKind, Seed};

use crate::fuzz::{VIPS, fault, full, heal};
use crate::strangers;
use crate::world::*;

/// No agent of these configurations may ever be larger when written down.
const LARGEST: usize = 48 * 1024;

const REMOTES: [&str; 4] = ["10.0.1.1", "10.0.1.2", "10.0.1.3", "203.0.113.9"];

fn passive() -> PeerConfig {
    PeerConfig { connect: false, ..peer("10.0.1.3", &[Family::Ipv4, Family::Ipv6]) }
}

/// A valid configuration, seldom the same twice.
fn any_config(dice: &mut Seed) -> Config {
    let mut config = full();
    if dice.chance(800) {
        config.bgp.listen = Some("10.0.1.11:179".parse().unwrap());
        if dice.chance(700) {
            config.bgp.peers.insert("tor3".into(), passive());
        }
    }
    if dice.chance(300) {
        config.bgp.peers.remove(&"tor2".into());
    }
    for peer in config.bgp.peers.values_mut() {
        match dice.below(8) {
            0 => peer.hold_time = None,
            1 => peer.families = [Family::Ipv4].into(),
            2 => peer.asn = config.bgp.asn,
            3 => peer.ttl = None,
            _ => {}
        }
    }
    match dice.below(12) {
        0 => config.bgp.asn = 65012,
        1 => config.router_id = "10.0.1.12".parse().unwrap(),
        2 => config.host.vip_interface = "dummy0".into(),
        3 => config.host.uplinks = Some([["eth0", "eth1", "eth7"][dice.below(3) as usize].to_owned()].into()),
        4 => config.host.uplinks = Some(BTreeSet::new()),
        5 => config.host.return_path = config::ReturnPath::Warn,
        _ => {}
    }
    config.host.stop_time = ms(dice.below(3) * 700);
    config.host.stop_removes_vip = dice.chance(300);
    // VIPs move between services, services come and go.
    let mut vips: Vec<&str> = VIPS.iter().copied().filter(|_| dice.chance(850)).collect();
    vips.extend(dice.chance(200).then_some("198.51.100.1"));
    config.services.clear();
    let all: Vec<String> = config.bgp.peers.keys().map(|name| name.0.clone()).collect();
    for name in ["dns", "web", "ntp"] {
        let mine: Vec<&str> = (0..vips.len())
            .filter(|_| dice.chance(500))
            .rev()
            .collect::<Vec<_>>()
            .into_iter()
            .map(|at| vips.remove(at))
            .collect();
        if mine.is_empty() {
            continue;
        }
        let mut checks = Vec::new();
        for mut check in [tcp_check("tcp"), own_check("disk"), tcp_check("more")] {
            if dice.chance(500) {
                (check.rise, check.fall) = (1 + dice.below(3) as u32, 1 + dice.below(3) as u32);
                check.interval = ms(200 + dice.below(20) * 100);
                check.timeout = check.interval / 2;
                checks.push(check);
            }
        }
        let peers: Vec<&str> = all.iter().filter(|_| dice.chance(800)).map(String::as_str).collect();
        let mut service = service(&mine, checks, &peers);
        let attributes = |dice: &mut Seed| config::Attributes {
            med: dice.chance(300).then(|| dice.below(3) as u32),
            prepend: dice.chance(300).then(|| dice.below(3) as u8),
            ..config::Attributes::default()
        };
        service.announce.all.always = attributes(dice);
        service.announce.all.depreferenced = attributes(dice);
        service.announce.all.draining = attributes(dice);
        if dice.chance(300) {
            service.on_failure = config::OnFailure::Depreference;
        }
        if dice.chance(400) {
            service.drain_time = ms(dice.below(6) * 900);
        }
        // A prefix belongs to one service.
        if name == "web" && dice.chance(400) {
            service.announce.prefixes =
                vec![net("192.0.0.0/16"), net("198.51.0.0/16"), net("2001:db8:53::/48")];
        }
        if dice.chance(300) {
            service.on_error = config::OnError::Fail;
        }
        config.services.insert(name.into(), service);
    }
    config
}

fn disturb_view(world: &mut World, dice: &mut Seed) {
    match dice.below(7) {
        // An interrupted dump would look like this; the driver never hands it over, but the agent must live.
        0 => return world.give(Event::KernelView(KernelView::default())),
        1 => {
            let vip = ip(VIPS[dice.below(3) as usize]);
            let found = world.view.addresses.iter_mut().find(|a| a.address == vip);
            if let Some(address) = found {
                address.tentative = !address.tentative;
            }
        }
        2 => world.view.all.arp_ignore = dice.below(3) as u32,
        3 => world.view.all.rp_filter = dice.below(3) as u32,
        4 => {
            if world.view.links.remove(&DUMMY).is_none() {
                world.view.links.insert(DUMMY, kernel::Link { arp: false, ..link("dummy0") });
            } else {
                world.view.addresses.retain(|a| a.interface != DUMMY);
            }
        }
        5 => {
            let moved = address(ETH0, "10.0.1.99/24");
            let own = ip("10.0.1.11");
            if let Some(found) = world.view.addresses.iter_mut().find(|a| a.address == own) {
                *found = moved;
            }
        }
        // The interface goes and comes with another number.
        _ => {
            if let Some(link) = world.view.links.remove(&ETH0) {
                world.view.links.insert(ETH1, link);
                world
                    .view
                    .addresses
                    .iter_mut()
                    .filter(|a| a.interface == ETH0)
                    .for_each(|a| a.interface = ETH1);
                let hops = world.view.routes.iter_mut().flat_map(|route| &mut route.hops);
                hops.for_each(|hop| hop.interface = ETH1);
            }
        }
    }
    world.show();
}

fn stranger(world: &mut World, dice: &mut Seed) {
    let known: Vec<_> = world.strangers.keys().copied().collect();
    let pick = known.get((dice.bits() as usize).checked_rem(known.len()).unwrap_or(0)).copied();
    match (dice.below(6), pick) {
        (0..2, _) | (_, None) => {
            let from = ip(REMOTES[dice.below(4) as usize]);
            if let Some(connection) = world.somebody_connects(from)
                && dice.chance(700)
            {
                let bytes = strangers::introduces_itself(dice);
                world.give(Event::Bgp(BgpEvent::Received { connection, bytes }));
            }
        }
        (2..4, Some(connection)) => {
            let bytes = strangers::says(dice);
            // A driver hands over nothing for nothing.
            if !bytes.is_empty() {
                world.give(Event::Bgp(BgpEvent::Received { connection, bytes }));
            }
        }
        (4, Some(connection)) => drop(world.strangers.insert(connection, dice.chance(500))),
        (_, Some(connection)) => {
            world.strangers.remove(&connection);
            let failure = Failure::new(FailureKind::Reset, "connection reset by peer");
            world.give(Event::Bgp(BgpEvent::Closed { connection, failure }));
        }
    }
}

/// Routers are there whether or not a configuration names them, and the driver looks at the kernel side again and again.
fn whole(world: &mut World) {
    world.looks_at = Some(world.now + secs(5));
    for (name, address) in [("tor1", "10.0.1.1"), ("tor2", "10.0.1.2")] {
        if !world.routers.contains_key(&name.into()) {
            world.add_router(name.into(), ip(address), &[Family::Ipv4, Family::Ipv6]);
        }
    }
}

fn disorder(world: &mut World, dice: &mut Seed) {
    if world.exit.is_some() {
        let next = any_config(dice);
        world.crash(next);
        return whole(world);
    }
    match dice.below(40) {
        0..12 => {
            fault(world, dice);
            whole(world);
        }
        12..22 => stranger(world, dice),
        22..24 => {
            let bytes = strangers::says(dice);
            if !bytes.is_empty() {
                world.garble(dice.bits(), bytes);
            }
        }
        24..28 => disturb_view(world, dice),
        28..31 => drop(world.reload(any_config(dice))),
        31 => {
            let refused = Command::Reload { config: Err("line 1: no".to_owned()), keys: Vec::new() };
            world.command(refused);
        }
        32 => {
            let service = dice.chance(500).then(|| "nobody".into());
            let command = match dice.chance(500) {
                true => Command::Drain { service, reason: None },
                false => Command::Undrain { service },
            };
            world.command(command);
        }
        33 => world.disk_mute = dice.chance(400),
        34 => world.disk_slow = dice.chance(500).then(|| ms(dice.below(9_000))),
        35 => world.twice = dice.below(2) * 500,
        36 => {
            // Late answers, to what was asked long ago or never.
            let failure = || Err(Failure::new(FailureKind::Other, "late"));
            let id = dice.below(400);
            world.give(Event::KernelDone { request: KernelRequestId(id), result: failure() });
            world.give(Event::Persisted { generation: id, result: failure() });
            let connection = anyvip_bgp::ConnectionId::Initiated(id + 1_000_000);
            world.give(Event::Bgp(BgpEvent::Sent { connection }));
            world.give(Event::Bgp(BgpEvent::Received { connection, bytes: vec![0xff; 30] }));
        }
        37 => world.give(Event::Started),
        38 if dice.chance(300) => world.give(Event::Terminate),
        _ => world.fork(),
    }
}

/// A story that only its seed decides; forks where it is told to.
fn play(seed: u64, steps: u64, fork_at: Option<u64>) -> World {
    let mut dice = Seed::new(seed).child("disorder");
    let mut world =
        World::with_state(any_config(&mut dice), kernel_view(), state::StoredStateRead::Absent, seed);
    whole(&mut world);
    world.start();
    for step in 0..steps {
        if fork_at == Some(step) {
            world.fork();
        }
        world.run(dice.between(ms(0), secs(2)));
        disorder(&mut world, &mut dice);
    }
    world
}

// A failing run shows its seed last.
#[allow(clippy::disallowed_macros)]
#[test]
fn disorder_breaks_no_invariant_and_heals() {
    let seeds: u64 = std::option_env!("ANYVIP_FUZZ_SEEDS").and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        eprintln!("seed {seed}");
        let mut world = play(seed, 120, None);
        world.fork();
        assert!(world.longest < LARGEST, "{} bytes", world.longest);
        // The host is itself again, and the strangers are gone.
        world.view = kernel_view();
        (world.disk_mute, world.disk_slow, world.twice) = (false, None, 0);
        if world.exit.is_some() || !world.status().warnings.is_empty() && world.status().uptime_ms == 0 {
            world.crash(full());
        }
        for connection in std::mem::take(&mut world.strangers).into_keys() {
            let failure = Failure::new(FailureKind::Closed, "connection closed");
            world.give(Event::Bgp(BgpEvent::Closed { connection, failure }));
        }
        if world.exit.is_none() {
            world.run(secs(30));
        }
        if world.exit.is_some() {
            world.crash(full());
        }
        heal(&mut world);
        world.until("all is announced", secs(400), |w| {
            VIPS.iter().all(|vip| w.hears("tor2", vip))
                && w.hears("tor1", VIPS[0])
                && w.hears("tor1", VIPS[2])
        });
        world.run(secs(2));
        world.assert_in_agreement();
    }
}

#[test]
fn hours_of_disorder_leave_nothing_behind_in_memory() {
    for seed in 1_000..1_002 {
        let world = play(seed, 1_000, None);
        let size = world.written_down().len();
        assert!(size < LARGEST, "seed {seed}: {size} bytes after {}", world.now);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]
    #[test]
    fn an_agent_that_was_written_down_and_restored_goes_on_as_the_one_that_was_not(
        seed in 0..u64::MAX, steps in 1..80_u64, fork_at in 0..80_u64,
    ) {
        let mut world = play(seed, steps, Some(fork_at % steps));
        // A crash of the story made a new agent.
        if !world.has_twin() {
            world.fork();
        }
        world.run(secs(40));
        world.assert_twins_are_equal();
    }
}

/// A guard of the stop and something else that came due at the same moment: it was said after the exit.
#[test]
fn an_agent_that_ends_while_something_else_is_due_says_nothing_after_its_exit() {
    let mut world = play(16_528_883_808_686_925_772, 29, Some(0));
    world.run(secs(40));
}
