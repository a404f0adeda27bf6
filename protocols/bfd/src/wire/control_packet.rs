//! RFC 5880 §4.1: the generic control packet.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::AuthenticationSection;
use crate::error::Discard;

/// Length of the mandatory section.
pub(crate) const MANDATORY_LEN: usize = 24;

/// One control packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlPacket {
    /// Why the sender's state changed last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// Asks for an answer with `final_`.
    pub poll: bool,
    /// Answers `poll`.
    pub final_: bool,
    /// The sender's BFD survives a restart of its control plane.
    pub control_plane_independent: bool,
    /// The sender wants us to stop sending while the session is Up.
    pub demand: bool,
    /// Detection time multiplier, not 0.
    pub detect_multiplier: u8,
    /// The sender's number for this session.
    pub my_discriminator: Discriminator,
    /// The receiver's number for this session, once the sender knows it.
    pub your_discriminator: Option<Discriminator>,
    /// µs between the sender's packets at least.
    pub desired_min_tx: u32,
    /// µs between packets to the sender at least; 0: send none periodically.
    pub required_min_rx: u32,
    /// µs between echo packets to the sender at least; 0: none.
    pub required_min_echo_rx: u32,
    /// The section that follows if the A bit is set.
    pub authentication: Option<AuthenticationSection>,
}

/// A session's number on one end; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Discriminator(std::num::NonZeroU32);

impl Discriminator {
    /// `None` for 0, which means "not known" on the wire.
    pub fn new(number: u32) -> Option<Discriminator> {
        std::num::NonZeroU32::new(number).map(Discriminator)
    }

    /// As on the wire.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for Discriminator {
    type Error = &'static str;
    fn try_from(number: u32) -> Result<Discriminator, Self::Error> {
        Discriminator::new(number).ok_or("a discriminator is not 0")
    }
}

impl From<Discriminator> for u32 {
    fn from(discriminator: Discriminator) -> u32 {
        discriminator.get()
    }
}

/// The state of a session, as its own end sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Somebody switched it off; says nothing about the path.
    AdminDown,
    /// No contact.
    Down,
    /// The other end is heard, and does not hear us yet.
    Init,
    /// Both hear each other.
    Up,
}

impl State {
    fn from_wire(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    fn to_wire(self) -> u8 {
        match self {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a session changed its state last. Numbers not assigned are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Diagnostic(u8);

impl Diagnostic {
    pub const NONE: Diagnostic = Diagnostic(0);
    pub const CONTROL_DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    pub const ECHO_FUNCTION_FAILED: Diagnostic = Diagnostic(2);
    pub const NEIGHBOR_SIGNALED_SESSION_DOWN: Diagnostic = Diagnostic(3);
    pub const FORWARDING_PLANE_RESET: Diagnostic = Diagnostic(4);
    pub const PATH_DOWN: Diagnostic = Diagnostic(5);
    pub const CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(6);
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);
    pub const REVERSE_CONCATENATED_PATH_DOWN: Diagnostic = Diagnostic(8);

    /// The code as on the wire, 0 to 31.
    pub fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            code => return write!(f, "diagnostic {code}"),
        })
    }
}

impl ControlPacket {
    /// Reads one datagram as far as RFC 5880 §6.8.6 asks before a session is selected. Octets after the length field's
    /// end are ignored.
    ///
    /// # Errors
    /// The first rule of §6.8.6 that it breaks.
    pub fn decode(bytes: &[u8]) -> Result<ControlPacket, Discard> {
        let &[first, second, detect_multiplier, length, ..] = bytes else {
            return Err(Discard::Length { length: 0, octets: bytes.len() });
        };
        // "If the version number is not correct (1), the packet MUST be discarded."
        let version = first >> 5;
        if version != 1 {
            return Err(Discard::Version { version });
        }
        // "If the Length field is less than the minimum correct value (24 if the A bit is clear, or 26 if the A bit is
        // set)", and "greater than the payload of the encapsulating protocol".
        let authenticated = second & 0x04 != 0;
        let wrong = Discard::Length { length, octets: bytes.len() };
        let least = if authenticated { MANDATORY_LEN + 2 } else { MANDATORY_LEN };
        if usize::from(length) < least {
            return Err(wrong);
        }
        let packet = bytes.get(..usize::from(length)).ok_or(wrong)?;
        let (mandatory, section) = packet.split_first_chunk::<MANDATORY_LEN>().ok_or(wrong)?;
        let word = |at: usize| {
            u32::from_be_bytes([mandatory[at], mandatory[at + 1], mandatory[at + 2], mandatory[at + 3]])
        };
        // "If the Detect Mult field is zero", "if the Multipoint (M) bit is nonzero", "if the My Discriminator field is zero".
        if detect_multiplier == 0 {
            return Err(Discard::NoDetectMultiplier);
        }
        if second & 0x01 != 0 {
            return Err(Discard::Multipoint);
        }
        let my_discriminator = Discriminator::new(word(4)).ok_or(Discard::NoDiscriminator)?;
        Ok(ControlPacket {
            diagnostic: Diagnostic(first & 0x1f),
            state: State::from_wire(second >> 6),
            poll: second & 0x20 != 0,
            final_: second & 0x10 != 0,
            control_plane_independent: second & 0x08 != 0,
            demand: second & 0x02 != 0,
            detect_multiplier,
            my_discriminator,
            your_discriminator: Discriminator::new(word(8)),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
            authentication: authenticated.then(|| AuthenticationSection::decode(section)),
        })
    }

    /// Writes it, with its authentication section as it stands.
    pub fn encode(&self) -> Vec<u8> {
        let section = self.authentication.as_ref();
        let length = MANDATORY_LEN + section.map_or(0, AuthenticationSection::length);
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut bytes = Vec::with_capacity(length);
        bytes.push(1 << 5 | (self.diagnostic.0 & 0x1f));
        bytes.push(
            self.state.to_wire() << 6
                | bit(self.poll, 0x20)
                | bit(self.final_, 0x10)
                | bit(self.control_plane_independent, 0x08)
                | bit(section.is_some(), 0x04)
                | bit(self.demand, 0x02),
        );
        bytes.push(self.detect_multiplier);
        bytes.push(u8::try_from(length).unwrap_or(u8::MAX));
        let yours = self.your_discriminator.map_or(0, Discriminator::get);
        for word in [
            self.my_discriminator.get(),
            yours,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        if let Some(section) = section {
            section.encode(&mut bytes);
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet() -> ControlPacket {
        ControlPacket {
            diagnostic: Diagnostic::NEIGHBOR_SIGNALED_SESSION_DOWN,
            state: State::Up,
            poll: true,
            final_: false,
            control_plane_independent: false,
            demand: false,
            detect_multiplier: 3,
            my_discriminator: Discriminator::new(0x0102_0304).unwrap(),
            your_discriminator: Discriminator::new(5),
            desired_min_tx: 50_000,
            required_min_rx: 300_000,
            required_min_echo_rx: 0,
            authentication: None,
        }
    }

    /// RFC 5880 §4.1
    #[test]
    fn a_packet_is_laid_out_as_the_rfc_draws_it() {
        let bytes = packet().encode();
        let expected =
            [0x23, 0xe0, 3, 24, 1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0xc3, 0x50, 0, 4, 0x93, 0xe0, 0, 0, 0, 0];
        assert_eq!(bytes, expected);
        assert_eq!(ControlPacket::decode(&bytes), Ok(packet()));
    }

    /// RFC 5880 §6.8.6
    #[test]
    fn rules_are_asked_in_the_order_of_the_rfc() {
        let damage = |at: usize, value: u8| {
            let mut bytes = packet().encode();
            bytes[at] = value;
            ControlPacket::decode(&bytes).unwrap_err()
        };
        assert_eq!(ControlPacket::decode(&[0x20, 0, 1]), Err(Discard::Length { length: 0, octets: 3 }));
        assert_eq!(damage(0, 0x43), Discard::Version { version: 2 });
        assert_eq!(damage(3, 23), Discard::Length { length: 23, octets: 24 });
        assert_eq!(damage(3, 25), Discard::Length { length: 25, octets: 24 });
        // With the A bit 24 octets are too few.
        assert_eq!(damage(1, 0xc4), Discard::Length { length: 24, octets: 24 });
        assert_eq!(damage(2, 0), Discard::NoDetectMultiplier);
        assert_eq!(damage(1, 0xc1), Discard::Multipoint);
        let mut bytes = packet().encode();
        bytes[4..8].fill(0);
        assert_eq!(ControlPacket::decode(&bytes), Err(Discard::NoDiscriminator));
        // The first broken rule is the one that is named.
        bytes[0] = 0;
        assert_eq!(ControlPacket::decode(&bytes), Err(Discard::Version { version: 0 }));
    }

    #[test]
    fn octets_after_the_packet_are_ignored() {
        let mut bytes = packet().encode();
        bytes.extend([1, 2, 3]);
        assert_eq!(ControlPacket::decode(&bytes), Ok(packet()));
    }
}
