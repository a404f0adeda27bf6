//! A scenario as meant: traffic, and steps that happen one after the other.
//!
//! The file is YAML beside the lab. Expectations are steps too, so that each is judged where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::lab::{Lab, NodeName};

mod check;
mod expect;
mod read;

/// What to do with a lab.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// One line for the reader.
    pub title: String,
    /// Traffic by name.
    pub traffic: BTreeMap<String, Traffic>,
    /// Where its clients are written; also of traffic that makes no sense and is not among the former.
    pub traffic_places: BTreeMap<String, Place>,
    /// In this order.
    pub steps: Vec<Step>,
}

/// Flows from a client: same addresses, same destination port, one source port each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// The client.
    pub from: NodeName,
    /// The service address.
    pub to: IpAddr,
    /// Destination port.
    pub port: u16,
    /// UDP, TCP or DNS.
    pub protocol: Protocol,
    /// How many flows, one source port each.
    pub flows: u16,
    /// The first source port.
    pub first_port: u16,
    /// How many flows are asked per second by `start` (round robin).
    pub rate: u32,
    /// How often each connection kept by `hold` asks.
    pub every: Duration,
    /// How long to wait for an answer.
    pub timeout: Duration,
    /// Octets of a UDP question.
    pub size: u16,
    /// Octets of the answer of a TCP flow that is asked once, if it shall be a long one.
    pub answer: Option<u32>,
}

impl Traffic {
    /// Whether a question does not fit into one Ethernet frame: its client sends it in fragments.
    pub fn is_fragmented(&self) -> bool {
        const FRAME: u16 = 1500;
        // IP and UDP headers.
        let headers = if self.to.is_ipv4() { 28 } else { 48 };
        self.protocol == Protocol::Udp && self.size > FRAME - headers
    }
}

/// Transport of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// One datagram each way.
    Udp,
    /// A connection, a line each way.
    Tcp,
    /// `hostname.bind. CH TXT` over UDP: which server is this?
    Dns,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Where it is written.
    pub place: Place,
    /// What happens.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Prints a line.
    Say(String),
    /// Does nothing for a while.
    Sleep(Duration),
    /// Waits until this holds; the scenario ends if it does not in time.
    WaitFor(Condition, Duration),
    /// Judges.
    Expect(Vec<Expectation>),
    /// Asks every flow of a traffic once.
    Flows { traffic: String, name: String },
    /// Begins to ask the flows of a traffic round and round.
    Start { traffic: String, name: String },
    /// Ends that.
    Stop { name: String },
    /// Opens the connections of a traffic and keeps asking on them.
    Hold { traffic: String, name: String },
    /// Ends that.
    Release { name: String },
    /// Sends one ARP request and counts who answers.
    AskArp { from: NodeName, address: std::net::Ipv4Addr, name: String },
    /// Something happens to a service, an agent, a link or a host.
    Disturb(Disturbance),
}

/// What can happen to a node. Each is a cause on the time line.
#[derive(Clone, Debug, PartialEq)]
pub enum Disturbance {
    /// SIGKILL for the service.
    Kill(NodeName),
    /// SIGSTOP for the service.
    Hang(NodeName),
    /// SIGCONT for the service.
    Resume(NodeName),
    /// The service again, after a kill.
    StartService(NodeName),
    /// SIGKILL for the agent.
    KillAgent(NodeName),
    /// SIGTERM for the agent, and its end awaited.
    StopAgent(NodeName),
    /// The agent again.
    StartAgent(NodeName),
    /// `anyvip drain`.
    Drain { node: NodeName, service: Option<String> },
    /// `anyvip undrain`.
    Undrain { node: NodeName, service: Option<String> },
    /// `anyvip upgrade`, to the same version; done when the new process has taken over.
    Upgrade(NodeName),
    /// The interfaces of a node go down: their other ends lose carrier.
    CarrierDown(Vec<Ports>),
    /// They come back.
    CarrierUp(Vec<Ports>),
    /// What these ends send is lost; the links stay up.
    Silence(Vec<Ports>),
    /// It is not lost any more.
    Unsilence(Vec<Ports>),
    /// A router drops this share of what it forwards, at random.
    Loss { router: NodeName, permille: u16 },
    /// Somebody deletes a VIP.
    DeleteVip { node: NodeName, vip: IpAddr },
    /// Somebody sets a sysctl.
    Sysctl { node: NodeName, key: String, value: String },
    /// An agent gets another configuration (a file beside the lab) and `anyvip reload`.
    Reload { node: NodeName, config: String },
}

/// All interfaces of a node, or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The node.
    pub node: NodeName,
    /// One interface, or all.
    pub interface: Option<String>,
}

/// Something that holds or does not hold at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The kernel of a router sends a prefix to these next hops.
    NextHops { router: NodeName, prefix: IpNet, next_hops: NextHops },
    /// A router has installed a prefix with these weights, and no other next hops.
    Weights { router: NodeName, prefix: IpNet, weights: BTreeMap<NodeName, u16> },
    /// An agent thinks so of its service (all of them without a name).
    Health { agent: NodeName, service: Option<String>, health: String },
    /// An agent has told a VIP to its peers (or to this one), or not.
    Announced { agent: NodeName, vip: IpAddr, peer: Option<String>, announced: bool },
    /// An agent withholds a VIP (from this peer) for this reason.
    Withheld { agent: NodeName, vip: IpAddr, peer: Option<String>, reason: String },
}

/// Next hops of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHops {
    /// So many.
    Count(usize),
    /// Just these nodes.
    Nodes(BTreeSet<NodeName>),
}

/// What an `expect` step judges.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// A condition holds now.
    Holds(Condition),
    /// Each server that answered took its equal share, give or take so many percentage points.
    Spread { of: String, points: u32 },
    /// At most so many flows were not answered.
    Lost { of: String, at_most: u64 },
    /// Flows that were not answered had all been this server's in an earlier measurement.
    LostOnlyOf { of: String, server: NodeName, before: String },
    /// At most so many were lost of those asked after the last change of the route.
    LostAfterRouteChange { of: String, at_most: u64 },
    /// At least this share of the flows had the same server as before.
    SameServer { of: String, before: String, percent: u32 },
    /// Of the flows whose server is still there, at most this share has another one than before.
    Moved { of: String, before: String, at_most: u32 },
    /// Of the flows whose server is still there, just this share (permille) has another one, give or take `slack` permille.
    MovedShare { of: String, before: String, permille: u32, slack: u32 },
    /// Every flow was answered by the server that the twin of the kernel names.
    Predicted { of: String },
    /// Each of these servers answered so many permille of the flows, give or take `slack`, and no other answered.
    Shares { of: String, shares: BTreeMap<NodeName, u32>, slack: u32 },
    /// From the first lost question to the last one passed at most so much time.
    LostFor { of: String, at_most: Duration },
    /// Just these servers answered.
    Servers { of: String, servers: BTreeSet<NodeName> },
    /// So many servers answered, whichever they are.
    ServerCount { of: String, count: usize },
    /// At most so many connections of other servers were cut (reset or stalled).
    CutOfOthers { of: String, server: NodeName, at_most: u64 },
    /// At most so many connections were cut.
    Cut { of: String, at_most: u64 },
    /// At least so many connections were cut.
    CutAtLeast { of: String, at_least: u64 },
    /// At most so many connections had to wait for an answer in vain.
    Stalled { of: String, at_most: u64 },
    /// Just those connections were cut that the twin of the kernel sends to another server.
    CutAsPredicted { of: String },
    /// So many stations answered an ARP request.
    Answers { of: String, answers: usize },
}

impl Scenario {
    /// Reads a scenario for this lab. With an error in the list there is no scenario.
    pub fn read(file: &str, text: &str, lab: &Lab) -> (Option<Scenario>, Vec<Diagnostic>) {
        let mut diagnostics = Diagnostics::new(file);
        let scenario = read::scenario(text, &mut diagnostics);
        if let Some(scenario) = &scenario {
            check::scenario(scenario, lab, &mut diagnostics);
        }
        let scenario = scenario.filter(|_| !diagnostics.has_errors());
        (scenario, diagnostics.into_sorted())
    }

    /// Agents that get another configuration on the way.
    pub fn reloads(&self) -> BTreeSet<NodeName> {
        let of = |step: &Step| match &step.action {
            Action::Disturb(Disturbance::Reload { node, .. }) => Some(node.clone()),
            _ => None,
        };
        self.steps.iter().filter_map(of).collect()
    }

    /// Whether a step needs the `nft` program (random loss).
    pub fn needs_nft(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Disturb(Disturbance::Loss { .. })))
    }
}

#[cfg(test)]
mod tests;
