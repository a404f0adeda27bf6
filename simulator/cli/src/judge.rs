//! The invariants at the end of a run in namespaces: the checker's rules, told what `status --json`, the kernel's routes and
//! the scenario's own steps say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_virtual::checker::facts::{Admin, PeerFacts, RouterFacts, VipFacts};
use anyvip_virtual::checker::rules;
use anyvip_virtual::lab::{Lab, NodeName};
use anyvip_virtual::router::MULTIPATH_LIMIT;
use anyvip_virtual::scenario::Disturbance;
use ipnet::IpNet;
use serde_json::Value;

/// Reasons that a lab may end with and that are no failure to recover.
const ACCEPTED: [&str; 8] = [
    "VipContested",
    "CrashLoop",
    "StateUnreadable",
    "ArpGuardUnsafe",
    "PrefixWithheld",
    "FamilyNotNegotiated",
    "NoNextHop",
    "ReturnPath",
];

/// What the scenario did and has not undone.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Their service does not answer.
    down: BTreeSet<NodeName>,
    /// Their agent was ended.
    ended: BTreeSet<NodeName>,
    /// Drained services; without a name: all.
    drained: BTreeSet<(NodeName, Option<String>)>,
    /// Something lies between them and others.
    disturbed: BTreeSet<NodeName>,
}

impl Truth {
    /// Takes note of what was done.
    pub(crate) fn note(&mut self, disturbance: &Disturbance) {
        match disturbance {
            Disturbance::Kill(node) | Disturbance::Hang(node) => {
                self.down.insert(node.clone());
            }
            Disturbance::Resume(node) | Disturbance::StartService(node) => {
                self.down.remove(node);
            }
            Disturbance::KillAgent(node) | Disturbance::StopAgent(node) => {
                self.ended.insert(node.clone());
            }
            Disturbance::StartAgent(node) => {
                self.ended.remove(node);
            }
            Disturbance::Drain { node, service } => {
                self.drained.insert((node.clone(), service.clone()));
            }
            Disturbance::Undrain { node, service } => {
                self.drained.retain(|(other, name)| other != node || service.is_some() && name != service);
            }
            Disturbance::CarrierDown(ports) | Disturbance::Silence(ports) => {
                self.disturbed.extend(ports.iter().map(|port| port.node.clone()));
            }
            Disturbance::CarrierUp(ports) | Disturbance::Unsilence(ports) => {
                for port in ports {
                    self.disturbed.remove(&port.node);
                }
            }
            Disturbance::Loss { router, permille: 0 } => {
                self.disturbed.remove(router);
            }
            Disturbance::Loss { router, .. } => {
                self.disturbed.insert(router.clone());
            }
            Disturbance::DeleteVip { .. }
            | Disturbance::Sysctl { .. }
            | Disturbance::Reload { .. }
            | Disturbance::Upgrade(_) => {}
        }
    }

    fn drained(&self, node: &str, service: &str) -> bool {
        self.drained
            .iter()
            .any(|(other, name)| other == node && name.as_deref().is_none_or(|name| name == service))
    }
}

/// Kernel routes of routers.
pub(crate) type Routes = BTreeMap<(NodeName, IpNet), Vec<IpAddr>>;

/// What is wrong with one agent by its own status and its routers' kernels.
pub(crate) fn wrong(lab: &Lab, truth: &Truth, routes: &Routes, node: &str, status: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for service in list(status, "services") {
        let name = text(service, "name");
        for seen in list(service, "vips") {
            let Ok(vip) = text(seen, "address").parse::<IpAddr>() else { continue };
            if ACCEPTED.contains(&text(seen, "reason")) {
                continue;
            }
            let vip_facts = VipFacts {
                vip,
                present: seen["present"] == Value::Bool(true),
                guarded: seen["arp_guarded"].as_bool(),
                healthy: Some(!truth.down.contains(node) || list(service, "checks").is_empty()),
                detection: Duration::ZERO,
                depreferences: false,
                admin: match (truth.drained(node, name), text(service, "admin")) {
                    (_, "draining") => Admin::Undecided,
                    (true, _) => Admin::Drained,
                    (false, _) => Admin::Enabled,
                },
                able: true,
                wanted: !truth.ended.contains(node),
                untouched: false,
            };
            for seen in list(seen, "peers") {
                let peer = text(seen, "name");
                let of_peer = list(status, "peers").iter().find(|found| text(found, "name") == peer);
                let Some(session) = of_peer.filter(|found| text(found, "protocol") == "bgp") else {
                    continue;
                };
                let advertised = seen["advertised"] == Value::Bool(true);
                let peer_facts = PeerFacts {
                    established: text(session, "state") == "Established",
                    admitted: !ACCEPTED.contains(&text(seen, "reason")),
                    decided: advertised,
                    preferred: advertised,
                    advertised,
                };
                let router = router_facts(lab, truth, routes, node, vip, text(session, "address"));
                // What is cut off has nothing to recover.
                let apart = truth.disturbed.contains(node) || router.is_some_and(|router| !router.clear);
                let missing = rules::not_recovered(&vip_facts, &peer_facts, router.as_ref());
                let what = [
                    missing.filter(|_| !apart),
                    rules::drained_is_withheld(&vip_facts, &peer_facts).map(|found| found.what),
                    router
                        .and_then(|router| rules::views_agree(&peer_facts, &router, true))
                        .map(|found| found.what),
                ];
                found.extend(what.into_iter().flatten().map(|what| format!("{node}: {vip} {what} ({peer})")));
            }
        }
    }
    found
}

/// What the router at the other end of a session makes of it; `None`: it is not one whose kernel is watched.
fn router_facts(
    lab: &Lab,
    truth: &Truth,
    routes: &Routes,
    node: &str,
    vip: IpAddr,
    peer: &str,
) -> Option<RouterFacts> {
    let address: IpAddr = peer.parse().ok()?;
    let router = lab.owner_of(address)?;
    if !lab.nodes.get(router)?.role.is_router() {
        return None;
    }
    let hops = routes.get(&(router.clone(), IpNet::from(vip)));
    let ours = |hop: &IpAddr| lab.owner_of(*hop).is_some_and(|owner| owner == node);
    let uses = hops.is_some_and(|hops| hops.iter().any(ours));
    if !uses && hops.is_some_and(|hops| hops.len() >= MULTIPATH_LIMIT) {
        // It uses no more than so many, and does not show whom it knows besides.
        return None;
    }
    Some(RouterFacts {
        able: true,
        clear: !truth.disturbed.contains(node) && !truth.disturbed.contains(router),
        established: true,
        heard: uses,
        retained: None,
        equal: true,
        chosen: Some(uses),
        hold_time: None,
        agent_silent: None,
        agent_slow: false,
    })
}

/// IPv4 addresses that every agent says are there and guarded: nobody may answer ARP for them.
pub(crate) fn silent(statuses: &[Value]) -> BTreeSet<Ipv4Addr> {
    let vips = || {
        let services = statuses.iter().flat_map(|status| list(status, "services"));
        services.flat_map(|service| list(service, "vips"))
    };
    let address = |vip: &Value| text(vip, "address").parse::<Ipv4Addr>().ok();
    let loud: BTreeSet<Ipv4Addr> =
        vips().filter(|vip| vip["arp_guarded"] != Value::Bool(true)).filter_map(address).collect();
    vips().filter_map(address).filter(|vip| !loud.contains(vip)).collect()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
