//! Random schedules: first faults, then healing, after which both ends must agree.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use anyvip_bgp::{Event, PeerState, Speaker};
use anyvip_machine::{Seed, Time};

use crate::world::{Listening, Routes, World, name, prefix, route};

const SECOND: Duration = Duration::from_secs(1);

fn some_routes(seed: &mut Seed) -> Routes {
    let count = seed.below(6);
    (0..count)
        .map(|_| {
            let mut route = route(1 + seed.below(4) as u8);
            route.med = seed.chance(500).then(|| seed.below(3) as u32);
            (prefix(seed.below(10) as u32), route)
        })
        .collect()
}

fn fault(world: &mut World, seed: &mut Seed) {
    let who = seed.below(2) as usize;
    match seed.below(13) {
        0..4 => {
            let routes = some_routes(seed);
            world.want(who, routes);
        }
        4 => world.cut = true,
        5 => world.heal(),
        6 => world.stalled[who] = true,
        7 => world.reset_all(),
        8 => {
            world.crash(who);
            if seed.chance(700) {
                world.boot(who);
            }
        }
        9 => world.listening[who] = Listening::Refuses,
        10 => world.listening[who] = Listening::Resets,
        11 => world.listening[who] = Listening::Ignores,
        _ => {
            let hold_time = [None, Some(3 * SECOND), Some(9 * SECOND)][seed.below(3) as usize];
            world.peer_config(who).hold_time = hold_time;
            world.configure(who);
        }
    }
}

fn run(number: u64) -> World {
    let mut seed = Seed::new(number).child("faults");
    let mut world = World::new(number);
    world.peer_config(1).connect = seed.chance(500);
    world.pieces = seed.chance(300);
    world.delay = seed.between(Duration::from_micros(10), Duration::from_millis(50));
    world.jitter = seed.between(Duration::ZERO, Duration::from_millis(100));
    let mut world = world.start();
    // Safety: the world itself asserts progress, one Send in flight, and that no route outlives its session.
    for _ in 0..30 {
        let longest = [SECOND / 50, SECOND, 15 * SECOND][seed.below(3) as usize];
        let pause = seed.between(Duration::ZERO, longest);
        world.run_for(pause);
        fault(&mut world, &mut seed);
    }
    for who in [0, 1] {
        if world.speakers[who].is_none() {
            world.boot(who);
        }
        // Without a hold time nobody finds a lost peer; that is what it means. So such a session is reset.
        let view = world.speakers[who].as_ref().and_then(|speaker| speaker.peer(&name(1 - who)));
        if view.is_some_and(|view| view.facts.is_some_and(|facts| facts.hold_time.is_none())) {
            world.peer_config(who).hold_time = Some(10 * SECOND);
            world.configure(who);
        }
    }
    world.heal();
    // Liveness: the longest wait is an unanswered OPEN, then the longest back-off.
    world.run_for(120 * SECOND);
    world
}

#[test]
fn after_any_faults_and_healing_both_ends_are_established_and_know_the_same_routes() {
    for number in 0..1000 {
        let world = run(number);
        assert_eq!(
            world.states(),
            [PeerState::Established; 2],
            "seed {number}: {} / {}",
            world.last_error(0),
            world.last_error(1)
        );
        assert_eq!(world.connections(), 1, "seed {number}");
        for who in [0, 1] {
            let speaker = world.speakers[who].as_ref().unwrap();
            let view = speaker.peer(&name(1 - who)).unwrap();
            assert_eq!(view.advertised().unwrap(), &world.wanted[who], "seed {number}");
            assert_eq!((view.pending(), view.counters.bugs), (0, 0), "seed {number}");
            let heard = &world.heard[1 - who];
            let known: BTreeSet<_> = heard.iter().map(|(p, r)| (*p, r.next_hop, r.attributes.med)).collect();
            let wanted: BTreeSet<_> =
                world.wanted[who].iter().map(|(p, r)| (*p, r.next_hop, r.med)).collect();
            assert_eq!(known, wanted, "seed {number}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_actions() {
    for number in [3, 17] {
        let (one, two) = (run(number), run(number));
        assert!(one.log.len() > 50);
        assert_eq!(one.log, two.log);
    }
}

#[test]
fn a_speaker_that_was_written_down_and_read_back_goes_on_alike() {
    let mut world = World::established(5);
    world.want(0, [(prefix(1), route(1))].into());
    world.run_for(SECOND);
    world.peer_config(1).connect = true;
    let mut one = world.speakers[0].clone().unwrap();
    let mut two: Speaker = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
    let mut now = Time::ZERO;
    while let Some(next) = one.next_deadline().filter(|next| *next < world.now + 60 * SECOND) {
        assert_eq!(two.next_deadline(), Some(next));
        now = next;
        assert_eq!(one.handle(now, Event::DeadlineReached), two.handle(now, Event::DeadlineReached));
    }
    assert!(now > world.now);
}
