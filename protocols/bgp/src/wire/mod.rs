//! Messages as bytes and as values; one file per message.
//!
//! Decoding obeys RFC 7606 itself: what must reset the session is an `Err(Notification)`, everything milder is
//! applied already and listed in [`Update::errors`].

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::error::ParseError;

mod attribute;
mod framer;
mod nlri;
mod notification;
mod octets;
mod open;
mod refresh;
mod role;
pub mod update;

pub use attribute::{
    AsPath, AsSegment, AsSegmentKind, Community, ExtendedCommunity, Few, LargeCommunity, NextHop, Origin,
    PathAttributes, UnknownAttribute,
};
pub use framer::Framer;
pub use notification::Notification;
pub use open::{Capability, GracefulRestart, Open};
pub use role::Role;
pub use update::{
    PathChange, Reach, ReceivedRoute, Update, end_of_rib, pack_announcements, pack_withdrawals,
};

/// RFC 4271 §4.1: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// RFC 4271 §4.1; more only where extended messages were agreed on, and never in OPEN and KEEPALIVE (RFC 8654 §4).
pub const MAX_MESSAGE_LEN: usize = 4096;
/// RFC 8654 §4: what the length field can say.
pub const MAX_EXTENDED_LEN: usize = 65_535;
/// Stands for a four-octet AS number where only two octets are (RFC 6793).
pub const AS_TRANS: u16 = 23456;

/// The families that anyvip speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4,
    /// AFI 2, SAFI 1.
    Ipv6,
}

impl Family {
    /// The family of a prefix.
    pub fn of(prefix: &IpNet) -> Family {
        match prefix {
            IpNet::V4(_) => Family::Ipv4,
            IpNet::V6(_) => Family::Ipv6,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        })
    }
}

impl FromStr for Family {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Family, ParseError> {
        match text {
            "ipv4" => Ok(Family::Ipv4),
            "ipv6" => Ok(Family::Ipv6),
            _ => Err(ParseError::new("an address family", text, "ipv4 or ipv6")),
        }
    }
}

/// Any family, as on the wire (RFC 4760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AfiSafi {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, if it is one that we speak.
    pub fn family(self) -> Option<Family> {
        [Family::Ipv4, Family::Ipv6].into_iter().find(|family| AfiSafi::from(*family) == self)
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> AfiSafi {
        match family {
            Family::Ipv4 => AfiSafi { afi: 1, safi: 1 },
            Family::Ipv6 => AfiSafi { afi: 2, safi: 1 },
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "afi {} safi {}", self.afi, self.safi),
        }
    }
}

/// What both ends agreed on, as far as bytes depend on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codec {
    /// The peer is in another AS: LOCAL_PREF is neither written nor believed (RFC 4271 §5.1.5).
    pub external: bool,
    /// AS numbers are four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Families in use; routes of any other family are ignored at decode.
    pub families: BTreeSet<Family>,
    /// Families that may carry a next hop of the other family (RFC 8950).
    pub extended_next_hop: BTreeSet<Family>,
    /// Families whose prefixes come with a path identifier (RFC 7911). We send none.
    #[serde(default)]
    pub add_path: BTreeSet<Family>,
    /// Messages may be longer than 4096 octets, in both directions (RFC 8654).
    #[serde(default)]
    pub extended_messages: bool,
}

impl Codec {
    /// Until both OPENs are known: enough for OPEN, KEEPALIVE and NOTIFICATION, which depend on nothing.
    pub fn before_open() -> Codec {
        Codec {
            external: true,
            four_octet_as: false,
            families: BTreeSet::new(),
            extended_next_hop: BTreeSet::new(),
            add_path: BTreeSet::new(),
            extended_messages: false,
        }
    }

    /// The longest message on this session.
    pub(crate) fn longest(&self) -> usize {
        if self.extended_messages { MAX_EXTENDED_LEN } else { MAX_MESSAGE_LEN }
    }
}

/// A BGP message (RFC 4271 §4, RFC 2918).
#[expect(
    clippy::large_enum_variant,
    reason = "a message is taken apart where it was decoded, and never kept"
)]
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

impl Message {
    /// The message with its header.
    ///
    /// An [`Update`] becomes as many whole messages as it needs, one behind the other, since one message may neither
    /// mix announcements, withdrawals and families (RFC 7606 §5.1) nor be longer than the session allows; see [`Update::encode`].
    pub fn encode(&self, codec: &Codec) -> Vec<u8> {
        match self {
            Message::Open(open) => frame(Kind::Open, &open.encode()),
            Message::Update(update) => update.encode(codec),
            Message::Notification(notification) => frame(Kind::Notification, &notification.encode()),
            Message::Keepalive => frame(Kind::Keepalive, &[]),
            Message::RouteRefresh { family, subtype } => {
                frame(Kind::RouteRefresh, &refresh::encode(*family, *subtype))
            }
        }
    }

    /// Reads one whole message with its header, as [`Framer::next_frame`] gives it.
    ///
    /// # Errors
    /// The NOTIFICATION to end the session with.
    pub fn decode(message: &[u8], codec: &Codec) -> Result<Message, Notification> {
        let Some((header, body)) = message.split_first_chunk::<HEADER_LEN>() else {
            return Err(Notification::bad_message_length(u16::try_from(message.len()).unwrap_or(u16::MAX)));
        };
        let (kind, length) = framer::check_header(header, codec.longest())?;
        if length != message.len() {
            return Err(Notification::bad_message_length(u16::try_from(length).unwrap_or(u16::MAX)));
        }
        match kind {
            Kind::Open => Open::decode(body).map(Message::Open),
            Kind::Update => Update::decode(body, codec).map(Message::Update),
            Kind::Notification => Notification::decode(body).map(Message::Notification),
            Kind::Keepalive => Ok(Message::Keepalive),
            Kind::RouteRefresh => refresh::decode(message, body),
        }
    }
}

/// The type octet of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open = 1,
    Update = 2,
    Notification = 3,
    Keepalive = 4,
    RouteRefresh = 5,
}

impl Kind {
    fn from_octet(octet: u8) -> Option<Kind> {
        [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::RouteRefresh]
            .into_iter()
            .find(|kind| *kind as u8 == octet)
    }
}

/// Puts the header in front.
fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_LEN + body.len());
    write_frame(kind, &mut out, |out| out.extend_from_slice(body));
    out
}

/// Adds a header, what `body` adds, and then the length. Every caller keeps its body within what the session allows.
fn write_frame(kind: Kind, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0xff; 16]);
    out.extend_from_slice(&[0, 0, kind as u8]);
    body(out);
    let length = out.len() - start;
    debug_assert!(length <= MAX_EXTENDED_LEN, "a message of {length} octets");
    write_length(length, start + 16, out);
}

/// Fills in two octets of length, left open until it was known.
fn write_length(length: usize, at: usize, out: &mut [u8]) {
    if let Some(field) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *field = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    }
}
