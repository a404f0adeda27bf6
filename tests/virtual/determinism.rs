//! The same seed, the same world, to the byte.

use anyvip_virtual::world::{Condition, Fabric, Fault, Operation, Options, Planned, TraceHash, World};

use crate::lab::time;

fn story(seed: u64) -> (TraceHash, World) {
    let fabric = Fabric { hosts: 4, ..Fabric::default() };
    let mut world = fabric.build(seed, Options::default());
    let node = |world: &World, name: &str| world.find(name).unwrap();
    let (h0, h1, h2, tor0) =
        (node(&world, "h0"), node(&world, "h1"), node(&world, "h2"), node(&world, "tor0"));
    let plan = [
        (12, Planned::Fault(Fault::Service { host: h0, service: None, condition: Condition::Dead })),
        (15, Planned::Fault(Fault::KillAgent { host: h1 })),
        (16, Planned::Fault(Fault::StartAgent { host: h1 })),
        (20, Planned::Operation { host: h2, operation: Operation::Drain { service: None, reason: None } }),
        (25, Planned::Fault(Fault::ResetSessions { router: tor0 })),
        (30, Planned::Heal),
    ];
    for (at, planned) in plan {
        world.plan(time(at), planned);
    }
    world.run_until(time(40));
    (world.hash(), world)
}

#[test]
fn the_same_seed_gives_the_same_hash_a_hundred_times_out_of_a_hundred() {
    let (first, _) = story(7);
    for run in 0..100 {
        let (hash, world) = story(7);
        assert_eq!(hash, first, "run {run}");
        assert!(world.events() > 1000);
    }
}

#[test]
fn another_seed_gives_another_hash() {
    let hashes: std::collections::BTreeSet<TraceHash> = (0..20).map(|seed| story(seed).0).collect();
    assert_eq!(hashes.len(), 20);
}
