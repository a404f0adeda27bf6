//! The router role: drives a [`Router`] with real connections and a real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyvip_bgp::{Action as Bgp, PeerName};
use anyvip_io::netlink::{Monitor, Netlink, Snapshot};
use anyvip_io::{Clock, Connections};
use anyvip_machine::{Failure, Seed};
use anyvip_virtual::router::{Action, Event, Hop, Install, Router, RouterConfig};
use ipnet::IpNet;
use tokio::sync::mpsc;

use super::Outbox;
use super::fib::Fib;
use crate::clock;
use crate::control::Message;
use crate::words;

/// What others tell the router.
#[derive(Debug)]
pub(crate) enum Told {
    /// The path to a peer is gone, says BFD.
    PathDown(PeerName),
    /// Install everything anew: tables that remember who came when shall forget it.
    Afresh,
}

/// Runs until dropped, and takes what others tell it; an error means that it could not begin.
pub(crate) async fn run(
    config: RouterConfig,
    seed: u64,
    install: Install,
    outbox: Outbox,
) -> Result<mpsc::UnboundedSender<Told>, String> {
    let text = |failure: Failure| failure.to_string();
    let netlink = Netlink::open().map_err(text)?;
    let monitor = Monitor::open().map_err(text)?;
    let mut connections = Connections::new();
    connections.listen((Ipv4Addr::UNSPECIFIED, 179).into()).map_err(text)?;
    connections.listen((Ipv6Addr::UNSPECIFIED, 179).into()).map_err(text)?;
    let driver = Driver {
        router: Router::new(&Seed::new(seed)),
        connections,
        fib: Fib::new(netlink, install),
        wanted: BTreeMap::new(),
        seen: Seen { outbox: outbox.clone(), links: BTreeMap::new(), routes: BTreeMap::new() },
        outbox,
    };
    let (sender, events) = mpsc::unbounded_channel();
    tokio::task::spawn_local(driver.run(config, monitor, events));
    Ok(sender)
}

/// Tells what a foreign daemon puts into the kernel to get to these addresses.
pub(crate) fn watch(destinations: Vec<IpAddr>, outbox: Outbox) -> Result<(), String> {
    let mut monitor = Monitor::open().map_err(|failure| failure.to_string())?;
    monitor.watch(destinations.clone());
    tokio::task::spawn_local(async move {
        let mut installed: BTreeMap<IpNet, Vec<Hop>> = BTreeMap::new();
        let mut seen = Seen { outbox: outbox.clone(), links: BTreeMap::new(), routes: BTreeMap::new() };
        loop {
            let snapshot = monitor.next().await;
            let at = clock::now();
            for prefix in destinations.iter().map(|address| IpNet::from(*address)) {
                let route = snapshot.routes.iter().find(|route| route.destination == prefix);
                let hops = route.into_iter().flat_map(|route| &route.hops).filter_map(|hop| {
                    let interface = snapshot.links.get(&hop.interface)?.name.clone();
                    Some(Hop { address: hop.gateway?, interface, weight: hop.weight })
                });
                let next_hops: Vec<Hop> = hops.collect();
                let former = match next_hops.is_empty() {
                    true => installed.remove(&prefix).unwrap_or_default(),
                    false => installed.insert(prefix, next_hops.clone()).unwrap_or_default(),
                };
                if former != next_hops {
                    outbox.say(Message::Installed { prefix, next_hops, at });
                }
            }
            let _ = seen.compare(&snapshot);
        }
    });
    Ok(())
}

struct Driver {
    router: Router,
    connections: Connections,
    fib: Fib,
    /// What the router wants in it.
    wanted: BTreeMap<IpNet, Vec<Hop>>,
    seen: Seen,
    outbox: Outbox,
}

impl Driver {
    async fn run(
        mut self,
        config: RouterConfig,
        mut monitor: Monitor,
        mut told: mpsc::UnboundedReceiver<Told>,
    ) {
        let clock = Clock::start();
        let mut watched = BTreeSet::new();
        self.handle(&clock, Event::Configure(config)).await;
        loop {
            let deadline = self.router.next_deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(clock.instant(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                events = self.connections.next() => {
                    for event in events {
                        self.handle(&clock, Event::Bgp(event)).await;
                    }
                }
                snapshot = monitor.next() => {
                    for event in self.seen.compare(&snapshot) {
                        self.handle(&clock, event).await;
                    }
                }
                Some(told) = told.recv() => match told {
                    Told::PathDown(peer) => {
                        self.handle(&clock, Event::Bgp(anyvip_bgp::Event::PathDown { peer })).await;
                    }
                    Told::Afresh => {
                        for (prefix, next_hops) in self.wanted.clone() {
                            let gone = self.fib.remove(prefix).await.map(|()| Vec::new());
                            self.tell(prefix, gone);
                            let there = self.fib.install(prefix, &next_hops).await;
                            self.tell(prefix, there);
                        }
                    }
                },
                () = due => {
                    // Read before timing out: after a pause nobody has looked at the sockets yet.
                    for event in self.connections.drain() {
                        self.handle(&clock, Event::Bgp(event)).await;
                    }
                    if self.router.next_deadline().is_some_and(|deadline| deadline <= clock.now()) {
                        self.handle(&clock, Event::DeadlineReached).await;
                    }
                }
            }
            let wanted = self.fib.destinations();
            if wanted != watched {
                monitor.watch(wanted.iter().copied().collect());
                watched = wanted;
            }
        }
    }

    async fn handle(&mut self, clock: &Clock, event: Event) {
        for action in self.router.handle(clock.now(), event) {
            match action {
                Action::Bgp(Bgp::Connect { connection, remote, ttl, transport, .. }) => {
                    self.connections.connect(connection, &remote, ttl, transport.source);
                }
                Action::Bgp(Bgp::Send { connection, bytes }) => {
                    self.connections.send(connection, bytes);
                }
                Action::Bgp(Bgp::Close { connection }) => self.connections.close(connection),
                Action::Bgp(_) => {}
                Action::Install { prefix, next_hops } => {
                    let installed = self.fib.install(prefix, &next_hops).await;
                    self.wanted.insert(prefix, next_hops);
                    self.tell(prefix, installed);
                }
                Action::Remove { prefix } => {
                    self.wanted.remove(&prefix);
                    let removed = self.fib.remove(prefix).await.map(|()| Vec::new());
                    self.tell(prefix, removed);
                }
                Action::SessionUp { peer } => {
                    let at = clock::now();
                    self.outbox.say(Message::Session { peer: peer.0, up: true, text: String::new(), at });
                }
                Action::SessionDown { peer, was_established: true, reason } => {
                    let (text, at) = (words::end_of_session(&reason), clock::now());
                    self.outbox.say(Message::Session { peer: peer.0, up: false, text, at });
                }
                // Attempts before the other end is there are nothing to report.
                Action::SessionDown { .. } => {}
                Action::Notice { text } => self.outbox.say(Message::Trouble { text }),
            }
        }
    }
}

impl Driver {
    /// What the kernel has now, or why it has not.
    fn tell(&self, prefix: IpNet, installed: Result<Vec<Hop>, String>) {
        self.outbox.say(match installed {
            Ok(next_hops) => Message::Installed { prefix, next_hops, at: clock::now() },
            Err(text) => Message::Trouble { text },
        });
    }
}

/// What the kernel showed last.
struct Seen {
    outbox: Outbox,
    links: BTreeMap<String, bool>,
    routes: BTreeMap<IpNet, Vec<IpAddr>>,
}

impl Seen {
    /// Reports changed routes to host addresses, and gives back links that came or went.
    fn compare(&mut self, snapshot: &Snapshot) -> Vec<Event> {
        let at = clock::now();
        let mut routes = BTreeMap::new();
        for route in snapshot.routes.iter().filter(|route| is_host(route.destination)) {
            let mut hops: Vec<IpAddr> = route.hops.iter().filter_map(|hop| hop.gateway).collect();
            hops.sort();
            hops.dedup();
            routes.insert(route.destination, hops);
        }
        let gone = self.routes.keys().filter(|prefix| !routes.contains_key(*prefix));
        let gone: Vec<(IpNet, Vec<IpAddr>)> = gone.map(|prefix| (*prefix, Vec::new())).collect();
        let new = routes.iter().filter(|(prefix, hops)| self.routes.get(*prefix) != Some(*hops));
        for (prefix, next_hops) in gone.into_iter().chain(new.map(|(prefix, hops)| (*prefix, hops.clone()))) {
            self.outbox.say(Message::Route { prefix, next_hops, at });
        }
        self.routes = routes;
        let mut events = Vec::new();
        for link in snapshot.links.values().filter(|link| !link.loopback) {
            let up = link.up && link.carrier;
            if self.links.insert(link.name.clone(), up).is_some_and(|former| former != up) || !up {
                events.push(Event::Link { interface: link.name.clone(), up });
            }
        }
        events
    }
}

fn is_host(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}
