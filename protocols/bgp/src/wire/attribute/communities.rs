//! COMMUNITIES (RFC 1997), EXTENDED COMMUNITIES (RFC 4360), LARGE_COMMUNITY (RFC 8092).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::ParseError;
use crate::wire::AS_TRANS;

/// `asn:value`, RFC 1997.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Community(pub u32);

/// Eight octets, RFC 4360.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExtendedCommunity(pub [u8; 8]);

/// `global:local1:local2`, RFC 8092.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LargeCommunity {
    /// Global Administrator, normally an AS number.
    pub global: u32,
    /// Local Data Part 1.
    pub local1: u32,
    /// Local Data Part 2.
    pub local2: u32,
}

impl Community {
    /// RFC 8326.
    pub const GRACEFUL_SHUTDOWN: Community = Community(0xffff_0000);
    /// RFC 7611.
    pub const ACCEPT_OWN: Community = Community(0xffff_0001);
    /// RFC 9494.
    pub const LLGR_STALE: Community = Community(0xffff_0006);
    /// RFC 9494.
    pub const NO_LLGR: Community = Community(0xffff_0007);
    /// RFC 7999.
    pub const BLACKHOLE: Community = Community(0xffff_029a);
    /// RFC 1997.
    pub const NO_EXPORT: Community = Community(0xffff_ff01);
    /// RFC 1997.
    pub const NO_ADVERTISE: Community = Community(0xffff_ff02);
    /// RFC 1997.
    pub const NO_EXPORT_SUBCONFED: Community = Community(0xffff_ff03);
    /// RFC 3765.
    pub const NOPEER: Community = Community(0xffff_ff04);
}

const WELL_KNOWN: [(Community, &str); 9] = [
    (Community::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
    (Community::ACCEPT_OWN, "accept-own"),
    (Community::LLGR_STALE, "llgr-stale"),
    (Community::NO_LLGR, "no-llgr"),
    (Community::BLACKHOLE, "blackhole"),
    (Community::NO_EXPORT, "no-export"),
    (Community::NO_ADVERTISE, "no-advertise"),
    (Community::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
    (Community::NOPEER, "nopeer"),
];

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match WELL_KNOWN.iter().find(|(community, _)| community == self) {
            Some((_, name)) => f.pad(name),
            None => f.pad(&format!("{}:{}", self.0 >> 16, self.0 & 0xffff)),
        }
    }
}

impl FromStr for Community {
    type Err = ParseError;

    /// `65001:100`, or a well-known name as the registry or routers spell it (`NO_EXPORT`, `no-export`).
    fn from_str(text: &str) -> Result<Community, ParseError> {
        let name = text.to_ascii_lowercase().replace('_', "-");
        if let Some((community, _)) = WELL_KNOWN.iter().find(|(_, known)| *known == name) {
            return Ok(*community);
        }
        match numbers::<2>(text) {
            Some([asn @ ..=0xffff, value @ ..=0xffff]) => Ok(Community(asn << 16 | value)),
            _ => Err(ParseError::new(
                "a community",
                text,
                "ASN:VALUE with both up to 65535, or a name such as no-export",
            )),
        }
    }
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}:{}", self.global, self.local1, self.local2))
    }
}

impl FromStr for LargeCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<LargeCommunity, ParseError> {
        let [global, local1, local2] = numbers(text).ok_or_else(|| {
            ParseError::new("a large community", text, "GLOBAL:LOCAL1:LOCAL2 with each up to 4294967295")
        })?;
        Ok(LargeCommunity { global, local1, local2 })
    }
}

/// Exactly `N` decimal numbers between colons; RFC 8092 §5 allows no signs.
fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    text.split(':').map(decimal).collect::<Option<Vec<u32>>>()?.try_into().ok()
}

fn decimal(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()))
}

/// Sub-types that are common to the two-octet, IPv4 and four-octet forms (RFC 4360 §4, §5).
const SUBTYPES: [(u8, &str); 2] = [(0x02, "rt"), (0x03, "soo")];
/// Link bandwidth: non-transitive, two-octet AS, octets per second as a float (draft-ietf-idr-link-bandwidth).
const LINK_BANDWIDTH: [u8; 2] = [0x40, 0x04];

/// Octets a second in one Mbit/s.
const MBIT: f32 = 125_000.0;

impl ExtendedCommunity {
    /// Link bandwidth (draft-ietf-idr-link-bandwidth §3). AS_TRANS stands for a number that needs four octets.
    pub fn link_bandwidth(asn: u32, mbit: u16) -> ExtendedCommunity {
        let [a, b] = u16::try_from(asn).unwrap_or(AS_TRANS).to_be_bytes();
        // One multiplication of IEEE 754: the same on every machine.
        let [c, d, e, g] = (f32::from(mbit) * MBIT).to_be_bytes();
        let [kind, subtype] = LINK_BANDWIDTH;
        ExtendedCommunity([kind, subtype, a, b, c, d, e, g])
    }

    /// Octets a second, if this is a link bandwidth (transitive or not) and a number.
    pub fn bandwidth(&self) -> Option<u64> {
        let [kind, subtype, _, _, c, d, e, g] = self.0;
        let rate = f32::from_be_bytes([c, d, e, g]);
        let is =
            kind & !NON_TRANSITIVE == 0 && subtype == LINK_BANDWIDTH[1] && rate.is_finite() && rate >= 0.0;
        is.then_some(rate as u64)
    }

    /// Whether it passes the border of an AS (RFC 4360 §2).
    pub const fn is_transitive(&self) -> bool {
        self.0[0] & NON_TRANSITIVE == 0
    }
}

/// The T bit of the type (RFC 4360 §2).
const NON_TRANSITIVE: u8 = 0x40;

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [kind, subtype, a, b, c, d, e, g] = self.0;
        let short = u16::from_be_bytes([a, b]);
        let name = SUBTYPES.iter().find(|(known, _)| *known == subtype).map(|(_, name)| *name);
        let shown = match (kind, name) {
            (0x00, Some(name)) => format!("{name}:{short}:{}", u32::from_be_bytes([c, d, e, g])),
            (0x01, Some(name)) => {
                format!("{name}:{}:{}", Ipv4Addr::from([a, b, c, d]), u16::from_be_bytes([e, g]))
            }
            // The L tells a small number written in four octets from the two-octet form.
            (0x02, Some(name)) => {
                format!("{name}:{}L:{}", u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([e, g]))
            }
            _ => match f32::from_be_bytes([c, d, e, g]) {
                rate if [kind, subtype] == LINK_BANDWIDTH && rate.is_finite() => {
                    format!("bandwidth:{short}:{rate}")
                }
                _ => format!("0x{:016x}", u64::from_be_bytes(self.0)),
            },
        };
        f.pad(&shown)
    }
}

impl FromStr for ExtendedCommunity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<ExtendedCommunity, ParseError> {
        parse_extended(text).ok_or_else(|| {
            let expected = "rt:ASN:VALUE, soo:ASN:VALUE, rt:IPV4:VALUE, bandwidth:ASN:OCTETS_PER_SECOND, \
                            or 0x and sixteen hexadecimal digits";
            ParseError::new("an extended community", text, expected)
        })
    }
}

fn parse_extended(text: &str) -> Option<ExtendedCommunity> {
    if let Some(digits) = text.strip_prefix("0x") {
        let hexadecimal = digits.len() == 16 && digits.bytes().all(|octet| octet.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, 16).ok().filter(|_| hexadecimal)?;
        return Some(ExtendedCommunity(number.to_be_bytes()));
    }
    let (name, rest) = text.split_once(':')?;
    let (administrator, value) = rest.split_once(':')?;
    if name == "bandwidth" {
        let [a, b] = u16::try_from(decimal(administrator)?).ok()?.to_be_bytes();
        let [c, d, e, g] = value.parse::<f32>().ok().filter(|rate| rate.is_finite())?.to_be_bytes();
        let [kind, subtype] = LINK_BANDWIDTH;
        return Some(ExtendedCommunity([kind, subtype, a, b, c, d, e, g]));
    }
    let (subtype, _) = SUBTYPES.iter().find(|(_, known)| *known == name)?;
    let value = decimal(value)?;
    let long = |kind: u8, administrator: [u8; 4]| {
        let [a, b, c, d] = administrator;
        let [e, g] = u16::try_from(value).ok()?.to_be_bytes();
        Some(ExtendedCommunity([kind, *subtype, a, b, c, d, e, g]))
    };
    if let Ok(address) = administrator.parse::<Ipv4Addr>() {
        return long(0x01, address.octets());
    }
    if let Some(asn) = administrator.strip_suffix('L') {
        return long(0x02, decimal(asn)?.to_be_bytes());
    }
    let asn = decimal(administrator)?;
    match u16::try_from(asn) {
        Ok(short) => {
            let ([a, b], [c, d, e, g]) = (short.to_be_bytes(), value.to_be_bytes());
            Some(ExtendedCommunity([0x00, *subtype, a, b, c, d, e, g]))
        }
        Err(_) => long(0x02, asn.to_be_bytes()),
    }
}

/// A list of equally long values; RFC 7606 §7.8, §7.14, RFC 8092 §5: malformed unless a nonzero multiple of `N`.
pub(super) fn decode<const N: usize, T, L: FromIterator<T>>(
    value: &[u8],
    item: impl Fn([u8; N]) -> T,
) -> Option<L> {
    let (items, rest) = value.as_chunks::<N>();
    (rest.is_empty() && !items.is_empty()).then(|| items.iter().map(|octets| item(*octets)).collect())
}

impl LargeCommunity {
    pub(super) fn from_octets(octets: [u8; 12]) -> LargeCommunity {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = octets;
        LargeCommunity {
            global: u32::from_be_bytes([a, b, c, d]),
            local1: u32::from_be_bytes([e, f, g, h]),
            local2: u32::from_be_bytes([i, j, k, l]),
        }
    }

    pub(super) fn octets(&self) -> [u8; 12] {
        let [a, b, c, d] = self.global.to_be_bytes();
        let [e, f, g, h] = self.local1.to_be_bytes();
        let [i, j, k, l] = self.local2.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_community_reads_as_it_is_shown() {
        for text in ["65001:100", "0:0", "65535:65535", "no-export", "graceful-shutdown", "blackhole"] {
            assert_eq!(text.parse::<Community>().unwrap().to_string(), text);
        }
        assert_eq!("NO_EXPORT".parse(), Ok(Community::NO_EXPORT));
        assert_eq!("65535:65281".parse(), Ok(Community::NO_EXPORT));
        for text in ["65536:1", "1:65536", "1", "1:2:3", "", "+1:2", "1: 2", "no-such"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_large_community_reads_as_it_is_shown() {
        for text in ["1:2:3", "4294967295:0:4294967295"] {
            assert_eq!(text.parse::<LargeCommunity>().unwrap().to_string(), text);
        }
        for text in ["1:2", "1:2:3:4", "4294967296:0:0", "1:2:-3"] {
            assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_extended_community_reads_as_it_is_shown() {
        let texts = [
            "rt:65001:4294967295",
            "soo:65001:1",
            "rt:192.0.2.1:7",
            "rt:4200000000L:7",
            "rt:7L:7",
            "bandwidth:65001:12500000",
            "0x4302000000000000",
        ];
        for text in texts {
            assert_eq!(text.parse::<ExtendedCommunity>().unwrap().to_string(), text);
        }
        assert_eq!("rt:4200000000:7".parse::<ExtendedCommunity>(), "rt:4200000000L:7".parse());
        for text in ["rt:4200000000:65536", "0x12", "0x+234567812345678", "rt:1", "bandwidth:1:inf", "xx:1:1"]
        {
            assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
        }
    }

    /// The octets that FRR is known to take for 100 Mbit/s of AS 65001.
    #[test]
    fn link_bandwidth_is_a_float_of_octets_a_second() {
        let community = ExtendedCommunity::link_bandwidth(65001, 100);
        assert_eq!(community.0, [0x40, 4, 0xfd, 0xe9, 0x4b, 0x3e, 0xbc, 0x20]);
        assert_eq!(community.to_string(), "bandwidth:65001:12500000");
        let long = ExtendedCommunity::link_bandwidth(4_200_000_001, 1);
        assert_eq!(long.0, [0x40, 4, 0x5b, 0xa0, 0x47, 0xf4, 0x24, 0]);
    }

    #[test]
    fn every_extended_community_survives_being_shown() {
        for kind in [0x00, 0x01, 0x02, 0x03, 0x40, 0x43, 0x80] {
            for subtype in 0..=6 {
                for tail in [[0; 6], [0xff; 6], [1, 2, 3, 4, 5, 6], [0, 1, 0x4b, 0x3e, 0xbc, 0x20]] {
                    let [a, b, c, d, e, g] = tail;
                    let community = ExtendedCommunity([kind, subtype, a, b, c, d, e, g]);
                    assert_eq!(community.to_string().parse(), Ok(community));
                }
            }
        }
    }
}
