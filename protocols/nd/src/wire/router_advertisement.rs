//! RFC 4861 §4.2.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ADVERTISEMENT, Options};
use crate::error::Discard;

/// "I am here." Whether as a default router is said by the lifetime.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterAdvertisement {
    /// The hop limit that hosts shall send with; 0: not said.
    pub hop_limit: u8,
    /// M, O and what later RFCs put beside them.
    pub flags: u8,
    /// How long this is a default router; zero: it is none.
    pub router_lifetime: Duration,
    /// Milliseconds; 0: not said.
    pub reachable_time: u32,
    /// Milliseconds; 0: not said.
    pub retransmission_time: u32,
    pub options: Options,
}

impl RouterAdvertisement {
    /// Octets before the options.
    pub(super) const FIXED: usize = 16;

    /// What we say: nothing but that we are here. Without an option for the link-layer address, which may be left out (RFC 4861
    /// §4.2), and with every value "not said".
    pub fn of_a_host() -> RouterAdvertisement {
        RouterAdvertisement::default()
    }

    pub(super) fn decode(octets: &[u8]) -> Result<RouterAdvertisement, Discard> {
        let Some((fixed, options)) = octets.split_first_chunk::<16>() else {
            return Err(Discard::Length { octets: octets.len() });
        };
        let [_, _, _, _, hop_limit, flags, l0, l1, r0, r1, r2, r3, t0, t1, t2, t3] = *fixed;
        Ok(RouterAdvertisement {
            hop_limit,
            flags,
            router_lifetime: Duration::from_secs(u64::from(u16::from_be_bytes([l0, l1]))),
            reachable_time: u32::from_be_bytes([r0, r1, r2, r3]),
            retransmission_time: u32::from_be_bytes([t0, t1, t2, t3]),
            options: Options::decode(options)?,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let lifetime = u16::try_from(self.router_lifetime.as_secs()).unwrap_or(u16::MAX);
        let mut out = vec![ADVERTISEMENT, 0, 0, 0, self.hop_limit, self.flags];
        out.extend(lifetime.to_be_bytes());
        out.extend(self.reachable_time.to_be_bytes());
        out.extend(self.retransmission_time.to_be_bytes());
        self.options.encode(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Message;

    /// RFC 4861 §4.2: "A Lifetime of 0 indicates that the router is not a default router".
    #[test]
    fn what_we_advertise_makes_nobody_use_us_as_a_default_router() {
        let octets = Message::Advertisement(RouterAdvertisement::of_a_host()).encode();
        assert_eq!(octets, [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn every_field_is_read_back_as_it_was_written() {
        let octets = [
            134, 0, 0, 0, 64, 0xc8, 0x07, 0x08, 0, 0, 0x75, 0x30, 0, 0, 3, 0xe8, 1, 1, 2, 0, 0, 0, 0, 1, 5,
            1, 0, 0, 0, 0, 5, 0xdc,
        ];
        let Ok(Message::Advertisement(read)) = Message::decode(&octets) else { panic!("not read") };
        assert_eq!((read.hop_limit, read.flags, read.reachable_time), (64, 0xc8, 30_000));
        assert_eq!((read.router_lifetime, read.retransmission_time), (Duration::from_secs(1800), 1000));
        assert!(read.options.tells_link_layer_address());
        assert_eq!(Message::Advertisement(read).encode(), octets);
    }
}
