//! Packets as bytes, and random ones.

use std::net::IpAddr;

use anyvip_ecmp::{Addresses, Flow, Packet, Quoted};

/// The last bytes of every packet: this, and the packet's number.
const MARK: [u8; 4] = *b"twin";

const IPIP: u8 = 4;
const IPV6: u8 = 41;
const GRE: u8 = 47;

/// The packet, ready for a raw socket that takes whole headers.
pub(crate) fn bytes(packet: &Packet, number: u32) -> Vec<u8> {
    let mut tail = MARK.to_vec();
    tail.extend(number.to_be_bytes());
    match packet {
        Packet::Whole(flow) => datagram(flow.addresses, flow.protocol, None, &transport(flow, &tail)),
        // Of the later ones, the first bytes are no ports.
        Packet::Fragment(flow) => {
            let first = number.is_multiple_of(2);
            let body = if first { transport(flow, &tail) } else { [vec![0xff; 16], tail].concat() };
            datagram(flow.addresses, flow.protocol, Some(first), &body)
        }
        Packet::Error { addresses, quoted } => {
            let inner = datagram(quoted.addresses, quoted.protocol, None, &[0x11; 8]);
            // Fragmentation needed; packet too big.
            let (protocol, head): (u8, [u8; 8]) = match addresses {
                Addresses::V4 { .. } => (1, [3, 4, 0, 0, 0, 0, 5, 0]),
                Addresses::V6 { .. } => (58, [2, 0, 0, 0, 0, 0, 5, 0]),
            };
            datagram(*addresses, protocol, None, &[head.to_vec(), inner, tail].concat())
        }
        Packet::Tunnelled { outer, inner } => {
            let carried = datagram(inner.addresses, inner.protocol, None, &transport(inner, &tail));
            let body = match (outer.protocol, inner.addresses) {
                (GRE, Addresses::V4 { .. }) => [vec![0, 0, 0x08, 0x00], carried].concat(),
                (GRE, Addresses::V6 { .. }) => [vec![0, 0, 0x86, 0xdd], carried].concat(),
                _ => carried,
            };
            datagram(outer.addresses, outer.protocol, None, &body)
        }
    }
}

/// The number of one of our packets.
pub(crate) fn number(bytes: &[u8]) -> Option<u32> {
    let tail = bytes.last_chunk::<8>()?;
    (tail[..4] == MARK).then(|| u32::from_be_bytes([tail[4], tail[5], tail[6], tail[7]]))
}

fn transport(flow: &Flow, tail: &[u8]) -> Vec<u8> {
    let ports = [flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes()].concat();
    let rest = match flow.protocol {
        6 => [&[0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0][..], tail].concat(),
        17 => [&(8 + tail.len() as u16).to_be_bytes()[..], &[0, 0], tail].concat(),
        // An echo request; what the ports would be is its identifier.
        1 => return [&[8, 0, 0, 0][..], &ports, tail].concat(),
        58 => return [&[128, 0, 0, 0][..], &ports, tail].concat(),
        _ => [&[0; 12][..], tail].concat(),
    };
    [ports, rest].concat()
}

/// With a fragment header if it is a fragment: the first, or a later one.
fn datagram(addresses: Addresses, protocol: u8, fragment: Option<bool>, body: &[u8]) -> Vec<u8> {
    let flags: u16 = match fragment {
        None => 0,
        Some(true) => 1,
        Some(false) => 64,
    };
    match addresses {
        Addresses::V4 { source, destination } => {
            // More fragments is bit 13; offsets are in units of 8 bytes.
            let flags = if fragment == Some(true) { 0x2000 } else { flags }.to_be_bytes();
            let length = (20 + body.len() as u16).to_be_bytes();
            let mut head =
                vec![0x45, 0, length[0], length[1], 0x12, 0x34, flags[0], flags[1], 64, protocol, 0, 0];
            head.extend(source.octets());
            head.extend(destination.octets());
            let sum = head.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
            let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
            head[10..12].copy_from_slice(&sum.to_be_bytes());
            [head, body.to_vec()].concat()
        }
        Addresses::V6 { source, destination, flow_label } => {
            let (next, extension) = match fragment {
                None => (protocol, Vec::new()),
                Some(first) => {
                    let offset = if first { 1 } else { flags << 3 }.to_be_bytes();
                    (44, vec![protocol, 0, offset[0], offset[1], 0, 0, 0x12, 0x34])
                }
            };
            let mut head = (0x6000_0000 | flow_label).to_be_bytes().to_vec();
            head.extend(((extension.len() + body.len()) as u16).to_be_bytes());
            head.extend([next, 64]);
            head.extend(source.octets());
            head.extend(destination.octets());
            [head, extension, body.to_vec()].concat()
        }
    }
}

/// Random numbers, the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Below this.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    /// To a service of the world, without a flow label.
    fn addresses(&mut self, ipv4: bool) -> Addresses {
        let (client, service) = (self.roll(), self.roll());
        let (source, destination): (IpAddr, IpAddr) = match ipv4 {
            true => (
                std::net::Ipv4Addr::from_bits(0xc612_0000 | client as u32 & 0x1_ffff).into(),
                std::net::Ipv4Addr::from_bits(0xc000_0200 | service as u32 & 0xff).into(),
            ),
            false => (
                std::net::Ipv6Addr::from_bits(0x2001_0db8_0001 << 80 | u128::from(client) << 8).into(),
                std::net::Ipv6Addr::from_bits(0x2001_0db8_0053 << 80 | u128::from(service)).into(),
            ),
        };
        Addresses::new(source, destination).unwrap()
    }

    /// TCP, UDP or ping.
    pub(crate) fn flow(&mut self, ipv4: bool) -> Flow {
        let protocol = [6, 6, 6, 17, 17, if ipv4 { 1 } else { 58 }][self.below(6) as usize];
        Flow {
            addresses: self.addresses(ipv4),
            protocol,
            source_port: self.roll() as u16,
            destination_port: self.roll() as u16,
        }
    }

    /// Half of IPv6 packets have a flow label.
    fn labelled(&mut self, ipv4: bool) -> Flow {
        let mut flow = self.flow(ipv4);
        if let Addresses::V6 { flow_label, .. } = &mut flow.addresses
            && self.below(2) == 0
        {
            *flow_label = self.roll() as u32 & 0xf_ffff;
        }
        flow
    }

    /// Anything that a router forwards.
    pub(crate) fn packet(&mut self, ipv4: bool) -> Packet {
        let outer = self.labelled(ipv4);
        match self.below(10) {
            0 => Packet::Fragment(outer),
            1 => {
                // What it quotes went the other way, and was of any protocol.
                let quoted = self.labelled(ipv4);
                Packet::Error {
                    addresses: outer.addresses,
                    quoted: Quoted { addresses: quoted.addresses, protocol: quoted.protocol },
                }
            }
            2 => {
                let of_v4 = self.below(2) == 0;
                let inner = self.labelled(of_v4);
                let plain = if of_v4 { IPIP } else { IPV6 };
                let protocol = if self.below(3) == 0 { GRE } else { plain };
                Packet::Tunnelled { outer: Flow { protocol, ..outer }, inner }
            }
            // OSPF, SCTP, ESP.
            3 => Packet::Whole(Flow { protocol: [89, 132, 50][self.below(3) as usize], ..outer }),
            _ => Packet::Whole(outer),
        }
    }
}
