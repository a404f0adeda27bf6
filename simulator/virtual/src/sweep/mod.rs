//! Swarms of faults from seeds: what is drawn, how it is run, and how a failure is made small.
//!
//! - [`Bounds`]: what the person asked for; [`Swarm`]: what the seed made of it: topology, configuration, fault kinds and
//!   their rates. Each seed leaves most kinds out: a rare meeting of two kinds needs the others to be silent.
//! - [`Strike`]: one fault with its own end; the unit that minimising drops.
//! - [`run`]: a safety phase under strikes, healing, a liveness phase with a bound; [`Outcome`].
//! - [`FlowCounts`]: what all that did to the flows of clients, by the routers' tables.
//! - [`Minimiser`]: drops strikes while the same invariant still fails.
//!
//! A seed and its bounds say everything: the same two give the same world, strikes and verdict on every machine.

use std::time::Duration;

use anyvip_machine::{Seed, Time};
use serde::{Deserialize, Serialize};

use crate::checker::{Invariant, Violation, Watch};
use crate::world::{Options, Planned, Sabotage, TraceHash, Tracing, World};

mod flows;
mod minimise;
mod strike;
mod swarm;
mod topology;

pub use flows::FlowCounts;
use flows::Followed;
pub use minimise::Minimiser;
pub use strike::{Kind, Strike, strikes};
pub use swarm::{BfdPlan, BfdUse, ServicePlan, Shape, Swarm};

/// After healing everything must stand again within this: the longest wait of a crash loop (5 min), one back-off of BGP,
/// two hold times, and some.
pub const RECOVERY: Duration = Duration::from_secs(480);
/// How often the liveness phase looks whether all is well.
const ASK: Duration = Duration::from_secs(1);
/// What is still missing is named so many times at most.
const MOST_PENDING: usize = 8;

/// What a sweep is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Exactly so many hosts; `None`: drawn, 1 to 24.
    pub hosts: Option<u32>,
    /// Length of the safety phase.
    pub time: Duration,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { hosts: None, time: Duration::from_secs(600) }
    }
}

/// A seed, what was drawn from it, and what will strike.
#[derive(Clone, Debug)]
pub struct Case {
    /// The seed.
    pub seed: u64,
    /// Topology and options.
    pub swarm: Swarm,
    /// In order of time.
    pub strikes: Vec<Strike>,
    /// When everything is healed.
    pub heal_at: Time,
    /// How the driver of the first host is broken, to see what is said then.
    pub broken: Option<Sabotage>,
}

impl Case {
    /// What this seed means within these bounds.
    pub fn draw(seed: u64, bounds: &Bounds) -> Case {
        let root = Seed::new(seed);
        let swarm = Swarm::draw(&root, bounds);
        let heal_at = Time::ZERO + bounds.time;
        let strikes = strikes(&root, &swarm, heal_at);
        Case { seed, swarm, strikes, heal_at, broken: None }
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The first thing that was wrong, if something was.
    pub violation: Option<Violation>,
    /// What the liveness phase waited for in vain.
    pub pending: Vec<String>,
    /// How long recovery took after healing.
    pub recovered: Option<Duration>,
    /// Virtual time that passed.
    pub time: Duration,
    /// Events that machines took.
    pub events: u64,
    /// Rules that were asked.
    pub looks: u64,
    /// What became of the flows of clients.
    pub flows: FlowCounts,
    /// Largest agent and largest router, octets.
    pub sizes: (usize, usize),
    /// With [`Tracing::Hash`] or more.
    pub hash: TraceHash,
    /// With [`Tracing::Text`]: the last events.
    pub last_events: Vec<String>,
}

impl Outcome {
    /// Which invariant failed.
    pub fn failed(&self) -> Option<Invariant> {
        self.violation.as_ref().map(|violation| violation.invariant)
    }
}

/// Runs a case to its first violation or its end. `each` sees the world after every look and may stop the run.
pub fn run(case: &Case, tracing: Tracing, mut each: impl FnMut(&World)) -> Outcome {
    let mut world = case.swarm.build(case.seed, Options { tracing, notes: false });
    let first = world.hosts().next().map(|(node, _)| node);
    if let Some(first) = first {
        world.sabotage(first, case.broken);
    }
    run_world(case, &mut world, &mut each)
}

/// The same with a world that was prepared otherwise, for tests of the checker.
pub fn run_world(case: &Case, world: &mut World, each: &mut dyn FnMut(&World)) -> Outcome {
    for strike in &case.strikes {
        for (at, planned) in &strike.steps {
            world.plan((*at).min(case.heal_at), planned.clone());
        }
    }
    for planned in case.swarm.restore() {
        world.plan(case.heal_at, planned);
    }
    world.plan(case.heal_at, Planned::Heal);
    let mut watch = Watch::new(world);
    let mut flows = Followed::new(&case.swarm);
    let after = Time::from_nanos(case.heal_at.as_nanos() + 1);
    let mut recovered = None;
    let mut pending = Vec::new();
    if !passes(&mut watch, world, &mut flows, after, each) {
        let limit = case.heal_at + RECOVERY;
        loop {
            let until = (world.now() + ASK).min(limit);
            if passes(&mut watch, world, &mut flows, until, each) {
                break;
            }
            world.run_until(until);
            pending = watch.pending(world, MOST_PENDING);
            if pending.is_empty() && world.quiet() {
                recovered = Some(world.now().since(case.heal_at));
                watch.look(world);
                break;
            }
            if world.now() >= limit {
                let text = match pending.is_empty() {
                    true => "nothing is missing, but it does not become quiet".to_owned(),
                    false => pending.join("; "),
                };
                watch
                    .overdue(world, &format!("still pending {} s after healing: {text}", RECOVERY.as_secs()));
                break;
            }
        }
    }
    Outcome {
        violation: watch.violations().first().cloned(),
        pending: if recovered.is_some() { Vec::new() } else { pending },
        recovered,
        time: world.now().since(Time::ZERO),
        events: world.events(),
        looks: watch.looks(),
        flows: flows.counts(),
        sizes: watch.sizes(),
        hash: world.hash(),
        last_events: world
            .last_events()
            .map(|(at, node, text)| format!("{at} {} {text}", world.name(node)))
            .collect(),
    }
}

/// Lets time pass until `limit`; true if something was wrong before.
fn passes(
    watch: &mut Watch,
    world: &mut World,
    flows: &mut Followed,
    limit: Time,
    each: &mut dyn FnMut(&World),
) -> bool {
    loop {
        let until = flows.next().min(limit);
        while watch.step(world, until) {
            if !watch.violations().is_empty() {
                return true;
            }
        }
        world.run_until(until);
        flows.send(world);
        if until == limit {
            break;
        }
    }
    each(world);
    !watch.violations().is_empty()
}
