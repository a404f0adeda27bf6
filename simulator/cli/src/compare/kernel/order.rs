//! What a node of a comparison can be told to do besides what every lab knows, and what it says.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyvip_io::netlink::Netlink;
use anyvip_machine::{FailureKind, Time};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::balancer::{self, Balancer};
use super::client::{Client, Told, Traffic};
use super::names::{self, NameServer};
use crate::node::arp;

/// An order.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    /// Route this network to a neighbour.
    Route { to: IpNet, via: IpAddr, interface: String },
    /// Have this address, too. On `lo` that is its whole network.
    Address { interface: String, net: IpNet },
    /// The same, and tell all neighbours: what they send there comes here from now on.
    TakeOver { interface: String, net: IpNet },
    /// Spread connections over servers.
    Balance(balancer::Config),
    /// Pass nothing on, or do so again.
    Pause(bool),
    /// Answer for the name.
    Names(names::Config),
    /// Open all connections.
    Open(Traffic),
    /// All that has a beginning begins at this moment.
    Begin(Time),
    /// The operator takes a server out, or puts it back.
    Wanted { server: usize, wanted: bool },
    /// How much was passed on.
    Count,
    /// Wait for the last answer and report.
    Finish,
}

/// What an order brought.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Brought {
    Done,
    Packets(u64),
    Told(Told),
}

/// What runs in a node for a comparison.
#[derive(Default)]
pub(crate) struct Part {
    balancer: Option<Balancer>,
    names: Option<NameServer>,
    client: Option<Client>,
}

impl Part {
    pub(crate) async fn carry_out(&mut self, task: Task, netlink: &Netlink) -> Result<Brought, String> {
        match task {
            Task::Route { to, via, interface } => {
                let link = netlink.link(&interface).await.map_err(|failure| failure.to_string())?;
                match netlink.add_route(to, Some(via), link.index, 0).await {
                    Err(failure) if failure.kind != FailureKind::AlreadyExists => {
                        return Err(failure.to_string());
                    }
                    _ => {}
                }
            }
            Task::Address { interface, net } => add(netlink, &interface, net).await?,
            Task::TakeOver { interface, net } => {
                add(netlink, &interface, net).await?;
                if let IpAddr::V4(address) = net.addr() {
                    arp::claim(interface, address).await?;
                }
            }
            Task::Balance(config) => self.balancer = Some(Balancer::start(config).await?),
            Task::Pause(pause) => self.balancer()?.pause(pause).await?,
            Task::Names(config) => self.names = Some(NameServer::start(config)?),
            Task::Open(traffic) => self.client = Some(Client::open(traffic).await?),
            Task::Begin(at) => {
                if let Some(balancer) = &mut self.balancer {
                    balancer.begin(at);
                }
                if let Some(names) = &mut self.names {
                    names.begin(at);
                }
                if let Some(client) = &mut self.client {
                    client.begin(at);
                }
            }
            Task::Wanted { server, wanted } => {
                if let Some(balancer) = &self.balancer {
                    balancer.want(server, wanted);
                }
                if let Some(names) = &self.names {
                    names.want(server, wanted);
                }
            }
            Task::Count => return self.balancer()?.packets().await.map(Brought::Packets),
            Task::Finish => {
                let client = self.client.take().ok_or("no client here")?;
                return client.finish().await.map(Brought::Told);
            }
        }
        Ok(Brought::Done)
    }

    fn balancer(&self) -> Result<&Balancer, String> {
        self.balancer.as_ref().ok_or_else(|| "no balancer here".to_owned())
    }
}

async fn add(netlink: &Netlink, interface: &str, net: IpNet) -> Result<(), String> {
    let link = netlink.link(interface).await.map_err(|failure| failure.to_string())?;
    match netlink.add_address(link.index, net.addr(), net.prefix_len()).await {
        Err(failure) if failure.kind != FailureKind::AlreadyExists => Err(failure.to_string()),
        _ => Ok(()),
    }
}

/// Servers as checks and operators have them.
#[derive(Clone, Debug)]
pub(super) struct Rotation {
    well: Vec<bool>,
    wanted: Vec<bool>,
}

impl Rotation {
    /// All are in.
    pub(super) fn new(count: usize) -> Rotation {
        Rotation { well: vec![true; count], wanted: vec![true; count] }
    }

    /// Those that get new flows.
    pub(super) fn ready(&self) -> Vec<usize> {
        let in_rotation = |(well, wanted): (&bool, &bool)| *well && *wanted;
        let both = self.well.iter().zip(&self.wanted).map(in_rotation).enumerate();
        both.filter(|(_, ready)| *ready).map(|(server, _)| server).collect()
    }

    pub(super) fn set_well(&mut self, server: usize, well: bool) {
        if let Some(known) = self.well.get_mut(server) {
            *known = well;
        }
    }

    pub(super) fn set_wanted(&mut self, server: usize, wanted: bool) {
        if let Some(known) = self.wanted.get_mut(server) {
            *known = wanted;
        }
    }
}

/// Where a server is asked and checked.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Server {
    pub(crate) address: Ipv4Addr,
    /// When its first check is due.
    pub(crate) phase: Duration,
}
