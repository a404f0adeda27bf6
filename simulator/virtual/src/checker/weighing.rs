//! How large machines are: each is written out as for a recording, and held to what it has to know.

use std::collections::BTreeMap;

use super::facts::MachineFacts;
use super::{Checker, Place};
use crate::world::{NodeId, World};

/// Octets of a table of BFD sessions: itself, and for each session.
const BFD_SIZE: (usize, usize) = (1024, 1024);
/// Octets of an agent's state: itself, and for each address towards each peer.
const AGENT_SIZE: (usize, usize) = (8 * 1024, 2 * 1024);
/// Octets of a router's state: itself, and for each address of each neighbour.
const ROUTER_SIZE: (usize, usize) = (8 * 1024, 2 * 1024);

/// Weighs every machine. Gives the largest agent and the largest router.
pub(super) fn weigh(world: &World, checker: &mut Checker) -> (usize, usize) {
    let mut scales = Scales { world, checker, whole: Vec::new() };
    let mut largest = (0, 0);
    for (node, host) in world.hosts() {
        let Some(agent) = host.agent() else { continue };
        let addresses: usize = agent.config().services.values().map(|s| s.vips.len()).sum();
        let most = AGENT_SIZE.0 + AGENT_SIZE.1 * addresses * agent.config().bgp.peers.len();
        largest.0 = scales.weigh(node, agent, most).max(largest.0);
    }
    for (node, router) in world.routers() {
        let Some(machine) = router.machine() else { continue };
        let routes: usize =
            machine.speaker().peers().map(|peer| 1 + peer.received().map_or(0, BTreeMap::len)).sum();
        largest.1 = scales.weigh(node, machine, ROUTER_SIZE.0 + ROUTER_SIZE.1 * routes).max(largest.1);
    }
    for (node, _) in world.nodes() {
        let Some((table, sessions)) = world.bfd_table(node) else { continue };
        scales.weigh(node, table, BFD_SIZE.0 + BFD_SIZE.1 * sessions);
    }
    largest
}

struct Scales<'a> {
    world: &'a World,
    checker: &'a mut Checker,
    whole: Vec<u8>,
}

impl Scales<'_> {
    fn weigh<T: serde::Serialize>(&mut self, node: NodeId, machine: &T, most: usize) -> usize {
        self.whole.clear();
        if let Ok(written) = postcard::to_extend(machine, std::mem::take(&mut self.whole)) {
            self.whole = written;
        }
        let size = self.whole.len();
        let facts = MachineFacts {
            size,
            most_size: most,
            most_events: u64::MAX,
            most_backlog: usize::MAX,
            ..MachineFacts::default()
        };
        let place = Place { node: node.0, peer: 1, vip: None };
        let name = || format!("{}: {size} octets, at most {most} expected:", self.world.name(node));
        self.checker.machine(self.world.now(), place, &facts, &name);
        size
    }
}
