//! Ports, cables, bridges, and what a cable does to what crosses it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_machine::{Seed, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::NodeId;

/// The first retransmission of a byte stream comes this long after the loss; each next one doubles it.
pub(super) const RETRANSMISSION: Duration = Duration::from_millis(200);
/// The longest pause between two retransmissions.
pub(super) const LONGEST_RETRANSMISSION: Duration = Duration::from_secs(120);

/// After so many in a row the sender gives up (Linux: `tcp_retries2`).
pub(super) const MOST_RETRANSMISSIONS: u8 = 15;

/// An interface of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortId(pub u32);

/// A cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkId(pub u32);

/// One interface, and the cable in it.
#[derive(Clone, Debug)]
pub struct Port {
    /// Whose.
    pub node: NodeId,
    /// Its name there.
    pub interface: String,
    /// Administratively up.
    pub up: bool,
    /// Its addresses with their subnets.
    pub addresses: Vec<IpNet>,
    /// The cable, and which end of it this is.
    pub link: Option<(LinkId, u8)>,
}

/// What a cable does to what crosses it. The default is a good cable in one building.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impairment {
    /// One way.
    pub delay: Duration,
    /// Added to the delay, up to this much.
    pub jitter: Duration,
    /// Of a million packets, so many are lost. A byte stream sends again, which takes time.
    pub loss_ppm: u32,
    /// Of a million datagrams, so many arrive twice.
    pub duplicate_ppm: u32,
    /// Of a million datagrams, so many arrive late, after others that were sent later.
    pub reorder_ppm: u32,
    /// Octets a second; `None`: no limit.
    pub rate: Option<u64>,
}

impl Default for Impairment {
    fn default() -> Impairment {
        Impairment {
            delay: Duration::from_micros(50),
            jitter: Duration::from_micros(10),
            loss_ppm: 0,
            duplicate_ppm: 0,
            reorder_ppm: 0,
            rate: None,
        }
    }
}

/// A cable between two ports.
#[derive(Clone, Debug)]
pub struct Link {
    /// Both ends.
    pub ends: [PortId; 2],
    /// What it does to what crosses it.
    pub impairment: Impairment,
    /// What it was made with; healing goes back to this.
    pub good: Impairment,
    /// What this end sends is lost, and nobody sees the link go down.
    pub silent: [bool; 2],
    /// Datagrams are lost, byte streams are not: a filter that somebody forgot.
    pub no_datagrams: bool,
    seed: Seed,
    busy_until: [Time; 2],
    /// When the last datagram from each end arrives that crossed while the cable was well.
    last_arrival: [Time; 2],
}

/// One cable crossed in one direction, from its end `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) link: LinkId,
    pub(super) from: u8,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Network {
    ports: Vec<Port>,
    links: Vec<Link>,
    of_node: Vec<Vec<PortId>>,
    bridges: BTreeSet<NodeId>,
    owners: BTreeMap<IpAddr, PortId>,
}

impl Network {
    pub(super) fn add_port(&mut self, node: NodeId, interface: &str, addresses: Vec<IpNet>) -> PortId {
        let id = PortId(self.ports.len() as u32);
        for address in &addresses {
            self.owners.entry(address.addr()).or_insert(id);
        }
        self.ports.push(Port { node, interface: interface.to_owned(), up: true, addresses, link: None });
        if self.of_node.len() <= node.0 as usize {
            self.of_node.resize_with(node.0 as usize + 1, Vec::new);
        }
        if let Some(ports) = self.of_node.get_mut(node.0 as usize) {
            ports.push(id);
        }
        id
    }

    pub(super) fn add_bridge(&mut self, node: NodeId) {
        self.bridges.insert(node);
    }

    pub(super) fn add_link(&mut self, ends: [PortId; 2], impairment: Impairment, seed: Seed) -> LinkId {
        let id = LinkId(self.links.len() as u32);
        let link = Link {
            ends,
            impairment,
            good: impairment,
            silent: [false; 2],
            no_datagrams: false,
            seed,
            busy_until: [Time::ZERO; 2],
            last_arrival: [Time::ZERO; 2],
        };
        self.links.push(link);
        for (end, port) in ends.into_iter().enumerate() {
            if let Some(port) = self.ports.get_mut(port.0 as usize) {
                port.link = Some((id, end as u8));
            }
        }
        id
    }

    /// One interface.
    pub fn port(&self, id: PortId) -> Option<&Port> {
        self.ports.get(id.0 as usize)
    }

    pub(super) fn port_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(id.0 as usize)
    }

    /// The interfaces of a node, in the order in which they were made.
    pub fn ports_of(&self, node: NodeId) -> &[PortId] {
        self.of_node.get(node.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The interface of this name.
    pub fn find_port(&self, node: NodeId, interface: &str) -> Option<PortId> {
        let is = |id: &&PortId| self.port(**id).is_some_and(|port| port.interface == interface);
        self.ports_of(node).iter().find(is).copied()
    }

    /// One cable.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(id.0 as usize)
    }

    pub(super) fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.0 as usize)
    }

    /// All cables.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().enumerate().map(|(at, link)| (LinkId(at as u32), link))
    }

    /// The port at the other end of its cable.
    pub fn opposite(&self, id: PortId) -> Option<PortId> {
        let (link, end) = self.port(id)?.link?;
        self.link(link)?.ends.get(1 - end as usize).copied()
    }

    /// Whether this port sees a signal: it and the other end of its cable are up.
    pub fn carrier(&self, id: PortId) -> bool {
        let up = |id: PortId| self.port(id).is_some_and(|port| port.up);
        up(id) && self.opposite(id).is_some_and(up)
    }

    /// The port that has this address. Service addresses have no owner.
    pub fn owner(&self, address: IpAddr) -> Option<PortId> {
        self.owners.get(&address).copied()
    }

    /// All ports that hear what this one broadcasts, itself excluded; whether the cables work does not matter.
    pub(super) fn neighbours(&self, from: PortId) -> Vec<(PortId, Vec<Leg>)> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let mut open = VecDeque::from([(from, Vec::new())]);
        while let Some((port, legs)) = open.pop_front() {
            let Some((link, end)) = self.port(port).and_then(|port| port.link) else { continue };
            let Some(other) = self.opposite(port) else { continue };
            if !seen.insert(link) {
                continue;
            }
            let mut legs: Vec<Leg> = legs;
            legs.push(Leg { link, from: end });
            let Some(node) = self.port(other).map(|port| port.node) else { continue };
            if self.bridges.contains(&node) {
                let further = self.ports_of(node).iter().filter(|next| **next != other);
                open.extend(further.map(|next| (*next, legs.clone())));
            } else {
                found.push((other, legs));
            }
        }
        found
    }

    /// How a node reaches a port on one of its own subnets: the port it leaves by, and the cables on the way.
    pub(super) fn way(&self, from: NodeId, to: PortId) -> Option<(PortId, Vec<Leg>)> {
        let opposite = self.opposite(to)?;
        if self.port(opposite)?.node == from {
            let (link, end) = self.port(opposite)?.link?;
            return Some((opposite, vec![Leg { link, from: end }]));
        }
        if let Some(found) = self.over_one_bridge(from, opposite) {
            return Some(found);
        }
        let found = self.neighbours(to);
        let (port, legs) =
            found.into_iter().find(|(port, _)| self.port(*port).is_some_and(|p| p.node == from))?;
        let back = legs.into_iter().rev().map(|leg| Leg { link: leg.link, from: 1 - leg.from });
        Some((port, back.collect()))
    }

    /// The common case of a bridge, without a walk over all its ports; `last` is the port of the bridge that leads to the other node.
    fn over_one_bridge(&self, from: NodeId, last: PortId) -> Option<(PortId, Vec<Leg>)> {
        let bridge = self.port(last)?.node;
        let leads_there = |id: &PortId| {
            self.opposite(*id).and_then(|far| self.port(far)).is_some_and(|far| far.node == bridge)
        };
        let own = self.ports_of(from).iter().copied().find(leads_there)?;
        let leg = |id: PortId| self.port(id)?.link.map(|(link, from)| Leg { link, from });
        self.bridges.contains(&bridge).then_some((own, vec![leg(own)?, leg(last)?]))
    }

    /// Whether what crosses these cables in this direction (0: as written, 1: back) arrives at all.
    pub(super) fn clear(&self, legs: &[Leg], back: u8) -> bool {
        legs.iter().all(|leg| {
            let Some(link) = self.link(leg.link) else { return false };
            let up = |id: PortId| self.port(id).is_some_and(|port| port.up);
            link.ends.into_iter().all(up)
                && !link.silent.get((leg.from ^ back) as usize).copied().unwrap_or(true)
        })
    }

    /// When a segment of a byte stream arrives: loss on the way is time.
    pub(super) fn carry(&mut self, legs: &[Leg], back: u8, now: Time, octets: usize) -> Time {
        let mut at = now;
        for leg in legs {
            let Some(link) = self.links.get_mut(leg.link.0 as usize) else { continue };
            let mut pause = RETRANSMISSION;
            for _ in 0..MOST_RETRANSMISSIONS {
                if !link.draw(link.impairment.loss_ppm) {
                    break;
                }
                at += pause;
                pause = (pause * 2).min(LONGEST_RETRANSMISSION);
            }
            at = link.cross((leg.from ^ back) as usize, at, octets);
        }
        at
    }

    /// When a datagram arrives: never, once or twice.
    pub(super) fn carry_datagram(&mut self, legs: &[Leg], now: Time, octets: usize) -> Vec<Time> {
        let lost = |leg: &Leg| self.link(leg.link).is_some_and(|link| link.no_datagrams);
        if !self.clear(legs, 0) || legs.iter().any(lost) {
            return Vec::new();
        }
        let mut copies = vec![now];
        for leg in legs {
            let Some(link) = self.links.get_mut(leg.link.0 as usize) else { continue };
            let mut next = Vec::new();
            for at in copies {
                if link.draw(link.impairment.loss_ppm) {
                    continue;
                }
                let arrival = link.cross(leg.from as usize, at, octets);
                let arrival = link.in_order(leg.from as usize, arrival);
                if link.draw(link.impairment.duplicate_ppm) {
                    next.push(arrival);
                }
                let late = link.draw(link.impairment.reorder_ppm);
                next.push(if late { arrival + link.impairment.delay * 3 } else { arrival });
            }
            copies = next;
        }
        copies.sort();
        copies
    }
}

impl Link {
    fn draw(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.seed.below(1_000_000) < u64::from(ppm)
    }

    /// On a cable that is well no datagram overtakes another; jitter that somebody has added makes them do so, as netem does.
    fn in_order(&mut self, from: usize, arrival: Time) -> Time {
        match self.last_arrival.get_mut(from).filter(|_| self.impairment == self.good) {
            Some(last) => {
                *last = arrival.max(*last);
                *last
            }
            None => arrival,
        }
    }

    fn cross(&mut self, from: usize, at: Time, octets: usize) -> Time {
        let Impairment { delay, jitter, rate, .. } = self.impairment;
        let mut at = at;
        if let (Some(rate), Some(busy)) = (rate, self.busy_until.get_mut(from)) {
            let nanos = (octets as u64).saturating_mul(1_000_000_000) / rate.max(1);
            at = at.max(*busy) + Duration::from_nanos(nanos);
            *busy = at;
        }
        let jitter = if jitter.is_zero() { jitter } else { self.seed.between(Duration::ZERO, jitter) };
        at + delay + jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(impairment: Impairment) -> (Network, PortId, PortId, LinkId) {
        let mut network = Network::default();
        let a = network.add_port(NodeId(0), "eth0", vec!["10.0.0.1/31".parse().unwrap()]);
        let b = network.add_port(NodeId(1), "eth0", vec!["10.0.0.0/31".parse().unwrap()]);
        let link = network.add_link([a, b], impairment, Seed::new(3));
        (network, a, b, link)
    }

    #[test]
    fn a_one_way_cut_stops_one_direction_and_shows_no_loss_of_carrier() {
        let (mut network, a, b, link) = two(Impairment::default());
        let (_, legs) = network.way(NodeId(0), b).unwrap();
        network.link_mut(link).unwrap().silent[0] = true;
        assert!(!network.clear(&legs, 0) && network.clear(&legs, 1));
        assert!(network.carrier(a) && network.carrier(b));
        network.port_mut(a).unwrap().up = false;
        assert!(!network.carrier(b) && !network.clear(&legs, 1));
    }

    #[test]
    fn loss_loses_datagrams_and_only_delays_a_stream() {
        let (mut network, _, b, link) = two(Impairment { loss_ppm: 500_000, ..Impairment::default() });
        let (_, legs) = network.way(NodeId(0), b).unwrap();
        let lost = (0..1000).filter(|_| network.carry_datagram(&legs, Time::ZERO, 64).is_empty()).count();
        assert!((400..600).contains(&lost), "{lost}");
        let late = (0..1000)
            .filter(|_| network.carry(&legs, 0, Time::ZERO, 64) >= Time::ZERO + RETRANSMISSION)
            .count();
        assert!((400..600).contains(&late), "{late}");
        network.link_mut(link).unwrap().no_datagrams = true;
        assert!((0..100).all(|_| network.carry_datagram(&legs, Time::ZERO, 64).is_empty()));
    }

    #[test]
    fn a_duplicated_datagram_arrives_twice_and_a_reordered_one_after_its_successor() {
        let (mut network, _, b, _) =
            two(Impairment { duplicate_ppm: 1_000_000, jitter: Duration::ZERO, ..Impairment::default() });
        let (_, legs) = network.way(NodeId(0), b).unwrap();
        assert_eq!(network.carry_datagram(&legs, Time::ZERO, 64).len(), 2);
        let (mut network, _, b, link) =
            two(Impairment { reorder_ppm: 1_000_000, jitter: Duration::ZERO, ..Impairment::default() });
        let (_, legs) = network.way(NodeId(0), b).unwrap();
        let first = network.carry_datagram(&legs, Time::ZERO, 64);
        network.link_mut(link).unwrap().impairment.reorder_ppm = 0;
        let second = network.carry_datagram(&legs, Time::from_nanos(1000), 64);
        assert!(first[0] > second[0]);
    }

    #[test]
    fn datagrams_overtake_each_other_only_where_a_cable_is_not_as_it_was_made() {
        let jitter = Impairment { jitter: Duration::from_millis(5), ..Impairment::default() };
        let overtakes = |network: &mut Network, b: PortId| {
            let (_, legs) = network.way(NodeId(0), b).unwrap();
            let arrivals: Vec<Time> = (0..100)
                .flat_map(|number| network.carry_datagram(&legs, Time::from_nanos(number * 10_000), 64))
                .collect();
            assert_eq!(arrivals.len(), 100);
            arrivals.windows(2).any(|pair| pair[1] < pair[0])
        };
        let (mut network, _, b, link) = two(jitter);
        assert!(!overtakes(&mut network, b));
        network.link_mut(link).unwrap().impairment.jitter *= 2;
        assert!(overtakes(&mut network, b));
    }

    #[test]
    fn a_rate_makes_the_second_wait_for_the_first() {
        let (mut network, _, b, _) =
            two(Impairment { rate: Some(1000), jitter: Duration::ZERO, ..Impairment::default() });
        let (_, legs) = network.way(NodeId(0), b).unwrap();
        let first = network.carry(&legs, 0, Time::ZERO, 500);
        let second = network.carry(&legs, 0, Time::ZERO, 500);
        assert_eq!(second.since(first), Duration::from_millis(500));
    }

    #[test]
    fn bridges_are_crossed_and_the_way_back_is_the_way_there() {
        let mut network = Network::default();
        let a = network.add_port(NodeId(0), "eth0", Vec::new());
        let b = network.add_port(NodeId(1), "eth0", Vec::new());
        let left = network.add_port(NodeId(2), "p1", Vec::new());
        let right = network.add_port(NodeId(2), "p2", Vec::new());
        network.add_bridge(NodeId(2));
        network.add_link([a, left], Impairment::default(), Seed::new(1));
        network.add_link([right, b], Impairment::default(), Seed::new(2));
        let (leaves, legs) = network.way(NodeId(0), b).unwrap();
        assert_eq!((leaves, legs.len()), (a, 2));
        network.link_mut(LinkId(1)).unwrap().silent[1] = true;
        assert!(network.clear(&legs, 0) && !network.clear(&legs, 1));
        assert_eq!(network.neighbours(b).len(), 1);
    }
}
