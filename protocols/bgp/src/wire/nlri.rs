//! Prefixes on the wire: a length in bits and as many octets as that needs (RFC 4271 §4.3, RFC 4760 §5).

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Family;
use super::octets::Octets;

/// RFC 7606 §5.3: syntactically incorrect when a length is beyond the family's, or the last prefix is cut short.
pub(super) fn read(family: Family, octets: &[u8]) -> Result<Vec<IpNet>, String> {
    // Exactly right for host routes, which most are here.
    let mut prefixes = Vec::with_capacity(octets.len() / host_size(family));
    let mut octets = Octets::new(octets);
    while let Some(bits) = octets.u8() {
        prefixes.push(next(family, bits, &mut octets).ok_or_else(|| malformed(family, bits))?);
    }
    Ok(prefixes)
}

/// RFC 7911 §3: each behind its path identifier.
pub(super) fn read_paths(family: Family, octets: &[u8]) -> Result<Vec<(IpNet, u32)>, String> {
    let mut paths = Vec::with_capacity(octets.len() / (4 + host_size(family)));
    let mut octets = Octets::new(octets);
    while !octets.is_empty() {
        let path_id = octets.u32().ok_or_else(|| "a path identifier is cut short".to_owned())?;
        let bits = octets.u8().ok_or_else(|| "a prefix is cut short".to_owned())?;
        let prefix = next(family, bits, &mut octets).ok_or_else(|| malformed(family, bits))?;
        paths.push((prefix, path_id));
    }
    Ok(paths)
}

/// Bits beyond the length are irrelevant (RFC 4271 §4.3) and cleared here.
fn next(family: Family, bits: u8, octets: &mut Octets<'_>) -> Option<IpNet> {
    match family {
        Family::Ipv4 => {
            let address = u32::from_be_bytes(address(bits, octets)?);
            let beyond = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
            Ipv4Net::new(Ipv4Addr::from(address & !beyond), bits).map(IpNet::V4).ok()
        }
        Family::Ipv6 => {
            let address = u128::from_be_bytes(address(bits, octets)?);
            let beyond = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
            Ipv6Net::new(Ipv6Addr::from(address & !beyond), bits).map(IpNet::V6).ok()
        }
    }
}

/// As many octets as the length needs, and zeros behind them.
fn address<const N: usize>(bits: u8, octets: &mut Octets<'_>) -> Option<[u8; N]> {
    let size = usize::from(bits).div_ceil(8);
    if size == N {
        return octets.array();
    }
    let mut address = [0; N];
    address.get_mut(..size)?.copy_from_slice(octets.take(size)?);
    Some(address)
}

/// Why there was no next prefix.
fn malformed(family: Family, bits: u8) -> String {
    let longest = 8 * (host_size(family) - 1);
    match usize::from(bits) > longest {
        true => format!("a prefix length of {bits} is too long for {family}"),
        false => format!("a prefix of length {bits} is cut short"),
    }
}

/// Octets that `prefix` takes.
pub(super) fn size(prefix: &IpNet) -> usize {
    1 + usize::from(prefix.prefix_len()).div_ceil(8)
}

/// Octets that they take together.
pub(super) fn sizes(prefixes: &[IpNet]) -> usize {
    prefixes.iter().map(size).sum()
}

/// Octets that the prefix of one host takes.
fn host_size(family: Family) -> usize {
    match family {
        Family::Ipv4 => 5,
        Family::Ipv6 => 17,
    }
}

pub(super) fn write(prefixes: &[IpNet], out: &mut Vec<u8>) {
    for prefix in prefixes {
        let end = out.len() + size(prefix);
        out.push(prefix.prefix_len());
        // The whole address, and then what the length does not need is cut off.
        match prefix {
            IpNet::V4(net) => out.extend_from_slice(&net.network().octets()),
            IpNet::V6(net) => out.extend_from_slice(&net.network().octets()),
        }
        out.truncate(end);
    }
}

/// RFC 4271 §6.3: a semantically incorrect prefix is logged and ignored.
pub(super) fn is_unicast(prefix: &IpNet) -> bool {
    match prefix {
        IpNet::V4(net) => !net.addr().is_multicast(),
        IpNet::V6(net) => !net.addr().is_multicast(),
    }
}
