//! Anything, in any order: no panic, progress, and the invariants after every event; then it heals.

use anyvip_core::kernel::{Ipv4Settings, VIP_PROTOCOL};
use anyvip_core::*;
use anyvip_machine::{Failure, FailureKind, Seed};

use crate::world::*;

pub(crate) const VIPS: [&str; 3] = ["192.0.2.80", "192.0.2.81", "2001:db8:53::53"];

pub(crate) fn full() -> Config {
    let mut config = config();
    let families = [anyvip_bgp::wire::Family::Ipv4, anyvip_bgp::wire::Family::Ipv6];
    config.bgp.peers.insert("tor2".into(), peer("10.0.1.2", &families));
    let checks = vec![tcp_check("tcp"), own_check("disk")];
    config.services = [
        ("dns".into(), service(&VIPS[1..2], vec![tcp_check("tcp")], &["tor2"])),
        ("web".into(), service(&[VIPS[0], VIPS[2]], checks, &["tor1", "tor2"])),
    ]
    .into();
    config
}

pub(crate) fn fault(world: &mut World, dice: &mut Seed) {
    let tor = if dice.chance(500) { "tor1" } else { "tor2" };
    let check = if dice.chance(500) { "tcp" } else { "disk" };
    match dice.below(21) {
        0 => world.say(check, ProbeResult::Fail),
        1 => world.say(check, ProbeResult::Error),
        2 => world.say(check, ProbeResult::Pass),
        3 => world.mute_probes = dice.chance(300),
        4 => {
            let vip = ip(VIPS[dice.below(3) as usize]);
            world.view.addresses.retain(|a| a.address != vip);
            world.show();
        }
        5 => {
            if let Some(link) = world.view.links.get_mut(&ETH0) {
                link.settings = Ipv4Settings::default();
            }
            world.show();
        }
        6 => world.kill_router(tor),
        7 => world.revive_router(tor),
        8 => world.routers.get_mut(&tor.into()).unwrap().reads = dice.chance(500),
        9 => world.obedience = Obedience::No(Failure::new(FailureKind::PermissionDenied, "no")),
        10 => world.obedience = if dice.chance(500) { Obedience::Yes } else { Obedience::Mute },
        11 => world.disk_full = dice.chance(400),
        12 => drop(world.drain(if dice.chance(500) { "web" } else { "dns" })),
        13 => drop(world.undrain(if dice.chance(500) { "web" } else { "dns" })),
        14 => {
            let mut next = full();
            if dice.chance(500) {
                next.services.remove(&"dns".into());
            }
            if dice.chance(300) {
                next.bgp.peers.remove(&"tor2".into());
                for service in next.services.values_mut() {
                    service.peers.remove(&"tor2".into());
                }
            }
            if dice.chance(500) {
                for service in next.services.values_mut() {
                    service.checks.iter_mut().for_each(|check| check.fall = 1 + dice.below(4) as u32);
                }
            }
            world.reload(next);
        }
        15 => {
            if let Some(link) = world.view.links.get_mut(&LO) {
                link.up = dice.chance(700);
            }
            world.show();
        }
        16 => {
            if world.view.links.remove(&ETH1).is_none() {
                world.view.links.insert(ETH1, link("eth1"));
                world.view.routes.push(route("0.0.0.0/0", 50, Some("10.0.2.1"), ETH1));
            } else {
                world.view.routes.retain(|route| route.metric != 50);
            }
            world.show();
        }
        17 => {
            let mut foreign = address(LO, "192.0.2.81/32");
            foreign.protocol = if dice.chance(300) { VIP_PROTOCOL } else { 0 };
            if world.view.addresses.iter().all(|a| a.address != foreign.address) {
                world.view.addresses.push(foreign);
                world.show();
            }
        }
        // Answers that nobody asked for.
        18 => {
            let id = dice.below(50);
            world.give(Event::KernelDone { request: KernelRequestId(id), result: Ok(()) });
            world.give(Event::Persisted { generation: 10_000 + id, result: Ok(()) });
            let outcome = ProbeOutcome { result: ProbeResult::Fail, latency: ms(1), detail: String::new() };
            world.give(Event::ProbeFinished { probe: ProbeId(1_000_000 + id), outcome });
        }
        19 if dice.chance(300) => world.crash(full()),
        _ => world.give(Event::DeadlineReached),
    }
}

pub(crate) fn heal(world: &mut World) {
    world.say("tcp", ProbeResult::Pass);
    world.say("disk", ProbeResult::Pass);
    (world.mute_probes, world.disk_full, world.obedience) = (false, false, Obedience::Yes);
    for tor in ["tor1", "tor2"] {
        world.revive_router(tor);
        world.routers.get_mut(&tor.into()).unwrap().reads = true;
    }
    // Writes that were never taken: those connections are dead, whatever both ends believe.
    for tor in ["tor1", "tor2"] {
        world.kill_router(tor);
        world.revive_router(tor);
    }
    world.view.links.get_mut(&LO).unwrap().up = true;
    world.show();
    world.reload(full());
    world.undrain("web");
    world.undrain("dns");
}

// A failing run shows its seed last.
#[allow(clippy::disallowed_macros)]
#[test]
fn random_faults_break_no_invariant_and_heal() {
    let seeds: u64 = std::option_env!("ANYVIP_FUZZ_SEEDS").and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let mut dice = Seed::new(seed);
        let mut world = World::with_state(full(), kernel_view(), state::StoredStateRead::Absent, seed);
        eprintln!("seed {seed}");
        world.start();
        for _ in 0..60 {
            world.run(dice.between(ms(0), secs(3)));
            fault(&mut world, &mut dice);
        }
        heal(&mut world);
        // Back-off 30 s, a contest's minute, connect retries, a crash loop's five minutes.
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
fn the_same_seed_gives_the_same_actions() {
    let run = || {
        let mut dice = Seed::new(42);
        let mut world = World::new(full(), kernel_view());
        world.start();
        for _ in 0..40 {
            world.run(dice.between(ms(0), secs(2)));
            fault(&mut world, &mut dice);
        }
        world.actions
    };
    assert_eq!(run(), run());
}
