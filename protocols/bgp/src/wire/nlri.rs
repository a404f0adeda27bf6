//! Prefixes on the wire: a length in bits and as many octets as that needs (RFC 4271 §4.3, RFC 4760 §5).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;
use super::octets::Octets;

/// RFC 7606 §5.3: syntactically incorrect when a length is beyond the family's, or the last prefix is cut short.
pub(super) fn read(family: Family, octets: &[u8]) -> Result<Vec<IpNet>, String> {
    let mut octets = Octets::new(octets);
    let mut prefixes = Vec::new();
    while !octets.is_empty() {
        prefixes.push(next(family, &mut octets)?);
    }
    Ok(prefixes)
}

/// RFC 7911 §3: each behind its path identifier.
pub(super) fn read_paths(family: Family, octets: &[u8]) -> Result<Vec<(IpNet, u32)>, String> {
    let mut octets = Octets::new(octets);
    let mut paths = Vec::new();
    while !octets.is_empty() {
        let cut = || "a path identifier is cut short".to_owned();
        let path_id = octets.array::<4>().map(u32::from_be_bytes).ok_or_else(cut)?;
        paths.push((next(family, &mut octets)?, path_id));
    }
    Ok(paths)
}

fn next(family: Family, octets: &mut Octets<'_>) -> Result<IpNet, String> {
    let bits = octets.u8().ok_or_else(|| "a prefix is cut short".to_owned())?;
    let size = usize::from(bits).div_ceil(8);
    let cut = || format!("a prefix of length {bits} is cut short");
    // Bits beyond the length are irrelevant (RFC 4271 §4.3) and cleared here.
    let prefix = match family {
        Family::Ipv4 => {
            let mut address = [0; 4];
            let room = address.get_mut(..size).filter(|_| bits <= 32);
            room.ok_or_else(|| too_long(family, bits))?.copy_from_slice(octets.take(size).ok_or_else(cut)?);
            Ipv4Net::new(Ipv4Addr::from(address), bits).map(|net| IpNet::V4(net.trunc()))
        }
        Family::Ipv6 => {
            let mut address = [0; 16];
            let room = address.get_mut(..size).filter(|_| bits <= 128);
            room.ok_or_else(|| too_long(family, bits))?.copy_from_slice(octets.take(size).ok_or_else(cut)?);
            Ipv6Net::new(Ipv6Addr::from(address), bits).map(|net| IpNet::V6(net.trunc()))
        }
    };
    prefix.map_err(|_| too_long(family, bits))
}

fn too_long(family: Family, bits: u8) -> String {
    format!("a prefix length of {bits} is too long for {family}")
}

/// Octets that `prefix` takes.
pub(super) fn size(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

pub(super) fn write(prefix: &IpNet, out: &mut Vec<u8>) {
    out.push(prefix.prefix_len());
    let size = size(prefix) - 1;
    match prefix.trunc() {
        IpNet::V4(net) => out.extend(net.addr().octets().iter().take(size)),
        IpNet::V6(net) => out.extend(net.addr().octets().iter().take(size)),
    }
}

/// RFC 4271 §6.3: a semantically incorrect prefix is logged and ignored.
pub(super) fn is_unicast(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => !net.addr().is_multicast(),
        IpNet::V6(net) => !net.addr().is_multicast(),
    }
}
