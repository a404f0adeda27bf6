//! Studies of whole fleets: how long routers take to learn that something died, and what it costs them.
//!
//! A [`Fleet`] is a fabric that has settled. Each [`Event`] happens to it, is measured until the routers know, is undone,
//! and the fleet settles again before the next one. Times are virtual; what a machine takes for it is the caller's to
//! measure.

use std::time::Duration;

use anyvip_bgp::{PeerName, PeerState};
use ipnet::IpNet;

use crate::world::{Condition, Fabric, Fault, NodeId, Operation, Options, Planned, Tracing, World};

/// From look to look while the routers learn.
const GRID: Duration = Duration::from_millis(5);
/// Updates are counted over this long.
const CHURN: Duration = Duration::from_millis(100);
/// Nothing that is measured takes longer.
const LIMIT: Duration = Duration::from_secs(60);
/// A fleet that starts all at once needs this at most.
const SETTLE: Duration = Duration::from_secs(300);

/// What happens to a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// One host loses power: its links go down.
    HostLosesPower,
    /// One host falls silent: its links stay up, and only the hold time tells.
    HostFallsSilent,
    /// The service of one host dies.
    ServiceDies,
    /// All hosts of one rack lose power.
    RackLosesPower,
    /// The services of one rack die at the same moment.
    RackServicesDie,
    /// One router loses power; its hosts see their links go down.
    RouterDies,
    /// A configuration with a wrong address is rolled out to all hosts within a second.
    BadConfiguration,
    /// It is rolled back within a second.
    RolledBack,
    /// A configuration that does not validate is rolled out to all hosts.
    InvalidConfiguration,
}

impl Event {
    /// All of them, in the order in which a study plays them.
    pub const ALL: [Event; 9] = [
        Event::HostLosesPower,
        Event::HostFallsSilent,
        Event::ServiceDies,
        Event::RackLosesPower,
        Event::RackServicesDie,
        Event::RouterDies,
        Event::InvalidConfiguration,
        Event::BadConfiguration,
        Event::RolledBack,
    ];

    /// For a table.
    pub fn title(self) -> &'static str {
        match self {
            Event::HostLosesPower => "one host loses power",
            Event::HostFallsSilent => "one host falls silent, links stay up",
            Event::ServiceDies => "the service of one host dies",
            Event::RackLosesPower => "a rack loses power",
            Event::RackServicesDie => "the services of a rack die",
            Event::RouterDies => "a router dies",
            Event::InvalidConfiguration => "an invalid configuration everywhere",
            Event::BadConfiguration => "a wrong address everywhere",
            Event::RolledBack => "that is rolled back",
        }
    }
}

/// What was seen of one event.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which.
    pub event: Event,
    /// Routes at routers that have to change, host and router pairs; sessions at hosts where a router dies.
    pub routes: usize,
    /// When the first, half, and all of them had; `None`: not within a minute.
    pub first: Option<Duration>,
    /// Half of them.
    pub half: Option<Duration>,
    /// All of them.
    pub all: Option<Duration>,
    /// When nothing was under way any more.
    pub quiet: Option<Duration>,
    /// Share of the routes that had changed, permille, each [`GRID`] while it changed.
    pub curve: Vec<(Duration, u32)>,
    /// UPDATE messages that all routers heard.
    pub updates: u64,
    /// The most that one router heard in a tenth of a second, as updates a second.
    pub busiest: u64,
    /// Machine events that the study took for it.
    pub events: u64,
}

/// A fabric that has settled.
#[derive(Debug)]
pub struct Fleet {
    fabric: Fabric,
    world: World,
    /// How long settling took, from all hosts' start on.
    pub settled: Duration,
}

/// Who stops (or begins) to be known: host, router.
type Routes = Vec<(NodeId, PeerName, NodeId)>;

impl Fleet {
    /// Builds it and waits until every router knows every host of its own.
    pub fn settle(fabric: Fabric, seed: u64) -> Option<Fleet> {
        let mut world = fabric.build(seed, Options { tracing: Tracing::Off, notes: false });
        let routes = routes(&fabric, &world, |_, _| true);
        let settled = until(&mut world, SETTLE, |world| known(world, &fabric, &routes) == routes.len())?;
        world.run_until(world.now() + Duration::from_secs(10));
        Some(Fleet { fabric, world, settled })
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Lets it happen, measures until the routers know, undoes it and waits until all is as before.
    pub fn measure(&mut self, event: Event) -> Measured {
        let Fleet { fabric, world, .. } = self;
        let begin = world.now();
        let rack = fabric.rack.min(fabric.hosts);
        let struck: u32 = match event {
            Event::HostLosesPower | Event::HostFallsSilent | Event::ServiceDies => 1,
            Event::RackLosesPower | Event::RackServicesDie => rack,
            _ => fabric.hosts,
        };
        let routes = match event {
            Event::InvalidConfiguration => Routes::new(),
            Event::RouterDies => routes(fabric, world, |_, tor| tor == 0),
            _ => routes(fabric, world, |host, _| host < struck),
        };
        strike(fabric, world, event, struck);
        let gone = |world: &World, fabric: &Fabric| {
            let known = match event {
                Event::RouterDies => sessions(world, &routes),
                _ => known(world, fabric, &routes),
            };
            if event == Event::RolledBack { known } else { routes.len() - known }
        };
        let (events, heard) = (world.events(), updates(world));
        let mut measured = Measured {
            event,
            routes: routes.len(),
            first: None,
            half: None,
            all: None,
            quiet: None,
            curve: Vec::new(),
            updates: 0,
            busiest: 0,
            events: 0,
        };
        let mut last = (begin, heard.clone());
        let mut former = usize::MAX;
        // Hosts never cease to call a router that is gone.
        let ends = event != Event::RouterDies;
        while world.now().since(begin) < LIMIT
            && (measured.all.is_none() || (ends && measured.quiet.is_none()))
        {
            let at = world.now().since(begin);
            if measured.all.is_none() {
                let done = gone(world, fabric);
                if done != former {
                    let permille = (done * 1000).checked_div(routes.len()).unwrap_or(1000);
                    measured.curve.push((at, permille as u32));
                    former = done;
                }
                let reached = |share: usize| done > 0 && done >= share;
                measured.first = measured.first.or(reached(1).then_some(at));
                measured.half = measured.half.or(reached(routes.len().div_ceil(2)).then_some(at));
                let all = done == routes.len() && (!routes.is_empty() || at >= Duration::from_secs(1));
                measured.all = all.then_some(at);
            }
            if ends && measured.all.is_some() && measured.quiet.is_none() && world.quiet() {
                measured.quiet = Some(at);
            }
            world.run_until(world.now() + GRID);
            if world.now().since(last.0) >= CHURN {
                let now = updates(world);
                measured.busiest = measured.busiest.max(busiest(&last.1, &now));
                last = (world.now(), now);
            }
        }
        // The last window may be shorter; it counts as a whole one.
        measured.busiest = measured.busiest.max(busiest(&last.1, &updates(world)));
        measured.updates =
            updates(world).iter().zip(&heard).map(|(now, before)| now.saturating_sub(*before)).sum();
        measured.events = world.events() - events;
        if event != Event::BadConfiguration {
            restore(fabric, world, event);
        }
        measured
    }
}

/// The most that one router heard in a window, as updates a second.
fn busiest(before: &[u64], now: &[u64]) -> u64 {
    let heard = now.iter().zip(before).map(|(now, before)| now.saturating_sub(*before));
    let per_second = Duration::from_secs(1).as_nanos() / CHURN.as_nanos();
    heard.max().unwrap_or(0) * u64::try_from(per_second).unwrap_or(1)
}

/// What happens.
fn strike(fabric: &Fabric, world: &mut World, event: Event, struck: u32) {
    let now = world.now();
    let hosts: Vec<(NodeId, u32)> =
        (0..struck).filter_map(|host| Some((world.find(&format!("h{host}"))?, host))).collect();
    match event {
        Event::RouterDies => {
            if let Some(router) = world.find("tor0") {
                world.plan(now, Planned::Fault(Fault::RouterOff { router }));
            }
        }
        Event::BadConfiguration | Event::RolledBack | Event::InvalidConfiguration => {
            for (host, number) in hosts {
                let good = fabric.config_of(number);
                let config = match event {
                    Event::BadConfiguration => good.replace("192.0.2.53", "192.0.2.35"),
                    Event::RolledBack => good,
                    _ => good + "no_such_key = 1\n",
                };
                // All within a second, as a tool that does many at once would.
                let at = now + Duration::from_secs(1) / struck.max(1) * number;
                world.plan(at, Planned::Operation { host, operation: Operation::Reload { config } });
            }
        }
        _ => {
            for (host, _) in hosts {
                match event {
                    Event::HostFallsSilent => {
                        let ports = world.network().ports_of(host).iter();
                        let links: Vec<_> = ports
                            .filter_map(|port| world.network().port(*port)?.link.map(|(link, _)| link))
                            .collect();
                        for link in links {
                            world.plan(now, Planned::Fault(Fault::Cut { link, cut: true }));
                        }
                    }
                    Event::ServiceDies | Event::RackServicesDie => {
                        let fault = Fault::Service { host, service: None, condition: Condition::Dead };
                        world.plan(now, Planned::Fault(fault));
                    }
                    _ => world.plan(now, Planned::Fault(Fault::PowerOff { host })),
                }
            }
        }
    }
}

/// Undoes it and waits until all is as before.
fn restore(fabric: &Fabric, world: &mut World, event: Event) {
    if event == Event::InvalidConfiguration {
        let good = |number| Operation::Reload { config: fabric.config_of(number) };
        for number in 0..fabric.hosts {
            let Some(host) = world.find(&format!("h{number}")) else { continue };
            world.plan(world.now(), Planned::Operation { host, operation: good(number) });
        }
    }
    world.plan(world.now(), Planned::Heal);
    let all = routes(fabric, world, |_, _| true);
    until(world, SETTLE, |world| known(world, fabric, &all) == all.len());
    world.run_until(world.now() + Duration::from_secs(3));
}

fn until(world: &mut World, limit: Duration, so: impl Fn(&World) -> bool) -> Option<Duration> {
    let begin = world.now();
    while !so(world) {
        if world.now().since(begin) >= limit {
            return None;
        }
        world.run_until(world.now() + Duration::from_millis(100));
    }
    Some(world.now().since(begin))
}

/// Every session of the hosts that are meant.
fn routes(fabric: &Fabric, world: &World, meant: impl Fn(u32, u32) -> bool) -> Routes {
    let mut routes = Routes::new();
    for number in 0..fabric.hosts {
        let name = format!("h{number}");
        let Some(host) = world.find(&name) else { continue };
        for (_, tor) in fabric.tors_of(number).filter(|(_, tor)| meant(number, *tor)) {
            if let Some(router) = world.find(&format!("tor{tor}")) {
                routes.push((host, PeerName(name.clone()), router));
            }
        }
    }
    routes
}

/// So many of these routes are known to their routers.
fn known(world: &World, fabric: &Fabric, routes: &Routes) -> usize {
    let Some(prefix) = fabric.vips.first().map(|vip| IpNet::from(*vip)) else { return 0 };
    let knows = |(_, peer, router): &&(NodeId, PeerName, NodeId)| {
        let machine = world.router(*router).and_then(|router| router.machine());
        let view = machine.and_then(|machine| machine.speaker().peer(peer));
        view.and_then(|view| view.received()).is_some_and(|routes| routes.contains_key(&prefix))
    };
    routes.iter().filter(knows).count()
}

/// So many of these sessions stand, as the hosts see it.
fn sessions(world: &World, routes: &Routes) -> usize {
    let stands = |(host, _, router): &&(NodeId, PeerName, NodeId)| {
        let agent = world.host(*host).and_then(|host| host.agent());
        let peer = PeerName(world.name(*router).to_owned());
        agent
            .and_then(|agent| agent.speaker().peer(&peer))
            .is_some_and(|peer| peer.state == PeerState::Established)
    };
    routes.iter().filter(stands).count()
}

/// UPDATE messages that each router has heard.
fn updates(world: &World) -> Vec<u64> {
    let of = |machine: &crate::router::Router| {
        machine.speaker().peers().map(|peer| peer.counters.updates_in).sum()
    };
    world.routers().map(|(_, router)| router.machine().map_or(0, of)).collect()
}

#[cfg(test)]
mod tests {
    use anyvip_machine::Time;

    use super::*;

    #[test]
    fn a_small_fleet_forgets_a_rack_and_a_bad_configuration_and_recovers() {
        let fabric = Fabric { hosts: 12, routers: 4, rack: 4, ..Fabric::default() };
        let mut fleet = Fleet::settle(fabric, 1).unwrap();
        for event in Event::ALL {
            let measured = fleet.measure(event);
            assert!(measured.all.is_some(), "{measured:?}");
            assert_eq!(measured.quiet.is_some(), event != Event::RouterDies, "{measured:?}");
            match event {
                Event::HostFallsSilent => {
                    assert!(measured.all >= Some(Duration::from_secs(6)), "{measured:?}")
                }
                Event::RackLosesPower => {
                    assert_eq!((measured.routes, measured.updates), (8, 0), "{measured:?}")
                }
                Event::RackServicesDie => assert_eq!(measured.updates, 8, "{measured:?}"),
                Event::ServiceDies => {
                    assert_eq!((measured.updates, measured.busiest), (2, 10), "{measured:?}");
                }
                Event::BadConfiguration => assert_eq!(measured.routes, 24),
                Event::InvalidConfiguration => assert_eq!(measured.updates, 0, "{measured:?}"),
                _ => {}
            }
        }
        assert!(fleet.world().breaches().is_empty());
        assert!(fleet.world().now() < Time::from_secs(900));
    }

    #[test]
    fn with_bfd_a_silent_host_is_found_out_within_a_second_or_so() {
        let bfd = Some(Duration::from_millis(300));
        let fabric = Fabric { hosts: 4, routers: 2, bfd, ..Fabric::default() };
        let mut fleet = Fleet::settle(fabric, 1).unwrap();
        let measured = fleet.measure(Event::HostFallsSilent);
        assert!(measured.all <= Some(Duration::from_millis(1200)), "{measured:?}");
    }
}
