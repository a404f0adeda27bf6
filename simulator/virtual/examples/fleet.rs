//! Measures the virtual lab: `fleet HOSTS ROUTERS SECONDS [hash|off]`.
//!
//! Builds a fabric, waits until everything is announced, lets the time pass, kills a rack, waits for quiet, and says what
//! it took. Memory is the process's peak.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

use std::time::{Duration, Instant};

use anyvip_machine::Time;
use anyvip_virtual::world::{Condition, Fabric, Fault, Options, Planned, Tracing, World};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: u32| arguments.get(at).and_then(|text| text.parse().ok()).unwrap_or(or);
    let (hosts, routers, seconds) = (number(0, 1000), number(1, 2), number(2, 3600));
    let tracing = match arguments.get(3).map(String::as_str) {
        Some("off") => Tracing::Off,
        _ => Tracing::Hash,
    };
    let fabric = Fabric { hosts, routers, ..Fabric::default() };
    let clock = Instant::now();
    let mut world = fabric.build(1, Options { tracing, notes: false });
    let say = |what: &str, world: &World| {
        println!(
            "{what:<28} {:>8.2} s wall  {:>12} virtual  {:>11} events  {:>9} in the heap  {:>6} MB",
            clock.elapsed().as_secs_f64(),
            world.now().to_string(),
            world.events(),
            world.pending(),
            peak_megabytes()
        );
    };
    say("built", &world);
    let settled = until(&mut world, Duration::from_secs(120), |world| announced(world) == hosts as usize);
    say(if settled { "all announced" } else { "NOT all announced" }, &world);
    world.run_until(Time::from_secs(u64::from(seconds)));
    say("time has passed", &world);
    for host in 0..40.min(hosts) {
        let Some(host) = world.find(&format!("h{host}")) else { continue };
        let fault = Fault::Service { host, service: None, condition: Condition::Dead };
        world.plan(world.now(), Planned::Fault(fault));
    }
    let left = hosts as usize - 40.min(hosts as usize);
    until(&mut world, Duration::from_secs(30), |world| announced(world) == left);
    say("a rack is withdrawn", &world);
    let quiet = until(&mut world, Duration::from_secs(30), World::quiet);
    say(if quiet { "quiet" } else { "NOT quiet" }, &world);
    println!("breaches {}, hash {}", world.breaches().len(), world.hash());
}

/// Looks a hundred times a second: looking at a whole fleet after each event would be all that is measured.
fn until(world: &mut World, limit: Duration, so: impl Fn(&World) -> bool) -> bool {
    let end = world.now() + limit;
    while !so(world) && world.now() < end {
        world.run_until(world.now() + Duration::from_millis(10));
    }
    so(world)
}

/// Hosts that have told every router of theirs.
fn announced(world: &World) -> usize {
    let told = |host: &anyvip_virtual::world::Host| {
        let agent = host.agent()?;
        let mut peers = agent.speaker().peers();
        Some(peers.all(|peer| peer.advertised().is_some_and(|routes| !routes.is_empty())))
    };
    world.hosts().filter(|(_, host)| told(host) == Some(true)).count()
}

fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}
