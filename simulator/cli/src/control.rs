//! What the lab and its nodes say to each other: JSON lines, orders on the node's standard input, messages on its
//! standard output. When the orders end, the node ends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_machine::Time;
use anyvip_virtual::observation::{Flows, Held};
use anyvip_virtual::router::Hop;
use anyvip_virtual::scenario::Traffic;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::compare::kernel::order::{Brought, Task};

/// An order with a number to answer to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) order: Order,
}

/// What a node can be told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// The links are there: sysctls, addresses, routes, `exec`.
    Configure,
    /// Begin the role.
    Begin,
    /// Start, kill, hang or resume the built-in service.
    Service(ServiceOrder),
    /// Start the agent, kill it, or stop it and wait.
    Agent(AgentOrder),
    /// Run `anyvip` with these arguments against this node's agent; its standard output comes back.
    AgentSays(Vec<String>),
    /// Take a link down or up; up also restores addresses and routes.
    Link { interface: String, up: bool },
    /// Put the default routes back: the kernel dropped what led over a link that lost its carrier.
    Gateways,
    /// Lose what this interface sends, or no more.
    Silence { interface: String, silent: bool },
    /// Drop this share of what is forwarded.
    Loss { permille: u16 },
    /// Delete a host address from whichever interface has it.
    DeleteAddress { address: IpAddr },
    /// Give the agent another configuration, a file beside the lab, and reload it.
    Reload { config: String },
    /// Set a sysctl.
    Sysctl { key: String, value: String },
    /// Ask every flow once.
    Flows { traffic: Traffic },
    /// Ask round and round until told to stop.
    Start {
        name: String,
        traffic: Traffic,
        /// Whether somebody wants to see meanwhile what comes of it.
        tell: bool,
    },
    /// Stop that and report.
    Stop { name: String },
    /// Open connections and keep asking on them.
    Hold { name: String, traffic: Traffic },
    /// Close them and report.
    Release { name: String },
    /// One ARP request; who answers?
    AskArp { address: Ipv4Addr },
    /// Guard these sessions of the router, by name and address of the peer, and wait until all are Up.
    Bfd { peers: Vec<(String, IpAddr)>, interval: Duration, multiplier: u8 },
    /// The router installs everything anew, as if all had come at this moment.
    Afresh,
    /// What only a comparison of designs needs.
    Compare(Task),
}

/// Orders for the service.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServiceOrder {
    Start,
    Kill,
    Hang,
    Resume,
}

/// Orders for the agent.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AgentOrder {
    Start,
    Kill,
    Stop,
}

/// What a node says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Message {
    /// The first word: in its namespace, ready for orders.
    Hello { pid: u32 },
    /// The answer to an order, and when it was carried out.
    Reply { id: u64, at: Time, result: Result<Answer, String> },
    /// The kernel's route to a prefix changed.
    Route { prefix: IpNet, next_hops: Vec<IpAddr>, at: Time },
    /// What the router put into its kernel, in this order; nothing: it removed the route.
    Installed { prefix: IpNet, next_hops: Vec<Hop>, at: Time },
    /// A BGP session of the router came or went.
    Session { peer: String, up: bool, text: String, at: Time },
    /// What `start` got so far, where that is wanted: answered, not answered, and answers by server since the last time.
    Asking { name: String, answered: usize, lost: usize, recent: BTreeMap<String, usize>, over: Duration },
    /// Something ended by itself.
    Trouble { text: String },
}

/// What an order brought.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Done,
    Text(String),
    Flows(Flows),
    Held(Vec<Held>),
    Stations(Vec<String>),
    Compare(Brought),
}
