//! From a packet to 31 bits, as Linux does it.
//!
//! The kernel fills a structure with the chosen fields, sorts addresses and ports so that both directions of a flow look alike,
//! and takes SipHash-2-4 of it. Seen as 64-bit little-endian words the structure is: protocol in bits 16 to 23 and flow
//! label in the upper half of the first, two words of zeros, both ports in the upper half of the fourth, then the addresses,
//! beginning in the upper half of the fifth. "Sorted" means by the numbers that the bytes make on this machine.

use crate::fields::{Fields, Policy};
use crate::packet::{Addresses, Flow, Packet, Quoted, TCP, UDP};
use crate::sip::{Sip, jhash_2words};

/// Bytes of the kernel's structure.
const BYTES_V4: u64 = 48;
const BYTES_V6: u64 = 72;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const FRAGMENT_HEADER: u8 = 44;

/// The multipath hash of one router.
///
/// Making one costs some hundred nanoseconds: keep it, and ask it often.
#[derive(Clone, Debug)]
pub struct Hasher {
    seed: u32,
    policy: Policy,
    start: Sip,
    /// What the most common first words lead to: no protocol, TCP, UDP.
    begun: [Sip; 3],
}

/// The fields of a packet that are hashed; what is not chosen is zero.
#[derive(Clone, Copy)]
struct Keys {
    addresses: Addresses,
    protocol: u8,
    /// As the kernel's number on a little-endian machine.
    label: u32,
    ports: (u16, u16),
}

impl Hasher {
    /// With this seed (`net.ipv4.fib_multipath_hash_seed`, which covers IPv6 too) and policy. A router whose seed is 0 uses a
    /// random number that nobody can read: nothing can be predicted for it, and this is not it.
    #[must_use]
    pub fn new(seed: u32, policy: Policy) -> Hasher {
        let key = u64::from(seed) << 32 | u64::from(seed);
        let start = Sip::new([key, key]);
        let begun = [0, TCP, UDP].map(|protocol| begin(start, protocol, 0));
        Hasher { seed, policy, start, begun }
    }

    /// The seed.
    #[must_use]
    pub const fn seed(&self) -> u32 {
        self.seed
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The hash of a packet that the router forwards.
    #[inline]
    #[must_use]
    pub fn forwarded(&self, packet: &Packet) -> u32 {
        match packet {
            Packet::Whole(flow) => self.flow(flow, flow.protocol, flow.ports()),
            // A packet without ports, and under policy 0, where the kernel looks no further, one of another protocol.
            Packet::Fragment(flow) => self.flow(flow, FRAGMENT_HEADER, (0, 0)),
            Packet::Error { addresses, quoted } => self.error(*addresses, quoted),
            Packet::Tunnelled { outer, inner } => self.tunnelled(outer, inner),
        }
    }

    /// What the kernel computes when asked for the way of a flow that comes in through an interface (RTM_GETROUTE with `iif`).
    /// The same as for a forwarded packet, except for IPv6 under policy 3, and for ICMPv6 with ports in the question.
    #[inline]
    #[must_use]
    pub fn lookup(&self, flow: &Flow) -> u32 {
        match flow.addresses {
            Addresses::V4 { .. } => self.flow(flow, flow.protocol, flow.ports()),
            Addresses::V6 { .. } => self.local(flow),
        }
    }

    /// The hash of what the router itself sends, where its routing is not already decided by the socket's source address. Here
    /// ports count for every protocol; of a ping, the type (256 times) and code stand in the place of the destination's.
    #[must_use]
    pub fn local(&self, flow: &Flow) -> u32 {
        let ports = (flow.source_port, flow.destination_port);
        match self.policy {
            Policy::Custom(fields) if fields.outer() == 0 => 0,
            Policy::Custom(fields) => self.keys(&custom(fields.outer(), flow, ports)) >> 1,
            _ => self.flow(flow, flow.protocol, ports),
        }
    }

    /// A packet that is neither error nor tunnel; `next_header` is what stands in the IPv6 header itself.
    #[inline(always)]
    fn flow(&self, flow: &Flow, next_header: u8, ports: (u16, u16)) -> u32 {
        match self.policy {
            Policy::Layer3 => self.keys(&layer3(flow.addresses, next_header, u32::swap_bytes)) >> 1,
            Policy::Layer4 => {
                self.keys(&Keys { addresses: flow.addresses, protocol: flow.protocol, label: 0, ports }) >> 1
            }
            Policy::InnerLayer3 => self.keys(&layer3(flow.addresses, flow.protocol, |label| label)) >> 1,
            Policy::Custom(fields) => self.custom(fields, &custom(fields.outer(), flow, ports), 0),
        }
    }

    fn error(&self, addresses: Addresses, quoted: &Quoted) -> u32 {
        if self.policy == Policy::Layer3 {
            return self.keys(&layer3(quoted.addresses, quoted.protocol, u32::swap_bytes)) >> 1;
        }
        let protocol = match addresses {
            Addresses::V4 { .. } => ICMP,
            Addresses::V6 { .. } => ICMPV6,
        };
        self.flow(&Flow { addresses, protocol, source_port: 0, destination_port: 0 }, protocol, (0, 0))
    }

    fn tunnelled(&self, outer: &Flow, inner: &Flow) -> u32 {
        // The kernel overwrites the label it has read only with one that is not zero.
        let inner = &match (outer.addresses, inner.addresses) {
            (Addresses::V6 { flow_label, .. }, Addresses::V6 { source, destination, flow_label: 0 }) => {
                Flow { addresses: Addresses::V6 { source, destination, flow_label }, ..*inner }
            }
            _ => *inner,
        };
        match self.policy {
            Policy::InnerLayer3 => self.keys(&layer3(inner.addresses, inner.protocol, |label| label)) >> 1,
            Policy::Custom(fields) if fields.inner() != 0 => {
                let within = self.keys(&custom(fields.inner(), inner, inner.ports()));
                self.custom(fields, &custom(fields.outer(), outer, (0, 0)), within)
            }
            _ => self.flow(outer, outer.protocol, (0, 0)),
        }
    }

    /// Policy 3 hashes twice.
    #[inline(always)]
    fn custom(&self, fields: Fields, keys: &Keys, within: u32) -> u32 {
        let outer = if fields.outer() == 0 { 0 } else { self.keys(keys) };
        jhash_2words(outer, within) >> 1
    }

    /// 32 bits, never zero.
    #[inline(always)]
    fn keys(&self, keys: &Keys) -> u32 {
        let begun = match (keys.protocol, keys.label) {
            (0, 0) => self.begun[0],
            (TCP, 0) => self.begun[1],
            (UDP, 0) => self.begun[2],
            (protocol, label) => begin(self.start, protocol, label),
        };
        // Bytes in network order read as numbers of this machine's order.
        let ports = (keys.ports.0.swap_bytes(), keys.ports.1.swap_bytes());
        let (low, high) = (ports.0.min(ports.1), ports.0.max(ports.1));
        let begun = begun.word(u64::from(low) << 32 | u64::from(high) << 48);
        let hash = match keys.addresses {
            Addresses::V4 { source, destination } => {
                let (source, destination) =
                    (source.to_bits().swap_bytes(), destination.to_bits().swap_bytes());
                begun
                    .word(u64::from(source.min(destination)) << 32)
                    .word(u64::from(source.max(destination)))
                    .finish(BYTES_V4)
            }
            Addresses::V6 { source, destination, .. } => {
                // Compared byte by byte, so as numbers of network order.
                let low = source.to_bits().min(destination.to_bits()).swap_bytes();
                let high = source.to_bits().max(destination.to_bits()).swap_bytes();
                begun
                    .word((low as u64) << 32)
                    .word((low >> 32) as u64)
                    .word((low >> 96) as u64 | (high as u64) << 32)
                    .word((high >> 32) as u64)
                    .word((high >> 96) as u64)
                    .finish(BYTES_V6)
            }
        };
        (hash as u32).max(1)
    }
}

/// The first three words: protocol, flow label, zeros.
fn begin(start: Sip, protocol: u8, label: u32) -> Sip {
    start.word(u64::from(protocol) << 16 | u64::from(label) << 32).word(0).word(0)
}

/// Addresses; for IPv6 also next header, and the label in the byte order that `order` makes.
fn layer3(addresses: Addresses, next_header: u8, order: fn(u32) -> u32) -> Keys {
    match addresses {
        Addresses::V4 { .. } => Keys { addresses, protocol: 0, label: 0, ports: (0, 0) },
        Addresses::V6 { flow_label, .. } => {
            Keys { addresses, protocol: next_header, label: order(flow_label), ports: (0, 0) }
        }
    }
}

/// The fields of this mask, the others zero.
#[inline(always)]
fn custom(mask: u16, flow: &Flow, ports: (u16, u16)) -> Keys {
    let wants = |field: u16| mask & field != 0;
    let keep = |field: u16| if wants(field) { u32::MAX } else { 0 };
    let (addresses, label) = match flow.addresses {
        Addresses::V4 { source, destination } => {
            let source = (source.to_bits() & keep(Fields::SOURCE)).into();
            let destination = (destination.to_bits() & keep(Fields::DESTINATION)).into();
            (Addresses::V4 { source, destination }, 0)
        }
        Addresses::V6 { source, destination, flow_label } => {
            let source = if wants(Fields::SOURCE) { source } else { 0.into() };
            let destination = if wants(Fields::DESTINATION) { destination } else { 0.into() };
            (Addresses::V6 { source, destination, flow_label: 0 }, flow_label & keep(Fields::FLOW_LABEL))
        }
    };
    let protocol = if wants(Fields::PROTOCOL) { flow.protocol } else { 0 };
    let port = |port: u16, field: u16| if wants(field) { port } else { 0 };
    let ports = (port(ports.0, Fields::SOURCE_PORT), port(ports.1, Fields::DESTINATION_PORT));
    Keys { addresses, protocol, label, ports }
}

#[cfg(test)]
mod tests;
