//! Flows to count: clients and ports drawn from a number, the same each time.

use std::net::IpAddr;

use anyvip_ecmp::{Addresses, Flow, Hasher};
use ipnet::IpNet;

use super::{Error, Traffic};

/// Many flows to one service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flows {
    clients: IpNet,
    service: IpAddr,
    protocol: u8,
    port: u16,
    seed: u64,
}

impl Flows {
    pub(crate) fn new(traffic: &Traffic) -> Result<Flows, Error> {
        let ipv4 = traffic.dst.is_ipv4();
        let clients = match traffic.src {
            Some(source) => source.0,
            None => if ipv4 { "198.18.0.0/15" } else { "2001:db8:1::/48" }
                .parse()
                .map_err(|error| Error::Failed(format!("{error}")))?,
        };
        if clients.addr().is_ipv4() != ipv4 {
            return Err(Error::Usage(format!(
                "--src {clients} and --dst {} are of different families; give two of one",
                traffic.dst
            )));
        }
        Ok(Flows {
            clients,
            service: traffic.dst,
            protocol: traffic.proto.number(ipv4),
            port: traffic.dport,
            seed: random(traffic.flow_seed),
        })
    }

    /// The flow of this number.
    pub(crate) fn flow(&self, number: u64) -> Flow {
        let (port, client) = (random(self.seed ^ number), random(self.seed.rotate_left(32) ^ number));
        let addresses = match (self.clients, self.service) {
            (IpNet::V4(net), IpAddr::V4(destination)) => {
                let source = net.network().to_bits() | client as u32 & net.hostmask().to_bits();
                Addresses::V4 { source: source.into(), destination }
            }
            (IpNet::V6(net), IpAddr::V6(destination)) => {
                let client = u128::from(client) << 64 | u128::from(port);
                let source = net.network().to_bits() | client & net.hostmask().to_bits();
                Addresses::V6 { source: source.into(), destination, flow_label: 0 }
            }
            // Never: the families were compared.
            (IpNet::V4(_), IpAddr::V6(destination)) => {
                Addresses::V6 { source: destination, destination, flow_label: 0 }
            }
            (IpNet::V6(_), IpAddr::V4(destination)) => Addresses::V4 { source: destination, destination },
        };
        // Ports from 1024 on.
        let source_port = 1024 + (((port >> 32) * 64_512) >> 32) as u16;
        Flow { addresses, protocol: self.protocol, source_port, destination_port: self.port }
    }

    /// Their hashes, as of forwarded packets.
    pub(crate) fn hashes(&self, hasher: &Hasher, count: u64) -> Vec<u32> {
        (0..count).map(|number| hasher.forwarded(&self.flow(number).into())).collect()
    }
}

/// Spreads a number over 64 bits (SplitMix64).
fn random(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
