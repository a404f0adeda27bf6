//! As few messages as possible, none beyond 4096 octets, and each with one of the four places for prefixes only
//! (RFC 7606 §5.1).

use ipnet::IpNet;

use super::Update;
use crate::error::EncodeError;
use crate::wire::attribute::multiprotocol::{encode_reach, encode_unreach};
use crate::wire::{Codec, Family, HEADER_LEN, Kind, MAX_MESSAGE_LEN, NextHop, PathAttributes, frame, nlri};

/// What the two length fields leave of a message.
const ROOM: usize = MAX_MESSAGE_LEN - HEADER_LEN - 4;
/// Flags, code, two octets of length, AFI and SAFI.
const MP_HEADER_LEN: usize = 7;

/// UPDATEs that announce `prefixes` of `family`, many in each; none for no prefixes.
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
) -> Result<Vec<Vec<u8>>, EncodeError> {
    if !codec.families.contains(&family) {
        return Err(EncodeError::FamilyNotNegotiated { family });
    }
    if next_hop.family() != family && (family == Family::Ipv6 || !codec.extended_next_hop.contains(&family)) {
        return Err(EncodeError::NextHopOfOtherFamily { family, next_hop: *next_hop });
    }
    if let Some(prefix) = prefixes.iter().find(|prefix| Family::of(prefix) != family) {
        return Err(EncodeError::PrefixOfOtherFamily { family, prefix: *prefix });
    }
    let classic = match (family, next_hop) {
        (Family::Ipv4, NextHop::V4(address)) => Some(*address),
        _ => None,
    };
    let rest = attributes.encode(codec, classic);
    let mut taken = rest.len();
    if classic.is_none() {
        // And the next hop's length, and the reserved octet.
        taken += MP_HEADER_LEN + next_hop.size() + 2;
    }
    let longest = prefixes.iter().map(nlri::size).max().unwrap_or(0);
    let room = ROOM
        .checked_sub(taken)
        .filter(|room| *room >= longest)
        .ok_or(EncodeError::AttributesTooLong { length: rest.len() })?;
    let message = |prefixes: &[IpNet]| match classic {
        Some(_) => update(&[], &rest, prefixes),
        None => {
            let mut list = Vec::with_capacity(ROOM);
            encode_reach(family, next_hop, prefixes, &mut list);
            list.extend_from_slice(&rest);
            update(&[], &list, &[])
        }
    };
    Ok(chunks(prefixes, room).into_iter().map(message).collect())
}

/// UPDATEs that withdraw `prefixes`: IPv4 in the Withdrawn Routes field, IPv6 in MP_UNREACH_NLRI. Prefixes of a family
/// that the session does not have cannot have been announced and are left out.
pub fn pack_withdrawals(codec: &Codec, prefixes: &[IpNet]) -> Vec<Vec<u8>> {
    let of = |family: Family| -> Vec<IpNet> {
        let ours = codec.families.contains(&family);
        prefixes.iter().filter(|prefix| ours && Family::of(prefix) == family).copied().collect()
    };
    let ipv4 = of(Family::Ipv4);
    let ipv6 = of(Family::Ipv6);
    let classic = chunks(&ipv4, ROOM).into_iter().map(|prefixes| update(prefixes, &[], &[]));
    let multiprotocol = chunks(&ipv6, ROOM - MP_HEADER_LEN).into_iter().map(|prefixes| {
        let mut list = Vec::new();
        encode_unreach(Family::Ipv6, prefixes, &mut list);
        update(&[], &list, &[])
    });
    classic.chain(multiprotocol).collect()
}

/// RFC 4724 §2.
pub fn end_of_rib(family: Family) -> Vec<u8> {
    let mut list = Vec::new();
    if family == Family::Ipv6 {
        encode_unreach(family, &[], &mut list);
    }
    update(&[], &list, &[])
}

impl Update {
    /// Whole messages: withdrawals, announcements, End-of-RIB; none if the UPDATE says nothing.
    ///
    /// What cannot be announced on this session ([`EncodeError`]) is withdrawn instead, so that the peer does not keep
    /// an older route; use [`pack_announcements`] to be told.
    pub fn encode(&self, codec: &Codec) -> Vec<Vec<u8>> {
        let mut announcements = Vec::new();
        let mut withdrawn = self.withdrawn.clone();
        for reach in &self.reach {
            match pack_announcements(codec, &self.attributes, &reach.next_hop, reach.family, &reach.prefixes)
            {
                Ok(messages) => announcements.extend(messages),
                Err(_) => withdrawn.extend(&reach.prefixes),
            }
        }
        let mut messages = pack_withdrawals(codec, &withdrawn);
        messages.extend(announcements);
        messages.extend(self.end_of_rib.map(end_of_rib));
        messages
    }
}

/// Cuts `prefixes` into runs of at most `room` octets. `room` holds any single prefix.
fn chunks(prefixes: &[IpNet], room: usize) -> Vec<&[IpNet]> {
    let mut chunks = Vec::new();
    let mut rest = prefixes;
    while !rest.is_empty() {
        let mut used = 0;
        let fits = |prefix: &&IpNet| {
            used += nlri::size(prefix);
            used <= room
        };
        let count = rest.iter().take_while(fits).count().max(1);
        let (chunk, others) = rest.split_at(count);
        chunks.push(chunk);
        rest = others;
    }
    chunks
}

fn update(withdrawn: &[IpNet], attributes: &[u8], announced: &[IpNet]) -> Vec<u8> {
    let mut field = Vec::new();
    for prefix in withdrawn {
        nlri::write(prefix, &mut field);
    }
    let length = |field: &[u8]| u16::try_from(field.len()).unwrap_or(u16::MAX).to_be_bytes();
    let mut body = length(&field).to_vec();
    body.extend(field);
    body.extend(length(attributes));
    body.extend_from_slice(attributes);
    for prefix in announced {
        nlri::write(prefix, &mut body);
    }
    frame(Kind::Update, &body)
}
