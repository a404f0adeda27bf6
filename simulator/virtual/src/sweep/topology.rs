//! Worlds of a swarm.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use anyvip_bfd::SessionName;
use anyvip_bgp::PeerName;
use ipnet::IpNet;

use super::swarm::{BfdUse, Shape, Swarm};
use crate::router::{NeighbourConfig, RouterConfig};
use crate::world::{
    HostPlan, Impairment, NodeId, Operation, Options, Planned, RouterBfd, RouterPlan, Settings, World,
};

const ROUTER_ASN: u32 = 65_000;
const HOST_ASN: u32 = 4_200_000_000;
/// The bridge's name in a LAN.
const BRIDGE: &str = "br0";

/// One cable's addresses, or, on a LAN, one station's and the router's.
#[derive(Clone, Copy)]
struct Pair {
    router: [IpNet; 2],
    host: [IpNet; 2],
}

impl Swarm {
    /// Builds and starts it. Routers come first, then hosts: node numbers are `0..routers`, `routers..routers + hosts`.
    pub fn build(&self, seed: u64, options: Options) -> World {
        let mut world = World::new(seed, options);
        let good = Impairment { delay: self.delay, jitter: self.jitter, ..Impairment::default() };
        let mut routers = Vec::new();
        for router in 0..self.routers {
            let config = RouterConfig {
                asn: ROUTER_ASN + router,
                router_id: Ipv4Addr::from(0x0a64_0001 + router),
                hold_time: self.router_hold_time,
                neighbours: self.neighbours(router),
            };
            let plan = RouterPlan {
                bfd: self.router_bfd(router),
                install: self.install,
                ..RouterPlan::new(config, router + 1)
            };
            routers.push(world.add_router(&format!("r{router}"), plan));
        }
        let hosts: Vec<NodeId> = (0..self.hosts)
            .map(|host| {
                let gateways = self
                    .routers_of(host)
                    .map(|(uplink, router)| self.pair(host, uplink, router).router[0].addr());
                let plan = HostPlan {
                    config: Arc::from(self.config(host)),
                    gateways: gateways.collect(),
                    settings: Settings::new(),
                    ports: None,
                };
                world.add_host(&format!("h{host}"), plan)
            })
            .collect();
        match self.shape {
            Shape::Routed => {
                for (host, id) in (0..).zip(&hosts) {
                    for (uplink, router) in self.routers_of(host) {
                        let Some(router_id) = routers.get(router as usize) else { continue };
                        let pair = self.pair(host, uplink, router);
                        let a = world.add_port(*router_id, &format!("h{host}"), self.carried(pair.router));
                        let b = world.add_port(*id, &format!("eth{uplink}"), self.carried(pair.host));
                        world.add_link([a, b], good);
                    }
                }
            }
            Shape::Lan => {
                let bridge = world.add_bridge(BRIDGE);
                let mut plug = |node: NodeId, name: &str, nets: Vec<IpNet>| {
                    let own = world.add_port(node, "eth0", nets);
                    let theirs = world.add_port(bridge, name, Vec::new());
                    world.add_link([own, theirs], good);
                };
                for (router, id) in (0..).zip(&routers) {
                    plug(*id, &format!("r{router}"), self.carried(self.pair(0, 0, router).router));
                }
                for (host, id) in (0..).zip(&hosts) {
                    plug(*id, &format!("h{host}"), self.carried(self.pair(host, 0, 0).host));
                }
            }
        }
        world.start();
        world
    }

    /// What is not healed by repairing: configurations that are bad, agents that were stopped on purpose.
    pub fn restore(&self) -> Vec<Planned> {
        let each = (0..self.hosts).flat_map(|host| {
            let node = self.host(host);
            let reload = Operation::Reload { config: self.config(host) };
            [reload, Operation::Start].map(|operation| Planned::Operation { host: node, operation })
        });
        let spoilt = |planned: &Planned| {
            matches!(planned, Planned::Operation { operation: Operation::Reload { .. }, .. })
                && !self.rates.contains_key(&super::Kind::BadReload)
                && !self.rates.contains_key(&super::Kind::Reload)
        };
        each.filter(|planned| !spoilt(planned)).collect()
    }

    /// A host's node.
    pub fn host(&self, host: u32) -> NodeId {
        NodeId(self.routers + host)
    }

    /// The routers of a host: number of the uplink, number of the router.
    pub fn routers_of(&self, host: u32) -> impl Iterator<Item = (u32, u32)> + use<> {
        let (uplinks, routers) = (self.uplinks, self.routers);
        (0..uplinks).map(move |uplink| (uplink, (host + uplink) % routers))
    }

    fn carried(&self, nets: [IpNet; 2]) -> Vec<IpNet> {
        nets.into_iter().take(if self.dual_stack { 2 } else { 1 }).collect()
    }

    fn pair(&self, host: u32, uplink: u32, router: u32) -> Pair {
        let net = |address: IpAddr, length| IpNet::new(address, length).unwrap_or(IpNet::from(address));
        let v6 = |number: u32, length| {
            let low = [(number >> 16) as u16, number as u16];
            net(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, low[0], low[1]]), length)
        };
        match self.shape {
            Shape::Routed => {
                let base = (host * 4 + uplink) * 2;
                let v4 = |at| net(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + base + at)), 31);
                Pair { router: [v4(0), v6(base, 127)], host: [v4(1), v6(base + 1, 127)] }
            }
            Shape::Lan => {
                let v4 = |at: u32| net(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + at)), 16);
                let (router, host) = (1 + router, 256 + host);
                Pair { router: [v4(router), v6(router, 64)], host: [v4(host), v6(host, 64)] }
            }
        }
    }

    fn session(&self, nets: [IpNet; 2]) -> IpAddr {
        if self.sessions_v6 { nets[1].addr() } else { nets[0].addr() }
    }

    fn neighbours(&self, router: u32) -> BTreeMap<PeerName, NeighbourConfig> {
        let mut neighbours = BTreeMap::new();
        for host in 0..self.hosts {
            for (uplink, at) in self.routers_of(host) {
                if at != router {
                    continue;
                }
                let interface = match self.shape {
                    Shape::Routed => format!("h{host}"),
                    Shape::Lan => "eth0".to_owned(),
                };
                let config = NeighbourConfig {
                    address: self.session(self.pair(host, uplink, router).host),
                    asn: HOST_ASN + host,
                    interface,
                    connect: self.listen,
                    readvertise: false,
                    own: BTreeSet::new(),
                };
                neighbours.insert(PeerName(format!("h{host}")), config);
            }
        }
        neighbours
    }

    fn router_bfd(&self, router: u32) -> BTreeMap<SessionName, RouterBfd> {
        let mut sessions = BTreeMap::new();
        let Some(bfd) = self.bfd.filter(|bfd| bfd.use_ != BfdUse::Unanswered) else { return sessions };
        for (name, neighbour) in self.neighbours(router) {
            let follows = self.services.iter().filter(|service| service.tracked);
            let tracked = bfd.use_ == BfdUse::Tracked;
            let plan = RouterBfd {
                address: neighbour.address,
                interface: neighbour.interface,
                interval: bfd.interval,
                multiplier: bfd.multiplier,
                guards: (!tracked).then(|| name.clone()),
                routes: follows.flat_map(|service| &service.vips).copied().map(IpNet::from).collect(),
            };
            sessions.insert(SessionName(name.0), plan);
        }
        sessions
    }

    /// The configuration file of a host.
    pub fn config(&self, host: u32) -> String {
        let millis = |duration: Duration| format!("{}ms", duration.as_millis());
        let own = self.pair(host, 0, 0).host[0].addr();
        let hold = self.hold_time.map_or("0s".to_owned(), millis);
        let mut text =
            format!("config_version = 1\nrouter_id = \"{own}\"\n[bgp]\nasn = {}\n", HOST_ASN + host);
        if self.listen {
            text += if self.sessions_v6 { "listen = \"[::]:179\"\n" } else { "listen = \"0.0.0.0:179\"\n" };
        }
        text += &format!("[bgp.defaults]\nhold_time = \"{hold}\"\n");
        if let Some(time) = self.graceful_restart {
            text += &format!("graceful_restart = \"{}\"\n", millis(time));
        }
        let bfd = |strict: bool| {
            let bfd = self.bfd?;
            let (interval, multiplier) = (millis(bfd.interval), bfd.multiplier);
            let strict = if strict { ", strict = true" } else { "" };
            Some(format!("bfd = {{ interval = \"{interval}\", multiplier = {multiplier}{strict} }}\n"))
        };
        text += &match self.bfd.map(|bfd| bfd.use_) {
            Some(BfdUse::Guards | BfdUse::Unanswered) => bfd(false).unwrap_or_default(),
            Some(BfdUse::Strict) => bfd(true).unwrap_or_default(),
            Some(BfdUse::Tracked) | None => String::new(),
        };
        if self.listen && !self.both_connect {
            text += "passive = true\n";
        }
        for (uplink, router) in self.routers_of(host) {
            let address = self.session(self.pair(host, uplink, router).router);
            text +=
                &format!("[bgp.peer.r{router}]\naddress = \"{address}\"\nasn = {}\n", ROUTER_ASN + router);
        }
        let tracks = self.bfd.filter(|bfd| bfd.use_ == BfdUse::Tracked);
        for (uplink, router) in self.routers_of(host).filter(|_| tracks.is_some()) {
            let address = self.session(self.pair(host, uplink, router).router);
            let bfd = tracks.map_or(String::new(), |bfd| {
                format!("interval = \"{}\"\nmultiplier = {}\n", millis(bfd.interval), bfd.multiplier)
            });
            text += &format!("[static.peer.t{router}]\naddress = \"{address}\"\n{bfd}");
        }
        for (service, number) in self.services.iter().zip(0..) {
            let vips: Vec<String> = service.vips.iter().map(|vip| format!("\"{vip}\"")).collect();
            text += &format!("[service.s{number}]\nvips = [{}]\n", vips.join(", "));
            if service.depreferences {
                text += "on_failure = \"depreference\"\n";
            }
            if let Some(time) = service.drain_time {
                text += &format!("drain_time = \"{}\"\n", millis(time));
            }
            if service.on_error_fail {
                text += "on_error = \"fail\"\n";
            }
            if service.tracked {
                let followers: Vec<String> =
                    self.routers_of(host).map(|(_, router)| format!("\"t{router}\"")).collect();
                text += &format!("peers = []\nstatic = [{}]\n", followers.join(", "));
            } else if service.first_peer_only {
                text += &format!("peers = [\"r{}\"]\n", host % self.routers);
            }
            let mut checks = String::new();
            match service.interval {
                None => text += "checks = \"none\"\n",
                Some(interval) => {
                    let common = format!(
                        "interval = \"{}\"\nrise = {}\nfall = {}\n",
                        millis(interval),
                        service.rise,
                        service.fall
                    );
                    checks += &format!("[[service.s{number}.check]]\ntcp = {{ port = 53 }}\n{common}");
                    if service.own_check {
                        let at = "tcp = { address = \"127.0.0.1\", port = 80 }";
                        checks += &format!("[[service.s{number}.check]]\n{at}\n{common}");
                    }
                }
            }
            text += &checks;
            if let Some(med) = service.med {
                text += &format!("[service.s{number}.announce]\nmed = {med}\n");
            }
            if service.depreferences {
                text += &format!("[service.s{number}.announce.depreferenced]\nprepend = 3\n");
            }
            if service.drain_time.is_some() {
                text += &format!("[service.s{number}.announce.draining]\nprepend = 2\n");
            }
        }
        text
    }
}
