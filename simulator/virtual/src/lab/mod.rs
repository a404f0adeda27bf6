//! A lab as meant: nodes with a role, their addresses, and the links between them.
//!
//! A lab is *written* as a containerlab topology file; [`Lab::read`] turns one into this.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Severity};
use crate::router::Install;

mod check;
mod labels;
mod merge;
mod read;

/// Name of a node, as written.
pub type NodeName = String;

/// A network to build.
#[derive(Clone, Debug, PartialEq)]
pub struct Lab {
    /// Name of the lab.
    pub name: String,
    /// All nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// All links.
    pub links: Vec<Link>,
    /// Nodes that are written but make no sense: what speaks of them is not wrong for that.
    pub refused: BTreeSet<NodeName>,
}

/// One machine of the lab, or a bridge between machines.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it is written.
    pub place: Place,
    /// What it does.
    pub role: Role,
    /// Addresses of each interface that has any; the key is the interface's name.
    pub addresses: BTreeMap<String, Vec<IpNet>>,
    /// Where these are written.
    pub places: BTreeMap<String, Place>,
    /// Gateways of the default routes; several of one family make one multipath route.
    pub gateways: Vec<IpAddr>,
    /// Sysctls (`net.` only), by dotted name.
    pub sysctls: BTreeMap<String, String>,
    /// Files of the host inside the container.
    pub binds: Vec<Bind>,
    /// Environment of what runs in the node.
    pub env: BTreeMap<String, String>,
    /// Commands that run before the role, and whether the role's own command came.
    pub exec: Vec<Exec>,
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// `kind: bridge`: connects its links at layer 2 and has no namespace of its own.
    Bridge,
    /// Speaks BGP with its neighbours and spreads flows by a 5-tuple hash.
    Router(RouterRole),
    /// Runs the agent and the built-in service.
    Agent(AgentRole),
    /// Asks.
    Client,
}

/// The embedded router of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterRole {
    /// Its AS number.
    pub asn: u32,
    /// BGP Identifier: `anyvip.router-id`, else its lowest IPv4 address.
    pub router_id: Ipv4Addr,
    /// Seed of the kernel's multipath hash, not zero and different for each router of a lab.
    pub hash_seed: u32,
    /// How it puts next hops into its kernel.
    pub install: Install,
    /// Offered hold time; `None` is written `0s`.
    pub hold_time: Option<Duration>,
    /// Whether best routes are told to neighbouring routers, with this router as next hop.
    pub readvertise: bool,
    /// A foreign daemon in the place of the embedded router.
    pub daemon: Option<DaemonRole>,
}

/// A foreign routing daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Daemon {
    /// FRR: zebra and bgpd.
    Frr,
    /// BIRD 2.
    Bird,
}

impl std::str::FromStr for Daemon {
    type Err = String;

    fn from_str(text: &str) -> Result<Daemon, String> {
        match text {
            "frr" => Ok(Daemon::Frr),
            "bird" => Ok(Daemon::Bird),
            _ => Err("expected frr or bird".to_owned()),
        }
    }
}

/// A foreign daemon of a router.
#[derive(Clone, Debug, PartialEq)]
pub struct DaemonRole {
    /// Which.
    pub kind: Daemon,
    /// Its configuration inside the container; the file comes from a bind.
    pub config: String,
    /// Destinations whose routes in the kernel the lab tells.
    pub watch: Vec<IpAddr>,
}

/// The agent of a node and the service it watches.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRole {
    /// Its AS number, as its neighbours must know it.
    pub asn: u32,
    /// Its configuration inside the container; the file comes from a bind.
    pub config: String,
    /// Ports of the built-in service.
    pub service: ServicePorts,
}

/// Where the built-in service listens, on every address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServicePorts {
    /// HTTP health, `GET /`.
    pub http: Option<u16>,
    /// TCP: a line comes back with the node's name in front.
    pub tcp: Option<u16>,
    /// UDP: the same, from the address that was asked.
    pub udp: Option<u16>,
    /// DNS over UDP: answers `hostname.bind. CH TXT` with the node's name.
    pub dns: Option<u16>,
}

/// `source:target[:options]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// Path outside, relative to the lab file.
    pub source: String,
    /// Path inside.
    pub target: String,
}

/// One line of `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exec {
    /// `anyvip-sim node …`: starts the role.
    Role,
    /// Anything else, split at blanks.
    Command(Vec<String>),
}

/// A cable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Where it is written.
    pub place: Place,
    /// Both ends.
    pub ends: [Port; 2],
    /// Its MTU, if it is said.
    pub mtu: Option<u32>,
}

/// An end of a link.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The node.
    pub node: NodeName,
    /// Its interface.
    pub interface: String,
}

/// A BGP neighbour of a router, found by a shared subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Name of the node.
    pub name: NodeName,
    /// Its address in the shared subnet.
    pub address: IpAddr,
    /// The router's interface in that subnet.
    pub interface: String,
    /// The neighbour's AS number.
    pub asn: u32,
    /// Whether this router opens the connection (between routers, the lower name does).
    pub connect: bool,
}

impl Lab {
    /// Reads a topology file. With an error in the list there is no lab; warnings may come along with one.
    pub fn read(file: &str, text: &str) -> (Option<Lab>, Vec<Diagnostic>) {
        let (lab, diagnostics) = Lab::draft(file, text);
        let wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
        (lab.filter(|_| !wrong), diagnostics)
    }

    /// The same, but with what could be understood also where there are errors: so that a scenario can be held to it at once.
    pub fn draft(file: &str, text: &str) -> (Option<Lab>, Vec<Diagnostic>) {
        let mut diagnostics = Diagnostics::new(file);
        let lab = read::lab(text, &mut diagnostics);
        if let Some(lab) = &lab {
            check::lab(lab, &mut diagnostics);
        }
        (lab, diagnostics.into_sorted())
    }

    /// Names of all nodes that have this kind of role.
    pub fn names(&self, wanted: fn(&Role) -> bool) -> BTreeSet<NodeName> {
        self.nodes.iter().filter(|(_, node)| wanted(&node.role)).map(|(name, _)| name.clone()).collect()
    }

    /// Interfaces of a node, in order of name.
    pub fn interfaces(&self, node: &str) -> BTreeSet<String> {
        self.links
            .iter()
            .flat_map(|link| &link.ends)
            .filter(|port| port.node == node)
            .map(|port| port.interface.clone())
            .collect()
    }

    /// The other end of the link at this port.
    pub fn opposite(&self, node: &str, interface: &str) -> Option<&Port> {
        self.links.iter().find_map(|link| match &link.ends {
            [a, b] if a.node == node && a.interface == interface => Some(b),
            [a, b] if b.node == node && b.interface == interface => Some(a),
            _ => None,
        })
    }

    /// The node that has this address on one of its interfaces.
    pub fn owner_of(&self, address: IpAddr) -> Option<&NodeName> {
        self.nodes
            .iter()
            .find(|(_, node)| node.addresses.values().flatten().any(|net| net.addr() == address))
            .map(|(name, _)| name)
    }

    /// Who speaks BGP with this router: every agent and router that shares a subnet with it, once each, over IPv4
    /// where both have it (one session carries both families).
    pub fn neighbours(&self, router: &str) -> Vec<Neighbour> {
        let Some(own) = self.nodes.get(router) else { return Vec::new() };
        let mut found = Vec::new();
        for (name, node) in self.nodes.iter().filter(|(name, _)| *name != router) {
            let (asn, connect) = match &node.role {
                Role::Agent(agent) => (agent.asn, false),
                Role::Router(other) => (other.asn, router < name.as_str()),
                Role::Bridge | Role::Client => continue,
            };
            let mut shared: Vec<(IpAddr, String)> = Vec::new();
            for (interface, nets) in &own.addresses {
                for net in nets {
                    for other in node.addresses.values().flatten() {
                        if net.contains(&other.addr()) {
                            shared.push((other.addr(), interface.clone()));
                        }
                    }
                }
            }
            shared.sort();
            if let Some((address, interface)) = shared.into_iter().next() {
                found.push(Neighbour { name: name.clone(), address, interface, asn, connect });
            }
        }
        found
    }
}

impl Node {
    /// The path outside of a path inside, by the longest bind that covers it; relative to the lab file.
    pub fn outside(&self, inside: &str) -> Option<String> {
        self.binds
            .iter()
            .filter_map(|bind| {
                let rest = inside.strip_prefix(&bind.target)?;
                if rest.is_empty() {
                    return Some((bind.target.len(), bind.source.clone()));
                }
                let rest = if bind.target.ends_with('/') { rest } else { rest.strip_prefix('/')? };
                Some((bind.target.len(), format!("{}/{rest}", bind.source.trim_end_matches('/'))))
            })
            .max()
            .map(|(_, path)| path)
    }
}

impl Role {
    /// Whether this is a router.
    pub fn is_router(&self) -> bool {
        matches!(self, Role::Router(_))
    }

    /// The foreign daemon of a router.
    pub fn daemon(&self) -> Option<&DaemonRole> {
        match self {
            Role::Router(router) => router.daemon.as_ref(),
            _ => None,
        }
    }

    /// Whether an agent runs here.
    pub fn is_agent(&self) -> bool {
        matches!(self, Role::Agent(_))
    }

    /// Whether this is a client.
    pub fn is_client(&self) -> bool {
        matches!(self, Role::Client)
    }
}

#[cfg(test)]
mod tests;
