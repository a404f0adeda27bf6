use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::AfiSafi;

/// OPEN (RFC 4271 §4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The two-octet field: AS_TRANS (23456) if the real number does not fit.
    pub asn: u16,
    /// Hold time in seconds, 0 or at least 3.
    pub hold_time: u16,
    /// BGP Identifier, not zero.
    pub router_id: Ipv4Addr,
    /// Capabilities (RFC 5492), in the order of the wire.
    pub capabilities: Vec<Capability>,
}

/// One capability; unknown ones are kept as they came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capability {
    /// Code 1 (RFC 4760).
    Multiprotocol(AfiSafi),
    /// Code 2 (RFC 2918).
    RouteRefresh,
    /// Code 5 (RFC 8950): family, and the AFI its next hop may have.
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Code 65 (RFC 6793).
    FourOctetAs(u32),
    /// Any other code.
    Unknown { code: u8, value: Vec<u8> },
}
