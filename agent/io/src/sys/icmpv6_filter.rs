//! Which ICMPv6 messages a raw socket gets (RFC 3542 §3.2).

use std::io;
use std::os::fd::AsRawFd;

use socket2::Socket;

/// `ICMPV6_FILTER` of linux/icmpv6.h.
const ICMPV6_FILTER: libc::c_int = 1;

/// These types alone from now on.
pub(crate) fn pass_only(socket: &Socket, types: &[u8]) -> io::Result<()> {
    // `struct icmp6_filter`: a bit that is set blocks its type.
    let mut blocked = [u32::MAX; 8];
    for kind in types {
        if let Some(word) = blocked.get_mut(usize::from(kind >> 5)) {
            *word &= !(1 << (kind & 31));
        }
    }
    let length = libc::socklen_t::try_from(size_of_val(&blocked)).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads `length` octets, which is the size of
    // the array that the pointer leads to.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_ICMPV6,
            ICMPV6_FILTER,
            std::ptr::from_ref(&blocked).cast(),
            length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
