//! Looks at a world and tells the checker: the host's own side after each event that touched it, everything each virtual
//! second, and both ends of every session at quiet points.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::{SessionName, State};
use anyvip_bgp::PeerState;
use anyvip_core::config::Config;
use anyvip_machine::Time;
use ipnet::IpNet;

use super::facts::{Admin, MachineFacts, PathFacts, PeerFacts, RouterFacts, VipFacts};
use super::gather::{
    Known, Pair, able_router, address_of, clear, concerns, follows, guarded, peer_at, received, same,
    session_at, silent, static_at, told, vip_facts,
};
use super::promise::{self, Promise};
use super::{Checker, Invariant, Place, Violation, rules, weighing};
use crate::router::MULTIPATH_LIMIT;
use crate::world::{BreachKind, Host, LinkId, NodeId, Pace, PortId, World};

/// From look to look at everything.
const LOOK: Duration = Duration::from_secs(1);
/// From weighing to weighing; writing a machine out costs more than looking at it.
const WEIGH: Duration = Duration::from_secs(60);
/// A kernel that refused is asked again within this.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(32);
/// A BFD session that is not Up sends once a second; of a multiplier of 5.
const SLOW_DETECTION: Duration = Duration::from_secs(5);
/// What waits for one agent: probes, kernel and disk, connections, requests.
const MOST_BACKLOG: usize = 160;
/// Events that one machine may take in a second.
const MOST_EVENTS: u64 = 2000;
/// Router's places have peers from this number on.
const AT_ROUTER: u32 = 1 << 16;
/// And those of paths from this one on.
const AT_PATH: u32 = 1 << 17;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Watch {
    checker: Checker,
    hosts: BTreeMap<NodeId, Known>,
    clear_since: BTreeMap<(NodeId, u32), Time>,
    promises: BTreeMap<NodeId, Promise>,
    next_look: Time,
    next_weighing: Time,
    breaches: usize,
    events: u64,
    sizes: (usize, usize),
}

impl Watch {
    /// Looks at who is cabled to whom. The world must have been started.
    pub fn new(world: &World) -> Watch {
        let mut hosts: BTreeMap<NodeId, Known> =
            world.hosts().map(|(id, _)| (id, Known::default())).collect();
        for (router, node) in world.routers() {
            for (neighbour, config) in &node.plan.config.neighbours {
                let port = world.network().owner(config.address);
                let host = port.and_then(|port| world.network().port(port)).map(|port| port.node);
                let (Some(port), Some(host)) = (port, host) else { continue };
                let peer = world.host(host).and_then(|host| peer_at(world, host, router));
                let (Some(peer), Some(known)) = (peer, hosts.get_mut(&host)) else { continue };
                let own = world.network().find_port(router, &config.interface);
                let link = |port: PortId| world.network().port(port)?.link.map(|(link, _)| link);
                let mut links: Vec<LinkId> = own.and_then(link).into_iter().chain(link(port)).collect();
                links.dedup();
                let (neighbour, interface) = (neighbour.clone(), config.interface.clone());
                let guard = node.plan.bfd.iter().find(|(_, bfd)| bfd.guards.as_ref() == Some(&neighbour));
                let session = |name: &SessionName| (session_at(world, host, &peer), name.clone());
                let bfd = guard.map(|(name, _)| session(name));
                let bfd = bfd.and_then(|(own, theirs)| Some((own?, theirs)));
                let tracked = None;
                known.pairs.push(Pair { peer, router, neighbour, interface, port, links, bfd, tracked });
            }
            for (name, bfd) in node.plan.bfd.iter().filter(|(_, bfd)| !bfd.routes.is_empty()) {
                let port = world.network().owner(bfd.address);
                let host = port.and_then(|port| world.network().port(port)).map(|port| port.node);
                let (Some(port), Some(host)) = (port, host) else { continue };
                let peer = world.host(host).and_then(|host| static_at(world, host, router));
                let (Some((peer, own)), Some(known)) = (peer, hosts.get_mut(&host)) else { continue };
                let interface = bfd.interface.clone();
                let near = world.network().find_port(router, &interface);
                let link = |port: PortId| world.network().port(port)?.link.map(|(link, _)| link);
                let mut links: Vec<LinkId> = near.and_then(link).into_iter().chain(link(port)).collect();
                links.dedup();
                known.pairs.push(Pair {
                    neighbour: peer.clone(),
                    peer,
                    router,
                    interface,
                    port,
                    links,
                    bfd: Some((own, name.clone())),
                    tracked: Some(bfd.routes.clone()),
                });
            }
        }
        Watch {
            checker: Checker::default(),
            hosts,
            clear_since: BTreeMap::new(),
            promises: BTreeMap::new(),
            next_look: Time::ZERO + LOOK,
            next_weighing: Time::ZERO + WEIGH,
            breaches: 0,
            events: 0,
            sizes: (0, 0),
        }
    }

    /// Lets one thing happen, not after `limit`, and looks at what it touched; false when nothing is left to happen.
    pub fn step(&mut self, world: &mut World, limit: Time) -> bool {
        let until = limit.min(self.next_look);
        match world.step(until) {
            Some(turn) => {
                let touched = turn.touched.clone();
                let still = touched.is_empty();
                for node in touched {
                    if let Some(host) = world.host(node) {
                        self.host(world.now(), node, host, world);
                    }
                }
                if !still {
                    self.promises(world);
                }
                if world.breaches().len() > self.breaches {
                    self.contracts(world);
                }
                true
            }
            None if until == limit => false,
            None => {
                world.run_until(until);
                self.look(world);
                true
            }
        }
    }

    /// Everything, now.
    pub fn look(&mut self, world: &World) {
        let now = world.now();
        self.next_look = now + LOOK;
        self.contracts(world);
        self.turning(world);
        let quiet = world.quiet();
        let mut hosts = std::mem::take(&mut self.hosts);
        for (node, known) in &mut hosts {
            let Some(host) = world.host(*node) else { continue };
            self.notice(now, known, host);
            self.host_side(now, *node, known, host, world);
            self.sessions(now, *node, known, host, world, quiet);
            self.deadline(now, *node, host);
        }
        self.hosts = hosts;
        if now >= self.next_weighing {
            self.next_weighing = now + WEIGH;
            let sizes = weighing::weigh(world, &mut self.checker);
            self.sizes = (self.sizes.0.max(sizes.0), self.sizes.1.max(sizes.1));
        }
    }

    /// What was found so far.
    pub fn violations(&self) -> &[Violation] {
        self.checker.violations()
    }

    /// Rules that have been asked.
    pub fn looks(&self) -> u64 {
        self.checker.looks()
    }

    /// The largest agent and the largest router seen, octets.
    pub fn sizes(&self) -> (usize, usize) {
        self.sizes
    }

    /// A bound has passed.
    pub fn overdue(&mut self, world: &World, pending: &str) {
        let place = Place { node: u32::MAX, peer: 0, vip: None };
        self.checker.wrong(world.now(), place, Invariant::Recovery, pending.to_owned());
    }

    /// What is still missing after everything was healed.
    pub fn pending(&self, world: &World, most: usize) -> Vec<String> {
        let mut missing = Vec::new();
        for (node, known) in &self.hosts {
            let Some(host) = world.host(*node) else { continue };
            let Some(config) = host.agent().map(|agent| agent.config()) else {
                if host.wanted {
                    missing.push(format!("{}: no agent runs", host.name));
                }
                continue;
            };
            for (name, service) in &config.services {
                for vip in &service.vips {
                    let facts = vip_facts(world.now(), known, host, config, name, *vip);
                    for (pair, number) in known.pairs.iter().zip(0..) {
                        if !concerns(pair, service) {
                            continue;
                        }
                        let peer = told(*node, host, config, name, *vip, pair, world);
                        let router = self.router_facts(world, *node, number, pair, host, *vip);
                        let what = rules::not_recovered(&facts, &peer, router.as_ref()).or_else(|| {
                            (!guarded(world, *node, pair)).then_some("has no BFD session that is Up")
                        });
                        if let Some(what) = what {
                            missing.push(format!("{}: {vip} {what} ({})", host.name, pair.peer));
                        }
                        if missing.len() >= most {
                            return missing;
                        }
                    }
                }
            }
        }
        missing
    }

    fn contracts(&mut self, world: &World) {
        for breach in world.breaches().iter().skip(self.breaches) {
            let place = Place { node: breach.node.0, peer: 0, vip: None };
            let text = format!("{}: {}", world.name(breach.node), breach.text);
            let invariant = match breach.kind {
                BreachKind::Contract => Invariant::Progress,
                BreachKind::PathGuard => Invariant::PathGuard,
            };
            self.checker.wrong(breach.at, place, invariant, text);
        }
        self.breaches = world.breaches().len();
    }

    fn turning(&mut self, world: &World) {
        let events = world.events();
        let machines = world.nodes().count() as u64;
        let facts = MachineFacts {
            events: events - self.events,
            most_events: machines * MOST_EVENTS,
            most_size: usize::MAX,
            most_backlog: usize::MAX,
            ..MachineFacts::default()
        };
        self.events = events;
        let place = Place { node: u32::MAX, peer: 0, vip: None };
        self.checker.machine(world.now(), place, &facts, &|| "the whole lab:".to_owned());
    }

    /// Notices what somebody else changed.
    fn notice(&mut self, now: Time, known: &mut Known, host: &Host) {
        let before = std::mem::take(&mut known.uplinks);
        known.uplinks = host
            .kernel
            .uplinks()
            .map(|(index, link)| (index, link.up && link.carrier, host.kernel.arp_guarded(index)))
            .collect();
        let lost = |(index, up, guarded): &(u32, bool, bool)| {
            let was = before.iter().find(|(other, ..)| other == index);
            was.is_none_or(|(_, was_up, was_guarded)| was_up != up || *was_guarded && !guarded)
        };
        if known.uplinks.iter().any(lost) || host.began().is_none() {
            known.meddled = now;
        }
        if let Some(began) = host.began() {
            known.meddled = known.meddled.max(began);
        }
        if host.pace() != Some(Pace::Running) {
            known.paused = now;
        }
        if !host.kernel.view_lag.is_zero() {
            known.blind_until = now + host.kernel.view_lag + LOOK;
        }
        if host.kernel.refuses.is_some() {
            known.blind_until = known.blind_until.max(now + LONGEST_BACK_OFF);
        }
    }

    fn host(&mut self, now: Time, node: NodeId, host: &Host, world: &World) {
        let Some(mut known) = self.hosts.remove(&node) else { return };
        self.notice(now, &mut known, host);
        self.host_side(now, node, &known, host, world);
        if let Some(promise) = Promise::made(world, node, &known, self.promises.get(&node)) {
            self.promises.insert(node, promise);
        }
        self.hosts.insert(node, known);
    }

    /// What was promised for an upgrade.
    fn promises(&mut self, world: &World) {
        for (node, promise) in self.promises.iter_mut().filter(|(_, promise)| promise.is_open()) {
            let (Some(known), Some(host)) = (self.hosts.get(node), world.host(*node)) else { continue };
            while let Some((number, vip)) = promise.broken(world, *node, known) {
                let Some(pair) = known.pairs.get(number as usize) else { continue };
                let place = Place { node: node.0, peer: AT_ROUTER + number, vip: Some(vip) };
                let text = promise::sentence(host, pair, vip);
                self.checker.wrong(world.now(), place, Invariant::UpgradeKeepsRoutes, text);
            }
        }
    }

    /// What one host decides, against what is true there.
    fn host_side(&mut self, now: Time, node: NodeId, known: &Known, host: &Host, world: &World) {
        let Some(agent) = host.agent() else { return self.checker.nothing_runs(node.0) };
        let config = agent.config();
        for (name, service) in &config.services {
            for vip in &service.vips {
                let facts = vip_facts(now, known, host, config, name, *vip);
                let place = Place { node: node.0, peer: 0, vip: Some(*vip) };
                self.checker.vip(now, place, &facts, &|| format!("{}: {vip}", host.name));
                for (pair, number) in known.pairs.iter().zip(0..) {
                    if pair.tracked.is_some() && !concerns(pair, service) {
                        continue;
                    }
                    let peer = told(node, host, config, name, *vip, pair, world);
                    let place = Place { peer: number, ..place };
                    let name = || format!("{}: {vip} towards {}", host.name, pair.peer);
                    self.checker.peer(now, place, &facts, &peer, &name);
                }
            }
        }
    }

    /// Both ends of the sessions of one host.
    fn sessions(&mut self, now: Time, node: NodeId, known: &Known, host: &Host, world: &World, quiet: bool) {
        for (pair, number) in known.pairs.iter().zip(0..) {
            let clear = clear(world, host, pair) && now >= known.blind_until;
            let since = self.clear_since.entry((node, number)).or_insert(now);
            if !clear {
                *since = now + LOOK;
            }
            let whole = Place { node: node.0, peer: AT_ROUTER + number, vip: None };
            let path = Place { peer: AT_PATH + number, ..whole };
            let Some(config) = host.agent().map(|agent| agent.config()) else {
                self.checker.gone(path);
                self.without_agent(now, whole, number, pair, host, world);
                continue;
            };
            self.checker.gone(whole);
            self.path(now, path, pair, host, world);
            for (name, service) in &config.services {
                if pair.tracked.is_some() && !concerns(pair, service) {
                    continue;
                }
                for vip in &service.vips {
                    let facts = vip_facts(now, known, host, config, name, *vip);
                    let peer = told(node, host, config, name, *vip, pair, world);
                    let Some(router) = self.router_facts(world, node, number, pair, host, *vip) else {
                        continue;
                    };
                    let place = Place { node: node.0, peer: AT_ROUTER + number, vip: Some(*vip) };
                    let name = || format!("{}: {vip} towards {}", host.name, pair.peer);
                    self.checker.router(now, place, (&facts, &peer, &router), &name);
                    // What BFD says is never all said.
                    if quiet && pair.tracked.is_none() && world.faults().is_empty() {
                        self.checker.quiet(now, place, &peer, &router, &name);
                    }
                }
            }
            self.nothing_else(now, node, number, pair, host, config);
        }
    }

    /// Whatever a router still knows of a host without an agent.
    fn without_agent(
        &mut self,
        now: Time,
        place: Place,
        number: u32,
        pair: &Pair,
        host: &Host,
        world: &World,
    ) {
        let Some(router) = world.router(pair.router) else { return };
        let heard = match &pair.tracked {
            None => received(router, pair).is_some_and(|routes| !routes.is_empty()),
            Some(routes) => routes.iter().any(|prefix| follows(world, pair, prefix)),
        };
        let facts = RouterFacts {
            able: able_router(router),
            heard,
            hold_time: router.plan.config.hold_time,
            clear: self.is_clear(now, NodeId(place.node), number),
            retained: promise::retained(world, pair, None),
            agent_silent: host.silent(now),
            ..RouterFacts::default()
        };
        let vip = VipFacts {
            vip: IpAddr::from([0, 0, 0, 0]),
            present: true,
            guarded: None,
            healthy: None,
            detection: Duration::ZERO,
            depreferences: false,
            admin: Admin::Enabled,
            able: false,
            wanted: host.wanted,
            untouched: false,
        };
        let name = || format!("{}: what it announced to {}", host.name, pair.peer);
        self.checker.router(now, place, (&vip, &PeerFacts::default(), &facts), &name);
    }

    /// What BFD finds, and what it guards.
    fn path(&mut self, now: Time, place: Place, pair: &Pair, host: &Host, world: &World) {
        let node = NodeId(place.node);
        let Some((own, _)) = &pair.bfd else { return };
        let (Some(session), Some(began)) = (world.bfd(node, own), host.began()) else {
            return self.checker.path(now, place, &PathFacts::default(), &String::new);
        };
        let agent = host.agent().and_then(|agent| agent.speaker().peer(&pair.peer));
        let stands = agent.filter(|view| view.state == PeerState::Established);
        let since = stands.map(|view| began + view.since.since(Time::ZERO));
        let guarded = pair.tracked.is_none()
            && host.agent().is_some_and(|agent| agent.config().bgp.bfd.contains_key(&pair.peer));
        let facts = PathFacts {
            able: host.pace() == Some(Pace::Running),
            up: host.pace() != Some(Pace::Frozen) && session.view.state == State::Up,
            detection: session.view.detection.unwrap_or_default(),
            silent: session.heard.map_or(Duration::MAX, |heard| now.since(heard)),
            running: now.since(host.resumed().max(began)),
            outlived: guarded
                && since.is_some_and(|since| session.failed.is_some_and(|failed| since < failed)),
        };
        self.checker.path(now, place, &facts, &|| format!("{} towards {}:", host.name, pair.peer));
    }

    /// Nothing but its own addresses is announced: a host is no transit.
    fn nothing_else(
        &mut self,
        now: Time,
        node: NodeId,
        number: u32,
        pair: &Pair,
        host: &Host,
        config: &Config,
    ) {
        let own = |prefix: &IpNet| config.services.values().any(|s| s.vips.contains(&prefix.addr()));
        let told = host.agent().and_then(|agent| agent.announcements().get(&pair.peer));
        if let Some(prefix) = told.into_iter().flatten().map(|(prefix, _)| prefix).find(|p| !own(p)) {
            let place = Place { node: node.0, peer: AT_ROUTER + number, vip: Some(prefix.addr()) };
            let text = format!("{}: {prefix} is announced and is nothing of its own", host.name);
            self.checker.wrong(now, place, Invariant::AddressBehindAnnouncement, text);
        }
    }

    fn deadline(&mut self, now: Time, node: NodeId, host: &Host) {
        let Some(agent) = host.agent() else { return };
        let running = host.pace() == Some(Pace::Running);
        let local = host.agent_time(now).unwrap_or(Time::ZERO);
        let overdue = agent
            .next_deadline()
            .filter(|_| running)
            .map_or(Duration::ZERO, |next| if next < local { local.since(next) } else { Duration::ZERO });
        let bugs = agent.speaker().peers().map(|peer| peer.counters.bugs).sum();
        let facts = MachineFacts {
            overdue,
            bugs,
            most_events: u64::MAX,
            most_size: usize::MAX,
            backlog: if running { host.backlog() } else { 0 },
            most_backlog: MOST_BACKLOG,
            ..MachineFacts::default()
        };
        let place = Place { node: node.0, peer: 0, vip: None };
        self.checker.machine(now, place, &facts, &|| format!("{}:", host.name));
    }

    fn is_clear(&self, now: Time, node: NodeId, number: u32) -> bool {
        self.clear_since.get(&(node, number)).is_some_and(|since| *since <= now)
    }

    fn router_facts(
        &self,
        world: &World,
        node: NodeId,
        number: u32,
        pair: &Pair,
        host: &Host,
        vip: IpAddr,
    ) -> Option<RouterFacts> {
        let router = world.router(pair.router)?;
        if pair.tracked.is_some() {
            return Some(self.tracked_router(world, node, number, pair, host, vip));
        }
        let view = router.machine().and_then(|machine| machine.speaker().peer(&pair.neighbour));
        let prefix = IpNet::from(vip);
        let heard = received(router, pair).and_then(|routes| routes.get(&prefix));
        let told =
            host.agent().and_then(|agent| agent.speaker().peer(&pair.peer)?.advertised()?.get(&prefix));
        let hops = router.fib.get(&prefix);
        let own = world.network().port(pair.port);
        let chosen = heard.map(|heard| {
            let address = address_of(heard.next_hop);
            hops.is_some_and(|hops| {
                hops.iter().any(|hop| hop.address == address && hop.interface == pair.interface)
            })
        });
        let stray = || {
            let addresses = own.map(|port| port.addresses.as_slice()).unwrap_or_default();
            hops.is_some_and(|hops| {
                hops.iter().any(|hop| addresses.iter().any(|net| net.addr() == hop.address))
            })
        };
        let full = hops.is_some_and(|hops| hops.len() >= MULTIPATH_LIMIT);
        Some(RouterFacts {
            able: able_router(router),
            clear: self.is_clear(world.now(), node, number),
            established: view.is_some_and(|view| view.state == PeerState::Established),
            heard: heard.is_some(),
            retained: promise::retained(world, pair, Some(vip)),
            equal: heard.is_none_or(|heard| told.is_some_and(|told| same(heard, told))),
            chosen: match chosen {
                Some(true) => Some(true),
                Some(false) => (!full).then_some(false),
                None => Some(stray()),
            },
            hold_time: view.and_then(|view| view.facts).map_or(router.plan.config.hold_time, |f| f.hold_time),
            agent_silent: silent(world, host),
            agent_slow: matches!(host.pace(), Some(Pace::Slow(_))),
        })
    }

    /// A router that follows BFD with static routes.
    fn tracked_router(
        &self,
        world: &World,
        node: NodeId,
        number: u32,
        pair: &Pair,
        host: &Host,
        vip: IpAddr,
    ) -> RouterFacts {
        let uses = follows(world, pair, &IpNet::from(vip));
        let session = pair.bfd.as_ref().and_then(|(_, theirs)| world.bfd(pair.router, theirs));
        RouterFacts {
            able: world.router(pair.router).is_some_and(able_router),
            clear: self.is_clear(world.now(), node, number),
            established: true,
            heard: uses,
            retained: None,
            equal: true,
            chosen: Some(uses),
            hold_time: Some(session.and_then(|session| session.view.detection).unwrap_or(SLOW_DETECTION)),
            agent_silent: silent(world, host),
            agent_slow: matches!(host.pace(), Some(Pace::Slow(_))),
        }
    }
}
