//! Why a packet changes nothing. All of these are counted; the first of a kind is also told.

use serde::{Deserialize, Serialize};

use crate::wire::State;

/// The rule that a received packet broke, in the order in which they are asked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error,
)]
pub enum Discard {
    /// RFC 5881 §5: single hop packets arrive with 255, or came over a router.
    #[error("{} instead of 255: it did not come from this link", ttl_words(*ttl))]
    NotFromThisLink { ttl: Option<u8> },
    /// RFC 5880 §6.8.6.
    #[error("BFD version {version} instead of 1")]
    Version { version: u8 },
    /// RFC 5880 §6.8.6: shorter than a packet can be, or than it says it is.
    #[error("length field {length} does not fit a packet of {octets} octets")]
    Length { length: u8, octets: usize },
    /// RFC 5880 §6.8.6.
    #[error("Detect Mult is 0")]
    NoDetectMultiplier,
    /// RFC 5880 §6.8.6.
    #[error("the Multipoint bit is set")]
    Multipoint,
    /// RFC 5880 §6.8.6.
    #[error("My Discriminator is 0")]
    NoDiscriminator,
    /// RFC 5880 §6.8.6.
    #[error("Your Discriminator {discriminator} is none of ours")]
    UnknownDiscriminator { discriminator: u32 },
    /// RFC 5880 §6.8.6: only who does not know us yet may leave our discriminator out.
    #[error("Your Discriminator is 0 although the state is {state}")]
    DiscriminatorMissing { state: State },
    /// RFC 5880 §6.8.6: no session with this neighbour.
    #[error("no session is configured with this neighbour")]
    NoSession,
    /// RFC 5883 §4 and RFC 5881 §4: a single hop packet for a multihop session, or the reverse.
    #[error("it came to the port of the other kind of session (single hop, multihop)")]
    OtherKind,
    /// RFC 5883 §5, RFC 5082: from further away than configured.
    #[error("{} is below the minimum of {minimum} (min_ttl)", ttl_words(*ttl))]
    TooFar { ttl: Option<u8>, minimum: u8 },
    /// RFC 5880 §6.8.6.
    #[error("it is authenticated, and this session is not")]
    AuthenticationUnexpected,
    /// RFC 5880 §6.8.6.
    #[error("it is not authenticated")]
    AuthenticationMissing,
    /// RFC 5880 §6.7.2, §6.7.3, §6.7.4.
    #[error("it is authenticated in another way than configured")]
    AuthenticationKind,
    /// RFC 5880 §6.7.2, §6.7.3, §6.7.4.
    #[error("its key id {key_id} is not the configured one")]
    KeyId { key_id: u8 },
    /// RFC 5880 §6.7.3, §6.7.4: old or far in the future: replayed.
    #[error("sequence number {sequence} is out of the window: replayed, or the peer restarted")]
    Sequence { sequence: u32 },
    /// RFC 5880 §6.7.2, §6.7.3, §6.7.4.
    #[error("wrong password or key")]
    Key,
    /// RFC 5880 §6.8.6: we are administratively down.
    #[error("this session is administratively down")]
    AdminDown,
}

fn ttl_words(ttl: Option<u8>) -> String {
    ttl.map_or_else(|| "an unknown TTL".to_owned(), |ttl| format!("TTL {ttl}"))
}

impl Discard {
    /// Whether this is what happens in a sound network too: rules that only the order of events brings about.
    pub fn is_ordinary(&self) -> bool {
        matches!(self, Discard::AdminDown)
    }
}
