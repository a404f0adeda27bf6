use std::fmt;

use serde::{Deserialize, Serialize};

use super::octets::Octets;
use super::{HEADER_LEN, MAX_MESSAGE_LEN};

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

/// Cease, RFC 4486.
const CEASE: u8 = 6;
/// RFC 9003 §2: the text's length is one octet.
const MAX_TEXT_LEN: usize = 255;

impl Notification {
    /// Cease subcodes (RFC 4486).
    pub const MAXIMUM_PREFIXES: u8 = 1;
    /// Carries a text (RFC 9003).
    pub const ADMINISTRATIVE_SHUTDOWN: u8 = 2;
    /// The peer was taken out of the configuration.
    pub const PEER_DECONFIGURED: u8 = 3;
    /// Carries a text (RFC 9003).
    pub const ADMINISTRATIVE_RESET: u8 = 4;
    /// We do not want this connection.
    pub const CONNECTION_REJECTED: u8 = 5;
    /// What the session was negotiated from changed.
    pub const OTHER_CONFIGURATION_CHANGE: u8 = 6;
    /// The other connection of this peer won (RFC 4271 §6.8).
    pub const CONNECTION_COLLISION_RESOLUTION: u8 = 7;
    /// We ran out of something.
    pub const OUT_OF_RESOURCES: u8 = 8;
    /// The outer cause is in the data (RFC 8538).
    pub const HARD_RESET: u8 = 9;
    /// BFD told us (RFC 9384).
    pub const BFD_DOWN: u8 = 10;

    /// OPEN error subcode (RFC 9234).
    pub const ROLE_MISMATCH: u8 = 11;

    /// FSM error subcodes (RFC 6608).
    pub const UNEXPECTED_IN_OPEN_SENT: u8 = 1;
    /// RFC 6608.
    pub const UNEXPECTED_IN_OPEN_CONFIRM: u8 = 2;
    /// RFC 6608.
    pub const UNEXPECTED_IN_ESTABLISHED: u8 = 3;

    fn new(code: u8, subcode: u8, data: &[u8]) -> Notification {
        Notification { code, subcode, data: data.to_vec() }
    }

    /// 1/1: the marker is not all ones.
    pub fn connection_not_synchronized() -> Notification {
        Notification::new(1, 1, &[])
    }

    /// 1/2, with the length that was told.
    pub fn bad_message_length(length: u16) -> Notification {
        Notification::new(1, 2, &length.to_be_bytes())
    }

    /// 1/3, with the type that was told.
    pub fn bad_message_type(kind: u8) -> Notification {
        Notification::new(1, 3, &[kind])
    }

    /// Code 2 (RFC 4271 §6.2); the named ones below carry their data.
    pub fn open_error(subcode: u8, data: &[u8]) -> Notification {
        Notification::new(2, subcode, data)
    }

    /// 2/1, with the one version that we speak.
    pub fn unsupported_version_number() -> Notification {
        Notification::open_error(1, &4u16.to_be_bytes())
    }

    /// 2/2: not the AS number we are configured for, or 0 (RFC 7607). Which one it was is said as BIRD and FRR say it.
    pub fn bad_peer_as(heard: u32) -> Notification {
        Notification::open_error(2, &heard.to_be_bytes())
    }

    /// The AS number that a [`bad_peer_as`](Self::bad_peer_as) is about, where it says so: in 4 octets, or the 2 of the OPEN.
    pub fn refused_asn(&self) -> Option<u32> {
        match (self.code, self.subcode, self.data.as_slice()) {
            (2, 2, [a, b, c, d]) => Some(u32::from_be_bytes([*a, *b, *c, *d])),
            (2, 2, [a, b]) => Some(u32::from(u16::from_be_bytes([*a, *b]))),
            _ => None,
        }
    }

    /// 2/3: 0 (RFC 6286), or our own on an internal session.
    pub fn bad_bgp_identifier() -> Notification {
        Notification::open_error(3, &[])
    }

    /// 2/4: an optional parameter other than capabilities.
    pub fn unsupported_optional_parameter() -> Notification {
        Notification::open_error(4, &[])
    }

    /// 2/6: 1 or 2 seconds.
    pub fn unacceptable_hold_time() -> Notification {
        Notification::open_error(6, &[])
    }

    /// 2/11 (RFC 9234 §4.2).
    pub fn role_mismatch() -> Notification {
        Notification::open_error(Notification::ROLE_MISMATCH, &[])
    }

    /// 2/7, with the capabilities that we miss, coded as in an OPEN (RFC 5492 §5).
    pub fn unsupported_capability(capabilities: &[u8]) -> Notification {
        Notification::open_error(7, capabilities)
    }

    /// Code 3 (RFC 4271 §6.3); the data is the attribute that was wrong, where one was.
    pub fn update_error(subcode: u8, data: &[u8]) -> Notification {
        Notification::new(3, subcode, data)
    }

    /// 4/0.
    pub fn hold_timer_expired() -> Notification {
        Notification::new(4, 0, &[])
    }

    /// Code 5 (RFC 6608): a message that this state does not expect.
    pub fn fsm_error(subcode: u8) -> Notification {
        Notification::new(5, subcode, &[])
    }

    /// Code 6 (RFC 4486). A text is only written for the subcodes that may carry one (RFC 9003 §2), and cut at 255
    /// octets between two characters.
    pub fn cease(subcode: u8, text: Option<&str>) -> Notification {
        let mut data = Vec::new();
        if let Some(text) = text.filter(|text| has_text(subcode) && !text.is_empty()) {
            let text = text.get(..text.floor_char_boundary(MAX_TEXT_LEN)).unwrap_or_default();
            data.push(u8::try_from(text.len()).unwrap_or_default());
            data.extend_from_slice(text.as_bytes());
        }
        Notification { code: CEASE, subcode, data }
    }

    /// Code 7 (RFC 7313 §5), with the message that was wrong.
    pub fn route_refresh_error(subcode: u8, message: &[u8]) -> Notification {
        Notification::new(7, subcode, message)
    }

    /// Whether this is a Cease with this subcode.
    pub fn is_cease(&self, subcode: u8) -> bool {
        self.code == CEASE && self.subcode == subcode
    }

    /// Whether this is OPEN Message Error/Role Mismatch.
    pub fn is_role_mismatch(&self) -> bool {
        (self.code, self.subcode) == (2, Notification::ROLE_MISMATCH)
    }

    /// The text of RFC 9003, safe to show: what is not UTF-8 or a control character is replaced.
    pub fn shutdown_text(&self) -> Option<String> {
        if self.code != CEASE || !has_text(self.subcode) {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        let shown = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        Some(String::from_utf8_lossy(text).chars().map(shown).collect())
    }

    /// Name of the error code.
    pub fn code_name(&self) -> &'static str {
        match self.code {
            1 => "Message Header Error",
            2 => "OPEN Message Error",
            3 => "UPDATE Message Error",
            4 => "Hold Timer Expired",
            5 => "Finite State Machine Error",
            6 => "Cease",
            7 => "ROUTE-REFRESH Message Error",
            8 => "Send Hold Timer Expired",
            _ => "Unknown Error",
        }
    }

    /// Name of the subcode, where the registry has one.
    pub fn subcode_name(&self) -> Option<&'static str> {
        Some(match (self.code, self.subcode) {
            (1, 1) => "Connection Not Synchronized",
            (1, 2) => "Bad Message Length",
            (1, 3) => "Bad Message Type",
            (2, 1) => "Unsupported Version Number",
            (2, 2) => "Bad Peer AS",
            (2, 3) => "Bad BGP Identifier",
            (2, 4) => "Unsupported Optional Parameter",
            (2, 6) => "Unacceptable Hold Time",
            (2, 7) => "Unsupported Capability",
            (2, 11) => "Role Mismatch",
            (3, 1) => "Malformed Attribute List",
            (3, 2) => "Unrecognized Well-known Attribute",
            (3, 3) => "Missing Well-known Attribute",
            (3, 4) => "Attribute Flags Error",
            (3, 5) => "Attribute Length Error",
            (3, 6) => "Invalid ORIGIN Attribute",
            (3, 8) => "Invalid NEXT_HOP Attribute",
            (3, 9) => "Optional Attribute Error",
            (3, 10) => "Invalid Network Field",
            (3, 11) => "Malformed AS_PATH",
            (5, 1) => "Unexpected Message in OpenSent State",
            (5, 2) => "Unexpected Message in OpenConfirm State",
            (5, 3) => "Unexpected Message in Established State",
            (6, 1) => "Maximum Number of Prefixes Reached",
            (6, 2) => "Administrative Shutdown",
            (6, 3) => "Peer De-configured",
            (6, 4) => "Administrative Reset",
            (6, 5) => "Connection Rejected",
            (6, 6) => "Other Configuration Change",
            (6, 7) => "Connection Collision Resolution",
            (6, 8) => "Out of Resources",
            (6, 9) => "Hard Reset",
            (6, 10) => "BFD Down",
            (7, 1) => "Invalid Message Length",
            _ => return None,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.code, self.subcode];
        // A message that we quote may be as long as ours may get: the end is left out.
        out.extend(self.data.iter().take(MAX_MESSAGE_LEN - HEADER_LEN - 2));
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Notification, Notification> {
        let mut octets = Octets::new(body);
        match (octets.u8(), octets.u8()) {
            (Some(code), Some(subcode)) => Ok(Notification::new(code, subcode, octets.rest())),
            _ => Err(Notification::bad_message_length(
                u16::try_from(HEADER_LEN + body.len()).unwrap_or(u16::MAX),
            )),
        }
    }
}

/// RFC 9003 §2.
fn has_text(cease_subcode: u8) -> bool {
    matches!(cease_subcode, Notification::ADMINISTRATIVE_SHUTDOWN | Notification::ADMINISTRATIVE_RESET)
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code_name())?;
        if let Some(name) = self.subcode_name() {
            write!(f, "/{name}")?;
        }
        write!(f, " ({}/{})", self.code, self.subcode)?;
        match self.shutdown_text() {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9003 §2.
    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = "ü".repeat(200);
        let notification = Notification::cease(Notification::ADMINISTRATIVE_SHUTDOWN, Some(&text));
        assert_eq!(notification.data.len(), 255);
        assert_eq!(notification.data[0], 254);
        assert_eq!(notification.shutdown_text(), Some("ü".repeat(127)));
    }

    #[test]
    fn only_the_two_subcodes_of_rfc_9003_carry_a_text() {
        for subcode in 0..=10 {
            let notification = Notification::cease(subcode, Some("upgrade"));
            let text = matches!(subcode, 2 | 4).then(|| "upgrade".to_owned());
            assert_eq!(notification.shutdown_text(), text);
        }
    }

    #[test]
    fn a_text_that_is_cut_short_or_hostile_is_not_believed() {
        let text = |data: &[u8]| Notification::new(6, 2, data).shutdown_text();
        assert_eq!(text(&[]), None);
        assert_eq!(text(&[0]), None);
        assert_eq!(text(&[5, b'a']), None);
        assert_eq!(text(&[3, b'a', 0x1b, 0xff]), Some("a\u{fffd}\u{fffd}".to_owned()));
    }

    #[test]
    fn it_reads_as_the_rfcs_name_it() {
        let shown = Notification::cease(2, Some("maintenance")).to_string();
        assert_eq!(shown, "Cease/Administrative Shutdown (6/2): maintenance");
        assert_eq!(Notification::hold_timer_expired().to_string(), "Hold Timer Expired (4/0)");
        assert_eq!(Notification::new(200, 7, &[]).to_string(), "Unknown Error (200/7)");
    }
}
