//! Path attributes (RFC 4271 §4.3, §5).

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// The attributes of an UPDATE, next hop apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PathAttributes {
    /// Type 1.
    pub origin: Origin,
    /// Type 2 (with AS4_PATH, type 17, merged in: RFC 6793 §4.2.3).
    pub as_path: AsPath,
    /// Type 4.
    pub med: Option<u32>,
    /// Type 5.
    pub local_pref: Option<u32>,
    /// Type 6.
    pub atomic_aggregate: bool,
    /// Type 7 (with AS4_AGGREGATOR merged in): AS number and BGP Identifier.
    pub aggregator: Option<(u32, Ipv4Addr)>,
    /// Type 8 (RFC 1997).
    pub communities: Vec<Community>,
    /// Type 16 (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Type 32 (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// Optional transitive attributes that we do not know, passed on with the Partial bit set.
    pub unknown: Vec<UnknownAttribute>,
}

/// ORIGIN, in order of preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// 0.
    #[default]
    Igp,
    /// 1.
    Egp,
    /// 2.
    Incomplete,
}

/// AS_PATH.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AsPath {
    /// Segments, nearest AS first.
    pub segments: Vec<AsSegment>,
}

/// One segment of an AS_PATH, never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AsSegment {
    /// Ordered or not.
    pub kind: AsSegmentKind,
    /// 1 to 255 AS numbers.
    pub asns: Vec<u32>,
}

/// RFC 4271 §4.3: AS_SET is 1, AS_SEQUENCE is 2. (Confederation segments, RFC 5065, are malformed here.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum AsSegmentKind {
    /// Type 1, counts as one hop.
    Set,
    /// Type 2, each AS counts.
    Sequence,
}

/// A next hop as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NextHop {
    /// IPv4.
    V4(Ipv4Addr),
    /// IPv6 global address, and the link-local one if told (RFC 2545 §3).
    V6 { global: Ipv6Addr, link_local: Option<Ipv6Addr> },
}

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

/// An attribute kept as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnknownAttribute {
    /// Flags octet.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: Vec<u8>,
}
