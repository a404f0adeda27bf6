//! MP_REACH_NLRI and MP_UNREACH_NLRI (RFC 4760 §3, §4; RFC 8950).

use ipnet::IpNet;

use super::{MP_REACH_NLRI, MP_UNREACH_NLRI, NextHop, OPTIONAL, begin_attribute};
use crate::wire::octets::Octets;
use crate::wire::{AfiSafi, Codec, Family, nlri};

/// MP_REACH_NLRI of a family that the session has.
pub(in crate::wire) struct MpReach {
    pub(in crate::wire) family: Family,
    pub(in crate::wire) next_hop: NextHop,
    pub(in crate::wire) prefixes: Vec<IpNet>,
    /// In place of `prefixes`, where the family has path identifiers (RFC 7911).
    pub(in crate::wire) paths: Vec<(IpNet, u32)>,
}

/// MP_UNREACH_NLRI of a family that the session has.
pub(in crate::wire) struct MpUnreach {
    pub(in crate::wire) family: Family,
    pub(in crate::wire) prefixes: Vec<IpNet>,
    /// As above.
    pub(in crate::wire) paths: Vec<(IpNet, u32)>,
}

/// Why one of the two cannot be used (RFC 7606 §5.3, §7.11, §7.12).
pub(in crate::wire) enum MpError {
    /// Not even the family can be told: the session is reset.
    NoFamily,
    /// The family is known, its routes are not.
    Family(Family, String),
}

/// `None`: a family that the session does not have, whose contents nobody looks at.
pub(super) fn decode_reach(value: &[u8], codec: &Codec) -> Result<Option<MpReach>, MpError> {
    let mut octets = Octets::new(value);
    let family = decode_family(&mut octets)?;
    let Some(family) = family.family().filter(|family| codec.families.contains(family)) else {
        return Ok(None);
    };
    let error = |text: &str| MpError::Family(family, text.to_owned());
    let length = octets.u8().ok_or_else(|| error("no next hop length"))?;
    let next_hop = octets.take(usize::from(length)).ok_or_else(|| error("the next hop is cut short"))?;
    let next_hop = NextHop::decode(next_hop)
        .filter(|next_hop| next_hop.family() == family || codec.extended_next_hop.contains(&family))
        .filter(|next_hop| (next_hop.family(), family) != (Family::Ipv4, Family::Ipv6))
        .ok_or_else(|| error(&format!("a next hop of {length} octets")))?;
    // Reserved, once the number of SNPAs.
    octets.u8().ok_or_else(|| error("cut short behind the next hop"))?;
    let (prefixes, paths) = decode_prefixes(family, octets.rest(), codec).map_err(|text| error(&text))?;
    Ok(Some(MpReach { family, next_hop, prefixes, paths }))
}

/// `None` as above.
pub(super) fn decode_unreach(value: &[u8], codec: &Codec) -> Result<Option<MpUnreach>, MpError> {
    let mut octets = Octets::new(value);
    let family = decode_family(&mut octets)?;
    let Some(family) = family.family().filter(|family| codec.families.contains(family)) else {
        return Ok(None);
    };
    match decode_prefixes(family, octets.rest(), codec) {
        Ok((prefixes, paths)) => Ok(Some(MpUnreach { family, prefixes, paths })),
        Err(text) => Err(MpError::Family(family, text)),
    }
}

type Prefixes = (Vec<IpNet>, Vec<(IpNet, u32)>);

/// One or the other, as the session has it for this family. Inlined: to hand the result over would cost more than to read
/// a prefix or two.
#[inline(always)]
pub(in crate::wire) fn decode_prefixes(
    family: Family,
    octets: &[u8],
    codec: &Codec,
) -> Result<Prefixes, String> {
    match codec.add_path.contains(&family) {
        true => Ok((Vec::new(), nlri::read_paths(family, octets)?)),
        false => Ok((nlri::read(family, octets)?, Vec::new())),
    }
}

fn decode_family(octets: &mut Octets<'_>) -> Result<AfiSafi, MpError> {
    match (octets.u16(), octets.u8()) {
        (Some(afi), Some(safi)) => Ok(AfiSafi { afi, safi }),
        _ => Err(MpError::NoFamily),
    }
}

pub(in crate::wire) fn write_reach(
    family: Family,
    next_hop: &NextHop,
    prefixes: &[IpNet],
    out: &mut Vec<u8>,
) {
    let size = next_hop.size();
    begin_attribute(OPTIONAL, MP_REACH_NLRI, 5 + size + nlri::sizes(prefixes), out);
    out.extend_from_slice(&family_octets(family));
    out.push(u8::try_from(size).unwrap_or_default());
    next_hop.write(out);
    out.push(0);
    nlri::write(prefixes, out);
}

pub(in crate::wire) fn write_unreach(family: Family, prefixes: &[IpNet], out: &mut Vec<u8>) {
    begin_attribute(OPTIONAL, MP_UNREACH_NLRI, 3 + nlri::sizes(prefixes), out);
    out.extend_from_slice(&family_octets(family));
    nlri::write(prefixes, out);
}

fn family_octets(family: Family) -> [u8; 3] {
    let AfiSafi { afi, safi } = family.into();
    let [high, low] = afi.to_be_bytes();
    [high, low, safi]
}
