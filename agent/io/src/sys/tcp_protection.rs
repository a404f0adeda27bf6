//! TCP MD5 signatures (RFC 2385) and GTSM (RFC 5082) as options of a socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use socket2::{Domain, Socket};

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct TcpMd5Sig {
    address: [u8; size_of::<libc::sockaddr_storage>()],
    flags: u8,
    prefix_len: u8,
    key_len: u16,
    interface: i32,
    key: [u8; libc::TCP_MD5SIG_MAXKEYLEN],
}

/// Segments to and from this address are signed with this key from now on; no longer, if it is empty.
pub(crate) fn set_md5_key(socket: &Socket, remote: IpAddr, key: &[u8]) -> io::Result<()> {
    let mut wanted = TcpMd5Sig {
        address: storage(remote),
        flags: 0,
        prefix_len: 0,
        key_len: 0,
        interface: 0,
        key: [0; libc::TCP_MD5SIG_MAXKEYLEN],
    };
    let room = wanted.key.get_mut(..key.len()).ok_or(io::ErrorKind::InvalidInput)?;
    room.copy_from_slice(key);
    wanted.key_len = u16::try_from(key.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &wanted)
}

/// `struct sockaddr_in` or `sockaddr_in6` with port 0.
fn storage(address: IpAddr) -> [u8; size_of::<libc::sockaddr_storage>()] {
    let mut storage = [0; size_of::<libc::sockaddr_storage>()];
    let (family, at, octets): (_, usize, Vec<u8>) = match address {
        IpAddr::V4(address) => (libc::AF_INET, 4, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, 8, address.octets().to_vec()),
    };
    let family = u16::try_from(family).unwrap_or_default().to_ne_bytes();
    for (to, from) in storage.iter_mut().zip(family) {
        *to = from;
    }
    for (to, from) in storage.iter_mut().skip(at).zip(octets) {
        *to = from;
    }
    storage
}

/// What comes with a smaller TTL (hop limit) is dropped.
pub(crate) fn set_minimum_ttl(socket: &Socket, ttl: u8) -> io::Result<()> {
    let value = libc::c_int::from(ttl);
    if socket.domain()? == Domain::IPV6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, &value)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MINTTL, &value)
    }
}

fn set<T>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads at most `length` octets, all of
    // them initialised: both callers hand over a `c_int` or a `TcpMd5Sig` built field by field, whose layout has no padding
    // (128 + 1 + 1 + 2 + 4 + 80 octets).
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
