//! What only the whole lab shows to be wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Lab, Port, Role};
use crate::diagnostic::Diagnostics;

pub(super) fn lab(lab: &Lab, diagnostics: &mut Diagnostics) {
    links(lab, diagnostics);
    addresses(lab, diagnostics);
    routers(lab, diagnostics);
    for (name, node) in &lab.nodes {
        let config = match &node.role {
            Role::Agent(agent) => Some(("agent", &agent.config)),
            role => role.daemon().map(|daemon| ("daemon", &daemon.config)),
        };
        if let Some((whose, config)) = config.filter(|(_, config)| node.outside(config).is_none()) {
            diagnostics.error(
                node.place,
                format!("node {name}: no bind provides the {whose}'s configuration {config}"),
            );
        }
    }
}

fn links(lab: &Lab, diagnostics: &mut Diagnostics) {
    let mut seen: BTreeMap<&Port, ()> = BTreeMap::new();
    for link in &lab.links {
        for port in &link.ends {
            if lab.refused.contains(&port.node) {
                continue;
            }
            let Some(node) = lab.nodes.get(&port.node) else {
                diagnostics.error(link.place, format!("link: there is no node `{}`", port.node));
                continue;
            };
            let name = &port.interface;
            // IFNAMSIZ is 16 with the final zero.
            if name.len() > 15 || name.contains('/') || name.starts_with('.') || name == "lo" {
                diagnostics.error(link.place, format!("link: `{name}` is no name for an interface"));
            }
            if name == "eth0" && node.role != Role::Bridge {
                diagnostics.error(
                    link.place,
                    format!(
                        "link: {}:eth0 is containerlab's management interface; begin with eth1",
                        port.node
                    ),
                );
            }
            if seen.insert(port, ()).is_some() {
                diagnostics
                    .error(link.place, format!("link: {}:{name} is an end of another link too", port.node));
            }
        }
        if link.ends[0].node == link.ends[1].node {
            diagnostics.error(link.place, format!("link: both ends are at node {}", link.ends[0].node));
        }
    }
}

fn addresses(lab: &Lab, diagnostics: &mut Diagnostics) {
    let mut owners: BTreeMap<IpAddr, String> = BTreeMap::new();
    for (name, node) in &lab.nodes {
        let interfaces = lab.interfaces(name);
        for (interface, nets) in &node.addresses {
            let place = node.places.get(interface).copied().unwrap_or(node.place);
            if interface != "lo" && !interfaces.contains(interface) {
                diagnostics
                    .error(place, format!("node {name}: no link ends at {interface}, which has addresses"));
            }
            for net in nets {
                if let Some(other) = owners.insert(net.addr(), format!("{name}:{interface}")) {
                    diagnostics.error(
                        place,
                        format!("node {name}: {} is already the address of {other}", net.addr()),
                    );
                }
            }
        }
        for gateway in &node.gateways {
            if !node.addresses.values().flatten().any(|net| net.contains(gateway)) {
                diagnostics.error(
                    node.place,
                    format!("node {name}: gateway {gateway} is in no subnet of this node"),
                );
            }
        }
    }
}

fn routers(lab: &Lab, diagnostics: &mut Diagnostics) {
    for (name, node) in &lab.nodes {
        let Role::Router(router) = &node.role else { continue };
        let neighbours = lab.neighbours(name);
        for neighbour in &neighbours {
            // Each pair once. Routers side by side may hash alike: then a flow keeps its server when one of them dies.
            if let Some(Role::Router(other)) = lab.nodes.get(&neighbour.name).map(|node| &node.role)
                && other.hash_seed == router.hash_seed
                && neighbour.name < *name
            {
                let other = &neighbour.name;
                let text = format!(
                    "node {name}: the hash seed is that of {other}; routers in a row would hash alike"
                );
                diagnostics.error(node.place, text);
            }
        }
        if neighbours.is_empty() && lab.refused.is_empty() {
            diagnostics
                .error(node.place, format!("node {name}: no agent and no router shares a subnet with it"));
        }
    }
}
