//! What survives a restart: written whole, versioned, newest wins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::boundary::ServiceName;

/// The contents of `state.json` in the state directory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoredState {
    /// Format, now 1. A newer one is unreadable.
    pub version: u32,
    /// Grows with each write.
    pub generation: u64,
    /// Router id, kept once chosen.
    pub router_id: Option<Ipv4Addr>,
    /// Drained services.
    pub drained: BTreeMap<ServiceName, Drained>,
    /// Addresses that this agent put in place.
    pub owned: BTreeSet<OwnedVip>,
    /// ARP values found before the guard was set, by interface name.
    pub arp: BTreeMap<String, FormerArp>,
    /// Unclean ends, ms since 1970, newest last, at most 16.
    pub unclean_exits: Vec<u64>,
    /// Set while running, cleared by an orderly exit: start time, ms since 1970.
    pub running_since: Option<u64>,
}

/// What the driver found in the state directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StoredStateRead {
    /// No file: a first start.
    Absent,
    /// A file of our version.
    Read(StoredState),
    /// There is one, but it cannot be used; the text says why. Withholds everything.
    Unreadable(String),
}

/// Operator state of a drained service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Since when, ms since 1970.
    pub since: u64,
    /// The operator's words.
    pub reason: Option<String>,
}

/// An address of ours: not believed on another boot or interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnedVip {
    pub address: IpAddr,
    pub interface: u32,
    pub boot_id: String,
}

/// An interface's ARP values before us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerArp {
    pub interface: u32,
    pub boot_id: String,
    pub ignore: u32,
    pub announce: u32,
}
