//! As few messages as possible, none longer than the session allows, and each with one of the four places for prefixes only
//! (RFC 7606 §5.1).

use ipnet::IpNet;

use super::{Reach, Update};
use crate::error::EncodeError;
use crate::wire::attribute::multiprotocol::{write_reach, write_unreach};
use crate::wire::{
    Codec, Family, HEADER_LEN, Kind, NextHop, PathAttributes, nlri, write_frame, write_length,
};

/// What the two length fields leave of a message.
fn room(codec: &Codec) -> usize {
    codec.longest() - HEADER_LEN - 4
}

/// Flags, code, two octets of length, AFI and SAFI.
const MP_HEADER_LEN: usize = 7;

/// Adds UPDATEs that announce `prefixes` of `family`, many in each, and says how many; none for no prefixes.
///
/// IPv4 with an IPv4 next hop goes into the NLRI field, everything else into MP_REACH_NLRI, as the very first
/// attribute (RFC 7606 §5.1).
///
/// # Errors
/// All before anything is written: see [`EncodeError`].
pub fn pack_announcements(
    codec: &Codec,
    attributes: &PathAttributes,
    next_hop: &NextHop,
    family: Family,
    prefixes: &[IpNet],
    out: &mut Vec<u8>,
) -> Result<usize, EncodeError> {
    if !codec.families.contains(&family) {
        return Err(EncodeError::FamilyNotNegotiated { family });
    }
    if next_hop.family() != family && (family == Family::Ipv6 || !codec.extended_next_hop.contains(&family)) {
        return Err(EncodeError::NextHopOfOtherFamily { family, next_hop: *next_hop });
    }
    let mut longest = 0;
    for prefix in prefixes {
        if Family::of(prefix) != family {
            return Err(EncodeError::PrefixOfOtherFamily { family, prefix: *prefix });
        }
        longest = longest.max(nlri::size(prefix));
    }
    let classic = match (family, next_hop) {
        (Family::Ipv4, NextHop::V4(address)) => Some(*address),
        _ => None,
    };
    let list = attributes.encode(codec, classic);
    let mut taken = list.len();
    if classic.is_none() {
        // And the next hop's length, and the reserved octet.
        taken += MP_HEADER_LEN + next_hop.size() + 2;
    }
    let room = room(codec)
        .checked_sub(taken)
        .filter(|room| *room >= longest)
        .ok_or(EncodeError::AttributesTooLong { length: list.len() })?;
    out.reserve(HEADER_LEN + 4 + taken + (longest * prefixes.len()).min(room));
    let mut messages = 0;
    for prefixes in chunks(prefixes, room) {
        let multiprotocol = |out: &mut Vec<u8>| {
            write_reach(family, next_hop, prefixes, out);
            out.extend_from_slice(&list);
        };
        match classic {
            Some(_) => update(&[], |out| out.extend_from_slice(&list), prefixes, out),
            None => update(&[], multiprotocol, &[], out),
        }
        messages += 1;
    }
    Ok(messages)
}

/// Adds UPDATEs that withdraw `prefixes`, and says how many: IPv4 in the Withdrawn Routes field, IPv6 in
/// MP_UNREACH_NLRI. Prefixes of a family that the session does not have cannot have been announced and are left out.
pub fn pack_withdrawals(codec: &Codec, prefixes: &[IpNet], out: &mut Vec<u8>) -> usize {
    let of = |family: Family| -> Vec<IpNet> {
        let ours = codec.families.contains(&family);
        prefixes.iter().filter(|prefix| ours && Family::of(prefix) == family).copied().collect()
    };
    let ipv4 = of(Family::Ipv4);
    let ipv6 = of(Family::Ipv6);
    let mut messages = 0;
    for prefixes in chunks(&ipv4, room(codec)) {
        update(prefixes, |_| (), &[], out);
        messages += 1;
    }
    for prefixes in chunks(&ipv6, room(codec) - MP_HEADER_LEN) {
        update(&[], |out| write_unreach(Family::Ipv6, prefixes, out), &[], out);
        messages += 1;
    }
    messages
}

/// RFC 4724 §2.
pub fn end_of_rib(family: Family) -> Vec<u8> {
    let mut out = Vec::new();
    let list = |out: &mut Vec<u8>| {
        if family == Family::Ipv6 {
            write_unreach(family, &[], out);
        }
    };
    update(&[], list, &[], &mut out);
    out
}

impl Update {
    /// Whole messages, one behind the other: withdrawals, announcements, End-of-RIB; nothing if the UPDATE says nothing.
    ///
    /// What cannot be announced on this session ([`EncodeError`]) is withdrawn instead, so that the peer does not keep
    /// an older route; use [`pack_announcements`] to be told.
    pub fn encode(&self, codec: &Codec) -> Vec<u8> {
        let mut out = Vec::new();
        let mut withdrawn = self.withdrawn.clone();
        for Reach { family, next_hop, prefixes } in &self.reach {
            if pack_announcements(codec, &self.attributes, next_hop, *family, prefixes, &mut out).is_err() {
                withdrawn.extend(prefixes);
            }
        }
        if !withdrawn.is_empty() {
            let mut first = Vec::new();
            pack_withdrawals(codec, &withdrawn, &mut first);
            out.splice(..0, first);
        }
        out.extend(self.end_of_rib.into_iter().flat_map(end_of_rib));
        out
    }
}

/// Cuts `prefixes` into runs of at most `room` octets. `room` holds any single prefix.
fn chunks(prefixes: &[IpNet], room: usize) -> impl Iterator<Item = &[IpNet]> {
    let mut rest = prefixes;
    std::iter::from_fn(move || {
        let mut used = 0;
        let fits = |prefix: &&IpNet| {
            used += nlri::size(prefix);
            used <= room
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (chunk, others) = rest.split_at_checked(count)?;
        rest = others;
        Some(chunk)
    })
}

/// Adds one UPDATE.
fn update(withdrawn: &[IpNet], list: impl FnOnce(&mut Vec<u8>), announced: &[IpNet], out: &mut Vec<u8>) {
    write_frame(Kind::Update, out, |out| {
        write_field(out, |out| nlri::write(withdrawn, out));
        write_field(out, list);
        nlri::write(announced, out);
    });
}

/// Adds two octets of length, and what they count.
fn write_field(out: &mut Vec<u8>, field: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    field(out);
    write_length(out.len() - start - 2, start, out);
}
