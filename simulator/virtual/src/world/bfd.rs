//! BFD beside agents and routing programs: a table of sessions each, on a thread of its own, with a socket that keeps what comes
//! while the process is stopped.
//!
//! The world carries the two messages between the threads: down what is wanted, up what became of it. A main loop that is slow
//! slows no session; one that stands still loses its lease; a process that is stopped stops both threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use anyvip_bfd::{
    Action, Arrival, Cause, Discriminator, Event, Fact, Former, Hops, Path, Role, SessionConfig, SessionName,
    SessionTable, SessionView, State, StateChanged, Wish,
};
use anyvip_bgp::PeerName;
use anyvip_machine::{Failure, FailureKind, Seed, Time};
use ipnet::IpNet;

use super::host::Host;
use super::network::{Leg, PortId};
use super::process::{Letter, Pace};
use super::queue::What;
use super::sabotage::Sabotage;
use super::trace::plain;
use super::{Node, NodeId, NoteKind, World};
use crate::router::{Hop, MULTIPATH_LIMIT};

/// Datagrams that a socket keeps while nobody reads (Linux: 212,992 octets, of which each small one takes 768).
const SOCKET: usize = 277;
/// A control packet with its UDP, IP and Ethernet headers.
const OCTETS: usize = 66;

/// BFD of a router towards one neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterBfd {
    /// The neighbour's address.
    pub address: IpAddr,
    /// The interface that it is on.
    pub interface: String,
    /// Between packets, both ways.
    pub interval: Duration,
    /// After so many missing packets the path is down.
    pub multiplier: u8,
    /// The BGP session that goes with it.
    pub guards: Option<PeerName>,
    /// Static routes to the neighbour that are there while it is Up.
    pub routes: Vec<IpNet>,
}

/// The BFD thread of one process.
#[derive(Debug)]
pub(super) struct Side {
    table: SessionTable,
    /// The process counts time from here.
    began: Time,
    ways: BTreeMap<Discriminator, Option<Way>>,
    socket: VecDeque<Datagram>,
    armed: Option<Time>,
    wishes: BTreeMap<SessionName, Wish>,
    failed: BTreeMap<SessionName, Time>,
    /// When a packet from there was taken last.
    heard: BTreeMap<IpAddr, Time>,
}

/// How packets of a session go.
#[derive(Clone, Debug)]
struct Way {
    leaves: PortId,
    enters: PortId,
    legs: Vec<Leg>,
    arrival: Arrival,
}

/// A packet on its way.
#[derive(Debug)]
pub(super) struct Datagram {
    arrival: Arrival,
    bytes: Vec<u8>,
}

impl Side {
    fn new(seed: Seed, began: Time, former: BTreeMap<SessionName, Former>) -> Side {
        Side {
            table: SessionTable::taking_over(seed, former),
            began,
            ways: BTreeMap::new(),
            socket: VecDeque::new(),
            armed: None,
            wishes: BTreeMap::new(),
            failed: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// What a program that takes over goes on with.
    pub(super) fn hand_over(&self) -> BTreeMap<SessionName, Former> {
        self.table.hand_over()
    }

    fn next_deadline(&self) -> Option<Time> {
        self.table.next_deadline().map(|next| self.began + next.since(Time::ZERO))
    }
}

/// One BFD session as it is, for whoever looks at a world.
#[derive(Clone, Debug)]
pub struct BfdSession<'a> {
    /// The table's own view.
    pub view: SessionView<'a>,
    /// What is wanted of it.
    pub wish: Wish,
    /// When it last failed: Up to Down by timeout or because the other end signalled Down.
    pub failed: Option<Time>,
    /// When a packet of the other end was taken last.
    pub heard: Option<Time>,
}

impl World {
    /// A BFD session of an agent or a routing program.
    pub fn bfd(&self, node: NodeId, session: &SessionName) -> Option<BfdSession<'_>> {
        let side = self.task(node)?.bfd.as_ref()?;
        let view = side.table.session(session)?;
        Some(BfdSession {
            heard: side.heard.get(&view.path.remote).copied(),
            view,
            wish: side.wishes.get(session).copied().unwrap_or_default(),
            failed: side.failed.get(session).copied(),
        })
    }

    /// The table of an agent or a routing program, for weighing; and how many sessions it has.
    pub fn bfd_table(&self, node: NodeId) -> Option<(&SessionTable, usize)> {
        let side = self.task(node)?.bfd.as_ref()?;
        Some((&side.table, side.table.sessions().count()))
    }

    /// What an agent wants of its BFD thread; the first wish starts it.
    pub(super) fn want_bfd(
        &mut self,
        node: NodeId,
        mut sessions: BTreeMap<SessionName, SessionConfig>,
        lease: Option<Time>,
    ) {
        let none = self.task(node).is_some_and(|task| task.bfd.is_none());
        if none && sessions.is_empty() {
            return;
        }
        if none {
            let begun = |host: &mut Host| {
                let (seed, began) = (host.seed.child(&format!("bfd {}", host.starts)), host.began()?);
                Some(Side::new(seed, began, host.upgrade.former()))
            };
            let Some(side) = self.host_mut(node).and_then(begun) else { return };
            if let Some(task) = self.task_mut(node) {
                task.bfd = Some(Box::new(side));
            }
        }
        let lies = self.host_mut(node).and_then(|host| host.sabotage);
        if lies == Some(Sabotage::WantsBfdUp) {
            sessions.values_mut().for_each(|session| session.wish = Wish::Up);
        }
        self.bfd_wants(node, sessions, lease);
    }

    fn bfd_wants(
        &mut self,
        node: NodeId,
        sessions: BTreeMap<SessionName, SessionConfig>,
        lease: Option<Time>,
    ) {
        if let Some(side) = self.task_mut(node).and_then(|task| task.bfd.as_mut()) {
            side.wishes = sessions.iter().map(|(name, config)| (name.clone(), config.wish)).collect();
        }
        self.bfd_takes(node, Event::Wanted { sessions, lease });
    }

    /// The process ends by itself: its BFD thread says goodbye first.
    pub(super) fn bfd_says_goodbye(&mut self, node: NodeId) {
        if self.task(node).is_some_and(|task| task.bfd.is_some()) {
            self.bfd_wants(node, BTreeMap::new(), None);
        }
    }

    /// What a router's plan says about BFD, for its table; starts one if there is something to say.
    pub(super) fn want_router_bfd(&mut self, node: NodeId) {
        let Some(router) = self.router_mut(node) else { return };
        let off = router.bfd_off;
        let session = |bfd: &RouterBfd| SessionConfig {
            path: Path { remote: bfd.address, local: None, interface: None, hops: Hops::Single },
            role: Role::Active,
            // Switching off what static routes follow is not what an operator of this router does.
            wish: if off && bfd.guards.is_some() { Wish::AdminDown } else { Wish::Up },
            carries_health: false,
            desired_min_tx: bfd.interval,
            required_min_rx: bfd.interval,
            multiplier: bfd.multiplier,
            authentication: None,
        };
        let sessions: BTreeMap<_, _> =
            router.plan.bfd.iter().map(|(name, bfd)| (name.clone(), session(bfd))).collect();
        let seed = router.seed.child(&format!("bfd {}", router.starts));
        let Some(process) = router.process.as_mut() else { return };
        if sessions.is_empty() && process.task.bfd.is_none() {
            return;
        }
        process.task.bfd.get_or_insert_with(|| Box::new(Side::new(seed, Time::ZERO, BTreeMap::new())));
        self.bfd_wants(node, sessions, None);
    }

    /// Routers of a lab answer BFD where an agent asks for it, and have the static routes that agents expect them to have.
    pub(super) fn answer_bfd(&mut self) {
        let pace = |bfd: &anyvip_core::config::Bfd| (bfd.interval, bfd.multiplier);
        let mut asked = Vec::new();
        for (_, host) in self.hosts() {
            let Some(config) = host.agent().map(|agent| agent.config()) else { continue };
            for (name, bfd) in &config.bgp.bfd {
                let Some(peer) = config.bgp.peers.get(name) else { continue };
                let Some(address) = peer.remote.address() else { continue };
                asked.push((host.name.clone(), address, pace(bfd), true, Vec::new()));
            }
            for (name, peer) in &config.statics {
                let services = config.services.values().filter(|service| service.statics.contains(name));
                let routes: Vec<IpNet> =
                    services.flat_map(|service| service.vips.iter().copied().map(IpNet::from)).collect();
                asked.push((host.name.clone(), peer.address, pace(&peer.bfd), false, routes));
            }
        }
        let mut routers = BTreeSet::new();
        for (host, address, (interval, multiplier), guards, routes) in asked {
            let Some((router, interface, own)) = self.opposite_of(&host, address) else { continue };
            let Some(node) = self.router_mut(router) else { continue };
            let known = node.plan.config.neighbours.keys().find(|peer| peer.0 == host).cloned();
            let plan = RouterBfd {
                address: own,
                interface,
                interval,
                multiplier,
                guards: known.filter(|_| guards),
                routes,
            };
            node.plan.bfd.insert(SessionName(format!("{host} {own}")), plan);
            routers.insert(router);
        }
        for router in routers {
            self.want_router_bfd(router);
        }
        self.hand_out();
    }

    /// The router at this address, its interface towards the host, and the host's address there.
    fn opposite_of(&self, host: &str, address: IpAddr) -> Option<(NodeId, String, IpAddr)> {
        let host = self.find(host)?;
        let owner = self.network.owner(address)?;
        let port = self.network.port(owner)?;
        let (leaves, _) = self.network.way(host, owner)?;
        let nets = &self.network.port(leaves)?.addresses;
        let own = nets.iter().find(|net| net.contains(&address))?.addr();
        Some((port.node, port.interface.clone(), own))
    }

    /// The table takes an event, and what it says is carried out.
    fn bfd_takes(&mut self, node: NodeId, event: Event) {
        let now = self.now;
        let Some(task) = self.task_mut(node) else { return };
        let number = task.number;
        let Some(mut side) = task.bfd.take() else { return };
        if let Event::Received { arrival, .. } = &event {
            side.heard.insert(arrival.remote, now);
        }
        let mut events = VecDeque::from([event]);
        let mut facts = Vec::new();
        while let Some(event) = events.pop_front() {
            self.trace.begin(now, node, &event, plain);
            let actions = side.table.handle(Time::ZERO + now.since(side.began), event);
            self.trace.end(&actions, plain);
            self.events += 1;
            for action in actions {
                match action {
                    Action::Open { session, path } => {
                        let way = self.way_of(node, &path);
                        side.ways.insert(session, way);
                    }
                    Action::Close { session } => {
                        side.ways.remove(&session);
                    }
                    Action::Send { session, bytes } => {
                        let way = side.ways.get(&session).and_then(Option::as_ref);
                        if !way.is_some_and(|way| self.send_datagram(way, bytes)) {
                            let failure = Failure::new(FailureKind::Unreachable, "network is unreachable");
                            events.push_back(Event::SendFailed { session, failure });
                        }
                    }
                    Action::Fact(fact) => {
                        if let Fact::StateChanged(change) = &fact
                            && change.is_failure()
                        {
                            side.failed.insert(change.session.clone(), now);
                        }
                        facts.push(fact);
                    }
                }
            }
        }
        if let Some(task) = self.task_mut(node).filter(|task| task.number == number) {
            task.bfd = Some(side);
        }
        self.arm_bfd(node);
        for fact in facts {
            match (self.node(node), fact) {
                (Some(Node::Host(_)), fact) => {
                    self.deliver(node, number, Letter::Core(Box::new(anyvip_core::Event::Bfd(fact))));
                }
                (Some(Node::Router(_)), Fact::StateChanged(change)) => {
                    self.router_follows(node, number, &change);
                }
                _ => {}
            }
        }
    }

    fn way_of(&self, node: NodeId, path: &Path) -> Option<Way> {
        let enters = self.network.owner(path.remote)?;
        let (leaves, legs) = self.network.way(node, enters)?;
        let nets = &self.network.port(leaves)?.addresses;
        let remote = nets.iter().find(|net| net.contains(&path.remote))?.addr();
        let arrival = Arrival {
            remote,
            local: path.remote,
            interface: self.network.port(enters).map(|port| port.interface.clone()),
            ttl: Some(255),
            multihop: matches!(path.hops, Hops::Multi { .. }),
        };
        Some(Way { leaves, enters, legs, arrival })
    }

    /// False where the kernel has no way for it.
    fn send_datagram(&mut self, way: &Way, bytes: Vec<u8>) -> bool {
        if !self.network.carrier(way.leaves) {
            return false;
        }
        for at in self.network.carry_datagram(&way.legs, self.now, OCTETS) {
            let datagram = Datagram { arrival: way.arrival.clone(), bytes: bytes.clone() };
            self.queue.push(at, What::Datagram { to: way.enters, datagram: Box::new(datagram) });
        }
        true
    }

    /// A datagram reaches a port.
    pub(super) fn datagram_arrives(&mut self, to: PortId, datagram: Datagram) {
        let Some(node) = self.network.port(to).map(|port| port.node) else { return };
        if !self.powered(node) || !self.network.carrier(to) {
            return;
        }
        let Some(task) = self.task_mut(node) else { return };
        let frozen = task.pace == Pace::Frozen;
        // Nobody listens: the kernel says so to the sender, whom that does not interest.
        let Some(side) = task.bfd.as_mut() else { return };
        if !frozen {
            let Datagram { arrival, bytes } = datagram;
            self.bfd_takes(node, Event::Received { arrival, bytes });
        } else if side.socket.len() < SOCKET {
            side.socket.push_back(datagram);
        }
    }

    /// The process goes on after it was stopped: what has come speaks before time does.
    pub(super) fn bfd_goes_on(&mut self, node: NodeId) {
        let Some(side) = self.task_mut(node).and_then(|task| task.bfd.as_mut()) else { return };
        for Datagram { arrival, bytes } in std::mem::take(&mut side.socket) {
            self.bfd_takes(node, Event::Received { arrival, bytes });
        }
        self.want_router_bfd(node);
        self.bfd_is_due(node);
    }

    /// A deadline of the heap.
    pub(super) fn bfd_wakes(&mut self, node: NodeId, process: u32) {
        let now = self.now;
        let Some(task) = self.task_mut(node).filter(|task| task.number == process) else { return };
        let frozen = task.pace == Pace::Frozen;
        let Some(side) = task.bfd.as_mut().filter(|side| side.armed == Some(now)) else { return };
        side.armed = None;
        if !frozen {
            self.bfd_is_due(node);
        }
    }

    fn bfd_is_due(&mut self, node: NodeId) {
        let now = self.now;
        let next = |world: &World| world.task(node)?.bfd.as_ref()?.next_deadline();
        if next(self).is_some_and(|next| next <= now) {
            self.bfd_takes(node, Event::DeadlineReached);
            if let Some(next) = next(self).filter(|next| *next <= now) {
                // A world that turns on the spot would hide what it found.
                self.breach(node, format!("no progress of BFD: {next} is still due at {now}"));
                if let Some(task) = self.task_mut(node) {
                    task.bfd = None;
                }
            }
        }
        self.arm_bfd(node);
    }

    fn arm_bfd(&mut self, node: NodeId) {
        let now = self.now;
        let Some(task) = self.task_mut(node) else { return };
        let (process, frozen) = (task.number, task.pace == Pace::Frozen);
        let Some(side) = task.bfd.as_mut().filter(|_| !frozen) else { return };
        let Some(next) = side.next_deadline().map(|next| next.max(now)) else { return };
        if side.armed.is_none_or(|armed| armed > next) {
            side.armed = Some(next);
            self.queue.push(next, What::BfdWake { node, process });
        }
    }

    /// What follows at a router from a session's change: RFC 5882 §4.2 for the BGP session, §4.3 for static routes.
    fn router_follows(&mut self, node: NodeId, number: u32, change: &StateChanged) {
        let Some(bfd) =
            self.router_mut(node).and_then(|router| router.plan.bfd.get(&change.session)).cloned()
        else {
            return;
        };
        if let Some(peer) = bfd.guards.filter(|_| change.is_failure()) {
            self.deliver(node, number, Letter::Bgp(anyvip_bgp::Event::PathDown { peer }));
        }
        // RFC 5882 §3.2: AdminDown says nothing about the path: the route stays.
        let silent = matches!(change.cause, Cause::NeighborAdminDown | Cause::AdminDown);
        let up = match (change.from, change.to) {
            (_, State::Up) => true,
            (State::Up, _) if !silent => false,
            _ => return,
        };
        let (hop, now) = (Hop { address: bfd.address, interface: bfd.interface, weight: 1 }, self.now);
        for prefix in bfd.routes {
            let Some(router) = self.router_mut(node) else { return };
            let hops = router.tracked.entry(prefix).or_default();
            let changed = if up { hops.insert(hop.clone()) } else { hops.remove(&hop) };
            if !changed {
                continue;
            }
            let next_hops: Vec<Hop> = hops.iter().take(MULTIPATH_LIMIT).cloned().collect();
            router.fib.insert(now, prefix, next_hops.clone());
            self.turn.touch(node);
            self.turn.routed = true;
            self.note(node, NoteKind::Route { prefix, next_hops }, String::new);
        }
    }
}
