//! What a router sees of a packet.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Where a packet comes from and goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        source: Ipv4Addr,
        /// Destination.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Source.
        source: Ipv6Addr,
        /// Destination.
        destination: Ipv6Addr,
        /// Flow label, 20 bits.
        flow_label: u32,
    },
}

impl Addresses {
    /// Two addresses of one family, the flow label zero; `None` for two families.
    #[must_use]
    pub const fn new(source: IpAddr, destination: IpAddr) -> Option<Addresses> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Addresses::V4 { source, destination }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Some(Addresses::V6 { source, destination, flow_label: 0 })
            }
            _ => None,
        }
    }

    /// The source.
    #[must_use]
    pub const fn source(&self) -> IpAddr {
        match *self {
            Addresses::V4 { source, .. } => IpAddr::V4(source),
            Addresses::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// The destination.
    #[must_use]
    pub const fn destination(&self) -> IpAddr {
        match *self {
            Addresses::V4 { destination, .. } => IpAddr::V4(destination),
            Addresses::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }
}

/// A flow: addresses, protocol, ports.
///
/// Ports count only for protocols that have some where the kernel looks: TCP, UDP, UDP-Lite, DCCP, SCTP; of ESP and AH the
/// halves of the SPI count as ports. For all others (ICMP) they are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// From where to where.
    pub addresses: Addresses,
    /// The protocol's number; of IPv6, the next header.
    pub protocol: u8,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// TCP's protocol number.
pub(crate) const TCP: u8 = 6;
/// UDP's protocol number.
pub(crate) const UDP: u8 = 17;

impl Flow {
    /// The ports, or zeros where the protocol has none.
    #[inline]
    pub(crate) const fn ports(&self) -> (u16, u16) {
        // TCP, UDP, DCCP, ESP, AH, SCTP, UDP-Lite.
        match self.protocol {
            TCP | UDP | 33 | 50 | 51 | 132 | 136 => (self.source_port, self.destination_port),
            _ => (0, 0),
        }
    }
}

/// The packet that an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quoted {
    /// From where to where it went.
    pub addresses: Addresses,
    /// Its protocol or next header.
    pub protocol: u8,
}

/// A packet that a router forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Packet {
    /// A whole packet. Not an ICMP error, and not one of the tunnels below.
    Whole(Flow),
    /// A fragment of one, the first or a later one. The kernel takes the ports of neither (without connection tracking, which
    /// puts fragments together again).
    Fragment(Flow),
    /// An ICMP or ICMPv6 error message: its own addresses, and what it quotes.
    Error {
        /// From the reporting router to the sender of the quoted packet; the protocol is ICMP of the family.
        addresses: Addresses,
        /// The packet it is about.
        quoted: Quoted,
    },
    /// A packet in a tunnel of IP in IP (protocols 4 and 41) or plain GRE (47).
    Tunnelled {
        /// The packet that routers on the way see; its ports count for nothing.
        outer: Flow,
        /// What it carries, a whole packet.
        inner: Flow,
    },
}

impl Packet {
    /// The addresses by which it is routed.
    #[must_use]
    pub const fn addresses(&self) -> Addresses {
        match self {
            Packet::Whole(flow) | Packet::Fragment(flow) | Packet::Tunnelled { outer: flow, .. } => {
                flow.addresses
            }
            Packet::Error { addresses, .. } => *addresses,
        }
    }
}

impl From<Flow> for Packet {
    fn from(flow: Flow) -> Packet {
        Packet::Whole(flow)
    }
}
