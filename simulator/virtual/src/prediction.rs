//! What the twin of the kernel's multipath says of a lab's flows: from the lab file, and from what each router put into its kernel.
//!
//! Changes and questions carry the time at which they happened and are played in this order, so that a table with a memory (a
//! resilient group) is in the twin as it is in the kernel. Questions that were measured are the only traffic it knows: a bucket
//! that other packets keep busy is idle here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyvip_ecmp::{Addresses, Flow, Packet, Threshold};
use anyvip_machine::Time;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::lab::{Lab, Node, NodeName, Role};
use crate::observation::{Flows, Outcome};
use crate::router::{Fib, Hashing, Hop};
use crate::scenario::{Protocol, Traffic};

/// A packet passes no more routers than this.
const MOST_HOPS: usize = 16;

/// Something that changes where flows go.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A router has these next hops in its kernel now, in this order; none: no route.
    Installed {
        /// The router.
        router: NodeName,
        /// The destination.
        prefix: IpNet,
        /// Where to.
        next_hops: Vec<Hop>,
    },
    /// A sysctl of a node was set.
    Sysctl {
        /// The node.
        node: NodeName,
        /// Its dotted name.
        key: String,
        /// The value.
        value: String,
    },
}

/// How predictions and answers agree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Questions that were answered and could be predicted.
    pub compared: usize,
    /// Those answered by the server that was predicted.
    pub equal: usize,
    /// Why others could not be predicted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub unknown: BTreeSet<String>,
    /// The first one that was answered by another: source port, predicted, answered.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_difference: Option<(u16, NodeName, NodeName)>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Prediction {
    lab: Lab,
    owners: BTreeMap<IpAddr, NodeName>,
    routers: BTreeMap<NodeName, (Hashing, Fib)>,
    /// What has happened and is not played yet.
    pending: BTreeMap<Time, Vec<Change>>,
}

impl Prediction {
    /// For this lab, before anything is installed.
    pub fn new(lab: &Lab) -> Prediction {
        let mut routers = BTreeMap::new();
        for (name, node) in &lab.nodes {
            let Role::Router(role) = &node.role else { continue };
            let mut hashing = Hashing::new(role.hash_seed);
            for (key, value) in &node.sysctls {
                // What the kernel does not take, it refuses when the lab is built.
                let _ = hashing.set(key, value);
            }
            routers.insert(name.clone(), (hashing, Fib::new(role.install)));
        }
        let owners = lab
            .nodes
            .iter()
            .flat_map(|(name, node)| node.addresses.values().flatten().map(|net| (net.addr(), name.clone())));
        Prediction { lab: lab.clone(), owners: owners.collect(), routers, pending: BTreeMap::new() }
    }

    /// Something changed at this moment.
    pub fn change(&mut self, at: Time, change: Change) {
        self.pending.entry(at).or_default().push(change);
    }

    /// Plays all changes until then.
    fn play_until(&mut self, at: Time) {
        while let Some(entry) = self.pending.first_entry().filter(|entry| *entry.key() <= at) {
            let (at, changes) = entry.remove_entry();
            for change in changes {
                match change {
                    Change::Installed { router, prefix, next_hops } => {
                        if let Some((_, fib)) = self.routers.get_mut(&router) {
                            fib.insert(at, prefix, next_hops);
                        }
                    }
                    Change::Sysctl { node, key, value } => {
                        if let Some((hashing, _)) = self.routers.get_mut(&node) {
                            let _ = hashing.set(&key, &value);
                        }
                    }
                }
            }
        }
    }

    /// The server that a packet of this flow, sent at this moment, goes to.
    ///
    /// # Errors
    /// Why that cannot be said.
    pub fn server(&mut self, traffic: &Traffic, port: u16, at: Time) -> Result<NodeName, String> {
        self.play_until(at);
        let ipv4 = traffic.to.is_ipv4();
        let client = self.lab.nodes.get(&traffic.from).ok_or("the client is no node")?;
        let gateway = only_gateway(client, ipv4)
            .ok_or_else(|| format!("{} has not exactly one default route", traffic.from))?;
        // As the kernel chooses a source: from the link that leads to the gateway.
        let near = client.addresses.values().find(|nets| nets.iter().any(|net| net.contains(&gateway)));
        let source = near.and_then(|nets| nets.iter().find(|net| net.addr().is_ipv4() == ipv4));
        let source = source.ok_or_else(|| format!("{} has no address of this family", traffic.from))?.addr();
        let addresses = Addresses::new(source, traffic.to).ok_or("two families")?;
        let flow = Flow {
            addresses,
            protocol: if traffic.protocol == Protocol::Tcp { 6 } else { 17 },
            source_port: port,
            destination_port: traffic.port,
        };
        let packet = if traffic.is_fragmented() { Packet::Fragment(flow) } else { Packet::Whole(flow) };
        let mut next = gateway;
        for _ in 0..MOST_HOPS {
            let name = self.owners.get(&next).ok_or_else(|| format!("nobody has {next}"))?;
            if self.lab.nodes.get(name).is_some_and(|node| node.role.is_agent()) {
                return Ok(name.clone());
            }
            let Some((hashing, fib)) = self.routers.get_mut(name) else {
                return Err(format!("{name} does not forward"));
            };
            let hash = hashing.hasher(ipv4).forwarded(&packet);
            next = match fib.pick(at, traffic.to, hash) {
                Some(hop) => hop.address,
                None => {
                    let node = self.lab.nodes.get(name);
                    let gateways = node.into_iter().flat_map(|node| &node.gateways);
                    let gateways: Vec<&IpAddr> = gateways.filter(|other| other.is_ipv4() == ipv4).collect();
                    let taken = gateways.get(Threshold::pick_equal(gateways.len(), hash));
                    **taken.ok_or_else(|| format!("{name} has no route"))?
                }
            };
        }
        Err("the packet goes round in circles".to_owned())
    }

    /// Compares what was measured with what the twin says.
    pub fn compare(&mut self, traffic: &Traffic, flows: &Flows) -> Agreement {
        let mut agreement = Agreement::default();
        for ask in &flows.asks {
            let predicted = self.server(traffic, ask.port, ask.at);
            let Outcome::Server(seen) = &ask.outcome else { continue };
            match predicted {
                Ok(predicted) => {
                    agreement.compared += 1;
                    if predicted == *seen {
                        agreement.equal += 1;
                    } else if agreement.first_difference.is_none() {
                        agreement.first_difference = Some((ask.port, predicted, seen.clone()));
                    }
                }
                Err(why) => {
                    agreement.unknown.insert(why);
                }
            }
        }
        agreement
    }

    /// The server of each flow of a traffic at this moment, where it can be said.
    pub fn servers(&mut self, traffic: &Traffic, at: Time) -> BTreeMap<u16, NodeName> {
        let ports = (0..traffic.flows).map(|number| traffic.first_port + number);
        ports.filter_map(|port| Some((port, self.server(traffic, port, at).ok()?))).collect()
    }
}

/// Source ports of flows that have another server now.
pub fn rerouted(before: &BTreeMap<u16, NodeName>, now: BTreeMap<u16, NodeName>) -> BTreeSet<u16> {
    let moved = now.into_iter().filter(|(port, server)| before.get(port) != Some(server));
    moved.map(|(port, _)| port).collect()
}

fn only_gateway(node: &Node, ipv4: bool) -> Option<IpAddr> {
    let mut gateways = node.gateways.iter().filter(|gateway| gateway.is_ipv4() == ipv4);
    let first = gateways.next()?;
    gateways.next().is_none().then_some(*first)
}
