//! RFC 4861 §4: the messages, without their IPv6 header. The checksum is left to the kernel (RFC 3542 §3.1).

mod options;
mod router_advertisement;
mod router_solicitation;

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use crate::error::Discard;
pub use options::Options;
pub use router_advertisement::RouterAdvertisement;
pub use router_solicitation::RouterSolicitation;

/// Every node on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Every router on the link.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// RFC 4861 §6.1: whatever else arrives with has passed a router.
pub const HOP_LIMIT: u8 = 255;
/// ICMPv6 type of a router solicitation.
pub const SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ADVERTISEMENT: u8 = 134;

/// What is heard on a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    Solicitation(RouterSolicitation),
    Advertisement(RouterAdvertisement),
}

impl Message {
    /// Reads one message. Code, lengths and options are checked; where it came from is not in it.
    ///
    /// # Errors
    /// The first rule of RFC 4861 §6.1 that it breaks.
    pub fn decode(octets: &[u8]) -> Result<Message, Discard> {
        let Some([kind, code]) = octets.first_chunk::<2>() else {
            return Err(Discard::Length { octets: octets.len() });
        };
        let check = |least: usize| match (octets.len(), *code) {
            (have, _) if have < least => Err(Discard::Length { octets: have }),
            (_, 0) => Ok(()),
            (_, code) => Err(Discard::Code { code }),
        };
        match *kind {
            SOLICITATION => {
                check(RouterSolicitation::FIXED)?;
                RouterSolicitation::decode(octets).map(Message::Solicitation)
            }
            ADVERTISEMENT => {
                check(RouterAdvertisement::FIXED)?;
                RouterAdvertisement::decode(octets).map(Message::Advertisement)
            }
            kind => Err(Discard::Kind { kind }),
        }
    }

    /// Writes it, with a checksum of zero.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Message::Solicitation(solicitation) => solicitation.encode(),
            Message::Advertisement(advertisement) => advertisement.encode(),
        }
    }
}
