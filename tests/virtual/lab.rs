//! A small fabric, and words to speak of it.

use std::net::IpAddr;
use std::time::Duration;

use anyvip_bgp::{PeerName, PeerState};
use anyvip_machine::Time;
use anyvip_virtual::world::{
    Condition, Fabric, Fault, LinkId, NodeId, Operation, Options, Planned, Port, PortId, Tracing, World,
};
use ipnet::IpNet;

pub(crate) fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn vip() -> IpAddr {
    "192.0.2.53".parse().unwrap()
}

/// A fabric that runs, and everything announced.
pub(crate) struct Small {
    pub(crate) world: World,
}

impl Small {
    /// Three hosts, two routers, all announced.
    pub(crate) fn new(seed: u64) -> Small {
        Small::of(Fabric { hosts: 3, routers: 2, ..Fabric::default() }, seed)
    }

    pub(crate) fn of(fabric: Fabric, seed: u64) -> Small {
        let world = fabric.build(seed, Options { tracing: Tracing::Text(60), notes: false });
        let mut small = Small { world };
        let hosts = fabric.hosts as usize;
        small.until("everything is announced", secs(10), |world| {
            world.routers().all(|(_, router)| next_hops(world, &router.name) == hosts.min(64))
        });
        small
    }

    pub(crate) fn node(&self, name: &str) -> NodeId {
        self.world.find(name).expect("no such node")
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.world.act(Planned::Fault(fault));
    }

    pub(crate) fn operate(&mut self, host: &str, operation: Operation) {
        let host = self.node(host);
        self.world.act(Planned::Operation { host, operation });
    }

    pub(crate) fn service(&mut self, host: &str, condition: Condition) {
        let host = self.node(host);
        self.fault(Fault::Service { host, service: None, condition });
    }

    pub(crate) fn pass(&mut self, duration: Duration) {
        let limit = self.world.now() + duration;
        self.world.run_until(limit);
        self.well();
    }

    /// Lets time pass until it is so; returns how long that took.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, limit: Duration, so: impl FnMut(&World) -> bool) -> Duration {
        let begin = self.world.now();
        let met = self.world.run_until_so(begin + limit, so);
        assert!(met, "not within {limit:?}: {what}\n{}", self.tale());
        self.well();
        self.world.now().since(begin)
    }

    /// No machine and no driver broke a contract.
    #[track_caller]
    pub(crate) fn well(&self) {
        assert!(self.world.breaches().is_empty(), "{:#?}\n{}", self.world.breaches(), self.tale());
    }

    pub(crate) fn tale(&self) -> String {
        let name = |id| self.world.name(id).to_owned();
        let lines = self.world.last_events().map(|(at, node, text)| format!("{at} {} {text}\n", name(node)));
        lines.collect()
    }

    /// The cable of a host to its router of this number, and which end is the host's.
    pub(crate) fn cable(&self, host: &str, uplink: u32) -> (LinkId, u8) {
        self.port(host, &format!("eth{uplink}")).1.link.expect("a cable")
    }

    pub(crate) fn port(&self, node: &str, interface: &str) -> (PortId, &Port) {
        let id = self.world.network().find_port(self.node(node), interface).expect("no such port");
        (id, self.world.network().port(id).unwrap())
    }
}

/// To how many hosts a router spreads the VIP.
pub(crate) fn next_hops(world: &World, router: &str) -> usize {
    let router = world.router(world.find(router).unwrap()).unwrap();
    router.fib.get(&IpNet::from(vip())).map_or(0, Vec::len)
}

/// Whether the router sends anything to this host.
pub(crate) fn uses(world: &World, router: &str, host: &str) -> bool {
    let router = world.router(world.find(router).unwrap()).unwrap();
    let hops = router.fib.get(&IpNet::from(vip()));
    hops.is_some_and(|hops| hops.iter().any(|hop| hop.interface == host))
}

/// Whether the session stands, as the host sees it.
pub(crate) fn established(world: &World, host: &str, router: &str) -> bool {
    let host = world.host(world.find(host).unwrap()).unwrap();
    let view = host.agent().and_then(|agent| agent.speaker().peer(&PeerName::from(router)));
    view.is_some_and(|peer| peer.state == PeerState::Established)
}

pub(crate) fn time(seconds: u64) -> Time {
    Time::from_secs(seconds)
}
