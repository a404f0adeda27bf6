//! What enters an [`Advertiser`](crate::Advertiser) and what leaves it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;

use anyvip_machine::Failure;
use serde::{Deserialize, Serialize};

use crate::error::Discard;

/// Everything that can happen to an advertiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// `next_deadline()` has come. The only event that lets time act.
    DeadlineReached,
    /// All interfaces that there shall be from now on, and how they are.
    Wanted { interfaces: BTreeMap<InterfaceName, Link> },
    /// An ICMPv6 message as it came, without its IPv6 header. The checksum was right.
    Received {
        interface: InterfaceName,
        source: Ipv6Addr,
        /// Of the IPv6 header; `None` where the kernel did not say.
        hop_limit: Option<u8>,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Answer to [`Action::Open`] and to [`Action::Send`]. What could not be opened is opened again with the next `Send`.
    Done { interface: InterfaceName, result: Result<(), Failure> },
}

/// Everything an advertiser asks for or reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Listen on this interface for router solicitations and advertisements. Answered by `Done`.
    Open { interface: InterfaceName, index: u32 },
    /// No longer.
    Close { interface: InterfaceName },
    /// Send this ICMPv6 message from the interface's link-local address with a hop limit of 255. The checksum is the kernel's.
    /// Answered by `Done`.
    Send {
        interface: InterfaceName,
        destination: Ipv6Addr,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    /// Something happened that others may want to know.
    Fact(Fact),
}

/// What an advertiser reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// A router was heard for the first time since the interface became ready.
    RouterHeard { interface: InterfaceName, router: Ipv6Addr },
    /// A packet was refused; told once a minute for each rule.
    Discarded { interface: InterfaceName, source: Ipv6Addr, reason: Discard },
    /// Advertisements do not leave, or (`None`) they do again.
    CannotSend { interface: InterfaceName, failure: Option<Failure> },
}

/// An interface's name as the kernel knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InterfaceName(pub String);

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for InterfaceName {
    fn from(name: &str) -> InterfaceName {
        InterfaceName(name.to_owned())
    }
}

/// How an interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The kernel's number for it.
    pub index: u32,
    /// Its usable link-local address; `None` while it cannot send: down, without carrier, or the address is still being tested.
    pub link_local: Option<Ipv6Addr>,
}
