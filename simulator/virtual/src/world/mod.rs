//! The world of the virtual lab: hosts with the real agent, routers, cables and people, in virtual time.
//!
//! # Parts, and who owns what
//!
//! - [`World`]: the clock, the one heap of (time, sequence, what) (`queue`), all nodes, the trace. It alone moves time.
//! - [`Network`]: ports, cables, bridges, and what a cable does to what crosses it.
//! - `stream`: TCP as far as its ends can tell: order, loss as delay, cut, reset, half-open, full buffers.
//! - `process`: what every running program has: an inbox, a pace (running, frozen, slow), a deadline in the heap.
//! - `bfd`: the BFD thread that agents and routing programs have beside their main loop.
//! - [`Host`]: [`Kernel`], [`Disk`], [`Service`], and an agent (the same `anyvip_core::Agent` that ships) whose driver
//!   keeps the contracts: one answer per action with an end, one `Sent` per `Send`, what has come is read before time
//!   acts, outcomes are queued, `handle` is never entered from within.
//! - [`RouterNode`]: the embedded router of `crate::router`, its FIB, its bad habits.
//! - [`Fault`], [`Operation`]: what goes wrong and what people do; planned for a moment with [`World::plan`].
//! - [`Flow`]: where a packet ends up, hop by hop over the routers' tables.
//! - [`TraceHash`]: everything that machines took and said, as one number.
//! - [`Fabric`], [`World::from_lab`]: worlds to begin with.
//!
//! # Life of an event
//!
//! [`World::step`] takes the first thing of the heap. It may move a segment, end a probe, wake a machine. What thereby
//! comes to a process is a letter; letters are handed out one by one after the thing itself is done, each to one
//! `handle`, whose actions put new things into the heap. The [`Turn`] says which nodes were touched.
//!
//! # Determinism
//!
//! Everything random is drawn from children, by name, of the one seed; nothing here has a clock, a hash map, a thread or
//! a float. The same plan and seed give the same trace hash on every machine.

use std::collections::{BTreeMap, VecDeque};

use anyvip_bgp::{DownReason, PeerName};
use anyvip_machine::{Seed, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::router::Hop;

mod bfd;
mod build;
mod disk;
mod fabric;
mod fault;
mod flow;
mod heal;
mod host;
mod kernel;
mod network;
mod operator;
mod process;
mod queue;
mod router_node;
mod sabotage;
mod service;
mod stream;
mod trace;
mod upgrade;

pub use bfd::{BfdSession, RouterBfd};
pub use build::LabError;
pub use disk::Disk;
pub use fabric::Fabric;
pub use fault::{Fault, Planned};
pub use flow::{Fate, Flow, Trip};
pub use host::{Ended, Host, HostPlan};
use kernel::sysctl;
pub use kernel::{Kernel, Settings};
pub use network::{Impairment, Link, LinkId, Network, Port, PortId};
pub use operator::{Intention, Operation};
pub use process::Pace;
pub use router_node::{RouterNode, RouterPlan};
pub use sabotage::Sabotage;
pub use service::{Condition, Probing, Service};
pub use trace::{TraceHash, Tracing};

use process::Letter;
use queue::{Queue, What};
use stream::Streams;
use trace::Trace;

/// A node; nodes are numbered in the order in which they were added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u32);

/// One machine, or a bridge.
#[derive(Debug)]
pub enum Node {
    /// A server with an agent.
    Host(Box<Host>),
    /// A router.
    Router(Box<RouterNode>),
    /// Asks.
    Client(Client),
    /// Connects its cables at layer 2. The text is its name.
    Bridge(String),
}

/// A machine that asks.
#[derive(Clone, Debug)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Gateways of its default routes.
    pub gateways: Vec<std::net::IpAddr>,
}

/// What one step did.
#[derive(Clone, Debug, Default)]
pub struct Turn {
    /// Nodes whose machine, kernel, disk or service was touched, in order, each once.
    pub touched: Vec<NodeId>,
    /// A router's table changed.
    pub routed: bool,
}

impl Turn {
    fn touch(&mut self, node: NodeId) {
        if !self.touched.contains(&node) {
            self.touched.push(node);
        }
    }
}

/// A contract that somebody broke: a machine that makes no progress, a second answer. Always a bug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// When.
    pub at: Time,
    /// Whose machine.
    pub node: NodeId,
    /// Of what kind.
    pub kind: BreachKind,
    /// What.
    pub text: String,
}

/// What a [`Breach`] breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreachKind {
    /// A machine or a driver does not keep to what drivers and machines owe each other.
    Contract,
    /// Something was closed in the name of BFD that had no reason to be.
    PathGuard,
}

/// Something that a person who watches wants to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    /// When.
    pub at: Time,
    /// Where.
    pub node: NodeId,
    /// What kind.
    pub kind: NoteKind,
    /// In words; empty where the kind says all.
    pub text: String,
}

/// What a [`Note`] is about.
#[derive(Clone, Debug, PartialEq)]
pub enum NoteKind {
    /// A router sends a prefix there from now on.
    Route {
        /// Which.
        prefix: IpNet,
        /// Where to; empty: nowhere.
        next_hops: Vec<Hop>,
    },
    /// A router's session came or went.
    Session {
        /// With whom.
        peer: PeerName,
        /// Why it went; `None`: it came.
        lost: Option<DownReason>,
    },
    /// An agent recorded a fact.
    Fact,
    /// An agent answered an operator.
    Reply,
    /// Nobody ordered this.
    Trouble,
}

/// How a world is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// How much is written down.
    pub tracing: Tracing,
    /// Whether [`World::notes`] are kept.
    pub notes: bool,
}

/// See the module's text.
#[derive(Debug)]
pub struct World {
    now: Time,
    seed: Seed,
    queue: Queue,
    nodes: Vec<Node>,
    names: BTreeMap<String, NodeId>,
    network: Network,
    streams: Streams,
    letters: VecDeque<(NodeId, u32, Letter)>,
    plan: Vec<Option<Planned>>,
    planned: usize,
    disturbed: BTreeMap<NodeId, Time>,
    trace: Trace,
    turn: Turn,
    notes: Option<Vec<Note>>,
    breaches: Vec<Breach>,
    ephemeral: u16,
    events: u64,
}

impl World {
    /// An empty world.
    pub fn new(seed: u64, options: Options) -> World {
        World {
            now: Time::ZERO,
            seed: Seed::new(seed),
            queue: Queue::default(),
            nodes: Vec::new(),
            names: BTreeMap::new(),
            network: Network::default(),
            streams: Streams::default(),
            letters: VecDeque::new(),
            plan: Vec::new(),
            planned: 0,
            disturbed: BTreeMap::new(),
            trace: Trace::new(options.tracing),
            turn: Turn::default(),
            notes: options.notes.then(Vec::new),
            breaches: Vec::new(),
            ephemeral: 32_768,
            events: 0,
        }
    }

    // ------------------------------------------------------------ time

    /// The moment.
    pub fn now(&self) -> Time {
        self.now
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<Time> {
        self.queue.first()
    }

    /// One thing happens, if any does by `limit`, and says what it touched (perhaps nothing: a packet moved on).
    pub fn step(&mut self, limit: Time) -> Option<&Turn> {
        let (at, what) = self.queue.pop(limit)?;
        self.now = self.now.max(at);
        self.turn.touched.clear();
        self.turn.routed = false;
        self.happen(what);
        self.hand_out();
        Some(&self.turn)
    }

    /// Lets time pass until `limit`.
    pub fn run_until(&mut self, limit: Time) {
        while self.step(limit).is_some() {}
        self.now = self.now.max(limit);
    }

    /// Lets time pass until it is so, at most until `limit`; whether it came to be so.
    pub fn run_until_so(&mut self, limit: Time, mut so: impl FnMut(&World) -> bool) -> bool {
        loop {
            if so(self) {
                return true;
            }
            // Most steps only move packets.
            loop {
                match self.step(limit) {
                    Some(turn) if turn.touched.is_empty() => {}
                    Some(_) => break,
                    None => {
                        self.now = self.now.max(limit);
                        return so(self);
                    }
                }
            }
        }
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Planned(at) => self.planned_comes(at),
            What::Segment { stream, to, epoch } => self.segment_arrives(stream, to, epoch),
            What::Reset { stream, to } => self.reset_arrives(stream, to),
            What::Retransmit { stream, from, epoch } => self.retransmit(stream, from, epoch),
            What::Sent { stream, by } => self.sent(stream, by),
            What::ConnectTimeout { stream } => self.connect_timeout(stream),
            What::Work { node, process, work } => self.work_done(node, process, *work),
            What::Show { node, process } => self.show(node, process),
            What::Turn { node, process } => self.take_next(node, process),
            What::Start { node, start } => {
                let same = self.host_mut(node).is_some_and(|host| host.starts == start && host.wanted);
                if same {
                    self.begin_agent(node);
                }
            }
            What::Wake { node, process } => self.wake(node, process),
            What::Datagram { to, datagram } => self.datagram_arrives(to, *datagram),
            What::BfdWake { node, process } => self.bfd_wakes(node, process),
        }
    }

    /// Plans a fault, a step of an operator, or the healing of everything, for this moment (now, if it has passed).
    pub fn plan(&mut self, at: Time, planned: Planned) {
        self.queue.push(at.max(self.now), What::Planned(self.plan.len() as u32));
        self.plan.push(Some(planned));
        self.planned += 1;
    }

    /// Something happens now.
    pub fn act(&mut self, planned: Planned) {
        self.plan(self.now, planned);
        let at = self.plan.len() as u32 - 1;
        self.turn.touched.clear();
        self.planned_comes(at);
        self.hand_out();
    }

    fn planned_comes(&mut self, at: u32) {
        let Some(planned) = self.plan.get_mut(at as usize).and_then(Option::take) else { return };
        self.planned -= 1;
        self.trace.begin(self.now, NodeId(u32::MAX), &planned, trace::plain);
        self.trace.end::<()>(&[], trace::plain);
        self.disturb(&planned);
        match planned {
            Planned::Fault(fault) => self.strike(fault),
            Planned::Operation { host, operation } => self.operate(host, operation),
            Planned::Heal => self.heal(),
        }
    }

    // ------------------------------------------------------------ looking

    /// All nodes, in order of their numbers.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().enumerate().map(|(at, node)| (NodeId(at as u32), node))
    }

    /// One node.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    /// The node of this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.names.get(name).copied()
    }

    /// The name of a node.
    pub fn name(&self, id: NodeId) -> &str {
        self.node(id).map_or("?", Node::name)
    }

    /// One host.
    pub fn host(&self, id: NodeId) -> Option<&Host> {
        match self.node(id)? {
            Node::Host(host) => Some(host),
            _ => None,
        }
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = (NodeId, &Host)> {
        self.nodes().filter_map(|(id, node)| match node {
            Node::Host(host) => Some((id, &**host)),
            _ => None,
        })
    }

    /// One router.
    pub fn router(&self, id: NodeId) -> Option<&RouterNode> {
        match self.node(id)? {
            Node::Router(router) => Some(router),
            _ => None,
        }
    }

    /// All routers.
    pub fn routers(&self) -> impl Iterator<Item = (NodeId, &RouterNode)> {
        self.nodes().filter_map(|(id, node)| match node {
            Node::Router(router) => Some((id, &**router)),
            _ => None,
        })
    }

    /// Whether this world has that sysctl, and why not.
    ///
    /// # Errors
    /// Says which ones it has.
    pub fn check_sysctl(key: &str, value: &str) -> Result<(), String> {
        sysctl(key, value).map(drop)
    }

    /// Whether the kernel of a virtual router has this sysctl.
    ///
    /// # Errors
    /// Why not.
    pub fn check_router_sysctl(key: &str, value: &str) -> Result<(), String> {
        build::hashing_sysctl(&mut crate::router::Hashing::new(1), key, value)
    }

    /// Ports and cables.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Whether a machine has power; bridges always have.
    pub fn powered(&self, id: NodeId) -> bool {
        match self.node(id) {
            Some(Node::Host(host)) => host.powered,
            Some(Node::Router(router)) => router.powered,
            Some(Node::Client(_) | Node::Bridge(_)) => true,
            None => false,
        }
    }

    /// Nothing is under way but what comes round again and again: probes, KEEPALIVEs, attempts to connect between two
    /// tries. No fault or step is planned, no write or kernel request is open, no process has anything in its inbox.
    pub fn quiet(&self) -> bool {
        let idle = |node: &Node| match node {
            Node::Host(host) => {
                let idle = |process: &host::Process| {
                    process.working == 0
                        && process.task.inbox.is_empty()
                        && process.show_at.is_none_or(|at| at <= self.now)
                        && host.start_after.is_none()
                };
                !host.is_between() && host.process.as_deref().is_none_or(idle)
            }
            Node::Router(router) => {
                router.process.as_ref().is_none_or(|process| process.task.inbox.is_empty())
            }
            Node::Client(_) | Node::Bridge(_) => true,
        };
        self.planned == 0
            && self.nodes.iter().all(idle)
            && self.streams.iter().all(|(_, stream)| !stream.is_loud())
    }

    /// Contracts that were broken.
    pub fn breaches(&self) -> &[Breach] {
        &self.breaches
    }

    /// What has been noted since the last call; always empty unless [`Options::notes`] is set.
    pub fn notes(&mut self) -> Vec<Note> {
        self.notes.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Everything that machines took and said so far, as one number.
    pub fn hash(&self) -> TraceHash {
        self.trace.hash()
    }

    /// The last events as text, with [`Tracing::Text`]: when, where, the event and the actions.
    pub fn last_events(&self) -> impl Iterator<Item = (Time, NodeId, &str)> {
        self.trace.texts()
    }

    /// Events that machines have taken.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Things in the heap.
    pub fn pending(&self) -> usize {
        self.queue.len()
    }

    fn breach(&mut self, node: NodeId, text: String) {
        self.breaches.push(Breach { at: self.now, node, kind: BreachKind::Contract, text });
    }

    fn note(&mut self, node: NodeId, kind: NoteKind, text: impl FnOnce() -> String) {
        if let Some(notes) = &mut self.notes {
            notes.push(Note { at: self.now, node, kind, text: text() });
        }
    }
}

impl Node {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Node::Host(host) => &host.name,
            Node::Router(router) => &router.name,
            Node::Client(client) => &client.name,
            Node::Bridge(name) => name,
        }
    }
}
