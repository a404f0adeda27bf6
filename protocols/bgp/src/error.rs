//! Errors typed by what must happen next (RFC 7606 §2, RFC 4271 §6).

use serde::{Deserialize, Serialize};

use crate::wire::Family;

/// What a malformed attribute costs, from mildest to worst; the worst of an UPDATE counts (RFC 7606 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// The attribute is dropped, the routes stand ("attribute discard").
    Discard,
    /// The UPDATE's routes are handled as if they had been withdrawn ("treat-as-withdraw").
    TreatAsWithdraw,
    /// The family is ignored for the rest of the session ("AFI/SAFI disable").
    DisableFamily(Family),
}

/// One recoverable error in an UPDATE. What cannot be recovered is a [`Notification`](crate::wire::Notification).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("attribute {code}: {text}")]
pub struct AttributeError {
    /// Attribute type code; 0 for the UPDATE's own NLRI field and for the attribute list as a whole.
    pub code: u8,
    /// What it costs.
    pub severity: Severity,
    /// What was wrong, for people.
    pub text: String,
}

/// Why something cannot be written to this peer. The caller's error or the configuration's; the session is unharmed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum EncodeError {
    /// The peer did not agree to this family.
    #[error("{family} is not negotiated with this peer")]
    FamilyNotNegotiated { family: Family },
    /// IPv6 routes need an IPv6 next hop; IPv4 routes take an IPv6 one only where RFC 8950 is negotiated.
    #[error("{family} routes cannot have the next hop {next_hop} on this session")]
    NextHopOfOtherFamily { family: Family, next_hop: crate::wire::NextHop },
    /// A prefix is not of the family it was given for.
    #[error("{prefix} is not an {family} prefix")]
    PrefixOfOtherFamily { family: Family, prefix: ipnet::IpNet },
    /// The attributes leave no room for a prefix in a message as long as the session allows.
    #[error("path attributes of {length} octets leave no room for a prefix")]
    AttributesTooLong { length: usize },
}

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}: expected {expected}")]
pub struct ParseError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(what: &'static str, text: &str, expected: &'static str) -> ParseError {
        ParseError { what, text: text.to_owned(), expected }
    }
}
