use serde::{Deserialize, Serialize};

/// NOTIFICATION (RFC 4271 §4.5), both received and to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// Error code.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// Data; for Cease 2 and 4 the text of RFC 9003.
    pub data: Vec<u8>,
}
