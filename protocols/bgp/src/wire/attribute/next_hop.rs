//! Next hops: NEXT_HOP, and the field of MP_REACH_NLRI (RFC 2545 §3, RFC 8950 §4).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::wire::Family;
use crate::wire::octets::Octets;

/// A next hop as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NextHop {
    /// IPv4.
    V4(Ipv4Addr),
    /// IPv6 global address, and the link-local one if told (RFC 2545 §3).
    V6 { global: Ipv6Addr, link_local: Option<Ipv6Addr> },
}

impl NextHop {
    /// The family of the address.
    pub fn family(&self) -> Family {
        match self {
            NextHop::V4(_) => Family::Ipv4,
            NextHop::V6 { .. } => Family::Ipv6,
        }
    }

    /// The IPv4 or global IPv6 address.
    pub fn address(&self) -> IpAddr {
        match self {
            NextHop::V4(address) => IpAddr::V4(*address),
            NextHop::V6 { global, .. } => IpAddr::V6(*global),
        }
    }

    /// RFC 4271 §6.3: must be the address of a host.
    pub fn is_host(&self) -> bool {
        match self {
            NextHop::V4(address) => {
                !(address.is_unspecified() || address.is_multicast() || address.is_broadcast())
            }
            // Some daemons tell only the link-local address and leave the global one unspecified.
            NextHop::V6 { global, link_local } => {
                !global.is_multicast() && (!global.is_unspecified() || link_local.is_some())
            }
        }
    }

    /// The length decides what it is. An unspecified link-local address says that there is none.
    pub(super) fn decode(octets: &[u8]) -> Option<NextHop> {
        let mut octets = Octets::new(octets);
        let next_hop = match octets.rest().len() {
            4 => NextHop::V4(Ipv4Addr::from(octets.array()?)),
            16 | 32 => NextHop::V6 {
                global: Ipv6Addr::from(octets.array()?),
                link_local: octets.array().map(Ipv6Addr::from).filter(|address| !address.is_unspecified()),
            },
            _ => return None,
        };
        Some(next_hop)
    }

    /// Octets that it takes in MP_REACH_NLRI.
    pub(in crate::wire) fn size(&self) -> usize {
        match self {
            NextHop::V4(_) => 4,
            NextHop::V6 { link_local: None, .. } => 16,
            NextHop::V6 { .. } => 32,
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            NextHop::V4(address) => out.extend_from_slice(&address.octets()),
            NextHop::V6 { global, link_local } => {
                out.extend_from_slice(&global.octets());
                if let Some(link_local) = link_local {
                    out.extend_from_slice(&link_local.octets());
                }
            }
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> NextHop {
        match address {
            IpAddr::V4(address) => NextHop::V4(address),
            IpAddr::V6(global) => NextHop::V6 { global, link_local: None },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NextHop::V6 { global, link_local: Some(link_local) } => write!(f, "{global} ({link_local})"),
            other => other.address().fmt(f),
        }
    }
}
