//! Where packets go: hop by hop over cables, routers' tables and hosts' default routes.

use std::net::IpAddr;

use anyvip_ecmp::{Addresses, Hasher, Packet, Policy, Threshold};

use super::network::PortId;
use super::{Node, NodeId, World};

/// A packet lives no longer than this.
const MOST_HOPS: usize = 16;

/// A 5-tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Protocol number: 17 is UDP, 6 is TCP.
    pub protocol: u8,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
}

/// Where a packet ended up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// At a machine that has the address.
    Arrived(NodeId),
    /// Nowhere; it was lost at this node, for this reason.
    Lost(NodeId, &'static str),
}

/// A way through the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Every node that had the packet, the sender first.
    pub nodes: Vec<NodeId>,
    /// How it ended.
    pub fate: Fate,
}

impl Flow {
    /// The answer's 5-tuple.
    pub fn reversed(self) -> Flow {
        Flow {
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
            ..self
        }
    }
}

/// A packet of the flow, as a router sees it. `None` for addresses of two families.
fn packet(flow: &Flow) -> Option<Packet> {
    Some(Packet::Whole(anyvip_ecmp::Flow {
        addresses: Addresses::new(flow.source, flow.destination)?,
        protocol: flow.protocol,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
    }))
}

/// Which of `count` equal next hops a machine with this hash takes.
pub(super) fn choose(flow: &Flow, hasher: &Hasher, count: usize) -> usize {
    packet(flow).map_or(0, |packet| Threshold::pick_equal(count, hasher.forwarded(&packet)))
}

/// How a machine that is no router hashes: the 5-tuple, with a seed of its own.
fn own_hash(seed: u32) -> Hasher {
    Hasher::new(seed, Policy::FIVE_TUPLE)
}

impl World {
    /// Follows a packet that a node sends now.
    pub fn follow(&mut self, from: NodeId, flow: &Flow) -> Trip {
        let mut nodes = vec![from];
        let mut at = from;
        let mut entered: Option<PortId> = None;
        loop {
            let fate = |why| Fate::Lost(at, why);
            if !self.powered(at) {
                return Trip { nodes, fate: fate("no power") };
            }
            if at != from && self.is_at_home(at, flow.destination) {
                let fate = match entered {
                    Some(port) if self.filtered(at, port, flow.source) => fate("rp_filter"),
                    _ => Fate::Arrived(at),
                };
                return Trip { nodes, fate };
            }
            if at != from && !matches!(self.node(at), Some(Node::Router(_))) {
                return Trip { nodes, fate: fate("not for this host") };
            }
            if nodes.len() > MOST_HOPS {
                return Trip { nodes, fate: fate("time to live exceeded") };
            }
            if at != from && self.drops(at) {
                return Trip { nodes, fate: fate("lost by the router") };
            }
            let Some(next) = self.next_hop(at, flow) else { return Trip { nodes, fate: fate("no route") } };
            let Some((_, legs)) = self.network.way(at, next) else {
                return Trip { nodes, fate: fate("the next hop is on no subnet of its") };
            };
            if !self.network.clear(&legs, 0) {
                return Trip { nodes, fate: fate("lost on the cable") };
            }
            let Some(node) = self.network.port(next).map(|port| port.node) else {
                return Trip { nodes, fate: fate("no route") };
            };
            nodes.push(node);
            (at, entered) = (node, Some(next));
        }
    }

    /// Follows a question and its answer: the server, if both arrive.
    pub fn ask(&mut self, from: NodeId, flow: &Flow) -> Fate {
        let there = self.follow(from, flow);
        let Fate::Arrived(server) = there.fate else { return there.fate };
        match self.follow(server, &flow.reversed()).fate {
            Fate::Arrived(back) if back == from => there.fate,
            Fate::Arrived(other) => Fate::Lost(other, "the answer went elsewhere"),
            lost => lost,
        }
    }

    fn drops(&mut self, at: NodeId) -> bool {
        let Some(router) = self.router_mut(at) else { return false };
        let ppm = u64::from(router.loss_ppm);
        ppm > 0 && router.seed.below(1_000_000) < ppm
    }

    fn is_at_home(&self, at: NodeId, address: IpAddr) -> bool {
        match self.node(at) {
            Some(Node::Host(host)) => host.kernel.has(address),
            _ => self.own_port(at, address).is_some(),
        }
    }

    fn own_port(&self, at: NodeId, address: IpAddr) -> Option<PortId> {
        let owner = self.network.owner(address)?;
        (self.network.port(owner)?.node == at).then_some(owner)
    }

    /// The port of the machine that gets the packet next.
    fn next_hop(&mut self, at: NodeId, flow: &Flow) -> Option<PortId> {
        let to = flow.destination;
        if let Some(owner) = self.network.owner(to)
            && self.connected(at, to)
        {
            return Some(owner);
        }
        let now = self.now;
        if let Some(router) = self.router_mut(at) {
            let hash = router.hashing.hasher(to.is_ipv4()).forwarded(&packet(flow)?);
            if let Some(hop) = router.fib.pick(now, to, hash) {
                let address = hop.address;
                return self.network.owner(address);
            }
        }
        match self.node(at)? {
            Node::Router(router) => {
                self.gateway(at, &router.plan.gateways, flow, router.hashing.hasher(to.is_ipv4()))
            }
            Node::Host(host) => self.gateway(at, &host.kernel.gateways, flow, &own_hash(at.0)),
            Node::Client(client) => self.gateway(at, &client.gateways, flow, &own_hash(at.0)),
            Node::Bridge(_) => None,
        }
    }

    /// Default routes over ports without a signal are not used.
    fn gateway(&self, at: NodeId, gateways: &[IpAddr], flow: &Flow, hasher: &Hasher) -> Option<PortId> {
        let usable = |gateway: &&IpAddr| {
            gateway.is_ipv4() == flow.destination.is_ipv4()
                && self.port_towards(at, **gateway).is_some_and(|port| self.network.carrier(port))
        };
        let usable: Vec<&IpAddr> = gateways.iter().filter(usable).collect();
        self.network.owner(**usable.get(choose(flow, hasher, usable.len()))?)
    }

    fn connected(&self, at: NodeId, address: IpAddr) -> bool {
        self.port_towards(at, address).is_some()
    }

    /// The port with a subnet that holds this address.
    fn port_towards(&self, at: NodeId, address: IpAddr) -> Option<PortId> {
        let owner = self.network.owner(address)?;
        let near = self.network.opposite(owner)?;
        let holds = |id: PortId| {
            self.network.port(id).is_some_and(|port| {
                port.node == at && port.up && port.addresses.iter().any(|net| net.contains(&address))
            })
        };
        // A cable between the two is the common case; many ports are looked through only on a bridge.
        if holds(near) {
            return Some(near);
        }
        match self.network.port(near).map(|port| self.node(port.node)) {
            Some(Some(Node::Bridge(_))) => self.network.ports_of(at).iter().copied().find(|id| holds(*id)),
            _ => None,
        }
    }

    /// Strict reverse path filtering: a packet is taken only from the port that leads back to its source.
    fn filtered(&self, at: NodeId, entered: PortId, source: IpAddr) -> bool {
        let Some(Node::Host(host)) = self.node(at) else { return false };
        let Some(interface) = self.network.port(entered).map(|port| &port.interface) else { return false };
        let Some(link) = host.kernel.links.values().find(|link| link.name == *interface) else {
            return false;
        };
        if source.is_ipv6() || host.kernel.all.rp_filter.max(link.settings.rp_filter) != 1 {
            return false;
        }
        let gateways = host.kernel.gateways.iter();
        let mut back: Vec<PortId> = gateways.filter_map(|gateway| self.port_towards(at, *gateway)).collect();
        back.extend(self.port_towards(at, source));
        !back.contains(&entered)
    }

    /// Who answers an ARP request for an address that this node broadcasts on all its ports, by name.
    pub fn ask_arp(&self, from: NodeId, address: IpAddr) -> Vec<String> {
        let mut found = Vec::new();
        for port in self.network.ports_of(from) {
            for (heard, legs) in self.network.neighbours(*port) {
                let Some(at) = self.network.port(heard) else { continue };
                if !self.network.clear(&legs, 0) || !self.powered(at.node) {
                    continue;
                }
                let answers = match self.node(at.node) {
                    Some(Node::Host(host)) => {
                        let index = host.kernel.index_of(&at.interface);
                        let settings = |index| host.kernel.links.get(&index).map(|link| link.settings);
                        let ignore = index.and_then(settings).map_or(0, |own| own.arp_ignore);
                        let strict = host.kernel.all.arp_ignore.max(ignore) > 0;
                        let own = |own: &anyvip_core::kernel::Address| {
                            own.address == address && (!strict || Some(own.interface) == index)
                        };
                        host.kernel.addresses.iter().any(own)
                    }
                    _ => self.own_port(at.node, address).is_some(),
                };
                if answers {
                    found.push(self.name(at.node).to_owned());
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> Flow {
        Flow {
            protocol: 17,
            source: IpAddr::from([10, 0, 9, 2]),
            source_port: port,
            destination: IpAddr::from([192, 0, 2, 53]),
            destination_port: 53,
        }
    }

    #[test]
    fn flows_spread_evenly_and_a_dead_hop_moves_as_many_as_contiguous_parts_must() {
        let mut counts = [0_usize; 4];
        let mut moved = 0;
        for port in 10_000..30_000 {
            let before = choose(&flow(port), &own_hash(7), 4);
            counts[before] += 1;
            // Hop 1 dies: 0, 2, 3 are left.
            let after = [0, 2, 3][choose(&flow(port), &own_hash(7), 3)];
            moved += usize::from(before != 1 && before != after);
        }
        assert!(counts.iter().all(|count| (4800..5200).contains(count)), "{counts:?}");
        assert!((1500..1850).contains(&moved), "a twelfth and some: {moved}");
    }

    #[test]
    fn routers_with_different_seeds_choose_independently() {
        let mut both = [[0_usize; 2]; 2];
        for port in 10_000..14_000 {
            both[choose(&flow(port), &own_hash(1), 2)][choose(&flow(port), &own_hash(2), 2)] += 1;
        }
        assert!(both.iter().flatten().all(|count| (850..1150).contains(count)), "{both:?}");
    }
}
