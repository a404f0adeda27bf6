//! What of a packet is hashed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `net.ipv4.fib_multipath_hash_policy` (and that of `net.ipv6`), with the fields of policy 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// 0: addresses; of ICMP errors those of the packet they quote. IPv6: flow label and next header too.
    Layer3,
    /// 1: addresses, protocol, ports.
    Layer4,
    /// 2: addresses, of a tunnelled packet the inner ones. IPv6: flow label and next header too.
    InnerLayer3,
    /// 3: exactly these fields.
    Custom(Fields),
}

impl Policy {
    /// Policy 3 with the 5-tuple, which is what routers usually do.
    pub const FIVE_TUPLE: Policy = Policy::Custom(Fields::FIVE_TUPLE);

    /// The policy of this number; `fields` count for policy 3 alone.
    #[must_use]
    pub fn from_number(number: u8, fields: Fields) -> Option<Policy> {
        match number {
            0 => Some(Policy::Layer3),
            1 => Some(Policy::Layer4),
            2 => Some(Policy::InnerLayer3),
            3 => Some(Policy::Custom(fields)),
            _ => None,
        }
    }

    /// The value of the sysctl.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Policy::Layer3 => 0,
            Policy::Layer4 => 1,
            Policy::InnerLayer3 => 2,
            Policy::Custom(_) => 3,
        }
    }
}

/// `net.ipv4.fib_multipath_hash_fields` (and that of `net.ipv6`): a set of bits, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Fields(u16);

/// A value that the kernel would refuse as fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("hash fields are a mask from 0x1 to 0xfff")]
pub struct FieldsError;

impl Fields {
    /// Source address.
    pub const SOURCE: u16 = 0x1;
    /// Destination address.
    pub const DESTINATION: u16 = 0x2;
    /// Protocol.
    pub const PROTOCOL: u16 = 0x4;
    /// IPv6 flow label.
    pub const FLOW_LABEL: u16 = 0x8;
    /// Source port.
    pub const SOURCE_PORT: u16 = 0x10;
    /// Destination port.
    pub const DESTINATION_PORT: u16 = 0x20;
    /// The same six of a tunnelled packet, in the same order, begin here.
    pub const INNER_SHIFT: u16 = 6;

    /// Addresses, protocol, ports.
    pub const FIVE_TUPLE: Fields = Fields(0x37);
    /// What the kernel starts with: addresses and protocol.
    pub const DEFAULT: Fields = Fields(0x7);

    /// This mask.
    ///
    /// # Errors
    /// Zero, or bits that mean nothing.
    pub const fn new(mask: u16) -> Result<Fields, FieldsError> {
        if mask == 0 || mask > 0xfff { Err(FieldsError) } else { Ok(Fields(mask)) }
    }

    /// The mask.
    #[must_use]
    pub const fn mask(self) -> u16 {
        self.0
    }

    /// The bits that concern the outermost packet.
    pub(crate) const fn outer(self) -> u16 {
        self.0 & 0x3f
    }

    /// The bits that concern a tunnelled packet, in the places of the outer ones.
    pub(crate) const fn inner(self) -> u16 {
        self.0 >> Self::INNER_SHIFT
    }
}

impl TryFrom<u16> for Fields {
    type Error = FieldsError;
    fn try_from(mask: u16) -> Result<Fields, FieldsError> {
        Fields::new(mask)
    }
}

impl From<Fields> for u16 {
    fn from(fields: Fields) -> u16 {
        fields.0
    }
}

impl FromStr for Fields {
    type Err = FieldsError;

    /// `0x37` or `55`.
    fn from_str(text: &str) -> Result<Fields, FieldsError> {
        let mask = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => u16::from_str_radix(digits, 16),
            None => text.parse(),
        };
        Fields::new(mask.map_err(|_| FieldsError)?)
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_both_notations_and_nothing_else_is() {
        assert_eq!("0x37".parse(), Ok(Fields::FIVE_TUPLE));
        assert_eq!("55".parse(), Ok(Fields::FIVE_TUPLE));
        assert_eq!(Fields::FIVE_TUPLE.to_string(), "0x37");
        for bad in ["", "0", "0x1000", "-1", "0x", "five"] {
            assert_eq!(bad.parse::<Fields>(), Err(FieldsError), "{bad}");
        }
    }

    #[test]
    fn the_inner_half_of_a_mask_has_the_same_order_as_the_outer() {
        let fields = Fields::new(0x40 | 0x400).unwrap();
        assert_eq!(fields.outer(), 0);
        assert_eq!(fields.inner(), Fields::SOURCE | Fields::SOURCE_PORT);
    }
}
