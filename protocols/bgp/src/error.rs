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
    /// Attribute type code.
    pub code: u8,
    /// What it costs.
    pub severity: Severity,
    /// What was wrong, for people.
    pub text: String,
}
