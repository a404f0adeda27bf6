//! The kernel side as the agent sees it: a view, not a log. The driver hands it over whole.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The IFA_PROTO mark of addresses that this agent put in place.
pub const VIP_PROTOCOL: u8 = 201;

/// The protocol number of routes that this agent put in place.
pub const ROUTE_PROTOCOL: u8 = 201;
/// Metric of default routes of ours: preferred to those of DHCP clients (100 and more) and router advertisements (1024).
pub const DEFAULT_METRIC: u32 = 50;

/// Links, addresses and those routes that matter (default routes, and routes to watched addresses).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelView {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// All addresses.
    pub addresses: Vec<Address>,
    /// Main-table unicast routes: defaults, and those that cover a watched address.
    pub routes: Vec<Route>,
    /// `net.ipv4.conf.all`; the effective value of each setting is the larger of this and the interface's.
    pub all: Ipv4Settings,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub name: String,
    /// Administratively up.
    pub up: bool,
    /// Carrier.
    pub carrier: bool,
    pub loopback: bool,
    /// Takes part in ARP (no IFF_NOARP).
    pub arp: bool,
    /// The interface's own values.
    pub settings: Ipv4Settings,
}

/// `net.ipv4.conf.*` values that anyvip reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ipv4Settings {
    pub arp_ignore: u32,
    pub arp_announce: u32,
    pub rp_filter: u32,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Address {
    pub interface: u32,
    pub address: IpAddr,
    pub prefix_len: u8,
    /// RT_SCOPE_HOST (or wider scopes: false).
    pub scope_host: bool,
    /// RT_SCOPE_LINK.
    pub scope_link: bool,
    /// IFA_PROTO, 0 if unset.
    pub protocol: u8,
    /// Duplicate address detection is running, or found a duplicate.
    pub tentative: bool,
    /// Preferred lifetime 0.
    pub deprecated: bool,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    pub destination: IpNet,
    /// Lower is preferred.
    pub metric: u32,
    pub hops: Vec<Hop>,
    /// Who put it there (`rtm_protocol`).
    #[serde(default)]
    pub protocol: u8,
}

/// One next hop of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    pub gateway: Option<IpAddr>,
    pub interface: u32,
}
