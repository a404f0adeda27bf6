//! Path attributes (RFC 4271 §4.3, §5).

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::Codec;

mod communities;
pub(super) mod multiprotocol;
mod next_hop;
mod path;
pub(super) mod received;
mod unknown;

pub use communities::{Community, ExtendedCommunity, LargeCommunity};
pub use next_hop::NextHop;
pub use path::{AsPath, AsSegment, AsSegmentKind, Origin};
pub use unknown::UnknownAttribute;

/// A list that seldom has more than four entries: these need no memory of their own.
pub type Few<T> = SmallVec<[T; 4]>;

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
    pub communities: Few<Community>,
    /// Type 16 (RFC 4360).
    pub extended_communities: Vec<ExtendedCommunity>,
    /// Type 32 (RFC 8092).
    pub large_communities: Vec<LargeCommunity>,
    /// Type 35, Only to Customer (RFC 9234 §5): the AS that set it.
    pub only_to_customer: Option<u32>,
    /// Optional transitive attributes that we do not know, passed on with the Partial bit set.
    pub unknown: Vec<UnknownAttribute>,
}

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const PARTIAL: u8 = 0x20;
const EXTENDED_LENGTH: u8 = 0x10;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
const LOCAL_PREF: u8 = 5;
const ATOMIC_AGGREGATE: u8 = 6;
const AGGREGATOR: u8 = 7;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
const MP_REACH_NLRI: u8 = 14;
const MP_UNREACH_NLRI: u8 = 15;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const AS4_AGGREGATOR: u8 = 18;
const LARGE_COMMUNITY: u8 = 32;
const ONLY_TO_CUSTOMER: u8 = 35;

impl PathAttributes {
    /// In the order of type codes (RFC 4271 §5). `next_hop` is written where NEXT_HOP carries it.
    pub(super) fn encode(&self, codec: &Codec, next_hop: Option<Ipv4Addr>) -> Vec<u8> {
        // What a route with a community or two needs.
        let mut out = Vec::with_capacity(64);
        write_attribute(TRANSITIVE, ORIGIN, &[self.origin as u8], &mut out);
        self.write_as_path(TRANSITIVE, AS_PATH, codec.four_octet_as, &mut out);
        if let Some(next_hop) = next_hop {
            write_attribute(TRANSITIVE, NEXT_HOP, &next_hop.octets(), &mut out);
        }
        if let Some(med) = self.med {
            write_attribute(OPTIONAL, MULTI_EXIT_DISC, &med.to_be_bytes(), &mut out);
        }
        if let Some(local_pref) = self.local_pref.filter(|_| !codec.external) {
            write_attribute(TRANSITIVE, LOCAL_PREF, &local_pref.to_be_bytes(), &mut out);
        }
        if self.atomic_aggregate {
            write_attribute(TRANSITIVE, ATOMIC_AGGREGATE, &[], &mut out);
        }
        if let Some(aggregator) = self.aggregator {
            write_aggregator(AGGREGATOR, aggregator, codec.four_octet_as, &mut out);
        }
        write_list(COMMUNITIES, &self.communities, |community| community.0.to_be_bytes(), &mut out);
        write_list(EXTENDED_COMMUNITIES, &self.extended_communities, |community| community.0, &mut out);
        if !codec.four_octet_as {
            self.encode_as4(&mut out);
        }
        write_list(LARGE_COMMUNITY, &self.large_communities, LargeCommunity::octets, &mut out);
        if let Some(asn) = self.only_to_customer {
            write_attribute(OPTIONAL | TRANSITIVE, ONLY_TO_CUSTOMER, &asn.to_be_bytes(), &mut out);
        }
        for attribute in &self.unknown {
            attribute.encode(&mut out);
        }
        out
    }

    /// RFC 6793 §4.2.2: what two octets could not say, only where they could not.
    fn encode_as4(&self, out: &mut Vec<u8>) {
        if self.as_path.needs_four_octets() {
            self.write_as_path(OPTIONAL | TRANSITIVE, AS4_PATH, true, out);
        }
        if let Some(aggregator) = self.aggregator.filter(|(asn, _)| u16::try_from(*asn).is_err()) {
            write_aggregator(AS4_AGGREGATOR, aggregator, true, out);
        }
    }

    fn write_as_path(&self, flags: u8, code: u8, four_octet_as: bool, out: &mut Vec<u8>) {
        begin_attribute(flags, code, self.as_path.size(four_octet_as), out);
        self.as_path.write(four_octet_as, out);
    }
}

fn write_aggregator(code: u8, (asn, address): (u32, Ipv4Addr), four_octet_as: bool, out: &mut Vec<u8>) {
    begin_attribute(OPTIONAL | TRANSITIVE, code, path::asn_size(four_octet_as) + 4, out);
    path::write_asn(asn, four_octet_as, out);
    out.extend_from_slice(&address.octets());
}

/// An optional transitive attribute that exists only if its list has an entry.
fn write_list<T, const N: usize>(code: u8, list: &[T], octets: impl Fn(&T) -> [u8; N], out: &mut Vec<u8>) {
    if !list.is_empty() {
        begin_attribute(OPTIONAL | TRANSITIVE, code, N * list.len(), out);
        for item in list {
            out.extend_from_slice(&octets(item));
        }
    }
}

fn write_attribute(flags: u8, code: u8, value: &[u8], out: &mut Vec<u8>) {
    begin_attribute(flags, code, value.len(), out);
    out.extend_from_slice(value);
}

/// The length takes one octet where it can (RFC 4271 §4.3). A value beyond two octets of length makes a message that
/// is refused for its size, so what its length says does not matter.
fn begin_attribute(flags: u8, code: u8, length: usize, out: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(length) => out.extend_from_slice(&[flags, code, length]),
        Err(_) => {
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[flags | EXTENDED_LENGTH, code, high, low]);
        }
    }
}
