//! What can go wrong, and how it heals.

use std::net::IpAddr;
use std::time::Duration;

use anyvip_bgp::PeerName;
use anyvip_core::ServiceName;
use anyvip_machine::{Failure, FailureKind, Time};
use serde::{Deserialize, Serialize};

use super::build::hashing_sysctl;
use super::host::Ended;
use super::network::{Impairment, LinkId, PortId};
use super::operator::Operation;
use super::process::{Letter, Pace};
use super::service::{Condition, Probing};
use super::stream::EndState;
use super::{Node, NodeId, World};

/// One thing that goes wrong, or right again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// SIGKILL for the agent; its kernel closes the connections.
    KillAgent { host: NodeId },
    /// The agent again (the service manager's work); nothing if one runs, the host has no power,
    /// or somebody stopped it on purpose.
    StartAgent { host: NodeId },
    /// The host loses power: no FIN, no RST, and everything in its kernel is gone.
    PowerOff { host: NodeId },
    /// It boots, and the agent starts; without `state` the disk is a new one.
    PowerOn { host: NodeId, state: bool },
    /// SIGSTOP for agent or routing program.
    Freeze { node: NodeId },
    /// SIGCONT.
    Continue { node: NodeId },
    /// The process handles one event each so long; zero: as fast as ever.
    Slow { node: NodeId, each: Duration },
    /// A write of the state takes so long.
    DiskLatency { host: NodeId, latency: Duration },
    /// Writes fail, or no longer.
    DiskFull { host: NodeId, full: bool },
    /// The state file becomes unreadable, or is repaired.
    StateUnreadable { host: NodeId, unreadable: bool },
    /// The wall clock jumps.
    ClockStep { host: NodeId, by_ms: i64 },
    /// Somebody deletes an address.
    DeleteAddress { host: NodeId, address: IpAddr },
    /// Somebody sets ARP values of an interface; the kernel tells nobody.
    SetArp { host: NodeId, interface: String, ignore: u32, announce: u32 },
    /// Somebody sets a sysctl (`net.ipv4.conf.*.{arp_ignore,arp_announce,rp_filter}`; others do nothing).
    Sysctl { host: NodeId, key: String, value: String },
    /// The kernel refuses every change, or no longer.
    NetlinkRefuses { host: NodeId, kind: Option<FailureKind> },
    /// What the agent sees of the kernel lags behind by so much.
    ViewLag { host: NodeId, lag: Duration },
    /// The service turns into this; `None`: every service of the host.
    Service { host: NodeId, service: Option<String>, condition: Condition },
    /// Probes of the service turn into this.
    Probes { host: NodeId, service: Option<String>, probing: Probing },
    /// A port goes down or up: the other end sees it.
    Port { port: PortId, up: bool },
    /// The cable is cut in both directions, or mended; both ends still see a signal.
    Cut { link: LinkId, cut: bool },
    /// What this end of the cable sends is lost, or no longer.
    CutOneWay { link: LinkId, end: u8, cut: bool },
    /// The cable does this to what crosses it.
    Impair { link: LinkId, impairment: Impairment },
    /// The routing program dies.
    KillRouter { router: NodeId },
    /// It starts again.
    StartRouter { router: NodeId },
    /// The router loses power.
    RouterOff { router: NodeId },
    /// It boots.
    RouterOn { router: NodeId },
    /// All its sessions are reset.
    ResetSessions { router: NodeId },
    /// It loses what this peer (or all) told it and keeps the session: a bug of the router.
    ForgetRoutes { router: NodeId, peer: Option<String> },
    /// An operator switches BFD for BGP off (AdminDown), or on again.
    RouterBfd { router: NodeId, on: bool },
    /// A filter on the cable loses datagrams, and BFD with them, or no longer.
    LoseDatagrams { link: LinkId, lost: bool },
    /// It takes connections and never answers, or again.
    Ignore { router: NodeId, ignores: bool },
    /// It reads nothing from its connections, or again.
    Stall { router: NodeId, stalled: bool },
    /// Of a million packets that it forwards, so many are lost.
    Loss { router: NodeId, ppm: u32 },
}

/// What is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planned {
    /// A fault, or its end.
    Fault(Fault),
    /// Somebody at a host.
    Operation { host: NodeId, operation: Operation },
    /// Everything that is broken is repaired at once: the liveness phase begins.
    Heal,
}

/// Where a fault strikes.
enum Struck {
    Node(NodeId),
    Port(PortId),
    Link(LinkId),
}

impl Fault {
    fn struck(&self) -> Struck {
        match self {
            Fault::KillAgent { host }
            | Fault::StartAgent { host }
            | Fault::PowerOff { host }
            | Fault::PowerOn { host, .. }
            | Fault::DiskLatency { host, .. }
            | Fault::DiskFull { host, .. }
            | Fault::StateUnreadable { host, .. }
            | Fault::ClockStep { host, .. }
            | Fault::DeleteAddress { host, .. }
            | Fault::SetArp { host, .. }
            | Fault::Sysctl { host, .. }
            | Fault::NetlinkRefuses { host, .. }
            | Fault::ViewLag { host, .. }
            | Fault::Service { host, .. }
            | Fault::Probes { host, .. } => Struck::Node(*host),
            Fault::Freeze { node } | Fault::Continue { node } | Fault::Slow { node, .. } => {
                Struck::Node(*node)
            }
            Fault::KillRouter { router }
            | Fault::StartRouter { router }
            | Fault::RouterOff { router }
            | Fault::RouterOn { router }
            | Fault::ResetSessions { router }
            | Fault::ForgetRoutes { router, .. }
            | Fault::RouterBfd { router, .. }
            | Fault::Ignore { router, .. }
            | Fault::Stall { router, .. }
            | Fault::Loss { router, .. } => Struck::Node(*router),
            Fault::Port { port, .. } => Struck::Port(*port),
            Fault::Cut { link, .. }
            | Fault::CutOneWay { link, .. }
            | Fault::Impair { link, .. }
            | Fault::LoseDatagrams { link, .. } => Struck::Link(*link),
        }
    }
}

impl World {
    /// The nodes that this concerns are not left alone any more.
    pub(super) fn disturb(&mut self, planned: &Planned) {
        let node_of = |port: &PortId| self.network.port(*port).map(|port| port.node);
        let nodes: Vec<NodeId> = match planned {
            Planned::Operation { operation: Operation::Upgrade { .. }, .. } => Vec::new(),
            Planned::Operation { host, .. } => vec![*host],
            Planned::Heal => self.nodes().map(|(node, _)| node).collect(),
            Planned::Fault(fault) => match fault.struck() {
                Struck::Node(node) => vec![node],
                Struck::Port(port) => {
                    [Some(port), self.network.opposite(port)].iter().flatten().filter_map(node_of).collect()
                }
                Struck::Link(link) => {
                    let ends = self.network.link(link).map(|link| link.ends);
                    ends.iter().flatten().filter_map(node_of).collect()
                }
            },
        };
        for node in nodes {
            self.disturbed.insert(node, self.now);
        }
    }

    /// When somebody last did something to a node or its cables, for ill or good; an upgrade is nothing of the kind.
    pub fn disturbed(&self, node: NodeId) -> Option<Time> {
        self.disturbed.get(&node).copied()
    }
}

impl World {
    pub(super) fn strike(&mut self, fault: Fault) {
        let now = self.now;
        match fault {
            Fault::KillAgent { host } => {
                self.kill_between(host);
                self.kill_agent(host, Ended::Killed);
            }
            Fault::StartAgent { host } => {
                if self.host_mut(host).is_some_and(|host| host.wanted) {
                    self.start_agent(host);
                }
            }
            Fault::PowerOff { host } => self.power_off(host),
            Fault::PowerOn { host, state } => self.power_on(host, state),
            Fault::Freeze { node } => self.set_pace(node, Pace::Frozen),
            Fault::Continue { node } => self.set_pace(node, Pace::Running),
            Fault::Slow { node, each } => {
                self.set_pace(node, if each.is_zero() { Pace::Running } else { Pace::Slow(each) });
            }
            Fault::DiskLatency { host, latency } => {
                if let Some(host) = self.host_mut(host) {
                    host.disk.latency = latency;
                }
            }
            Fault::DiskFull { host, full } => {
                if let Some(host) = self.host_mut(host) {
                    host.disk.full = full;
                }
            }
            Fault::StateUnreadable { host, unreadable } => {
                if let Some(host) = self.host_mut(host) {
                    host.disk.unreadable = unreadable.then(|| "the file is torn".to_owned());
                }
            }
            Fault::ClockStep { host, by_ms } => {
                if let Some(host) = self.host_mut(host) {
                    host.clock_off_ms = host.clock_off_ms.saturating_add(by_ms);
                }
            }
            Fault::DeleteAddress { host, address } => {
                if self.host_mut(host).is_some_and(|host| host.kernel.delete(address)) {
                    self.kernel_changed(host, false);
                }
            }
            Fault::SetArp { host, interface, ignore, announce } => {
                let settings = self.host_mut(host).and_then(|host| match interface.as_str() {
                    "all" => Some(&mut host.kernel.all),
                    name => {
                        host.kernel.links.values_mut().find(|link| link.name == name).map(|l| &mut l.settings)
                    }
                });
                if let Some(settings) = settings {
                    (settings.arp_ignore, settings.arp_announce) = (ignore, announce);
                    self.kernel_changed(host, true);
                }
            }
            Fault::Sysctl { host, key, value } => {
                let done = self.host_mut(host).is_some_and(|host| host.kernel.set(&key, &value).is_ok());
                if done {
                    self.kernel_changed(host, true);
                }
                if let Some(router) = self.router_mut(host) {
                    // What a router does not have was refused before.
                    let _ = hashing_sysctl(&mut router.hashing, &key, &value);
                }
            }
            Fault::NetlinkRefuses { host, kind } => {
                if let Some(host) = self.host_mut(host) {
                    host.kernel.refuses = kind;
                }
            }
            Fault::ViewLag { host, lag } => {
                if let Some(host) = self.host_mut(host) {
                    host.kernel.view_lag = lag;
                }
            }
            Fault::Service { host, service, condition } => {
                for service in self.services_mut(host, service) {
                    service.become_(now, condition);
                }
            }
            Fault::Probes { host, service, probing } => {
                for service in self.services_mut(host, service) {
                    service.probe_as(now, probing);
                }
            }
            Fault::Port { port, up } => self.set_port(port, up),
            Fault::Cut { link, cut } => {
                if let Some(link) = self.network.link_mut(link) {
                    link.silent = [cut; 2];
                }
            }
            Fault::CutOneWay { link, end, cut } => {
                let link = self.network.link_mut(link);
                if let Some(silent) = link.and_then(|link| link.silent.get_mut(end as usize)) {
                    *silent = cut;
                }
            }
            Fault::Impair { link, impairment } => {
                if let Some(link) = self.network.link_mut(link) {
                    link.impairment = impairment;
                }
            }
            Fault::KillRouter { router } => self.kill_router(router),
            Fault::StartRouter { router } => self.start_router(router),
            Fault::RouterOff { router } => self.power_off(router),
            Fault::RouterOn { router } => self.power_on(router, true),
            Fault::ResetSessions { router } => self.reset_sessions(router),
            Fault::ForgetRoutes { router, peer } => self.forget_routes(router, peer.map(PeerName).as_ref()),
            Fault::RouterBfd { router, on } => {
                if let Some(router) = self.router_mut(router) {
                    router.bfd_off = !on;
                }
                // A program that is stopped reads its configuration when it goes on.
                if self.task(router).is_some_and(|task| task.pace != Pace::Frozen) {
                    self.want_router_bfd(router);
                }
            }
            Fault::LoseDatagrams { link, lost } => {
                if let Some(link) = self.network.link_mut(link) {
                    link.no_datagrams = lost;
                }
            }
            Fault::Ignore { router, ignores } => {
                if let Some(router) = self.router_mut(router) {
                    router.ignores = ignores;
                }
            }
            Fault::Stall { router, stalled } => self.set_stalled(router, stalled),
            Fault::Loss { router, ppm } => {
                if let Some(router) = self.router_mut(router) {
                    router.loss_ppm = ppm;
                }
            }
        }
    }

    pub(super) fn services_mut(
        &mut self,
        host: NodeId,
        service: Option<String>,
    ) -> Vec<&mut super::service::Service> {
        let Some(host) = self.host_mut(host) else { return Vec::new() };
        match service {
            Some(name) => vec![host.service_mut(Some(&ServiceName(name)))],
            None => std::iter::once(&mut host.service).chain(host.services.values_mut()).collect(),
        }
    }

    fn power_off(&mut self, node: NodeId) {
        if let Some(number) = self.task(node).map(|task| task.number) {
            for (stream, side) in self.streams_of(node, number) {
                self.vanish(stream, side);
            }
        }
        let now = self.now;
        match self.nodes.get_mut(node.0 as usize) {
            Some(Node::Host(host)) => {
                host.powered = false;
                host.start_after = None;
                host.upgrade.killed();
                if host.process.take().is_some() {
                    host.ended = Some((now, Ended::Killed));
                }
            }
            Some(Node::Router(router)) => {
                router.powered = false;
                self.router_is_gone(node);
            }
            _ => return,
        }
        for port in self.network.ports_of(node).to_vec() {
            self.set_port(port, false);
        }
    }

    pub(super) fn power_on(&mut self, node: NodeId, state: bool) {
        if self.powered(node) {
            return;
        }
        match self.nodes.get_mut(node.0 as usize) {
            Some(Node::Host(host)) => {
                host.powered = true;
                host.boots += 1;
                if !state {
                    // A new disk: what operators wanted is gone with the old one.
                    host.disk = super::disk::Disk::default();
                    host.intentions.clear();
                }
            }
            Some(Node::Router(router)) => router.powered = true,
            _ => return,
        }
        for port in self.network.ports_of(node).to_vec() {
            self.set_port(port, true);
        }
        if let Some(Node::Host(host)) = self.nodes.get_mut(node.0 as usize) {
            let former = (host.kernel.refuses, host.kernel.view_lag);
            let ports = self.network.ports_of(node);
            host.kernel = super::Kernel::boot(&self.network, ports, &host.plan.gateways, &host.plan.settings);
            (host.kernel.refuses, host.kernel.view_lag) = former;
            if host.wanted {
                self.start_agent(node);
            }
        } else {
            self.start_router(node);
        }
    }

    /// A port goes up or down; both ends of its cable see it.
    pub(super) fn set_port(&mut self, id: PortId, up: bool) {
        let Some(port) = self.network.port_mut(id).filter(|port| port.up != up) else { return };
        port.up = up;
        let both: Vec<PortId> = [Some(id), self.network.opposite(id)].into_iter().flatten().collect();
        for id in both {
            let carrier = self.network.carrier(id);
            let Some((node, interface)) =
                self.network.port(id).map(|port| (port.node, port.interface.clone()))
            else {
                continue;
            };
            match self.nodes.get_mut(node.0 as usize) {
                Some(Node::Host(host)) => {
                    let changed = host.kernel.look_at_cables(&self.network);
                    if changed {
                        self.kernel_changed(node, false);
                    }
                }
                Some(Node::Router(router)) => {
                    if let Some(number) = router.process.as_ref().map(|process| process.task.number) {
                        self.deliver(node, number, Letter::Link { interface, up: carrier });
                    }
                }
                _ => {}
            }
        }
    }

    fn reset_sessions(&mut self, node: NodeId) {
        let Some(number) = self.task(node).map(|task| task.number) else { return };
        for (stream, side) in self.streams_of(node, number) {
            let open = self.streams.get(stream).and_then(|stream| stream.ends.get(side as usize));
            if open.is_some_and(|end| end.state == EndState::Open) {
                let failure = Failure::new(FailureKind::Reset, "connection reset by an operator");
                self.reset_other(stream, side);
                self.end_with(stream, side, failure);
            }
        }
    }
}
