//! The router role: drives a [`Router`] with real connections and a real kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyvip_bgp::Action as Bgp;
use anyvip_io::netlink::{Monitor, Netlink, Snapshot};
use anyvip_io::{Clock, Connections};
use anyvip_machine::{Failure, FailureKind, Seed};
use anyvip_virtual::router::{Action, Event, Hop, Router, RouterConfig};
use ipnet::IpNet;

use super::Outbox;
use crate::clock;
use crate::control::Message;
use crate::words;

/// RTPROT_BGP.
const BGP: u8 = 186;
/// First ids of this module's next-hop objects and groups.
const NEXTHOP_IDS: u32 = 0x5300_0000;
const GROUP_IDS: u32 = 0x5400_0000;

/// Runs until dropped; an error means that it could not begin.
pub(crate) async fn run(config: RouterConfig, seed: u64, outbox: Outbox) -> Result<(), String> {
    let text = |failure: Failure| failure.to_string();
    let netlink = Netlink::open().map_err(text)?;
    let monitor = Monitor::open().map_err(text)?;
    let mut connections = Connections::new();
    connections.listen((Ipv4Addr::UNSPECIFIED, 179).into()).map_err(text)?;
    connections.listen((Ipv6Addr::UNSPECIFIED, 179).into()).map_err(text)?;
    let fib = Fib { netlink, hops: BTreeMap::new(), groups: BTreeMap::new() };
    let driver = Driver {
        router: Router::new(&Seed::new(seed)),
        connections,
        fib,
        seen: Seen { outbox: outbox.clone(), links: BTreeMap::new(), routes: BTreeMap::new() },
        outbox,
    };
    tokio::task::spawn_local(driver.run(config, monitor));
    Ok(())
}

struct Driver {
    router: Router,
    connections: Connections,
    fib: Fib,
    seen: Seen,
    outbox: Outbox,
}

impl Driver {
    async fn run(mut self, config: RouterConfig, mut monitor: Monitor) {
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
            let wanted: BTreeSet<IpAddr> = self.fib.groups.keys().map(IpNet::addr).collect();
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
                    if let Err(error) = self.fib.install(prefix, &next_hops).await {
                        self.outbox.say(Message::Trouble { text: error });
                    }
                }
                Action::Remove { prefix } => {
                    if let Err(error) = self.fib.remove(prefix).await {
                        self.outbox.say(Message::Trouble { text: error });
                    }
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

/// The kernel's table: one next-hop object a neighbour, one hash-threshold group a prefix. A group is replaced as a
/// whole, so a change is one step for the flows.
struct Fib {
    netlink: Netlink,
    hops: BTreeMap<Hop, u32>,
    groups: BTreeMap<IpNet, u32>,
}

impl Fib {
    /// A link that goes down under our hands takes next hops and groups along, and the router hears of it a moment
    /// later: then what is left is tried again.
    async fn install(&mut self, prefix: IpNet, next_hops: &[Hop]) -> Result<(), String> {
        const TRIES: usize = 3;
        let mut last = Ok(());
        for _ in 0..TRIES {
            last = self.try_install(prefix, next_hops).await.map_err(|failure| failure.to_string());
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn try_install(&mut self, prefix: IpNet, next_hops: &[Hop]) -> Result<(), Failure> {
        let mut members = Vec::new();
        for hop in next_hops {
            let next = NEXTHOP_IDS + self.hops.len() as u32;
            let id = *self.hops.entry(hop.clone()).or_insert(next);
            let link = self.netlink.link(&hop.interface).await?;
            if link.carrier {
                // Written again each time: the kernel drops such objects when their link goes down.
                self.netlink.replace_nexthop(id, hop.address, link.index).await?;
                members.push((id, 1));
            }
        }
        let next = GROUP_IDS + self.groups.len() as u32;
        let group = *self.groups.entry(prefix).or_insert(next);
        if members.is_empty() {
            return self.delete(group).await;
        }
        self.netlink.replace_nexthop_group(group, &members).await?;
        self.netlink.replace_route_via_nexthop(prefix, group, BGP).await
    }

    async fn remove(&mut self, prefix: IpNet) -> Result<(), String> {
        match self.groups.get(&prefix).copied() {
            Some(group) => self.delete(group).await.map_err(|failure| failure.to_string()),
            None => Ok(()),
        }
    }

    /// The route goes with its group. If the last link went down, the kernel was faster.
    async fn delete(&self, group: u32) -> Result<(), Failure> {
        match self.netlink.delete_nexthop(group).await {
            Err(failure) if failure.kind != FailureKind::NotFound => Err(failure),
            _ => Ok(()),
        }
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
