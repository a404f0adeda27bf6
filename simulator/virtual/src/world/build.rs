//! Worlds made of parts, or of a lab file.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyvip_core::config::{self, Source};
use ipnet::IpNet;

use super::host::{Ended, Host, HostPlan};
use super::kernel::{Kernel, Settings, sysctl};
use super::network::{Impairment, LinkId, PortId};
use super::router_node::{RouterNode, RouterPlan};
use super::{Client, Node, NodeId, Options, World};
use crate::lab::{Exec, Lab, Role, ServicePorts};
use crate::router::{Hashing, RouterConfig};

/// Why a lab cannot be built here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}: {text}")]
pub struct LabError {
    /// Line of the lab file.
    pub line: u64,
    /// What cannot be done.
    pub text: String,
}

impl World {
    /// A host; give it ports and cables, then [`start`](World::start).
    pub fn add_host(&mut self, name: &str, plan: HostPlan) -> NodeId {
        let kernel = Kernel::boot(&self.network, &[], &[], &Settings::new());
        let seed = self.seed.child(&format!("host {name}"));
        self.add(name, Node::Host(Box::new(Host::new(name, seed, plan, kernel))))
    }

    /// A router.
    pub fn add_router(&mut self, name: &str, plan: RouterPlan) -> NodeId {
        let seed = self.seed.child(&format!("router {name}"));
        self.add(name, Node::Router(Box::new(RouterNode::new(name, seed, plan))))
    }

    /// A client.
    pub fn add_client(&mut self, name: &str, gateways: Vec<std::net::IpAddr>) -> NodeId {
        self.add(name, Node::Client(Client { name: name.to_owned(), gateways }))
    }

    /// A bridge.
    pub fn add_bridge(&mut self, name: &str) -> NodeId {
        let id = self.add(name, Node::Bridge(name.to_owned()));
        self.network.add_bridge(id);
        id
    }

    fn add(&mut self, name: &str, node: Node) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        self.names.insert(name.to_owned(), id);
        id
    }

    /// An interface of a node.
    pub fn add_port(&mut self, node: NodeId, interface: &str, addresses: Vec<IpNet>) -> PortId {
        self.network.add_port(node, interface, addresses)
    }

    /// A cable.
    pub fn add_link(&mut self, ends: [PortId; 2], impairment: Impairment) -> LinkId {
        let seed = self.seed.child(&format!("link {}", self.network.links().count()));
        self.network.add_link(ends, impairment, seed)
    }

    /// Boots everything that has been added: kernels see their cables, routers and agents start.
    pub fn start(&mut self) {
        for id in (0..self.nodes.len() as u32).map(NodeId) {
            let Some(Node::Host(host)) = self.nodes.get_mut(id.0 as usize) else { continue };
            let ports = self.network.ports_of(id);
            host.kernel = Kernel::boot(&self.network, ports, &host.plan.gateways, &host.plan.settings);
        }
        for id in (0..self.nodes.len() as u32).map(NodeId) {
            self.start_router(id);
            self.hand_out();
        }
        for id in (0..self.nodes.len() as u32).map(NodeId) {
            self.start_agent(id);
            self.hand_out();
        }
    }

    /// The world of a lab file, started. `configs` holds each agent's configuration file.
    ///
    /// # Errors
    /// When the lab asks for something that only the namespace backend has.
    pub fn from_lab(
        lab: &Lab,
        configs: &BTreeMap<String, String>,
        seed: u64,
        options: Options,
    ) -> Result<World, LabError> {
        let mut world = World::new(seed, options);
        for (name, node) in &lab.nodes {
            if let Some(Exec::Command(words)) = node.exec.iter().find(|exec| **exec != Exec::Role) {
                let text = format!("{name}: the virtual backend runs no commands (`{}`)", words.join(" "));
                return Err(LabError { line: node.place.line, text });
            }
            match &node.role {
                Role::Bridge => {
                    world.add_bridge(name);
                }
                Role::Router(role) if role.daemon.is_some() => {
                    let text =
                        format!("{name}: the virtual backend runs the embedded router only, no other daemon");
                    return Err(LabError { line: node.place.line, text });
                }
                Role::Router(role) => {
                    let config = RouterConfig::of(lab, name, role);
                    let mut hashing = Hashing::new(role.hash_seed);
                    // Routers of this world send no redirects.
                    let none = |key: &str, value: &str| key.ends_with(".send_redirects") && value == "0";
                    for (key, value) in node.sysctls.iter().filter(|(key, value)| !none(key, value)) {
                        hashing_sysctl(&mut hashing, key, value)
                            .map_err(|text| LabError { line: node.place.line, text })?;
                    }
                    let plan = RouterPlan {
                        config,
                        gateways: node.gateways.clone(),
                        hash_seed: role.hash_seed,
                        install: role.install,
                        sysctls: node.sysctls.clone(),
                        bfd: BTreeMap::new(),
                    };
                    world.add_router(name, plan);
                }
                Role::Agent(role) => {
                    let text = configs.get(name).cloned().unwrap_or_default();
                    let source = Source { name: name.clone(), text: text.clone() };
                    if !config::includes(&source).0.is_empty() {
                        let text =
                            format!("{name}: the virtual backend reads one configuration file, no `include`");
                        return Err(LabError { line: node.place.line, text });
                    }
                    let ServicePorts { http, tcp, udp, dns } = role.service;
                    world.add_host(
                        name,
                        HostPlan {
                            config: Arc::from(text),
                            gateways: node.gateways.clone(),
                            settings: settings(node)?,
                            ports: Some([http, tcp, udp, dns].into_iter().flatten().collect()),
                        },
                    );
                }
                Role::Client => {
                    world.add_client(name, node.gateways.clone());
                }
            }
        }
        for (name, node) in &lab.nodes {
            let Some(id) = world.find(name) else { continue };
            for interface in lab.interfaces(name) {
                let addresses = node.addresses.get(&interface).cloned().unwrap_or_default();
                world.add_port(id, &interface, addresses);
            }
        }
        for link in &lab.links {
            let port =
                |end: &crate::lab::Port| world.network.find_port(world.find(&end.node)?, &end.interface);
            if let [Some(a), Some(b)] = [port(&link.ends[0]), port(&link.ends[1])] {
                world.add_link([a, b], Impairment::default());
            }
        }
        world.start();
        world.answer_bfd();
        let refused: Vec<(&str, &str)> = world
            .hosts()
            .filter_map(|(_, host)| match &host.ended {
                Some((_, Ended::Refused(text))) => Some((host.name.as_str(), text.as_str())),
                _ => None,
            })
            .collect();
        if let Some((first, _)) = refused.first() {
            let line = lab.nodes.get(*first).map_or(0, |node| node.place.line);
            let texts: Vec<String> = refused
                .iter()
                .map(|(name, text)| format!("the configuration of {name} is refused: {text}"))
                .collect();
            return Err(LabError { line, text: texts.join("\n") });
        }
        Ok(world)
    }
}

/// Of routers, this kernel has the sysctls of the hash.
pub(super) fn hashing_sysctl(hashing: &mut Hashing, key: &str, value: &str) -> Result<(), String> {
    match hashing.set(key, value)? {
        true => Ok(()),
        false => {
            Err(format!("{key}: a router of the virtual backend has only net.ipv[46].fib_multipath_hash_*"))
        }
    }
}

/// The sysctls that this kernel has; others are refused.
fn settings(node: &crate::lab::Node) -> Result<Settings, LabError> {
    let mut settings = Settings::new();
    for (key, value) in &node.sysctls {
        let read = sysctl(key, value).map_err(|text| LabError { line: node.place.line, text })?;
        read.1.apply(settings.entry(read.0).or_default());
    }
    Ok(settings)
}
