//! A router of the world: the embedded router with a driver around it, its tables, and its bad habits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use anyvip_bfd::SessionName;
use anyvip_bgp::{Action as Bgp, PeerName};
use anyvip_machine::Seed;
use ipnet::IpNet;

use super::bfd::RouterBfd;
use super::process::{Letter, Task};
use super::trace::plain;
use super::{Node, NodeId, NoteKind, World};
use crate::replay::words;
use crate::router::{Action, Event, Fib, Hashing, Hop, Install, Router, RouterConfig};

/// BGP's port.
const PORT: u16 = 179;

/// What a router is made from.
#[derive(Clone, Debug)]
pub struct RouterPlan {
    /// Its BGP.
    pub config: RouterConfig,
    /// Gateways of its default routes.
    pub gateways: Vec<IpAddr>,
    /// Seed of its multipath hash.
    pub hash_seed: u32,
    /// How it puts next hops into its kernel.
    pub install: Install,
    /// Its sysctls, by name; only those of the multipath hash mean something.
    pub sysctls: BTreeMap<String, String>,
    /// Its BFD sessions.
    pub bfd: BTreeMap<SessionName, RouterBfd>,
}

impl RouterPlan {
    /// A router without a default route, that installs next-hop groups.
    pub fn new(config: RouterConfig, hash_seed: u32) -> RouterPlan {
        let (gateways, sysctls) = (Vec::new(), BTreeMap::new());
        RouterPlan { config, gateways, hash_seed, install: Install::default(), sysctls, bfd: BTreeMap::new() }
    }
}

/// The routing program while it runs.
#[derive(Debug)]
pub(super) struct RouterProcess {
    pub(super) task: Task,
    pub(super) machine: Router,
}

/// See the module's text.
#[derive(Debug)]
pub struct RouterNode {
    /// Its name.
    pub name: String,
    pub(super) seed: Seed,
    /// What it was made from.
    pub plan: RouterPlan,
    pub(super) process: Option<Box<RouterProcess>>,
    /// Whether the machine runs.
    pub powered: bool,
    /// Times its program was started.
    pub starts: u32,
    /// Where its kernel sends: what the program installed.
    pub fib: Fib,
    /// How its kernel hashes.
    pub hashing: Hashing,
    /// Hosts whose BFD sessions let static routes be there.
    pub(super) tracked: BTreeMap<IpNet, BTreeSet<Hop>>,
    /// An operator has switched off BFD for BGP.
    pub bfd_off: bool,
    /// Takes connections and answers no OPEN.
    pub ignores: bool,
    /// Of a million packets that it forwards, so many are lost.
    pub loss_ppm: u32,
}

impl RouterNode {
    pub(super) fn new(name: &str, seed: Seed, plan: RouterPlan) -> RouterNode {
        let mut hashing = Hashing::new(plan.hash_seed);
        for (key, value) in &plan.sysctls {
            // They were checked when the lab was built.
            let _ = hashing.set(key, value);
        }
        RouterNode {
            name: name.to_owned(),
            seed,
            process: None,
            powered: true,
            starts: 0,
            fib: Fib::new(plan.install),
            hashing,
            tracked: BTreeMap::new(),
            bfd_off: false,
            ignores: false,
            loss_ppm: 0,
            plan,
        }
    }

    /// The program's own view; `None` while it does not run.
    pub fn machine(&self) -> Option<&Router> {
        self.process.as_ref().map(|process| &process.machine)
    }

    /// How the program gets on.
    pub fn pace(&self) -> Option<super::Pace> {
        self.process.as_ref().map(|process| process.task.pace)
    }

    /// Whether the program has stopped reading from its connections.
    pub fn stalled(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.task.stalled)
    }
}

impl World {
    pub(super) fn router_mut(&mut self, node: NodeId) -> Option<&mut RouterNode> {
        match self.nodes.get_mut(node.0 as usize)? {
            Node::Router(router) => Some(router),
            _ => None,
        }
    }

    /// Starts the routing program on a router that has power and none.
    pub(super) fn start_router(&mut self, node: NodeId) {
        self.turn.touch(node);
        let Some(router) = self.router_mut(node).filter(|router| router.powered && router.process.is_none())
        else {
            return;
        };
        router.starts += 1;
        let number = router.starts;
        let seed = router.seed.child(&format!("router {number}"));
        let process = RouterProcess { task: Task::new(number), machine: Router::new(&seed) };
        router.process = Some(Box::new(process));
        let config = router.plan.config.clone();
        self.router_handles(node, Event::Configure(config));
        self.want_router_bfd(node);
        for (interface, up) in self.router_links(node) {
            if !up {
                self.deliver(node, number, Letter::Link { interface, up });
            }
        }
        self.arm(node);
    }

    fn router_links(&self, node: NodeId) -> Vec<(String, bool)> {
        let ports = self.network.ports_of(node).iter();
        ports
            .filter_map(|id| Some((self.network.port(*id)?.interface.clone(), self.network.carrier(*id))))
            .collect()
    }

    /// The routing program dies: its kernel closes its connections, and its routes go with it.
    pub(super) fn kill_router(&mut self, node: NodeId) {
        let Some(number) = self.task(node).map(|task| task.number) else { return };
        self.close_all(node, number);
        self.router_is_gone(node);
    }

    pub(super) fn router_is_gone(&mut self, node: NodeId) {
        self.turn.touch(node);
        let Some(router) = self.router_mut(node) else { return };
        router.process = None;
        router.tracked.clear();
        let gone = router.fib.clear();
        for prefix in gone {
            self.note(node, NoteKind::Route { prefix, next_hops: Vec::new() }, String::new);
        }
    }

    pub(super) fn router_takes(&mut self, node: NodeId, letter: Letter) {
        let event = match letter {
            Letter::Bgp(anyvip_bgp::Event::DeadlineReached) => Event::DeadlineReached,
            Letter::Bgp(event) => {
                let ignores = self.router_mut(node).is_some_and(|router| router.ignores);
                if ignores
                    && matches!(
                        event,
                        anyvip_bgp::Event::Accepted { .. } | anyvip_bgp::Event::Received { .. }
                    )
                {
                    return;
                }
                Event::Bgp(event)
            }
            Letter::Link { interface, up } => Event::Link { interface, up },
            Letter::Core(_) | Letter::Readable { .. } => return,
        };
        self.router_handles(node, event);
    }

    pub(super) fn router_handles(&mut self, node: NodeId, event: Event) {
        let Some(Node::Router(router)) = self.nodes.get_mut(node.0 as usize) else { return };
        let Some(process) = router.process.as_mut() else { return };
        let number = process.task.number;
        self.trace.begin(self.now, node, &event, event_in_words);
        let actions = process.machine.handle(self.now, event);
        self.trace.end(&actions, action_in_words);
        self.events += 1;
        self.turn.touch(node);
        for action in actions {
            self.router_carries_out(node, number, action);
        }
    }

    pub(super) fn router_carries_out(&mut self, node: NodeId, number: u32, action: Action) {
        match action {
            Action::Bgp(Bgp::Connect { connection, remote, .. }) => {
                self.connect(node, number, connection, &remote);
            }
            Action::Bgp(Bgp::Send { connection, bytes }) => self.write(node, connection, bytes),
            Action::Bgp(Bgp::Close { connection }) => self.close(node, connection),
            Action::Bgp(_) => {}
            Action::Install { prefix, next_hops } => {
                self.turn.routed = true;
                self.note(node, NoteKind::Route { prefix, next_hops: next_hops.clone() }, String::new);
                let now = self.now;
                if let Some(router) = self.router_mut(node) {
                    router.fib.insert(now, prefix, next_hops);
                }
            }
            Action::Remove { prefix } => {
                self.turn.routed = true;
                self.note(node, NoteKind::Route { prefix, next_hops: Vec::new() }, String::new);
                if let Some(router) = self.router_mut(node) {
                    router.fib.remove(&prefix);
                }
            }
            Action::SessionUp { peer } => {
                self.note(node, NoteKind::Session { peer, lost: None }, String::new);
            }
            Action::SessionDown { peer, was_established: true, reason } => {
                self.note(node, NoteKind::Session { peer, lost: Some(reason) }, String::new);
            }
            // Attempts before the other end is there are nothing to report.
            Action::SessionDown { .. } => {}
            Action::Notice { text } => self.note(node, NoteKind::Trouble, || text),
        }
    }

    /// The router loses what a peer (or all) told it, and the session does not know.
    pub(super) fn forget_routes(&mut self, node: NodeId, peer: Option<&PeerName>) {
        let now = self.now;
        let Some(router) = self.router_mut(node) else { return };
        let Some(process) = router.process.as_mut() else { return };
        let number = process.task.number;
        let actions = process.machine.forget(now, peer);
        self.turn.touch(node);
        for action in actions {
            self.router_carries_out(node, number, action);
        }
    }

    /// The process that listens there, if one does.
    pub(super) fn listener(&self, node: NodeId, address: SocketAddr) -> Option<u32> {
        match self.node(node)? {
            Node::Router(router) => {
                let process = router.process.as_ref()?;
                (address.port() == PORT).then_some(process.task.number)
            }
            Node::Host(host) => {
                let process = host.process.as_ref()?;
                let listens = process.listens?;
                let all = listens.ip().is_unspecified() || listens.ip() == address.ip();
                (all && listens.port() == address.port()).then_some(process.task.number)
            }
            Node::Client(_) | Node::Bridge(_) => None,
        }
    }
}

fn event_in_words(event: &Event) -> String {
    match event {
        Event::Bgp(event) => words::bgp_event(event),
        other => plain(other),
    }
}

fn action_in_words(action: &Action) -> String {
    match action {
        Action::Bgp(action) => words::bgp_action(action),
        other => plain(other),
    }
}
