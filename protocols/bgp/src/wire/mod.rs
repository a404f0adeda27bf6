//! Messages as bytes and as values; one file per message.
//!
//! Decoding obeys RFC 7606 itself: what must reset the session is an `Err(Notification)`, everything milder is
//! applied already and listed in [`Update::errors`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

mod attribute;
mod notification;
mod open;
mod update;

pub use attribute::{
    AsPath, AsSegment, AsSegmentKind, Community, ExtendedCommunity, LargeCommunity, NextHop, Origin,
    PathAttributes, UnknownAttribute,
};
pub use notification::Notification;
pub use open::{Capability, Open};
pub use update::{Reach, ReceivedRoute, Update};

/// The families that anyvip speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

/// Any family, as on the wire (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AfiSafi {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

/// What both ends agreed on, as far as bytes depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// AS numbers are four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Families in use; routes of any other family are ignored at decode.
    pub families: BTreeSet<Family>,
    /// Families that may carry a next hop of the other family (RFC 8950).
    pub extended_next_hop: BTreeSet<Family>,
}

/// A BGP message (RFC 4271 §4, RFC 2918).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Type 1.
    Open(Open),
    /// Type 2.
    Update(Update),
    /// Type 3.
    Notification(Notification),
    /// Type 4.
    Keepalive,
    /// Type 5 (RFC 2918); the second octet is the subtype of RFC 7313.
    RouteRefresh { family: AfiSafi, subtype: u8 },
}
