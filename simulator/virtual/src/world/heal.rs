//! Repairing everything, and saying what is broken.

use super::disk::Disk;
use super::host::{Ended, Host};
use super::network::{Link, LinkId};
use super::process::Pace;
use super::router_node::RouterNode;
use super::service::{Condition, Probing};
use super::{Node, NodeId, World};

impl World {
    /// Repairs everything that is broken: power, processes, pace, disks, kernels, services, cables, routers.
    pub(super) fn heal(&mut self) {
        for id in 0..self.nodes.len() as u32 {
            let node = NodeId(id);
            self.power_on(node, true);
            match self.nodes.get_mut(id as usize) {
                Some(Node::Host(host)) => {
                    host.disk.full = false;
                    host.disk.latency = Disk::default().latency;
                    host.kernel.refuses = None;
                    let lagged = !std::mem::take(&mut host.kernel.view_lag).is_zero();
                    let unreadable = host.disk.unreadable.take().is_some();
                    let now = self.now;
                    for service in self.services_mut(node, None) {
                        service.become_(now, Condition::Serving);
                        service.probe_as(now, Probing::Honest);
                    }
                    self.set_pace(node, Pace::Running);
                    if lagged {
                        self.kernel_changed(node, false);
                    }
                    // Whoever repairs a state file starts the agent anew.
                    if unreadable {
                        self.kill_agent(node, Ended::Killed);
                    }
                    if self.host_mut(node).is_some_and(|host| host.wanted) {
                        self.start_agent(node);
                    }
                }
                Some(Node::Router(router)) => {
                    let ignored = std::mem::take(&mut router.ignores);
                    router.loss_ppm = 0;
                    let off = std::mem::take(&mut router.bfd_off);
                    self.start_router(node);
                    self.set_stalled(node, false);
                    self.set_pace(node, Pace::Running);
                    if off {
                        self.want_router_bfd(node);
                    }
                    // Connections that it took and never looked at are of no use to anybody.
                    if ignored {
                        self.kill_router(node);
                        self.start_router(node);
                    }
                }
                _ => {}
            }
            for port in self.network.ports_of(node).to_vec() {
                self.set_port(port, true);
            }
        }
        for id in 0..self.network.links().count() as u32 {
            if let Some(link) = self.network.link_mut(LinkId(id)) {
                link.silent = [false; 2];
                link.no_datagrams = false;
                link.impairment = link.good;
            }
        }
    }

    /// What is broken now, in words; empty when all is well. Planned faults that have not struck are not in it.
    pub fn faults(&self) -> Vec<(NodeId, String)> {
        let mut found = Vec::new();
        for (id, node) in self.nodes() {
            let texts = match node {
                Node::Host(host) => broken_host(host),
                Node::Router(router) => broken_router(router),
                Node::Client(_) | Node::Bridge(_) => Vec::new(),
            };
            found.extend(texts.into_iter().map(|text| (id, text)));
        }
        for (id, link) in self.network.links() {
            let port = link.ends.first().and_then(|port| self.network.port(*port));
            let Some(port) = port else { continue };
            let texts = self.broken_link(id, link, &port.interface);
            found.extend(texts.into_iter().map(|text| (port.node, text)));
        }
        found
    }

    fn broken_link(&self, id: LinkId, link: &Link, interface: &str) -> Vec<String> {
        let name = format!("link {} at {interface}", id.0);
        let mut texts = Vec::new();
        if link.silent.contains(&true) {
            texts.push(match link.silent {
                [true, true] => format!("{name} is cut"),
                _ => format!("{name} carries one way only"),
            });
        }
        if link.no_datagrams {
            texts.push(format!("{name} loses datagrams"));
        }
        if link.impairment != link.good {
            texts.push(format!("{name} is impaired"));
        }
        if link.ends.iter().any(|port| self.network.port(*port).is_some_and(|port| !port.up)) {
            texts.push(format!("{name} is down"));
        }
        texts
    }
}

fn pace(pace: Option<Pace>) -> Option<String> {
    match pace? {
        Pace::Running => None,
        Pace::Frozen => Some("is frozen".to_owned()),
        Pace::Slow(each) => Some(format!("takes {each:?} for each event")),
    }
}

fn broken_host(host: &Host) -> Vec<String> {
    let mut texts = Vec::new();
    if !host.powered {
        texts.push("has no power".to_owned());
    } else if host.wanted && host.process.is_none() && !host.is_between() {
        texts.push("its agent does not run".to_owned());
    }
    texts.extend(pace(host.pace()).map(|text| format!("its agent {text}")));
    if host.disk.full {
        texts.push("its disk is full".to_owned());
    }
    if host.disk.unreadable.is_some() {
        texts.push("its state file cannot be read".to_owned());
    }
    if host.disk.latency > Disk::default().latency {
        texts.push(format!("its disk takes {:?} for a write", host.disk.latency));
    }
    if host.kernel.refuses.is_some() {
        texts.push("its kernel refuses".to_owned());
    }
    if !host.kernel.view_lag.is_zero() {
        texts.push(format!("its views lag by {:?}", host.kernel.view_lag));
    }
    for service in std::iter::once(&host.service).chain(host.services.values()) {
        if !service.serves() {
            texts.push(format!("a service is {:?}", service.condition().0));
        }
        if service.probing().0 != Probing::Honest {
            texts.push(format!("probes are {:?}", service.probing().0));
        }
    }
    texts
}

fn broken_router(router: &RouterNode) -> Vec<String> {
    let mut texts = Vec::new();
    if !router.powered {
        texts.push("has no power".to_owned());
    } else if router.process.is_none() {
        texts.push("its routing program does not run".to_owned());
    }
    texts.extend(pace(router.pace()).map(|text| format!("its routing program {text}")));
    if router.bfd_off {
        texts.push("has switched off BFD".to_owned());
    }
    if router.ignores {
        texts.push("answers nobody".to_owned());
    }
    if router.stalled() {
        texts.push("reads nothing".to_owned());
    }
    if router.loss_ppm > 0 {
        texts.push(format!("loses {} of a million packets", router.loss_ppm));
    }
    texts
}
